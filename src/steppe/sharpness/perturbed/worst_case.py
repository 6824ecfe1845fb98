"""The largest rise of the loss that a search finds within a ball around the weights."""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, trees
from steppe.core.batches import Batches, average
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators.probes import rademacher
from steppe.sharpness.evaluation import (
    NORMS,
    Norm,
    each,
    flag,
    moved,
    over_batches,
    pick,
    rounding,
    scalar,
    single,
    strength,
    with_rounding,
)

MOMENTUM = 0.75
ENOUGH = 0.75
"""A stretch of steps in which fewer than this part went up halves the step (ρ of Croce and Hein's algorithm 1)."""


def worst_sharpness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    rho: float | jax.Array,
    steps: int = 20,
    adaptive: bool = False,
    norm: Norm = "l2",
    per_batch: bool = True,
    key: Key = 0,
) -> Estimate:
    """The largest rise of the loss in a ball, max L_S(θ + d) − L_S(θ) over ‖d/c‖ ≤ ρ (Andriushchenko et al. 2023).

    c = |θ| if adaptive (so weights of zero stay put), else 1. A search from d = 0 keeps the best point it meets, so the
    value is a *lower bound* of the maximum; it is never negative, and for "l2" never below `sam_sharpness`.

    Parameters
    ----------
    loss, params : ``loss(params, batch)``, the mean over the batch; pytree of floating arrays.
    batches : a list of batches S, weighted by their sizes, or anything else: one batch.
    rho : the radius ρ > 0. The authors took 0.25 to 2 ("l2") and 0.0005 to 0.004 ("linf") on ResNets.
    steps : of the search; 20 is theirs.
    adaptive : whether a weight may move in proportion to its magnitude: the ball is an ellipsoid or a box around θ.
    norm : "l2" or "linf".
    per_batch : True: a search for each batch, and the mean of the rises found (m-sharpness, m the size of a batch).
        False: one perturbation for all examples, along the gradient averaged over batches.
    key : an int or a JAX key array; used only where a gradient vanishes, which leaves no direction to take.

    Returns
    -------
    Estimate in units of the loss. Its standard error is that over batches, as draws of m examples (NaN for one
    batch), with the rounding of two losses where the rise is no more than that, see `sam_sharpness`; with
    per_batch=False it is NaN, for how far the search stayed below the maximum is not known.
    NaN where the loss is. Cost: steps + 1 gradients of all examples; five copies of the parameters.

    Raises
    ------
    InputError : rho not above 0, steps below 1, an unknown norm, parameters, batches or a key that cannot be used.

    Notes
    -----
    Adaptive: unchanged when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node,
    and so is the search, which runs in u = d/c. Otherwise it changes. Scaling the logits changes both; see
    `logit_normalised`.

    The search is Auto-PGD (Croce and Hein 2020, algorithm 1): steps of normalised gradient ("linf": of signs), at first
    2ρ, momentum 0.75, checkpoints after 22 % of the steps and then ever sooner, where the step is halved and the best
    point restored unless three steps in four went up. In u the ball is round, so projecting is scaling (or clipping).
    The authors' code projects d to the nearest point of the ellipsoid instead, and after a halving takes the gradient
    at the best point but adds it to the last.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bowl = lambda w, batch: 2.0 * w[0] ** 2 + w[1] ** 2 + 0.0 * jnp.mean(batch)
    >>> rise = worst_sharpness(bowl, jnp.array([0.0, 1.0]), jnp.ones(1), rho=0.5)  # at d = (0, 1/2)
    >>> round(float(rise.mean), 3)
    1.25
    """
    name = "worst_sharpness"
    checks.whole(name, "steps", steps)
    flag(name, "adaptive", adaptive)
    flag(name, "per_batch", per_batch)
    checks.one_of(name, "norm", norm, NORMS)
    (loss, known), rho = entry.loss_and_batches(name, loss, params, batches), strength(name, "rho", rho, params)
    keys = checks.key_array(name, key)
    return _worst(loss, params, known, rho, keys, steps=steps, adaptive=adaptive, norm=norm, per_batch=per_batch)


@compiled(static=("steps", "adaptive", "norm", "per_batch"))
def _worst(
    loss: Loss,
    params: Params,
    batches: Batches,
    rho: jax.Array,
    key: jax.Array,
    *,
    steps: int,
    adaptive: bool,
    norm: Norm,
    per_batch: bool,
) -> Estimate:
    def search(part: Batches, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = climb(loss, params, part, rho, key, steps=steps, adaptive=adaptive, norm=norm)
        return found.rise, found.base

    if not per_batch:
        value = search(batches, key)[0]
        return Estimate(value, jnp.full_like(value, jnp.nan))
    (rises, bases), shares = each(
        lambda batch, key: search(single(batch), key), batches, jax.random.split(key, batches.count)
    )
    error = rounding(loss, params, batches.first, over_batches(bases, shares).mean)
    return with_rounding(over_batches(rises, shares), error)


class Peak(NamedTuple):
    """The best point θ + c∘u of a search, how much higher the loss is there, and what it is at θ."""

    u: Params
    rise: jax.Array
    base: jax.Array


class _Point(NamedTuple):
    u: Params
    value: jax.Array
    gradient: Params


class _Search(NamedTuple):
    here: _Point
    before: Params
    best: _Point
    step: jax.Array
    ups: jax.Array  # steps that went up since the last checkpoint
    best_then: jax.Array  # at the last checkpoint
    halved_then: jax.Array


def climb(
    loss: Loss,
    params: Params,
    batches: Batches,
    rho: jax.Array,
    key: jax.Array,
    *,
    steps: int,
    adaptive: bool,
    norm: Norm,
) -> Peak:
    """Search for the highest loss over ‖u‖ ≤ ρ at θ + c∘u; see `worst_sharpness`. For use inside compiled functions."""

    def at(u: Params) -> _Point:
        value = lambda u, batch: scalar(loss, moved(params, u, adaptive), batch)  # noqa: E731
        return _Point(u, *average(lambda batch: jax.value_and_grad(value)(u, batch), batches))

    def advance(state: _Search, turn: tuple[jax.Array, ...]) -> tuple[_Search, None]:
        stretch, weight, key = turn
        u, ascent = state.here.u, _uphill(state.here.gradient, key, norm)
        ahead = onto_ball(jax.tree.map(lambda u, a: u + state.step * a, u, ascent), rho, norm)
        mixed = jax.tree.map(lambda a, u, b: u + weight * (a - u) + (1 - weight) * (u - b), ahead, u, state.before)
        here = at(onto_ball(mixed, rho, norm))
        best = pick((here.value > state.best.value) | jnp.isnan(here.value), here, state.best)
        ups = state.ups + (here.value > state.here.value).astype(state.ups.dtype)
        state = state._replace(here=here, before=u, best=best, ups=ups)
        return pick(stretch > 0, _checkpoint(state, stretch), state), None

    dtype = rho.dtype
    start = at(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), params))
    search = _Search(start, start.u, start, 2 * rho, jnp.zeros((), dtype), start.value, jnp.zeros((), bool))
    weights = jnp.full(steps, MOMENTUM, dtype).at[0].set(1)
    turns = jnp.asarray(stretches(steps), dtype), weights, jax.random.split(key, steps)
    best = jax.lax.scan(advance, search, turns)[0].best
    return Peak(best.u, best.value - start.value, start.value)


def _checkpoint(state: _Search, stretch: jax.Array) -> _Search:
    """Halve the step and return to the best point, where the last `stretch` of steps climbed too seldom or nowhere."""
    nowhere = ~state.halved_then & (state.best_then == state.best.value)
    halve = (state.ups < ENOUGH * stretch) | nowhere
    return _Search(
        here=pick(halve, state.best, state.here),
        before=state.before,
        best=state.best,
        step=jnp.where(halve, state.step / 2, state.step),
        ups=jnp.zeros_like(state.ups),
        best_then=state.best.value,
        halved_then=halve,
    )


def stretches(steps: int) -> list[int]:
    """For each step, how many have passed since the last checkpoint if it ends in one, else 0."""
    ends, part, gap = {0}, 0.22, 0.22
    while part < 1:
        ends.add(math.ceil(round(part * steps, 6)))
        gap = max(gap - 0.03, 0.06)
        part += gap
    passed = {b: b - a for a, b in itertools.pairwise(sorted(ends))}
    return [passed.get(step, 0) for step in range(1, steps + 1)]


def _uphill(gradient: Params, key: jax.Array, norm: Norm) -> Params:
    """The step of norm 1 that climbs fastest; a random one where the gradient is zero."""
    towards = trees.unit(gradient)
    towards = jax.lax.cond(
        trees.norm_squared(towards) == 0, lambda: trees.unit(rademacher(key, towards)), lambda: towards
    )
    return towards if norm == "l2" else jax.tree.map(jnp.sign, towards)


def onto_ball(u: Params, rho: jax.Array, norm: Norm) -> Params:
    """The point of the ball ‖u‖ ≤ ρ nearest to u."""
    if norm == "linf":
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -rho, rho), u)
    length = jnp.sqrt(trees.norm_squared(u))
    return trees.scale(jnp.where(length > rho, rho / jnp.where(length == 0, 1, length), 1), u)

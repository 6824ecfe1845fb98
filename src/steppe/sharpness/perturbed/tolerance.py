"""How much noise, or how large a box around its weights, a network's accuracy bears."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Criterion, Estimate, Key, Params
from steppe.curvature.estimators.estimates import estimate, exact
from steppe.curvature.estimators.probes import gaussian
from steppe.sharpness.evaluation import flag, mean_accuracy, moved, pick
from steppe.sharpness.perturbed.worst_case import climb

ROUNDING = 1e-5
"""A drop counts as allowed up to this much more: accuracies are multiples of 1/m, and sums of them round."""


class Tolerance(NamedTuple):
    """The largest perturbation that costs no more accuracy than allowed.

    Attributes
    ----------
    scale : of the perturbation, σ or α.
    bracketed : whether the drop passes what is allowed within the bounds of the search. Where it does not, `scale` is
        the bound it ran into, no measurement: the upper one if `drop` is allowed, the lower one if it is not.
    accuracy : of the unperturbed network, 0 to 1.
    drop : of the accuracy at `scale`, an Estimate over the draws of noise (of σ), or exact for these examples (of α).
    """

    scale: jax.Array
    bracketed: jax.Array
    accuracy: jax.Array
    drop: Estimate


class _Bounds(NamedTuple):
    drop: jax.Array
    least: jax.Array
    largest: jax.Array


def pac_bayes_sigma(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    drop: float = 0.1,
    magnitude: bool = False,
    epsilon: float = 1e-3,
    between: tuple[float, float] = (1e-5, 2.0),
    steps: int = 15,
    draws: int = 10,
    criterion: Criterion = losses.cross_entropy,
    key: Key = 0,
) -> Tolerance:
    """The largest σ with E accuracy(θ + u) >= accuracy(θ) − drop, u ~ N(0, σ² I) (Jiang et al. 2020, appendix C).

    With `magnitude`, u ~ N(0, diag(σ²θ² + ε²)) and the scale found is their σ′. Found by bisection of log σ with the
    same draws at every σ, so that the drop is a function of σ alone; it keeps the side on which the drop is allowed.

    Parameters
    ----------
    apply : ``apply(params, x)``: logits (B, ..., K), or (B, ..., 1) for two classes, split at 0.
    params : pytree of floating arrays; all of them are perturbed.
    batches : a list of batches ``{"x", "y"}`` or ``(x, y)`` with integer labels, or anything else: one batch. Accuracy
        is that over all examples.
    drop : the accuracy that may be lost, in (0, 1).
    magnitude, epsilon : whether noise is in proportion to the weights, and ε >= 0, the least of it.
    between : the least and the largest σ that are tried. The published search ends at 2 and reports that as found.
    steps, draws : bisections (15 leave 0.04 % of σ) and noises for each (10, as published).
    criterion : says which labels do not count, see `losses.weighted_cross_entropy`.
    key : an int or a JAX key array.

    Returns
    -------
    Tolerance. A network near chance cannot lose `drop`: then it is not bracketed.
    Cost: (steps + 2) · draws forward passes over all examples.

    Raises
    ------
    InputError : drop outside (0, 1), bounds that are not 0 < least < largest, negative epsilon, steps or draws below 1,
        targets that are not labels, parameters, batches or a key that cannot be used.

    Notes
    -----
    σ changes when the layers of a ReLU network are rescaled, layer-wise or node by node. σ′ does not for ε = 0, draw by
    draw; ε = 10⁻³ breaks that where weights are as small. The code of Dziugaite et al. (2020) passes the variance
    where the standard deviation is meant: its σ is √ of this one, its σ′ has noise of standard deviation σ′²θ² + ε².

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.ones((8, 1)), "y": jnp.ones(8, int)}
    >>> found = pac_bayes_sigma(lambda w, x: w * x, jnp.ones(1), batch, draws=20_000)  # wrong where 1 + σv < 0
    >>> bool(found.bracketed), round(float(found.scale), 1)  # P(v < −1/σ) = 0.1 at σ = 0.78
    (True, 0.8)
    """
    name = "pac_bayes_sigma"
    flag(name, "magnitude", magnitude)
    checks.whole(name, "steps", steps)
    checks.whole(name, "draws", draws)
    known, keys = entry.checked_batches(name, params, batches), checks.key_array(name, key)
    loss = entry.capture_classifier(name, apply, criterion, params, known)
    bounds = _bounds(name, drop, between, params)
    least = jnp.asarray(checks.real(name, "epsilon", epsilon, least=0), trees.accumulator_dtype(params))
    return _sigma(loss, params, known, bounds, least, keys, steps=steps, draws=draws, magnitude=magnitude)


@compiled(static=("steps", "draws", "magnitude"))
def _sigma(
    loss: losses.NetworkLoss,
    params: Params,
    batches: Batches,
    bounds: _Bounds,
    epsilon: jax.Array,
    key: jax.Array,
    *,
    steps: int,
    draws: int,
    magnitude: bool,
) -> Tolerance:
    dtype = epsilon.dtype
    wide = jax.tree.map(lambda w: w.astype(dtype), params)
    right = lambda p: mean_accuracy("pac_bayes_sigma", loss.apply, p, batches, loss.criterion)  # noqa: E731
    accuracy = right(params)

    def dropped(sigma: jax.Array) -> Estimate:
        spread = jax.tree.map(lambda w: jnp.sqrt((sigma * w) ** 2 + epsilon**2) if magnitude else sigma, wide)

        def noisy(key: jax.Array) -> jax.Array:
            noise = jax.tree.map(lambda s, v: s * v, spread, gaussian(key, wide))
            return accuracy - right(trees.add(params, noise))

        return estimate(jax.lax.map(noisy, jax.random.split(key, draws)))

    return _bisect(dropped, bounds, steps, accuracy)


def pac_bayes_alpha(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    drop: float = 0.1,
    magnitude: bool = False,
    between: tuple[float, float] = (1e-6, 1.0),
    steps: int = 15,
    ascent: int = 20,
    criterion: Criterion = losses.cross_entropy,
    key: Key = 0,
) -> Tolerance:
    """The largest box |uᵢ| <= α in which a search finds no accuracy below accuracy(θ) − drop (Jiang et al. 2020).

    The worst-case twin of σ: with `magnitude` the box is |uᵢ| <= α|θᵢ| and α their α′ (without their ε). The search
    climbs the loss, `worst_sharpness` with "linf", and the accuracy is that at the highest loss it meets: a worse point
    may exist, so α is an *upper bound*. The published "sharpness" flatness is 1/α², reported as √(1/(α² m)).

    Parameters
    ----------
    apply, params, batches, drop, between, steps, key : see `pac_bayes_sigma`.
    magnitude : whether a weight may move in proportion to its magnitude.
    ascent : steps of each search.
    criterion : ``criterion(outputs, y)``, the mean over the batch, whose value the search climbs.

    Returns
    -------
    Tolerance. Cost: (steps + 2)(ascent + 1) gradients and steps + 3 forward passes over all examples.

    Raises
    ------
    InputError : as `pac_bayes_sigma`; ascent below 1.

    Notes
    -----
    α changes when the layers of a ReLU network are rescaled; α′ does not, layer-wise or node by node.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.array([[0.5], [1.0]]), "y": jnp.ones(2, int)}
    >>> found = pac_bayes_alpha(lambda w, x: x * w[0] + w[1], jnp.array([2.0, 0.0]), batch)
    >>> round(float(found.scale), 3)  # 0.5 (2 − α) − α = 0 at α = 2/3
    0.667
    """
    name = "pac_bayes_alpha"
    flag(name, "magnitude", magnitude)
    checks.whole(name, "steps", steps)
    checks.whole(name, "ascent", ascent)
    loss, known = entry.network_and_batches(name, apply, criterion, params, batches)
    keys, bounds = checks.key_array(name, key), _bounds(name, drop, between, params)
    return _alpha(loss, params, known, bounds, keys, steps=steps, ascent=ascent, magnitude=magnitude)


@compiled(static=("steps", "ascent", "magnitude"))
def _alpha(
    loss: losses.NetworkLoss,
    params: Params,
    batches: Batches,
    bounds: _Bounds,
    key: jax.Array,
    *,
    steps: int,
    ascent: int,
    magnitude: bool,
) -> Tolerance:
    right = lambda p: mean_accuracy("pac_bayes_alpha", loss.apply, p, batches, loss.criterion)  # noqa: E731
    accuracy = right(params)

    def dropped(alpha: jax.Array) -> Estimate:
        u = climb(loss, params, batches, alpha, key, steps=ascent, adaptive=magnitude, norm="linf").u
        return exact(accuracy - right(moved(params, u, magnitude)))

    return _bisect(dropped, bounds, steps, accuracy)


def _bounds(function: str, drop: float, between: tuple[float, float], params: Params) -> _Bounds:
    if checks.real(function, "drop", drop, least=0, most=1) in (0, 1):
        checks.fail(function, "drop", "between 0 and 1, both excluded", drop)
    if not isinstance(between, (tuple, list)) or len(between) != 2:
        checks.fail(function, "between", "a pair (least, largest)", between)
    for bound in between:
        checks.real(function, "between", bound, least=0)
    if not 0 < between[0] < between[1]:
        checks.fail(function, "between", "a pair 0 < least < largest", between)
    return _Bounds(*(jnp.asarray(value, trees.accumulator_dtype(params)) for value in (drop + ROUNDING, *between)))


def _bisect(dropped: Callable[[jax.Array], Estimate], bounds: _Bounds, steps: int, accuracy: jax.Array) -> Tolerance:
    """The scale where a drop passes what is allowed, from the side where it is allowed; else the end that says why."""

    # both ends, then the middles, in one loop: `dropped` is compiled once. An end that is on the wrong side pulls the
    # other one to it, and there the search stays
    def turn(i: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        low, high, kept, bracketed = state
        middle = jnp.clip(jnp.sqrt(low) * jnp.sqrt(high), low, high)
        scale = jnp.where(i == 0, low, jnp.where(i == 1, high, middle))
        drop = dropped(scale)
        fits = drop.mean <= bounds.drop
        bracketed = jnp.where(i == 0, fits, jnp.where(i == 1, bracketed & ~fits, bracketed))
        return jnp.where(fits, scale, low), jnp.where(fits, high, scale), pick(fits | (i == 0), drop, kept), bracketed

    unknown = jax.tree.map(jnp.zeros_like, jax.eval_shape(dropped, bounds.least))
    start = bounds.least, bounds.largest, unknown, jnp.zeros((), bool)
    scale, _, drop, bracketed = jax.lax.fori_loop(0, steps + 2, turn, start)
    return Tolerance(scale, bracketed, accuracy, drop)

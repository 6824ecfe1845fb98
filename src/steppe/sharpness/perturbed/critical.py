"""How far an update can be followed before the loss rises: curvature from forward passes alone."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Loss, Params
from steppe.curvature.estimators.probes import rademacher
from steppe.sharpness.evaluation import RESOLVED, coarsest_epsilon, mean_loss, rounding

NAME = "critical_sharpness"

CONDITION = 32
"""Roundings 2 ε |L| that a loss computed in float32 may be wrong by: that of a network which fits its data is a small
difference of large logits."""

DRAWS = 2
"""Of moves by a unit of rounding, where a loss computes in a coarser dtype than that of its parameters."""

FURTHEST = 8
"""A parabola through two points is followed no further than this many times the last one, or this fraction of it."""

STEEPEST = 8
"""A loss that rises in the bracket faster than cᵖ, p this, rises there and did not do so from the first."""


class Crossing(enum.IntEnum):
    """How a search for the place where the loss rises ended."""

    FOUND = 0
    NO_UPDATE = 1
    NOT_FINITE = 2
    RISES_AT_ONCE = 3
    NEVER_RISES = 4
    UNRESOLVED = 5

    @property
    def note(self) -> str:
        """In words; "" where it was found."""
        return _NOTES[self]


_NOTES = {
    Crossing.FOUND: "",
    Crossing.NO_UPDATE: "the update is zero",
    Crossing.NOT_FINITE: "the loss is not finite at the parameters, or the update is not",
    Crossing.RISES_AT_ONCE: "the loss rises along the update without falling first by more than rounding",
    Crossing.NEVER_RISES: "the loss did not rise by more than rounding as far as the search went",
    Crossing.UNRESOLVED: "the search ended before the place was known to the tolerance",
}


class CriticalSharpness(NamedTuple):
    """Where the loss begins to exceed its value at the parameters along an update.

    Attributes
    ----------
    sharpness : jax.Array
        λ_c = 2/η_c; NaN unless converged.
    step : jax.Array
        η_c, the middle of `lower` and `upper`; NaN unless converged.
    lower, upper : jax.Array
        The bracket of η_c: the loss was not above L(θ) at `lower`, and was at `upper`. 0 and ∞ where no such was met.
    converged : jax.Array
        Whether a crossing lies in the bracket, whose width is at most the tolerance, and is no affair of rounding.
    status : jax.Array
        A whole number, the `Crossing` that says how the search ended; ``Crossing(int(status)).note`` says it in words.
    passes : jax.Array
        Evaluations of the loss over the data, that at the parameters included.
    """

    sharpness: jax.Array
    step: jax.Array
    lower: jax.Array
    upper: jax.Array
    converged: jax.Array
    status: jax.Array
    passes: jax.Array


def critical_sharpness(
    loss: Loss,
    params: Params,
    update: Params,
    batch: Batch | list[Batch],
    *,
    learning_rate: float | jax.Array = 1.0,
    start: float | jax.Array = 1.0,
    tol: float = 1 / 16,
    max_passes: int = 64,
) -> CriticalSharpness:
    """The critical sharpness λ_c = 2/η_c along an update (Kalra et al. 2026, definition 1).

    With the update u = −η d of an optimiser of learning rate η,

        η_c = min {c η : c > 0, L(θ + c u) > L(θ)},

    the smallest learning rate at which this very update raises the loss. Where η is at most η_c, or λ_c at most 2/η,
    the step that is taken does not. On a quadratic loss c = −2 gᵀu/(uᵀHu), and for gradient descent λ_c = gᵀHg/gᵀg,
    a mean of H's eigenvalues, at most λ_max; for Adam the same of the preconditioned Hessian.

    Parameters
    ----------
    loss : callable
        ``loss(params, batch)``, the mean over the batch. Another loss than the update is of gives the *relative*
        critical sharpness λ_c^{1→2}: how far the update of task 1 can go before the loss of task 2 rises.
    params : pytree of floating arrays
        θ, before the update.
    update : pytree like params
        u, what is added to the parameters: the updates of Optax.
    batch : batch, or list of batches
        A list is one loss, the mean over all examples. For the loss that an update was made for, give its batch.
    learning_rate : float
        η > 0, so that λ_c is comparable with eigenvalues of the Hessian. 1: η_c is the multiple c itself, and the
        update is at the edge where it is 1.
    start : float
        The first multiple c that is tried; c η_c/η of an earlier call saves passes.
    tol : float
        The bracket's width: the search ends when 1 − lower/upper is at most this, between 1e-6 and 1/2.
    max_passes : int
        After which the search gives up; at least 3.

    Returns
    -------
    CriticalSharpness
        (sharpness, step, lower, upper, converged, status, passes). Failure is a value: a zero update, one along which
        the loss rises at once, or never, or a loss that is not finite, give NaN and a status. 2/λ_c is
        the bracket's middle, so that λ_c is wrong by at most tol/(2 − tol), 3 % as it is by default.

        Cost: forward passes over the data, no gradient: 4 or 5 in all where the loss is a parabola along the update and
        `start` within a factor of two of the crossing, and 7 or so where it is 10 to 1000 times away. On
        other losses, as steep as quartic or exponential ones or with a kink, 4 to 9 (mean 5 to 6), and 8 to 18 from
        far away. Two more where the loss computes in a coarser dtype than that of the parameters. Memory: one more copy
        of the parameters. Works under `jax.jit`.

    Raises
    ------
    InputError
        An update of other shapes than the parameters; settings out of range; a loss, parameters or batches that cannot
        be used.

    Notes
    -----
    Along a parabola (L(θ + c u) − L(θ))/c is a line in c, which is zero at the crossing (the secant method). The search
    tries `start`, twice or half of it, and then points just before and just behind the zero of the line through the
    last two, no further than 8 times away. Where that does not pay it doubles, or halves, and bisects. So of several
    crossings it finds one with a multiple near `start`, not always the smallest: the loss is not looked at between the
    points. The bracket is always one that was seen: the loss at both of its ends. A loss that is NaN or infinite on the
    way counts as risen. What the loss does within its rounding, that of the coarsest dtype in which it computes, is not
    taken for a rise until it has fallen by more: a small update of a network that is almost trained is followed until
    its effect is seen. Nor is a crossing claimed where the loss only rises: then it fell by less than rounding, or not
    at all.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> bowl = lambda w, batch: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
    >>> w, eta = jnp.array([1.0, 1.0]), 0.1
    >>> found = critical_sharpness(bowl, w, -eta * jax.grad(bowl)(w, None), jnp.ones(1), learning_rate=eta, tol=1e-3)
    >>> round(float(found.sharpness), 1), bool(found.converged)  # gᵀHg/gᵀg = 65/17
    (3.8, True)
    >>> other = lambda w, batch: w[0] ** 2  # how far may this update go before another loss rises?
    >>> round(float(critical_sharpness(other, w, -eta * jax.grad(bowl)(w, None), jnp.ones(1), tol=1e-3).step), 1)
    20.0
    """
    checks.whole(NAME, "max_passes", max_passes, least=3)
    checks.real(NAME, "tol", tol, least=1e-6, most=0.5)
    rate, first = checks.positive(NAME, "learning_rate", learning_rate), checks.positive(NAME, "start", start)
    loss, known = entry.loss_and_batches(NAME, loss, params, batch)
    _check_update(params, update)
    dtype = trees.accumulator_dtype(params)
    rate, first = jnp.asarray(rate, dtype), jnp.asarray(first, dtype)
    settings = _Settings(rate, first, jnp.asarray(tol, dtype))
    return _critical(loss, params, update, known, settings, max_passes=max_passes)


def _check_update(params: Params, update: Params) -> None:
    """Fail for what is no update of these parameters."""
    shapes = [[(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)] for tree in (params, update)]
    if trees.structure(params) != trees.structure(update) or shapes[0] != shapes[1]:
        checks.fail(NAME, "update", "of the parameters' structure and shapes", "something else",
                    "Give the updates that the optimiser returned.")  # fmt: skip
    checks.floating(NAME, update)


class _Settings(NamedTuple):
    rate: jax.Array
    start: jax.Array
    tol: jax.Array


class _Search(NamedTuple):
    """Of multiples c of the update: the bracket, what to try next, how far the loss fell below L(θ) on the way, its
    change at both ends of the bracket, the last point with its slope (L(θ + c u) − L(θ))/c, and how many points were
    predicted since the bracket was `width` wide.
    """

    lower: jax.Array
    upper: jax.Array
    next: jax.Array
    fall: jax.Array
    low: jax.Array
    rise: jax.Array
    last: jax.Array
    slope: jax.Array
    width: jax.Array
    predicted: jax.Array
    passes: jax.Array


@compiled(static=("max_passes",))
def _critical(
    loss: Loss,
    params: Params,
    update: Params,
    batches: Batches,
    settings: _Settings,
    *,
    max_passes: int,
) -> CriticalSharpness:
    rate, start, tol = settings
    dtype = start.dtype

    def along(c: jax.Array) -> jax.Array:
        at = jax.tree.map(lambda w, u: (w.astype(dtype) + c * u.astype(dtype)).astype(w.dtype), params, update)
        return mean_loss(loss, at, batches).astype(dtype)

    here = mean_loss(loss, params, batches).astype(dtype)
    size = trees.norm(update)
    error, extra = _error(loss, params, batches, here)

    def is_open(search: _Search) -> jax.Array:
        wide = 1 - search.lower / search.upper > tol  # a lower of 0 or an upper of ∞ is
        sound = jnp.isfinite(here) & jnp.isfinite(size) & (size > 0) & jnp.isfinite(search.next) & (search.next > 0)
        return wide & sound & (search.passes < max_passes)

    def step(search: _Search) -> _Search:
        c = search.next
        change = along(c) - here
        risen = ~(change <= jnp.where(search.fall > error, 0, error))  # also where it is NaN
        there = jnp.where(jnp.isnan(change), jnp.inf, change)
        known = search._replace(
            lower=jnp.where(risen, search.lower, c),
            upper=jnp.where(risen, c, search.upper),
            fall=jnp.maximum(search.fall, -there),
            low=jnp.where(risen, search.low, there),
            rise=jnp.where(risen, there, search.rise),
            passes=search.passes + 1,
        )
        return _following(known, c, there, jnp.abs(there) > error, tol)

    none, infinite = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    begin = _Search(
        none, infinite, start, none, none, none, none, none, infinite, jnp.int32(0), jnp.full((), 1 + extra, jnp.int32)
    )
    found = jax.lax.while_loop(is_open, step, begin)
    status = _status(found, error, here, size, tol)
    middle, met = (found.lower + found.upper) / 2 * rate, status == Crossing.FOUND
    eta = jnp.where(met, middle, jnp.nan)
    return CriticalSharpness(2 / eta, eta, found.lower * rate, found.upper * rate, met, status, found.passes)


def _following(known: _Search, c: jax.Array, there: jax.Array, resolved: jax.Array, tol: jax.Array) -> _Search:
    """The search with the point that is tried next.

    Along a parabola the slope (L(θ + c u) − L(θ))/c is a line, which is zero at the crossing. Two points tell where
    that is; then one is tried a little before it and one a little behind. Where that does not halve the bracket in two
    points, it is halved; and while there is none, every other point is a plain multiple.
    """
    lower, upper, slope = known.lower, known.upper, there / c
    root = _zero(known.last, known.slope, c, slope)
    within = _zero(lower, known.low / lower, upper, known.rise / upper)
    root = jnp.where((root > lower) & (root < upper), root, within)
    root = jnp.clip(root, c / FURTHEST, c * FURTHEST)
    reach = 0.98 * tol  # less than tol, so that rounding leaves the bracket narrow
    point = root * (1 - reach / 2)
    point = jnp.where(lower / (1 - reach) >= root, lower / (1 - reach), point)
    point = jnp.where(upper * (1 - reach) <= root, upper * (1 - reach), point)
    bracketed = (lower > 0) & jnp.isfinite(upper)
    width = jnp.where(bracketed, 1 - lower / upper, jnp.inf)
    tries = jnp.where(bracketed & (width <= known.width / 2), 0, known.predicted)
    factor = jnp.where(tries > 0, 4, 2)  # what a point cost that was predicted in vain is made up for
    plain = jnp.where(bracketed, (lower + upper) / 2, jnp.where(lower > 0, factor * c, c / factor))
    usable = (known.last > 0) & resolved & (point > lower) & (point < upper)
    follow = usable & (tries < jnp.where(bracketed, 2, 1))
    return known._replace(
        next=jnp.where(follow, point, plain),
        last=c,
        slope=slope,
        width=jnp.where(tries > 0, known.width, width),
        predicted=jnp.where(follow, tries + 1, jnp.where(bracketed, tries, 0)),
    )


def _zero(a: jax.Array, at_a: jax.Array, b: jax.Array, at_b: jax.Array) -> jax.Array:
    """Where the line through two points is zero; NaN where it does not rise."""
    rises = (at_b - at_a) / (b - a)
    return jnp.where(rises > 0, b - at_b / rises, jnp.nan)


def _error(loss: Loss, params: Params, batches: Batches, here: jax.Array) -> tuple[jax.Array, int]:
    """What a difference of two losses may be by rounding alone, and how many passes it took to know.

    Where a network computes in a coarser dtype than that of its parameters, what the loss does when each of them moves
    by half a unit of rounding there is nothing that the network can resolve.
    """
    dtype, epsilon = here.dtype, coarsest_epsilon(loss, params, batches.first)
    least = 2 * CONDITION * float(jnp.finfo(dtype).eps) * jnp.abs(here)
    error = jnp.maximum(RESOLVED * jnp.asarray(rounding(loss, params, batches.first, here), dtype), least)
    if epsilon <= max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(params)):
        return error, 0

    def change(key: jax.Array) -> jax.Array:
        signs = rademacher(key, params)
        moved = jax.tree.map(lambda w, s: w * (1 + epsilon / 2 * s).astype(w.dtype), params, signs)
        return jnp.abs(mean_loss(loss, moved, batches).astype(dtype) - here)

    changes = [change(jax.random.key(place)) for place in range(DRAWS)]
    return jnp.maximum(error, 2 * jnp.max(jnp.stack(changes))), DRAWS


def _status(found: _Search, error: jax.Array, here: jax.Array, size: jax.Array, tol: jax.Array) -> jax.Array:
    """How a search ended, as a `Crossing`."""
    steep = found.rise > jnp.maximum(found.low, 0) * (1 - tol) ** -STEEPEST + error / 4
    narrow = (found.lower > 0) & (1 - found.lower / found.upper <= tol)
    first = [
        (size == 0, Crossing.NO_UPDATE),
        (~jnp.isfinite(here) | ~jnp.isfinite(size), Crossing.NOT_FINITE),
        (jnp.isinf(found.upper), Crossing.NEVER_RISES),
        ((found.fall <= error) & ~(narrow & steep), Crossing.RISES_AT_ONCE),
        (narrow, Crossing.FOUND),
    ]
    conditions, values = zip(*first, strict=True)
    return jnp.select(conditions, [jnp.int32(value) for value in values], jnp.int32(Crossing.UNRESOLVED))

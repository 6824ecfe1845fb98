"""The line between two networks, and the barrier on it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, entry, trees
from steppe.core.batches import Batches
from steppe.core.types import Batch, Params
from steppe.landscape.points import Function, Prepare, Progress, alike, valued
from steppe.sharpness.evaluation import RESOLVED


class Interpolation(NamedTuple):
    """Values along the straight line between two networks.

    Attributes
    ----------
    steps : (P,), t of the points (1 − t) start + t end.
    values : what the function gives there, each leaf (P,).
    """

    steps: jax.Array
    values: Any


class Barrier(NamedTuple):
    """How far a line rises above the chord between its ends.

    Attributes
    ----------
    height : the largest rise, a scalar; 0 where the line lies nowhere above its chord.
    step : where that is.
    """

    height: jax.Array
    step: jax.Array


def interpolation(
    function: Function,
    start: Params,
    end: Params,
    batches: Batch | list[Batch] | Batches,
    *,
    points: int | jax.Array | np.ndarray = 51,
    prepare: Prepare | None = None,
    block: int = 1,
    progress: Progress | None = None,
    known: Any = None,
) -> Interpolation:
    """The values of a function on the straight line between two networks, at (1 − t) start + t end.

    Parameters
    ----------
    function, batches, prepare, block, progress, known : see `surface`.
    start, end : pytrees of floating arrays of the same shapes.
    points : how many, from t = 0 to 1; or the values of t themselves, (P,).

    Returns
    -------
    Interpolation(steps, values). At t = 0 and 1 the parameters are exactly the two networks'. Cost: P forward passes
    over all batches.

    Raises
    ------
    InputError : networks of different shapes; fewer than 3 points; otherwise as `surface`.

    Notes
    -----
    Goodfellow, Vinyals and Saxe (2015, section 3). Two networks that differ only in the order of their hidden units
    compute the same, yet lie far apart: a barrier may be one of permutation alone (Entezari et al. 2022).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: (w**2 - 1) ** 2 + 0.0 * jnp.mean(batch)  # a double well
    >>> line = interpolation(loss, jnp.array(-1.0), jnp.array(1.0), jnp.ones(1), points=5)
    >>> line.values.tolist(), float(barrier(line.values, steps=line.steps).height)
    ([0.0, 0.5625, 1.0, 0.5625, 0.0], 1.0)
    """
    checks.floating("interpolation", start)
    alike("interpolation", "end", end, start)
    if isinstance(points, (bool, int, np.integer)):
        points = np.linspace(0.0, 1.0, checks.whole("interpolation", "points", points, least=3))
    checks.whole("interpolation", "block", block)
    t = jnp.asarray(points, trees.accumulator_dtype(start))
    if t.ndim != 1 or not t.size:
        what = "a whole number, or the steps (P,)"
        checks.fail("interpolation", "points", what, f"an array of shape {t.shape}")
    weights = jnp.stack([1 - t, t], axis=1)
    function, prepare, gathered = entry.values_and_batches("interpolation", function, start, batches, prepare)
    terms = (start, end)
    values = valued(function, prepare, terms, weights, gathered, block=block, progress=progress, known=known)
    return Interpolation(t, values)


def barrier(losses: jax.Array, *, steps: jax.Array | None = None) -> Barrier:
    """The barrier between the two ends of a line, max over t of L(t) − [(1 − t) L(0) + t L(1)].

    Zero, and never less, where the line lies on or below its chord: so for every convex loss.

    Parameters
    ----------
    losses : (P,) along the line, ends included, as `interpolation` gives them; for the error barrier 1 − accuracy.
    steps : (P,) rising; the first stands for t = 0 and the last for t = 1. Without it, even steps.

    Returns
    -------
    Barrier(height, step), in the units of `losses`; NaN where a loss is. A line that was sampled at P points may hide
    a higher one between them. A height of no more than ``barrier_resolution(losses)`` is rounding, and none at all.

    Raises
    ------
    InputError : losses that are not an array (P,) with P ≥ 2, or steps of another length.

    Notes
    -----
    Entezari et al. (2022, eq. 1). Frankle et al. (2020, section 2) subtract the mean of the two ends, ½ L(0) + ½ L(1),
    which agrees where the ends are equally low; otherwise a straight descent would have a barrier.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(barrier(jnp.array([0.0, 2.0, 1.0])).height)
    1.5
    """
    shape = jnp.shape(losses)
    if len(shape) != 1 or shape[0] < 2:
        checks.fail("barrier", "losses", "of shape (P,) with at least both ends", f"an array of shape {shape}")
    losses = jnp.asarray(losses)
    dtype = losses.dtype if jnp.issubdtype(losses.dtype, jnp.floating) else jnp.result_type(float)
    losses = losses.astype(dtype)
    steps = jnp.linspace(0.0, 1.0, shape[0], dtype=dtype) if steps is None else jnp.asarray(steps, dtype)
    if steps.shape != shape:
        checks.fail("barrier", "steps", f"of shape {shape}, as the losses", f"an array of shape {steps.shape}")
    t = (steps - steps[0]) / (steps[-1] - steps[0])
    rise = losses - ((1 - t) * losses[0] + t * losses[-1])
    highest = jnp.argmax(rise)
    return Barrier(rise[highest], steps[highest])


def barrier_resolution(losses: jax.Array) -> jax.Array:
    """The height, 10 ε max |L|, up to which a barrier is no more than the rounding of the losses on its line.

    Parameters
    ----------
    losses : jax.Array
        (P,) along the line, in the dtype in which they were computed, ε its relative precision.

    Returns
    -------
    jax.Array
        A scalar in the units of `losses`.

    Examples
    --------
    >>> line = jnp.array([10.0, 10.000001, 10.0])
    >>> bool(barrier(line).height < barrier_resolution(line))
    True
    """
    losses = jnp.asarray(losses)
    dtype = losses.dtype if jnp.issubdtype(losses.dtype, jnp.floating) else jnp.result_type(float)
    return 2 * RESOLVED * jnp.finfo(dtype).eps * jnp.max(jnp.abs(losses)).astype(dtype)

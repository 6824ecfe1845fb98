"""Loss surfaces along lines and in planes around a network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, entry, losses, predictions, programs, trees
from steppe.core.batches import Batches
from steppe.core.types import Apply, Batch, Criterion, Loss, Params
from steppe.landscape.points import Function, Prepare, Progress, alike, valued


@dataclass(frozen=True)
class _NetworkFunction:
    """A function of a network's outputs. Equal for equal parts."""

    apply: Apply
    criterion: Criterion

    @property
    def scored(self) -> Loss:
        """The loss, whose targets are checked."""
        return losses.of(self.apply, self.criterion)


@programs.holder
@dataclass(frozen=True)
class _LossAndAccuracy(_NetworkFunction):
    """See `loss_and_accuracy`."""

    def __call__(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        x, y = checks.inputs_and_targets("loss_and_accuracy", batch)
        outputs = self.apply(params, x)
        counts, dtype = losses.count_mask(self.criterion, y), trees.accumulator_dtype(outputs)
        right = predictions.correct(outputs, losses.readable_labels(counts, y), "loss_and_accuracy")
        share = jnp.mean(right & counts, dtype=dtype) / jnp.maximum(jnp.mean(counts, dtype=dtype), 1 / counts.size)
        return {"loss": self.criterion(outputs, y), "accuracy": share}

    def weight(self, batch: Batch) -> dict[str, jax.Array]:
        """What divides each of them."""
        _, y = checks.inputs_and_targets("loss_and_accuracy", batch)
        count = jnp.sum(losses.count_mask(self.criterion, y), dtype=jnp.result_type(float))
        weight = getattr(self.criterion, "weight", None)
        size = jnp.full((), checks.batch_size("loss_and_accuracy", batch), count.dtype)
        return {"loss": size if weight is None else weight(y), "accuracy": count}


def loss_and_accuracy(apply: Apply, criterion: Criterion = losses.cross_entropy) -> Function:
    """The loss and the accuracy of a classifier from one forward pass, for `surface` and `interpolation`.

    Parameters
    ----------
    apply : ``apply(params, x)``: the logits for B inputs, (B, ..., K), or (B, ..., 1) for two classes.
    criterion : ``criterion(outputs, y)``, the mean over the batch.

    Returns
    -------
    ``function(params, batch) -> {"loss": scalar, "accuracy": scalar in [0, 1]}`` on batches ``{"x": …, "y": …}`` or
    ``(x, y)`` with integer labels.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> function = loss_and_accuracy(lambda params, x: x @ params)
    >>> values = function(jnp.eye(2), {"x": 20 * jnp.eye(2), "y": jnp.array([0, 0])})
    >>> float(values["loss"]), float(values["accuracy"])
    (10.0, 0.5)
    """
    return _LossAndAccuracy(apply, criterion)


@programs.holder
@dataclass(frozen=True)
class _LossOnly(_NetworkFunction):
    """See `loss_only`."""

    def __call__(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        return {"loss": self.scored(params, batch)}

    @property
    def weight(self) -> Callable[[Batch], dict[str, jax.Array]] | None:
        """What divides it, where that is not the number of examples."""
        of_targets = getattr(self.criterion, "weight", None)
        if of_targets is None:
            return None
        return lambda batch: {"loss": of_targets(checks.inputs_and_targets("loss_only", batch)[1])}


def loss_only(apply: Apply, criterion: Criterion = losses.squared_error) -> Function:
    """The loss of a network whose outputs are no classes, such as a regression's, for `surface` and `interpolation`.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    criterion : ``criterion(outputs, y)``, the mean over the batch.

    Returns
    -------
    ``function(params, batch) -> {"loss": scalar}`` on batches ``{"x": …, "y": …}`` or ``(x, y)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> function = loss_only(lambda params, x: x @ params)
    >>> float(function(jnp.ones((2, 1)), {"x": jnp.eye(2), "y": jnp.array([1.0, 3.0])})["loss"])
    2.0
    """
    return _LossOnly(apply, criterion)


def steps(radius: float, points: int) -> np.ndarray:
    """An odd number of even steps from −radius to radius, (points,): symmetric, and exactly 0 in the middle.

    Raises
    ------
    InputError : a radius that is not positive, an even number of points or fewer than 3.

    Examples
    --------
    >>> steps(0.5, 5).tolist()
    [-0.5, -0.25, 0.0, 0.25, 0.5]
    """
    checks.real("steps", "radius", radius, least=0.0)
    if radius == 0:
        checks.fail("steps", "radius", "a number > 0", radius)
    checks.whole("steps", "points", points, least=3)
    if points % 2 == 0:
        checks.fail("steps", "points", "odd, so that the network itself is one of them", points)
    half = points // 2
    return radius * np.arange(-half, half + 1) / half


def grid(side: np.ndarray) -> np.ndarray:
    """The points of a square plane, row by row: the first coordinate runs fastest.

    Parameters
    ----------
    side : (G,), where along each of the two directions (see `steps`).

    Returns
    -------
    (G², 2), for `surface`; its values reshaped to (G, G) have the second coordinate in rows.

    Raises
    ------
    InputError : anything but an array of one axis.

    Examples
    --------
    >>> grid(steps(1.0, 3))[:4].tolist()
    [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0], [-1.0, 0.0]]
    """
    if np.ndim(side) != 1:
        checks.fail("grid", "side", "of shape (G,)", f"an array of shape {np.shape(side)}")
    return np.stack([x.ravel() for x in np.meshgrid(side, side)], axis=1)


def surface(
    function: Function,
    params: Params,
    batches: Batch | list[Batch] | Batches,
    directions: list[Params],
    points: jax.Array | np.ndarray,
    *,
    prepare: Prepare | None = None,
    block: int = 1,
    progress: Progress | None = None,
    known: Any = None,
) -> Any:
    """The values of a function at θ + Σᵢ points[:, i] · directions[i], averaged over all examples.

    Parameters
    ----------
    function : ``function(params, batch)``: a loss, or any pytree of scalars that are means over the batch, such as
        `loss_and_accuracy` makes.
    params : pytree of floating arrays, θ.
    batches : the examples: a list of batches, weighted by their sizes, or anything else: one batch.
    directions : k ≥ 1 pytrees like `params` (see `filter_normalised`, `top_eigenvectors`).
    points : (P, k) coordinates (see `steps`, `grid`).
    prepare : ``prepare(params)``, computed once at each point: what `function` gets in place of the parameters, such as
        parameters together with the statistics of normalisation that belong to them (`models.Network.estimate`).
    block : how many points are computed at once, under `vmap`. Memory grows with it; on a CPU 1 is mostly best.
    progress : ``progress(values, points)``, called on the host now and then with the values at the first points, as
        far as they are known, and the number P. Without it the whole surface is one program, which can be traced.
    known : values at the first points from an interrupted call, as its `progress` was given them: they are not
        computed again, and the result has the bits of an uninterrupted call that tells progress.

    Returns
    -------
    What `function` gives, each leaf (P,). Cost: P forward passes over all batches, compiled once for each shape.

    Raises
    ------
    InputError : parameters that are not floating-point arrays, directions unlike them, points that are not (P, k),
        no batches, block below 1.

    Notes
    -----
    Goodfellow, Vinyals and Saxe (2015); Li et al. (2018). Points are summed in float32 at least and rounded once to the
    parameters' dtype.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: jnp.sum(w**2) + 0.0 * jnp.mean(batch)
    >>> surface(loss, jnp.zeros(2), jnp.ones(1), [jnp.ones(2)], jnp.array([[0.0], [1.0]])).tolist()
    [0.0, 2.0]
    """
    checks.floating("surface", params)
    if not isinstance(directions, (list, tuple)) or not directions:
        checks.fail("surface", "directions", "a non-empty list of pytrees like params", directions)
    for i, direction in enumerate(directions):
        alike("surface", f"directions[{i}]", direction, params)
    checks.whole("surface", "block", block)
    points = jnp.asarray(points, trees.accumulator_dtype(params))
    if points.ndim != 2 or points.shape[1] != len(directions) or not points.size:
        what = f"of shape (P, {len(directions)}), one coordinate for each direction"
        checks.fail("surface", "points", what, f"an array of shape {points.shape}")
    weights = jnp.concatenate([jnp.ones_like(points[:, :1]), points], axis=1)
    function, prepare, gathered = entry.values_and_batches("surface", function, params, batches, prepare)
    terms = (params, *directions)
    return valued(function, prepare, terms, weights, gathered, block=block, progress=progress, known=known)

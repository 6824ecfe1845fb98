"""Calibration: whether predictions made with a confidence of 90 % are right in 90 % of all cases."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import arrays, checks, losses, predictions
from steppe.core.batches import Batches, average
from steppe.core.programs import compiled


class Bins(NamedTuple):
    """What examples say, gathered by their confidence: one number a bin, shares of all examples.

    Attributes
    ----------
    count : jax.Array
        The share of the examples that lie in the bin.
    confidence : jax.Array
        The sum of their confidences over the number of all examples.
    right : jax.Array
        The share of the examples that lie in the bin and are predicted right.
    """

    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    confidence: jax.Array
    right: jax.Array

    @property
    def error(self) -> jax.Array:
        """The expected calibration error; NaN where there are no examples."""
        return jnp.sum(jnp.abs(self.right - self.confidence)) / jnp.sum(self.count)


def expected_calibration_error(logits: jax.Array, labels: jax.Array, *, bins: int = 15) -> jax.Array:
    """The expected calibration error, in its simple form: bins of equal width.

        ECE = Σ_b (n_b / n) |accuracy_b − confidence_b|

    over bins b of the confidence, the probability of the predicted class: ((b − 1)/B, b/B], the first one with its left
    end. Empty bins count for nothing.

    Parameters
    ----------
    logits : jax.Array
        (..., K) of K classes, or (..., 1) of two.
    labels : jax.Array
        (...) integers.
    bins : int
        The number B of bins.

    Returns
    -------
    jax.Array
        A scalar from 0 to 1; NaN without examples. It grows as bins do, and is above 0 by chance for few examples,
        however well a network is calibrated.

    Raises
    ------
    InputError
        Labels that are no classes of the logits; bins below 1.

    Notes
    -----
    Naeini et al. 2015; Guo et al. 2017, eq. 3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(expected_calibration_error(jnp.zeros((4, 2)), jnp.array([0, 0, 1, 1]))), 4)
    0.0
    >>> round(float(expected_calibration_error(jnp.array([[99.0], [99.0]]), jnp.array([1, 0]))), 4)
    0.5
    """
    checks.whole("expected_calibration_error", "bins", bins)
    labels = jnp.asarray(arrays.exact("expected_calibration_error", "labels", labels))
    return _binned(logits, labels, jnp.ones(labels.shape, bool), bins).error


def calibration_error(loss: losses.NetworkLoss, params: object, batches: Batches, *, bins: int = 15) -> jax.Array:
    """The same of a network over all examples, batch by batch; labels that its criterion ignores do not count.

    Raises
    ------
    InputError
        As `expected_calibration_error`.
    """
    checks.whole("calibration_error", "bins", bins)
    return _over_batches(loss, params, batches.by_size, bins=bins)


@compiled(static=("bins",))
def _over_batches(loss: losses.NetworkLoss, params: object, batches: Batches, *, bins: int) -> jax.Array:
    def of(batch: object) -> Bins:
        x, y = checks.inputs_and_targets("calibration_error", batch)
        counts = losses.count_mask(loss.criterion, y)
        return _binned(loss.apply(params, x), losses.readable_labels(counts, y), counts, bins)

    return average(of, batches).error


def _binned(logits: jax.Array, labels: jax.Array, counts: jax.Array, bins: int) -> Bins:
    """The bins of one batch; examples count where `counts` says so."""
    right = predictions.correct(logits, labels, "expected_calibration_error")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
    place = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    inside = jax.nn.one_hot(place, bins, dtype=confidence.dtype) * counts[..., None].astype(confidence.dtype)
    over = tuple(range(confidence.ndim))
    mean = lambda values: jnp.mean(inside * values[..., None], axis=over)  # noqa: E731
    return Bins(mean(jnp.ones_like(confidence)), mean(confidence), mean(right.astype(confidence.dtype)))

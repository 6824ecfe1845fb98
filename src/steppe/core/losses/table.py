"""What is known of Steppe's own criteria: their names, the targets that they take, and how targets are drawn."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import arrays
from steppe.core.losses.counting import TokenCrossEntropy, WeightedCrossEntropy, labels_of
from steppe.core.losses.criteria import (
    SmoothedCrossEntropy,
    cross_entropy,
    gaussian_negative_log_likelihood,
    smoothed_cross_entropy,
    squared_error,
    unhinged,
)
from steppe.core.types import Criterion


def _without_settings(criterion: Criterion) -> Callable[[], Criterion]:
    """A function of no settings that returns a criterion, and says what the criterion's own docstring says."""

    def make() -> Criterion:
        return criterion

    make.__doc__ = criterion.__doc__
    return make


LOSSES: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": _without_settings(cross_entropy),
    "smoothed_cross_entropy": smoothed_cross_entropy,
    "unhinged": _without_settings(unhinged),
    "squared_error": _without_settings(squared_error),
    "gaussian_negative_log_likelihood": _without_settings(gaussian_negative_log_likelihood),
}
"""Criteria by the name that a study calls them: functions of their settings that return a criterion."""


def is_builtin(criterion: Criterion) -> bool:
    """Whether a criterion is Steppe's own: it never changes, and is known for what it is."""
    return criterion in (cross_entropy, squared_error, gaussian_negative_log_likelihood, unhinged) or isinstance(
        criterion, (SmoothedCrossEntropy, TokenCrossEntropy, WeightedCrossEntropy)
    )


def check_targets(function: str, criterion: Criterion, outputs: int, targets: Any) -> None:
    """Fail where targets whose values are known are none that one of Steppe's criteria for classes can score.

    Parameters
    ----------
    function : str
        What is named in errors.
    criterion : callable
        Any; what is not Steppe's own is not judged.
    outputs : int
        K, or 1 for two classes.
    targets : array, or dict
        Labels, or probabilities; labels with weights beside them.
    """
    if criterion in (squared_error, gaussian_negative_log_likelihood) or not is_builtin(criterion):
        return
    if isinstance(criterion, TokenCrossEntropy) and isinstance(targets, Mapping):
        arrays.check_weights(function, targets["weights"])
    targets = labels_of(targets)
    if jnp.issubdtype(targets.dtype, jnp.floating):
        arrays.check_probabilities(function, targets, outputs)
    else:
        arrays.check_labels(function, targets, outputs, ignore=getattr(criterion, "ignore", None))


def _drawn_class(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Labels (...) from the predictions of logits (..., K), or (..., 1)."""
    if logits.shape[-1] == 1:
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits[..., 0])).astype(jnp.int32)
    return jax.random.categorical(key, logits)


def _drawn_target(key: jax.Array, outputs: jax.Array) -> jax.Array:
    """Targets (..., K), each row with log-density −1/K Σ (outputs − targets)²: variance K/2."""
    targets: jax.Array = outputs + (outputs.shape[-1] / 2) ** 0.5 * jax.random.normal(key, outputs.shape, outputs.dtype)
    return targets


def _drawn_normal(key: jax.Array, outputs: jax.Array) -> jax.Array:
    """Targets (..., K) of the means and standard deviations of outputs (..., 2K)."""
    mean, log_scale = jnp.split(outputs, 2, axis=-1)
    targets: jax.Array = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape, outputs.dtype)
    return targets


SAMPLERS = {
    cross_entropy: _drawn_class,
    squared_error: _drawn_target,
    gaussian_negative_log_likelihood: _drawn_normal,
}
"""For criteria that are −log p(y | outputs) up to a constant, row by row: ``(key, outputs of one example) -> y``."""


def sampler(criterion: Criterion) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """How labels are drawn from the prediction that a criterion scores, row by row; None where that is not known."""
    if isinstance(criterion, WeightedCrossEntropy):
        return _drawn_class
    return SAMPLERS.get(criterion)

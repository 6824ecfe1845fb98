"""What a subject predicts: its outputs for all labels that count, on the host, once for all measures that ask."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, losses, predictions
from steppe.core.programs import compiled
from steppe.core.types import Batch, Params
from steppe.measures.subject import Subject
from steppe.outcomes.forecasts import TopLabel, softmax
from steppe.sharpness.parametric import layer_view
from steppe.sharpness.parametric.relative_flatness import chosen_layer

MOST = 2**31
"""Bytes of the outputs of one subject that are kept."""


class Predictions(NamedTuple):
    """Logits and labels of all examples, or tokens, that count.

    Attributes
    ----------
    logits : np.ndarray
        (N, K) float64, K at least 2: of one logit z for two classes (0, z).
    labels : np.ndarray
        (N,) whole numbers.
    """

    logits: np.ndarray
    labels: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K), float64."""
        return softmax(self.logits)


def predictions_of(subject: Subject) -> Predictions:
    """All logits of a subject, and its labels.

    Raises
    ------
    InputError : more of them than `MOST` bytes; none that counts.
    """
    return subject.once("predictions", lambda: _predictions(subject))


def _predictions(subject: Subject) -> Predictions:
    shape = cast(Any, subject.outputs).shape
    size = subject.batches.examples * int(np.prod(shape[1:])) * 4
    if size > MOST:
        what = f"few enough that all outputs take {MOST >> 30} GiB at most"
        checks.fail("measure", "examples", what, f"{size / 2**30:.0f} GiB", "Take fewer examples.")
    logits, labels = _per_label(subject, whole=True)
    wide = logits.astype(np.float64)
    return Predictions(np.concatenate([np.zeros_like(wide), wide], axis=1) if wide.shape[1] == 1 else wide, labels)


def top_labels(subject: Subject) -> TopLabel:
    """The confidence of each prediction and whether it is right: also of outputs too many to be kept."""
    return subject.once("top labels", lambda: TopLabel(*_per_label(subject, whole=False)))


def accuracy_on(subject: Subject, batches: Iterable[Batch]) -> float:
    """The share of the labels that count in other batches, of shapes that the subject's own have, predicted right."""
    loss, right, count = cast(losses.NetworkLoss, subject.loss), 0, 0
    for batch in batches:
        counts, _, correct = jax.device_get(_outputs(loss, subject.params, batch, whole=False))
        right, count = right + int((correct & counts).sum()), count + int(counts.sum())
    return right / count if count else math.nan


def features_of(subject: Subject) -> np.ndarray:
    """What enters the last layer, (N, D), for all labels that count.

    Raises
    ------
    InputError : a network without a last layer that can be told, or one that is no matrix of the features of a label.
    """
    return subject.once("features", lambda: _features(subject))


def _features(subject: Subject) -> np.ndarray:
    loss, kept = cast(losses.NetworkLoss, subject.loss), []
    name = chosen_layer(loss.apply, subject.params, subject.batches, None).name
    for batch in subject.batches.members():
        counts, found = jax.device_get(_entering(loss, subject.params, batch, layer=name))
        if len(found) != counts.size:
            what = "one whose last layer takes one row of features for each label"
            checks.fail("measure", "apply", what, f"{len(found)} rows for {counts.size} labels")
        kept.append(found[counts.ravel()])
    return np.concatenate(kept).astype(np.float64)


@compiled(static=("layer",))
def _entering(loss: losses.NetworkLoss, params: Params, batch: Batch, *, layer: str) -> tuple[jax.Array, jax.Array]:
    """Which labels count, and the features of all."""
    x, y = checks.inputs_and_targets("measure", batch)
    return losses.count_mask(loss.criterion, y), layer_view.view(loss.apply, layer, params, x).a


def _per_label(subject: Subject, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of all labels that count, batch by batch."""
    loss, kept = cast(losses.NetworkLoss, subject.loss), []
    for batch in subject.batches.members():
        counts, *found = jax.device_get(_outputs(loss, subject.params, batch, whole=whole))
        kept.append([part.reshape(counts.size, *part.shape[counts.ndim :])[counts.ravel()] for part in found])
    first, second = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    if not len(first):
        checks.fail("measure", "y", "labels of which one counts at least", "none")
    return first, second


@compiled(static=("whole",))
def _outputs(
    loss: losses.NetworkLoss, params: Params, batch: Batch, *, whole: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which labels count; and logits and labels, or confidences and whether they are right."""
    x, y = checks.inputs_and_targets("measure", batch)
    logits, counts = loss.apply(params, x), losses.count_mask(loss.criterion, y)
    labels = losses.readable_labels(counts, y)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if whole:
        return counts, logits, labels.astype(jnp.int32)
    right = predictions.correct(logits, labels, "measure")
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    return counts, jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1), right


def forecasts_of(subject: Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted means, standard deviations and the real targets of all examples, (N, K) each."""
    return subject.once("forecasts", lambda: _forecasts(subject))


def _forecasts(subject: Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = []
    for batch in subject.batches.members():
        x, y = checks.inputs_and_targets("measure", batch)
        outputs = np.asarray(_raw(subject.apply, subject.params, x), np.float64)
        mean, log_scale = losses.mean_and_log_scale("measure", outputs, np.asarray(y))
        kept.append((mean, np.exp(log_scale), np.asarray(y, np.float64).reshape(mean.shape)))
    mean, scale, targets = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return mean, scale, targets


@compiled
def _raw(apply: Any, params: Params, x: Any) -> jax.Array:
    found: jax.Array = apply(params, x)
    return found

"""Criteria whose labels do not all count alike: class weights, padding, weights of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks
from steppe.core.losses.criteria import cross_entropies, cross_entropy
from steppe.core.types import Criterion


def _whole(function: str, values: Any) -> jax.Array:
    """Labels as an array of integers."""
    labels = jnp.asarray(arrays.exact(function, "labels", values))
    if labels.dtype == bool:
        return labels.astype(jnp.int32)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        checks.fail(function, "labels", "integers", checks.returned(labels))
    return labels


@dataclass(frozen=True)
class WeightedCrossEntropy:
    """The criterion that `weighted_cross_entropy` makes; equal for equal settings, so that it compiles once."""

    class_weights: tuple[float, ...] | None
    ignore: int | None

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """The weighted mean over the labels, in nats; 0 where no label counts."""
        classes = max(logits.shape[-1], 2)
        if self.class_weights is not None and len(self.class_weights) != classes:
            checks.fail("weighted_cross_entropy", "class_weights", f"one for each of {classes} classes",
                        f"{len(self.class_weights)} numbers")  # fmt: skip
        labels = _whole("weighted_cross_entropy", labels)
        arrays.check_labels("weighted_cross_entropy", labels, logits.shape[-1], ignore=self.ignore)
        values = cross_entropies(logits, jnp.where(self._ignored(labels), 0, labels))
        weights = self.weights(labels).astype(values.dtype)
        total = jnp.sum(weights)
        return jnp.sum(jnp.where(weights == 0, 0, weights * values)) / jnp.where(total == 0, 1, total)

    def weights(self, labels: jax.Array) -> jax.Array:
        """The weight of each label, in the shape of the labels."""
        labels = _whole("weighted_cross_entropy", labels)
        if self.class_weights is None:
            weights = jnp.ones(labels.shape)
        else:
            weights = jnp.asarray(self.class_weights)[jnp.clip(labels, 0, len(self.class_weights) - 1)]
        return jnp.where(self._ignored(labels), 0, weights)

    def _ignored(self, labels: jax.Array) -> jax.Array:
        """Which labels do not count; none where their dtype cannot hold the one that marks them."""
        bounds = jnp.iinfo(labels.dtype)
        if self.ignore is None or not bounds.min <= self.ignore <= bounds.max:
            return jnp.zeros(labels.shape, bool)
        return labels == self.ignore

    def weight(self, labels: jax.Array) -> jax.Array:
        """What divides the sum: the weights of all labels together."""
        return jnp.sum(self.weights(labels))


def weighted_cross_entropy(
    class_weights: Sequence[float] | None = None, *, ignore: int | None = None
) -> WeightedCrossEntropy:
    """Cross-entropy with weights, −Σᵢ w(yᵢ) log p(yᵢ) / Σᵢ w(yᵢ), over all labels that are not ignored.

    It knows what divides it, its ``weight(labels)``: over several batches, in micro-batches, and in Fisher matrices its
    value is that of all examples together.

    Parameters
    ----------
    class_weights : sequence of float, optional
        w of each class, at least 0. None: 1.
    ignore : int, optional
        The label of what does not count, such as padding: -100 or -1. Accuracy does not count it either.

    Returns
    -------
    WeightedCrossEntropy
        A criterion of logits (B, ..., K), or (B, ..., 1) for two classes, and integer labels (B, ...). A batch without
        a label that counts has the value 0 and the weight 0.

    Raises
    ------
    InputError
        Weights that are negative, not finite, or all zero, when made; another number of classes, or labels that are no
        integers, when called.

    Notes
    -----
    The mean of PyTorch's ``CrossEntropyLoss(weight, ignore_index=…)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> criterion = weighted_cross_entropy([1.0, 3.0], ignore=-1)
    >>> float(criterion(jnp.zeros((4, 2)), jnp.array([0, 1, 1, -1]))), float(criterion.weight(jnp.array([0, 1, -1])))
    (0.693147..., 4.0)
    """
    name = "weighted_cross_entropy"
    if class_weights is not None:
        for weight in (given := list(class_weights)):
            checks.real(name, "class_weights", weight, least=0.0)
        if not any(given):
            checks.fail(name, "class_weights", "above 0 for some class", checks.shown(given))
        class_weights = tuple(map(float, given))
    if ignore is not None:
        ignore = checks.whole(name, "ignore", ignore, least=-(2**31))
    return WeightedCrossEntropy(class_weights, ignore)


@dataclass(frozen=True)
class TokenCrossEntropy:
    """The criterion that `token_cross_entropy` makes; equal for equal settings, so that it compiles once."""

    ignore: int | None

    def __call__(self, logits: jax.Array, targets: Any) -> jax.Array:
        """The weighted mean over the tokens, in nats; 0 where none counts."""
        labels, weights = _whole("token_cross_entropy", labels_of(targets)), self.weights(targets)
        arrays.check_labels("token_cross_entropy", labels, logits.shape[-1], ignore=self.ignore)
        values = cross_entropies(logits, jnp.where(weights == 0, 0, labels))
        weights = weights.astype(values.dtype)
        total = jnp.sum(weights)
        return jnp.sum(jnp.where(weights == 0, 0, weights * values)) / jnp.where(total == 0, 1, total)

    def weights(self, targets: Any) -> jax.Array:
        """The weight of each token, in the shape of the labels."""
        counts = WeightedCrossEntropy(None, self.ignore).weights(labels_of(targets))
        if not isinstance(targets, Mapping):
            return counts
        weights = jnp.asarray(targets["weights"])
        if weights.shape != counts.shape:
            checks.fail("token_cross_entropy", "weights", f"one for each label, {counts.shape}",
                        checks.returned(weights))  # fmt: skip
        arrays.check_weights("token_cross_entropy", weights)
        return jnp.where(counts == 0, 0, weights.astype(jnp.promote_types(weights.dtype, counts.dtype)))

    def weight(self, targets: Any) -> jax.Array:
        """What divides the sum: the weights of all tokens together."""
        return jnp.sum(self.weights(targets))


def token_cross_entropy(*, ignore: int | None = -100) -> TokenCrossEntropy:
    """Cross-entropy over tokens with a weight each, −Σ w log p(y) / Σ w, over all labels that are not ignored.

    It knows what divides it, its ``weight(targets)``: batches, micro-batches and single examples count by it, so that a
    loss over several batches is that of all their tokens together, however many each holds.

    Parameters
    ----------
    ignore : int, optional
        The label of what does not count, such as padding or a prompt. None: every token counts.

    Returns
    -------
    TokenCrossEntropy
        A criterion of logits (B, T, V) and targets: labels (B, T), or ``{"labels": (B, T), "weights": (B, T)}`` with
        weights of at least 0. Accuracy counts each label of a weight above 0 once.

    Raises
    ------
    InputError
        Labels that are no integers, or none of V; weights of another shape, or below 0, when called.

    See Also
    --------
    next_tokens : the targets of a causal language model.
    weighted_cross_entropy : weights by class; without weights of tokens the two are the same.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> targets = {"labels": jnp.array([[1, 0, -100]]), "weights": jnp.array([[1.0, 3.0, 1.0]])}
    >>> criterion = token_cross_entropy()
    >>> float(criterion(jnp.zeros((1, 3, 2)), targets)), float(criterion.weight(targets))
    (0.693147..., 4.0)
    """
    if ignore is not None:
        ignore = checks.whole("token_cross_entropy", "ignore", ignore, least=-(2**31))
    return TokenCrossEntropy(ignore)


def next_tokens(tokens: Any, *, mask: Any = None, weights: Any = None, ignore: int = -100) -> Any:
    """The targets of a causal language model: at each position the token that comes next, yₜ = xₜ₊₁.

    Parameters
    ----------
    tokens : array
        (B, T) whole numbers: the inputs, or labels in their places with `ignore` where nothing is to be predicted, as
        Hugging Face has them.
    mask : array, optional
        (B, T), 0 where a token is padding, which then nobody has to predict.
    weights : array, optional
        (B, T), how much it counts to predict each token.
    ignore : int
        The label of what does not count; that of the last position, after which nothing comes.

    Returns
    -------
    array or dict
        Labels (B, T); with `weights` a dictionary of both, for `token_cross_entropy`. Without,
        ``weighted_cross_entropy(ignore=-100)`` takes them, too.

    Raises
    ------
    InputError
        Tokens that are no whole numbers of shape (B, T) with T at least 2; a mask or weights of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> next_tokens(np.array([[5, 6, 7, 0]]), mask=np.array([[1, 1, 1, 0]])).tolist()
    [[6, 7, -100, -100]]
    """
    xp: Any = np if isinstance(tokens, np.ndarray) else jnp
    known = xp.asarray(tokens)
    if known.ndim != 2 or known.shape[1] < 2 or not jnp.issubdtype(known.dtype, jnp.integer):
        what = "whole numbers of shape (B, T), T at least 2"
        checks.fail("next_tokens", "tokens", what, checks.returned(known))
    parts = {"mask": mask, "weights": weights}
    for name, part in parts.items():
        if part is not None and xp.shape(part) != known.shape:
            got = checks.returned(xp.asarray(part))
            checks.fail("next_tokens", name, f"one number for each token, {known.shape}", got)
    counts = True if mask is None else xp.asarray(mask)[:, 1:] != 0
    labels = xp.where(counts, known[:, 1:].astype(np.int32), ignore)
    labels = xp.concatenate([labels, xp.full((len(known), 1), ignore, np.int32)], axis=1).astype(np.int32)
    if weights is None:
        return labels
    rest = xp.asarray(weights)[:, 1:]
    return {"labels": labels, "weights": xp.concatenate([rest, xp.zeros_like(rest[:, :1])], axis=1)}


def labels_of(targets: Any) -> Any:
    """The labels among targets that may have weights beside them, see `token_cross_entropy`."""
    return targets["labels"] if isinstance(targets, Mapping) and "labels" in targets else targets


def ignoring(function: str, criterion: Criterion, ignore: int | None) -> Criterion:
    """A criterion for which one label does not count; `function` is named in errors.

    Raises
    ------
    InputError
        A criterion that reads no labels, is not known, or ignores another one already.

    Examples
    --------
    >>> ignoring("example", cross_entropy, -100)
    WeightedCrossEntropy(class_weights=None, ignore=-100)
    """
    if ignore is None:
        return criterion
    if criterion is cross_entropy:
        criterion = weighted_cross_entropy()
    if not isinstance(criterion, WeightedCrossEntropy) or criterion.ignore not in (None, ignore):
        todo = "A criterion of your own says what does not count by its weight: losses.weighted."
        what = "left out, but for cross_entropy and weighted_cross_entropy"
        checks.fail(function, "ignore", what, checks.shown(ignore), todo)
    return weighted_cross_entropy(criterion.class_weights, ignore=ignore)


def any_counts(criterion: Criterion, targets: Sequence[Any]) -> bool:
    """Whether some label of several arrays counts for a criterion, or nobody can tell here."""
    ignore = getattr(criterion, "ignore", None)
    if ignore is None or any(map(checks.is_traced, map(labels_of, targets))):
        return True
    return any(bool(jnp.any(labels_of(one) != ignore)) for one in targets)


def count_mask(criterion: Criterion | None, targets: Any) -> jax.Array:
    """Whether each label counts: those that weigh nothing in a criterion, such as padding, do not."""
    weights = getattr(criterion, "weights", None)
    return jnp.ones(targets.shape, bool) if weights is None else weights(targets) > 0


def readable_labels(counts: jax.Array, targets: Any) -> jax.Array:
    """Labels with a class in the place of those that do not count, so that all of them can be read."""
    labels = jnp.asarray(arrays.exact("accuracy", "y", labels_of(targets)))
    return labels if labels.dtype == bool else jnp.where(counts, labels, 0)

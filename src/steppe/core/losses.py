"""Criteria, functions of outputs and targets, each a mean over the batch; and the loss that one makes of a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from steppe.core import arrays, checks, programs
from steppe.core.types import Apply, Batch, Criterion, Loss, Params


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy, −1/B Σᵢ log p(yᵢ) of integer labels, −1/B Σᵢₖ qᵢₖ log p(k) of probabilities q.

    Parameters
    ----------
    logits : (B, K) for K classes (softmax), or (B, 1) for two (one logit z, p(1) = sigmoid z); further axes between
        the first and the last, such as positions of a text, are averaged over too.
    labels : (B,) integers in 0..K−1, or 0..1; the shape of `logits` without its last axis. Or probabilities, any
        floating dtype: (B, K), rows summing to 1, the shape of `logits`; for one logit (B,), those of class 1.

    Returns
    -------
    A scalar, in nats.

    Raises
    ------
    InputError : targets of another shape; labels that are none of these classes, or probabilities that do not sum to 1,
        wherever their values are known: not inside `jax.jit`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(cross_entropy(jnp.zeros((3, 1)), jnp.array([0, 1, 1])))  # log 2
    0.693147...
    >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([[0.5, 0.5, 0.0, 0.0]])))  # log 4
    1.386294...
    """
    return jnp.mean(cross_entropies(logits, labels))


def cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The cross-entropy of each label, (B, ...); see `cross_entropy`."""
    targets = _targets("cross_entropy", logits, labels)
    values: jax.Array
    if logits.shape[-1] == 1:
        values = optax.sigmoid_binary_cross_entropy(logits[..., 0], targets.astype(logits.dtype))
    elif jnp.issubdtype(targets.dtype, jnp.floating):
        values = optax.softmax_cross_entropy(logits, targets.astype(logits.dtype))
    else:
        values = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return values


def _probabilities(function: str, logits: jax.Array, labels: Any) -> jax.Array:
    """Targets as probabilities in the dtype of the logits: (…, K), or those of class 1, (…,), for one logit."""
    targets = _targets(function, logits, labels)
    if logits.shape[-1] > 1 and not jnp.issubdtype(targets.dtype, jnp.floating):
        return jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return targets.astype(logits.dtype)


def _targets(function: str, logits: jax.Array, labels: Any) -> jax.Array:
    """Targets as an array, checked: labels that are classes of the logits, or probabilities of them."""
    targets = jnp.asarray(arrays.exact(function, "targets", labels))
    if targets.dtype == bool:
        targets = targets.astype(jnp.int32)
    one, soft = logits.shape[-1] == 1, jnp.issubdtype(targets.dtype, jnp.floating)
    if not soft and not jnp.issubdtype(targets.dtype, jnp.integer):
        checks.fail(function, "targets", "integer labels, or probabilities", checks.returned(targets))
    needed = logits.shape[:-1] if one or not soft else logits.shape
    if targets.shape != needed:
        _misshapen(function, logits, targets, needed)
    (arrays.check_probabilities if soft else arrays.check_labels)(function, targets, logits.shape[-1])
    return targets


def _misshapen(function: str, logits: jax.Array, targets: jax.Array, needed: tuple[int, ...]) -> NoReturn:
    soft, one, todo = jnp.issubdtype(targets.dtype, jnp.floating), logits.shape[-1] == 1, ""
    if targets.shape == logits.shape and len(logits.shape) == 1:
        what = "logits of shape (B, ..., K), or (B, ..., 1) for two classes"
        checks.fail(function, "outputs", what, f"an array of shape {logits.shape}", "Add an axis: outputs[..., None].")
    kind = "integer labels" if not soft else "probabilities of class 1" if one else "probabilities"
    if targets.shape == logits.shape:
        todo = "Of one-hot labels give y.argmax(axis=-1)." if not one else "Drop the last axis: y[..., 0]."
    elif soft and targets.shape == logits.shape[:-1]:
        todo = "If they are labels, give whole numbers: y.astype(int)."
    elif targets.shape[:-1] == logits.shape[:-1] and targets.shape[-1] == 1:
        todo = "Drop the last axis: y[..., 0]."
    checks.fail(function, "targets", f"{kind} of shape {needed}", checks.returned(targets), todo)


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """The criterion that `smoothed_cross_entropy` makes; equal for equal settings, so that it compiles once."""

    smoothing: float

    def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """The mean over the batch, in nats."""
        classes = max(logits.shape[-1], 2)
        q = _probabilities("smoothed_cross_entropy", logits, targets)
        return cross_entropy(logits, (1 - self.smoothing) * q + self.smoothing / classes)


def smoothed_cross_entropy(smoothing: float = 0.1) -> Criterion:
    """Cross-entropy with label smoothing: that of the probabilities (1 − s) q + s/K (Szegedy et al. 2016, section 7).

    q is one-hot for integer labels; one logit stands for K = 2 classes.

    Parameters
    ----------
    smoothing : 0 ≤ s ≤ 1, a Python number, known when programs are compiled. 0 is `cross_entropy` itself.

    Returns
    -------
    A criterion of logits and targets as `cross_entropy` takes them, a scalar in nats. It is never below the entropy of
    the smoothed labels: a perfect fit does not reach 0. Equal settings make equal criteria.

    Raises
    ------
    InputError : smoothing out of range, when made; targets of a shape that does not fit, when called.

    Notes
    -----
    All K classes share s, the true one too, as in the paper's text: the true class keeps 1 − s + s/K.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> logits, labels = jnp.array([[0.0, 2.0]]), jnp.array([1])
    >>> round(float(smoothed_cross_entropy(0.1)(logits, labels)), 4)  # 0.95 log(1 + e⁻²) + 0.05 log(1 + e²)
    0.2269
    """
    if checks.is_traced(smoothing):
        checks.fail("smoothed_cross_entropy", "smoothing", "a Python number", "a traced array")
    checks.real("smoothed_cross_entropy", "smoothing", smoothing, least=0.0, most=1.0)
    return SmoothedCrossEntropy(float(smoothing)) if smoothing else cross_entropy


def unhinged(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean unhinged loss, how far the true logit is below the mean of the others: 1/B Σᵢ (mean of z_k, k ≠ yᵢ) − z_yᵢ.

    For probabilities q of labels its expectation, K/(K−1) (mean of all z − Σₖ q_k z_k). For one logit z, which stands
    for the two (0, z): (1 − 2y) z.

    Parameters
    ----------
    logits, targets : as `cross_entropy` takes them.

    Returns
    -------
    A scalar, in units of the logits.

    Raises
    ------
    InputError : targets of a shape that does not fit.

    Notes
    -----
    Linear in the logits: unbounded below without weight decay or bounded features, and its generalised Gauss–Newton
    matrix is zero, so that all curvature is the network's own. Summed over the K possible labels it is zero: uniform
    label noise of chance p < (K−1)/K scales its expectation by 1 − pK/(K−1), and moves no minimiser. Van Rooyen, Menon
    and Williamson (2015) write 1 − yv for labels y = ±1: one logit, up to the constant 1, left out here. Zhou et al.
    (2023), "On the dynamics under the unhinged loss and beyond", study K classes; we could not read how they scale the
    other logits, and take the weight 1/(K−1), the one for which the sum over labels vanishes.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(unhinged(jnp.array([[3.0, 1.0, 2.0]]), jnp.array([0])))  # (1 + 2)/2 − 3
    -1.5
    >>> float(unhinged(jnp.array([[3.0]]), jnp.array([1])))
    -3.0
    """
    q, classes = _probabilities("unhinged", logits, targets), logits.shape[-1]
    if classes == 1:
        return jnp.mean((1 - 2 * q) * logits[..., 0])
    return classes / (classes - 1) * (jnp.mean(logits) - jnp.mean(jnp.sum(q * logits, axis=-1)))


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


def any_counts(criterion: Criterion, targets: Sequence[Any]) -> bool:
    """Whether some label of several arrays counts for a criterion, or nobody can tell here."""
    ignore = getattr(criterion, "ignore", None)
    if ignore is None or any(map(checks.is_traced, map(labels_of, targets))):
        return True
    return any(bool(jnp.any(labels_of(one) != ignore)) for one in targets)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error, 1/(B K) Σ (outputs − targets)², a mean over examples and outputs.

    Parameters
    ----------
    outputs : (B, K).
    targets : (B, K), or (B,) where K = 1.

    Returns
    -------
    A scalar, in squared units of the targets.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(squared_error(jnp.zeros((2, 1)), jnp.array([1.0, 3.0])))
    5.0
    """
    return jnp.mean((outputs - targets.astype(outputs.dtype).reshape(outputs.shape)) ** 2)


def gaussian_negative_log_likelihood(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of normal distributions, −1/B Σᵢ Σₖ log N(yᵢₖ; μᵢₖ, σᵢₖ²).

    Parameters
    ----------
    outputs : (B, 2K): the K means μ, then the K logarithms of the standard deviations σ.
    targets : (B, K), or (B,) where K = 1.

    Returns
    -------
    A scalar, in nats: a sum over the K targets, a mean over examples.

    Raises
    ------
    InputError : outputs that are not twice as many as targets.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> outputs = jnp.array([[1.0, 0.0]])  # mean 1, standard deviation 1
    >>> round(float(gaussian_negative_log_likelihood(outputs, jnp.array([2.0]))), 4)  # ½ log 2π + ½
    1.4189
    """
    mean, log_scale = mean_and_log_scale("gaussian_negative_log_likelihood", outputs, targets)
    away = (targets.astype(outputs.dtype).reshape(mean.shape) - mean) * jnp.exp(-log_scale)
    return jnp.mean(jnp.sum(log_scale + 0.5 * away**2 + 0.5 * np.log(2 * np.pi), axis=-1))


def mean_and_log_scale(function: str, outputs: Any, targets: Any) -> tuple[Any, Any]:
    """The two halves of outputs, (B, K) each: means, and logarithms of standard deviations.

    Raises
    ------
    InputError : outputs that are not twice as many as targets.
    """
    count, shape = (targets.shape[1] if len(targets.shape) == 2 else 1), tuple(outputs.shape)
    if len(shape) != 2 or shape[1] != 2 * count:
        what = f"of shape (B, {2 * count}): {count} means, then as many logarithms of standard deviations"
        checks.fail(function, "outputs", what, f"an array of shape {shape}")
    return outputs[:, :count], outputs[:, count:]


def _without_settings(criterion: Criterion) -> Callable[[], Criterion]:
    """A function of no settings that returns a criterion, and says what the criterion's own docstring says."""

    def make() -> Criterion:
        return criterion

    make.__doc__ = criterion.__doc__
    return make


def is_builtin(criterion: Criterion) -> bool:
    """Whether a criterion is Steppe's own: it never changes, and is known for what it is."""
    return criterion in (cross_entropy, squared_error, gaussian_negative_log_likelihood, unhinged) or isinstance(
        criterion, (SmoothedCrossEntropy, TokenCrossEntropy, WeightedCrossEntropy)
    )


LOSSES: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": _without_settings(cross_entropy),
    "smoothed_cross_entropy": smoothed_cross_entropy,
    "unhinged": _without_settings(unhinged),
    "squared_error": _without_settings(squared_error),
    "gaussian_negative_log_likelihood": _without_settings(gaussian_negative_log_likelihood),
}
"""Criteria by the name that a study calls them: functions of their settings that return a criterion."""


def example_losses(criterion: Criterion, outputs: Any, targets: Any) -> jax.Array:
    """A criterion's value on each example alone, (B,), of outputs and targets as it takes them, their first axis B."""
    alone = lambda one: jax.tree.map(lambda leaf: leaf[None], one)  # noqa: E731
    return jax.vmap(lambda f, y: criterion(alone(f), alone(y)))(outputs, targets)


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


@programs.holder
@dataclass(frozen=True)
class Weighted:
    """The loss or the criterion that `weighted` makes."""

    function: Callable[[Any, Any], jax.Array]
    weight: Callable[[Any], jax.Array]

    def __call__(self, first: Any, second: Any) -> jax.Array:
        """The value of the loss at parameters and a batch, or of the criterion at outputs and targets."""
        return self.function(first, second)


def weighted(function: Callable[[Any, Any], jax.Array], weight: Callable[[Any], jax.Array]) -> Weighted:
    """A loss, or a criterion, that is a sum divided by a sum, with the sum that divides it.

    Over batches L = Σᵢ Wᵢ Lᵢ / Σᵢ Wᵢ, with Wᵢ the weight of a batch. Without it batches count by their sizes, which is
    right for a mean over examples and wrong for Σ wₙ lₙ / Σ wₙ: class weights, means over tokens that are not masked.

    Parameters
    ----------
    function : callable
        ``loss(params, batch)``, or ``criterion(outputs, y)``.
    weight : callable
        ``weight(batch)``, or ``weight(y)``: a scalar of at least 0, what the value has been divided by.

    Returns
    -------
    Weighted
        The same function. Everything in Steppe that takes several batches, parts of a batch or single examples reads
        its weight.

    Examples
    --------
    >>> import jax.numpy as jnp, steppe
    >>> masked = lambda w, batch: jnp.sum(batch["mask"] * (batch["x"] * w) ** 2) / jnp.sum(batch["mask"])
    >>> loss = weighted(masked, lambda batch: jnp.sum(batch["mask"]))
    >>> parts = [{"x": jnp.array([1.0, 5.0]), "mask": jnp.array([1.0, 0.0])}, {"x": jnp.ones(2), "mask": jnp.ones(2)}]
    >>> float(steppe.measures.measure(["loss"], loss=loss, params=jnp.array(2.0), batches=parts)[0].value)
    4.0
    """
    return Weighted(function, weight)


def weight_of(loss: Loss) -> Callable[[Batch], jax.Array] | None:
    """``weight(batch)`` of a loss, what divides it; None where its value is a mean over the examples."""
    if isinstance(loss, NetworkLoss):
        weight = getattr(loss.criterion, "weight", None)
        return None if weight is None else lambda batch: weight(checks.inputs_and_targets("loss", batch)[1])
    return getattr(loss, "weight", None)


def shares(weight: Callable[[Any], jax.Array] | None, examples: Any) -> jax.Array:
    """The share of each example in a mean over them, (B,), summing to 1: by `weight` of one alone, or all alike.

    Where the weight is a pytree, a pytree of shares.
    """
    count = len(jax.tree.leaves(examples)[0])
    if weight is None:
        return jnp.full(count, 1 / count)
    parts: jax.Array = parts_of(jax.vmap(lambda one: weight(jax.tree.map(lambda leaf: leaf[None], one)))(examples))
    return parts


def parts_of(weights: Any) -> Any:
    """Weights (n,), or a pytree of such, divided by their sum; zeros where that is zero."""
    return jax.tree.map(lambda leaf: leaf / jnp.where(jnp.sum(leaf) == 0, 1, jnp.sum(leaf)), weights)


def count_mask(criterion: Criterion | None, targets: Any) -> jax.Array:
    """Whether each label counts: those that weigh nothing in a criterion, such as padding, do not."""
    weights = getattr(criterion, "weights", None)
    return jnp.ones(targets.shape, bool) if weights is None else weights(targets) > 0


def readable_labels(counts: jax.Array, targets: Any) -> jax.Array:
    """Labels with a class in the place of those that do not count, so that all of them can be read."""
    labels = jnp.asarray(arrays.exact("accuracy", "y", labels_of(targets)))
    return labels if labels.dtype == bool else jnp.where(counts, labels, 0)


def weigh(share: jax.Array, value: jax.Array) -> jax.Array:
    """A value times its share; zero where that is zero, whatever the value: a sum over nothing may be 0/0."""
    share = jnp.asarray(share).astype(value.dtype)
    share = share.reshape(*share.shape, *[1] * (value.ndim - share.ndim))
    return jnp.where(share == 0, jnp.zeros((), value.dtype), share * value)


@programs.holder
@dataclass(frozen=True)
class NetworkLoss:
    """The loss of a network: ``criterion(apply(params, x), y)``. Equal for equal parts."""

    apply: Apply
    criterion: Criterion

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """The mean over the batch."""
        x, y = checks.inputs_and_targets("loss", batch)
        return self.criterion(self.apply(params, x), y)

    def each(self, params: Params, batch: Batch) -> jax.Array:
        """The loss of each example, (B,), times what its weight is of the mean weight: their mean is the loss."""
        x, y = checks.inputs_and_targets("loss", batch)
        values = example_losses(self.criterion, self.apply(params, x), y)
        weight = getattr(self.criterion, "weight", None)
        return values if weight is None else weigh(len(values) * shares(weight, y), values)


def of(apply: Apply, criterion: Criterion = cross_entropy) -> NetworkLoss:
    """The loss of a network, ``loss(params, batch) = criterion(apply(params, x), y)``.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    criterion : ``criterion(outputs, y)``, the mean over the batch.

    Returns
    -------
    A loss on batches ``{"x": (B, ...), "y": (B, ...)}`` or ``(x, y)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = of(lambda params, x: x @ params)
    >>> round(float(loss(jnp.zeros((2, 4)), {"x": jnp.ones((3, 2)), "y": jnp.array([0, 1, 3])})), 4)  # log 4
    1.3863
    """
    return NetworkLoss(apply, criterion)

"""Criteria that are means over the batch: functions of outputs and targets."""

from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from steppe.core import arrays, checks
from steppe.core.types import Criterion


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
    elif targets.shape == (*logits.shape[:1], *logits.shape[2:]):
        todo = "If classes come second, as in PyTorch, move them last: outputs=lambda o: o.movedim(1, -1)."
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


def example_losses(criterion: Criterion, outputs: Any, targets: Any) -> jax.Array:
    """A criterion's value on each example alone, (B,), of outputs and targets as it takes them, their first axis B."""
    alone = lambda one: jax.tree.map(lambda leaf: leaf[None], one)  # noqa: E731
    return jax.vmap(lambda f, y: criterion(alone(f), alone(y)))(outputs, targets)

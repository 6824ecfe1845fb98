"""Criteria, functions of outputs and targets, each a mean over the batch; and the loss that one makes of a network."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from steppe import checks
from steppe.typing import Apply, Batch, Criterion, Loss, Params


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
    InputError : probabilities of another shape.

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
    """The cross-entropy of each example, (B,); see `cross_entropy`."""
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    if soft:
        labels = _probabilities("cross_entropy", logits, labels)
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[..., 0], labels.astype(logits.dtype))
    if soft:
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _probabilities(function: str, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Targets as probabilities in the dtype of the logits: (…, K), or those of class 1, (…,), for one logit."""
    one, integer = logits.shape[-1] == 1, not jnp.issubdtype(targets.dtype, jnp.floating)
    needed = logits.shape[:-1] if one or integer else logits.shape
    if targets.shape != needed:
        kind = "integer labels" if integer else "probabilities of class 1" if one else "probabilities"
        checks.fail(function, "targets", f"{kind} of shape {needed}", f"a {targets.dtype} array of {targets.shape}")
    if integer and not one:
        return jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return targets.astype(logits.dtype)


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
}
"""Criteria for classes by the name that a study calls them: functions of their settings that return a criterion."""


def example_losses(criterion: Criterion, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """A criterion's value on each example alone, (B,). Targets are whatever the criterion takes, their first axis B."""
    return jax.vmap(lambda f, y: criterion(f[None], y[None]))(outputs, targets)


def _drawn_class(key: jax.Array, logits: jax.Array) -> jax.Array:
    """A label from the prediction of logits (K,), or (1,)."""
    if logits.shape[-1] == 1:
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits[0])).astype(jnp.int32)
    return jax.random.categorical(key, logits)


def _drawn_target(key: jax.Array, outputs: jax.Array) -> jax.Array:
    """Targets (K,) with log-density −1/K Σ (outputs − targets)²: variance K/2."""
    return outputs + (outputs.size / 2) ** 0.5 * jax.random.normal(key, outputs.shape, outputs.dtype)


SAMPLERS = {cross_entropy: _drawn_class, squared_error: _drawn_target}
"""For criteria that are −log p(y | outputs) up to a constant: ``(key, outputs of one example) -> y``."""


@dataclass(frozen=True)
class NetworkLoss:
    """The loss of a network: ``criterion(apply(params, x), y)``. Equal for equal parts, so that it compiles once."""

    apply: Apply
    criterion: Criterion

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """The mean over the batch."""
        x, y = checks.inputs_and_targets("loss", batch)
        return self.criterion(self.apply(params, x), y)

    def each(self, params: Params, batch: Batch) -> jax.Array:
        """The loss of each example, (B,)."""
        x, y = checks.inputs_and_targets("loss", batch)
        return example_losses(self.criterion, self.apply(params, x), y)


def of(apply: Apply, criterion: Criterion = cross_entropy) -> Loss:
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

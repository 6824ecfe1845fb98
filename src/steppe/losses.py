"""Criteria, functions of outputs and targets, each a mean over the batch; and the loss that one makes of a network."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from steppe import checks
from steppe.typing import Apply, Batch, Criterion, Loss, Params


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of integer labels, −1/B Σᵢ log p(yᵢ).

    Parameters
    ----------
    logits : (B, K) for K classes (softmax), or (B, 1) for two (one logit z, p(1) = sigmoid z); further axes between
        the first and the last, such as positions of a text, are averaged over too.
    labels : (B,) integers in 0..K−1, or 0..1; the shape of `logits` without its last axis.

    Returns
    -------
    A scalar, in nats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(cross_entropy(jnp.zeros((3, 1)), jnp.array([0, 1, 1])))  # log 2
    0.693147...
    """
    return jnp.mean(cross_entropies(logits, labels))


def cross_entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The cross-entropy of each example, (B,); see `cross_entropy`."""
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[..., 0], labels.astype(logits.dtype))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


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


def example_losses(criterion: Criterion, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """A criterion's value on each example alone, (B,)."""
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

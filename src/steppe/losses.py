"""Losses of logits and labels: each the mean over the batch."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of integer labels, −1/B Σᵢ log p(yᵢ).

    Parameters
    ----------
    logits : (B, K) for K classes (softmax), or (B, 1) for two (one logit z, p(1) = sigmoid z).
    labels : (B,) integers in 0..K−1, or 0..1.

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
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels.astype(logits.dtype))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

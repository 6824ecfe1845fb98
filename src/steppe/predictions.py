"""What a network predicts."""

import jax
import jax.numpy as jnp


def predicted(logits: jax.Array) -> jax.Array:
    """The predicted classes, (B,) int32: the largest of K logits (B, K), or the sign of a single one (B, 1)."""
    if logits.shape[-1] == 1:
        return (logits[:, 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether each prediction is right, (B,) bool. Accuracy is its mean."""
    return predicted(logits) == labels.astype(jnp.int32)

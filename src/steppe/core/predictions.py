"""What a network predicts."""

import jax
import jax.numpy as jnp

from steppe.core import arrays, checks


class RealOutputs(int):
    """How many real numbers a network answers with, where it might be a number of classes: it learns a regression.

    Examples
    --------
    >>> RealOutputs(2) + 1, isinstance(RealOutputs(2), int)
    (3, True)
    """


def predicted(logits: jax.Array) -> jax.Array:
    """The predicted classes, (B, ...) int32: the largest of K logits (B, ..., K), or the sign of one, (B, ..., 1)."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def correct(logits: jax.Array, labels: jax.Array, function: str = "accuracy") -> jax.Array:
    """Whether each prediction is right, a bool for each label. Accuracy is its mean.

    Parameters
    ----------
    logits : (B, ..., K), or (B, ..., 1) for two classes.
    labels : (B, ...) integers, the shape of `logits` without its last axis.
    function : named in errors.

    Raises
    ------
    InputError : labels of another shape, or that are no integers; labels that are known to be no classes of the logits.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> correct(jnp.array([[[3.0], [-1.0]]]), jnp.array([[1, 1]])).tolist()
    [[True, False]]
    """
    shapes = getattr(logits, "shape", ()), getattr(labels, "shape", None)
    if not shapes[0] or shapes[1] is None:
        checks.fail(function, "logits, y", "one array (B, ..., K) and labels (B, ...)",
                    checks.returned((logits, labels)))  # fmt: skip
    labels = jnp.asarray(arrays.exact(function, "y", labels))
    whole = jnp.issubdtype(labels.dtype, jnp.integer) or labels.dtype == bool
    if shapes[0][:-1] != shapes[1] or not whole:
        checks.fail(function, "y", f"integer labels of shape {shapes[0][:-1]}", checks.returned(labels))
    arrays.check_labels(function, labels, shapes[0][-1])
    return predicted(logits) == labels.astype(jnp.int32)

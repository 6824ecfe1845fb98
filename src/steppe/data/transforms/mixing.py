"""Mixtures of the examples of a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data.transforms.base import Transform, array_of


def mixup(alpha: float = 0.2, *, classes: int) -> Transform:
    """Examples and labels become λ · themselves + (1 − λ) · another's of the batch, one λ ~ Beta(α, α) a batch.

    Zhang et al. (2018), eq. 1; the others are a random permutation of the batch.

    Parameters
    ----------
    alpha : α > 0; a traced value will do. Near 0 hardly anything is mixed, 1 is a uniform λ.
    classes : K, the classes that the data have; a study fills it in.

    Returns
    -------
    A transform of batches with integer labels (B,), or probabilities as it returns them itself: (B, K) in the dtype of
    x, and for K = 2 those of class 1, (B,), which is what `losses.cross_entropy` takes for networks of one logit.

    Raises
    ------
    InputError : alpha or classes out of range, when made; x that is not floating-point, or labels of another shape,
        when called.

    Notes
    -----
    One λ for the whole batch is what the authors' code draws; their equation has one for each pair.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.eye(3), "y": jnp.array([0, 1, 2])}
    >>> mixed = mixup(1.0, classes=3)(jax.random.key(0), batch, None)
    >>> mixed["y"].shape, bool(jnp.allclose(mixed["x"], mixed["y"]))  # here x is the one-hot label
    ((3, 3), True)
    """
    checks.positive("mixup", "alpha", alpha)
    checks.whole("mixup", "classes", classes, least=2)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = array_of("mixup", batch, "x", jnp.floating, "floating-point examples")
        q = _probabilities(batch["y"], classes, x)
        order_key, weight_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(x))
        a = jnp.asarray(alpha).astype(jnp.float32)
        weight = jax.random.beta(weight_key, a, a, dtype=jnp.float32).astype(x.dtype)
        return {**batch, "x": weight * x + (1 - weight) * x[order], "y": weight * q + (1 - weight) * q[order]}

    return transform


def _probabilities(y: Any, classes: int, x: jax.Array) -> jax.Array:
    """Labels as `mixup` mixes them: (B, K), or (B,) for two classes, in the dtype of x."""
    y = jnp.asarray(y)
    hard = jnp.issubdtype(y.dtype, jnp.integer)
    needed = x.shape[:1] if hard or classes == 2 else (x.shape[0], classes)
    if y.shape != needed:
        got = f"a {y.dtype} array of shape {y.shape}"
        checks.fail("mixup", "y", f"{'labels' if hard else 'probabilities'} of shape {needed}", got)
    return jax.nn.one_hot(y, classes, dtype=x.dtype) if hard and classes > 2 else y.astype(x.dtype)

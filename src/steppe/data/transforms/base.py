"""What a transform is: a function of a key, a batch and the loss of the present network."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.core.types import Batch

Transform: TypeAlias = Callable[[jax.Array, Batch, Callable[[Batch], jax.Array]], Batch]
"""``transform(key, batch, loss)``: the batch to train on; ``key`` is for this step alone."""


def array_of(function: str, batch: Batch, part: str, kind: Any, needed: str) -> jax.Array:
    """The x or y of a batch as one array of a kind of dtype, checked."""
    found = batch[part]
    if not hasattr(found, "dtype"):
        checks.fail(function, part, f"{needed}, one array", f"a {type(found).__name__}")
    if not jnp.issubdtype(found.dtype, kind):
        checks.fail(function, part, needed, f"a {found.dtype} array of shape {found.shape}")
    return jnp.asarray(found)


def chain(*transforms: Transform) -> Transform:
    """One transform after another, each with randomness of its own.

    Parameters
    ----------
    transforms : the first is applied first; none at all leave the batch as it is. Every `loss` is that of the present
        network: an adversarial transform attacks what those before it made.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
    >>> from steppe.data.transforms import crop, mixup
    >>> mixed = chain(crop(2), mixup(classes=10))(jax.random.key(0), batch, None)
    >>> mixed["x"].shape, mixed["y"].shape
    ((2, 8, 8, 3), (2, 10))
    """

    def transform(key: jax.Array, batch: Batch, loss: Callable[[Batch], jax.Array]) -> Batch:
        for place, one in enumerate(transforms):
            batch = one(jax.random.fold_in(key, place), batch, loss)
        return batch

    return transform

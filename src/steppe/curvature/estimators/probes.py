"""Random vectors with mean zero, and those with identity covariance, E vvᵀ = I, by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import trees
from steppe.core.types import Params

WORD = 32


def rademacher(key: jax.Array, like: Params) -> Params:
    """Independent signs ±1 with probability 1/2 each, shaped like a pytree.

    Each random 32-bit word gives 32 signs, so that a probe costs a small fraction of a gradient:
    ``jax.random.rademacher`` spends a word, and a comparison of floats, on every sign.

    Parameters
    ----------
    key : JAX key array.
    like : pytree of floating arrays, n scalars in all; gives shapes and dtypes.

    Returns
    -------
    A pytree like `like`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> v = rademacher(jax.random.key(0), {"w": jnp.zeros((2, 3))})
    >>> bool(jnp.all(jnp.abs(v["w"]) == 1))
    True
    """
    leaves, treedef = jax.tree.flatten(like)
    words = jax.random.bits(key, (-(-trees.size(like) // WORD),), jnp.uint32)
    if jax.device_count() > 1:
        return jax.tree.unflatten(treedef, _separate_signs(words, leaves))
    bits = (words[:, None] >> jnp.arange(WORD, dtype=jnp.uint32)[None, :]) & jnp.uint32(1)
    bits = bits.reshape(-1)
    signs, start = [], 0
    for leaf in leaves:
        ones = jax.lax.slice_in_dim(bits, start, start + np.size(leaf)).reshape(np.shape(leaf))
        signs.append(1 - 2 * ones.astype(jnp.result_type(leaf)))
        start += np.size(leaf)
    return jax.tree.unflatten(treedef, signs)


def _separate_signs(words: jax.Array, leaves: list[Any]) -> list[jax.Array]:
    """The signs of `rademacher`, each from its own place in the words: devices that share an array draw their parts.

    The words take 1/32 of the memory of float32 parameters, and are whole on every device.
    """
    signs, start = [], 0
    for leaf in leaves:
        place = jnp.full(np.shape(leaf), start, jnp.uint32)
        for axis, stride in enumerate(np.cumprod([1, *np.shape(leaf)[:0:-1]])[::-1] if np.ndim(leaf) else ()):
            place += jax.lax.broadcasted_iota(jnp.uint32, np.shape(leaf), axis) * jnp.uint32(stride)
        ones = (words[place // WORD] >> (place % WORD)) & jnp.uint32(1)
        signs.append(1 - 2 * ones.astype(jnp.result_type(leaf)))
        start += np.size(leaf)
    return signs


def gaussian(key: jax.Array, like: Params) -> Params:
    """Independent standard normal entries, shaped like a pytree.

    Their estimates of tr A vary more than those of signs: Var vᵀAv is 2‖A‖²_F for normal entries and
    2(‖A‖²_F − Σᵢ Aᵢᵢ²) for signs (Avron and Toledo 2011).

    Parameters
    ----------
    key : JAX key array.
    like : pytree of floating arrays; gives shapes and dtypes.

    Returns
    -------
    A pytree like `like`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> gaussian(jax.random.key(0), {"w": jnp.zeros((2, 3))})["w"].shape
    (2, 3)
    """
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    draws = [jax.random.normal(k, np.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(treedef, draws)


def uniform(key: jax.Array, like: Params) -> Params:
    """Independent entries uniform on [−1, 1], shaped like a pytree; their covariance is I/3."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(key, max(len(leaves), 1))
    draws = [jax.random.uniform(k, np.shape(x), jnp.result_type(x), -1, 1) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(treedef, draws)


DISTRIBUTIONS: dict[str, Callable[[jax.Array, Params], Params]] = {"rademacher": rademacher, "gaussian": gaussian}

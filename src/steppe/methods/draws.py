"""Random choices that more than one method makes."""

import jax
import jax.numpy as jnp

from steppe.core.types import Params


def coordinates(key: jax.Array, like: Params, chance: float) -> Params:
    """A pytree of bools shaped like another: each true with that chance, independently."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        treedef, [jax.random.bernoulli(k, chance, jnp.shape(x)) for k, x in zip(keys, leaves, strict=True)]
    )

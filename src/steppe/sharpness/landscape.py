"""Loss surfaces around a network, along filter-normalised random directions."""

import jax
import jax.numpy as jnp

from steppe import checks, trees
from steppe.typing import Batch, Key, Loss, Params


def filter_normalised(key: Key, params: Params) -> Params:
    """A random direction with, filter by filter, the norm of the network's own weights (Li et al. 2018, section 4).

    d ~ N(0, I), then d ← d · ‖w‖/‖d‖ for each filter, the weights of one output: all axes of an array but its last.
    Arrays of one axis (biases, normalisation) get zero. So the picture of a ReLU network does not change when its
    layers are rescaled, and the same key gives networks of one shape the same draw, each in its own units.

    Parameters
    ----------
    key : an int or a key array.
    params : pytree of floating arrays, outputs on the last axis (Flax's layout).

    Returns
    -------
    A pytree like `params`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> direction = filter_normalised(0, {"kernel": 3.0 * jnp.ones((4, 2)), "bias": jnp.ones(2)})
    >>> jnp.linalg.norm(direction["kernel"], axis=0).round(4).tolist(), direction["bias"].tolist()
    ([6.0, 6.0], [0.0, 0.0])
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(checks.key_array("filter_normalised", key), max(len(leaves), 1))

    def one(key: jax.Array, w: jax.Array) -> jax.Array:
        if w.ndim < 2:
            return jnp.zeros_like(w)
        d = jax.random.normal(key, w.shape, w.dtype)
        axes = tuple(range(w.ndim - 1))
        norm = lambda a: jnp.sqrt(jnp.sum(a**2, axes, keepdims=True))  # noqa: E731
        return d * norm(w) / jnp.maximum(norm(d), jnp.finfo(w.dtype).tiny)

    return jax.tree.unflatten(treedef, [one(k, w) for k, w in zip(keys, leaves, strict=False)])


def surface(loss: Loss, params: Params, batch: Batch, directions: list[Params], points: jax.Array) -> jax.Array:
    """The loss at ``params + Σᵢ points[:, i] · directions[i]``.

    Parameters
    ----------
    loss, params, batch : the network, and the examples that its loss is taken on.
    directions : k pytrees like `params`.
    points : (P, k) coordinates.

    Returns
    -------
    (P,) losses. Cost: P forward passes, one after another, compiled once.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: jnp.sum(w**2) + 0.0 * jnp.mean(batch)
    >>> surface(loss, jnp.zeros(2), jnp.ones(1), [jnp.ones(2)], jnp.array([[0.0], [1.0]])).tolist()
    [0.0, 2.0]
    """

    def at(point: jax.Array) -> jax.Array:
        moved = params
        for i, direction in enumerate(directions):
            moved = trees.add(moved, trees.scale(point[i], direction))
        return loss(moved, batch)

    return jax.lax.map(at, points)

"""Directions in parameter space along which a loss surface is looked at."""

import jax
import jax.numpy as jnp

from steppe import curvature
from steppe.core import checks, trees
from steppe.core.types import Batch, Key, Loss, Params
from steppe.landscape.filters import FilterAxis, filter_axes


def filter_normalised(key: Key, params: Params, *, filter_axis: FilterAxis = None) -> Params:
    """A random direction with, filter by filter, the norm of the network's own weights (Li et al. 2018, section 4).

    d ~ N(0, I), then d ← d · ‖w‖/‖d‖ for each filter, the weights of one output: all axes of an array but that of its
    outputs. Arrays of one axis (biases, normalisation), and whatever is called a bias, get zero. So the picture of a
    ReLU network does not change when its layers are rescaled, and the same key gives networks of one shape the same
    draw, each in its own units.

    Parameters
    ----------
    key : an int or a key array.
    params : pytree of floating arrays.
    filter_axis : the axis of the outputs: an int for all arrays, or a pytree of ints that is a prefix of params (None:
        as known), or a function from params to one. None: known for Equinox's layers, (out, in, …), for PyTorch's
        names, ``fc.weight``, and for Flax's, ``kernel`` and ``embedding``; of other arrays the last one.

    Returns
    -------
    A pytree like `params`.

    Raises
    ------
    InputError : parameters that are not floating-point arrays; a key that is neither int nor key array; an axis that an
        array does not have; none given for an array called ``weight`` whose framework is not known and of which no bias
        tells the outputs, or for one whose bias is not as long as its outputs.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> direction = filter_normalised(0, {"kernel": 3.0 * jnp.ones((4, 2)), "bias": jnp.ones(2)})
    >>> jnp.linalg.norm(direction["kernel"], axis=0).round(4).tolist(), direction["bias"].tolist()
    ([6.0, 6.0], [0.0, 0.0])
    """
    leaves, treedef = jax.tree.flatten(checks.floating("filter_normalised", params))
    outputs = filter_axes("filter_normalised", params, filter_axis)
    keys = jax.random.split(checks.key_array("filter_normalised", key), max(len(leaves), 1))

    def one(key: jax.Array, w: jax.Array, outputs: tuple[int, ...]) -> jax.Array:
        if not outputs:
            return jnp.zeros_like(w)
        d = jax.random.normal(key, w.shape, w.dtype)
        axes = tuple(axis for axis in range(w.ndim) if axis not in outputs)
        wide = trees.accumulator_dtype(w)
        norm = lambda a: jnp.sqrt(jnp.sum(a.astype(wide) ** 2, axes, keepdims=True))  # noqa: E731
        return (d.astype(wide) * norm(w) / jnp.maximum(norm(d), jnp.finfo(wide).tiny)).astype(w.dtype)

    return jax.tree.unflatten(treedef, [one(*each) for each in zip(keys, leaves, outputs, strict=False)])


def across(key: Key, direction: Params, *, filter_axis: FilterAxis = None) -> Params:
    """A random direction at right angles to another, of the same length.

    Filter by filter a random draw with the norm of `direction` (see `filter_normalised`), made orthogonal to it, and
    scaled to its length: with both, distances in their plane are true to scale.

    Parameters
    ----------
    key : an int or a key array.
    direction : pytree of floating arrays, such as the difference of two solutions; not all zero.
    filter_axis : see `filter_normalised`.

    Returns
    -------
    A pytree like `direction`: d with ⟨d, direction⟩ = 0 and ‖d‖ = ‖direction‖.

    Raises
    ------
    InputError : as `filter_normalised`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = across(0, {"kernel": jnp.ones((4, 2))})["kernel"]
    >>> abs(round(float(jnp.sum(d)), 4)), round(float(jnp.sum(d**2)), 4)
    (0.0, 8.0)
    """
    draw = filter_normalised(key, direction, filter_axis=filter_axis)
    square = trees.norm_squared(direction)
    draw = trees.add_scaled(draw, -trees.dot(draw, direction) / square, direction)
    return trees.scale(jnp.sqrt(square / trees.norm_squared(draw)), draw)


def top_eigenvectors(
    loss: Loss, params: Params, batches: Batch | list[Batch], count: int = 2, *, key: Key = 0
) -> tuple["curvature.Eigenpairs", list[Params]]:
    """The directions in which a loss curves most: eigenvectors of the largest eigenvalues of its Hessian.

    Along a unit eigenvector v of eigenvalue μ, L(θ + tv) = L(θ) + t⟨∇L, v⟩ + ½ μ t² + O(t³). Unlike filter-normalised
    directions these are in the parameters' own units: rescaling layers changes the picture.

    Parameters
    ----------
    loss, params, batches : the network, and the examples that its loss is averaged over.
    count : how many.
    key : an int or a key array, for the iteration's start.

    Returns
    -------
    The eigenpairs as `curvature.top_eigenpairs` gives them, largest eigenvalue first, and the vectors as a list of
    pytrees like `params`, of length 1 each.

    Raises
    ------
    InputError : as `curvature.hessian` and `curvature.top_eigenpairs`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda w, batch: jnp.mean(batch) * (3 * w[0] ** 2 + w[1] ** 2) / 2
    >>> pairs, (first,) = top_eigenvectors(loss, jnp.ones(2), jnp.ones(4), 1)
    >>> round(float(pairs.values[0]), 4), jnp.abs(first).round(4).tolist()
    (3.0, [1.0, 0.0])
    """
    H = curvature.hessian(loss, params, batches)
    pairs = curvature.top_eigenpairs(H, key, count, which="largest")
    return pairs, [jax.tree.map(lambda v, i=i: v[i], pairs.vectors) for i in range(count)]

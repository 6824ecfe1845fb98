"""Networks whose weights are rounded, or the smallest of them removed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, trees
from steppe.core.types import Params
from steppe.landscape.filters import FilterAxis
from steppe.outcomes.compression.precision import Granularity, rounded_to, scale_axes


def round_weights(
    params: Params, bits: int, *, granularity: Granularity = "channel", filter_axis: FilterAxis = None
) -> Params:
    """A network with all its weights rounded to so many bits, symmetrically and to nearest.

        Q(W) = s · round(W/s),   s = max |W| / (2^(k−1) − 1)

    Parameters
    ----------
    params : pytree of floating arrays
    bits : int
        k, from 2 to 16.
    granularity : {"channel", "tensor"}
        Whether each output has a scale s of its own, or each array.
    filter_axis
        Which axis of an array is its outputs, where names do not tell; see `steppe.landscape`. Of "channel" alone.

    Returns
    -------
    pytree of arrays
        Arrays of one axis, and biases, are as they were.

    Raises
    ------
    InputError
        Bits out of range; parameters without an array of two axes; an axis that is not known.

    See Also
    --------
    precision_table : layer by layer, with what curvature says that it costs.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round_weights({"w": jnp.array([[1.0, 0.6], [4.0, 1.0]])}, 2, granularity="tensor")["w"].tolist()
    [[0.0, 0.0], [4.0, 0.0]]
    """
    checks.whole("round_weights", "bits", bits, least=2, most=16)
    checks.one_of("round_weights", "granularity", granularity, ("channel", "tensor"))
    checks.floating("round_weights", params)
    axes = scale_axes("round_weights", params, granularity, filter_axis)
    leaves = [
        leaf if outputs is None else rounded_to(leaf, bits, outputs)
        for leaf, outputs in zip(jax.tree.leaves(params), axes, strict=True)
    ]
    return jax.tree.unflatten(trees.structure(params), leaves)


def prune_weights(params: Params, share: float) -> Params:
    """A network without its smallest weights: that share of all entries of arrays with two axes at least is set to 0.

    Parameters
    ----------
    params : pytree of floating arrays
    share : float
        From 0 to 1, of all these entries together. Of equal ones at the threshold the first are kept.

    Returns
    -------
    pytree of arrays
        Arrays of one axis, such as biases, are as they were.

    Raises
    ------
    InputError
        A share out of range; parameters without an array of two axes.

    Notes
    -----
    Magnitude pruning in one go, without training afterwards (Han et al. 2015), over all layers together.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> prune_weights({"w": jnp.array([[1.0, -0.1], [3.0, 0.2]]), "b": jnp.array([0.01])}, 0.5)["w"].tolist()
    [[1.0, 0.0], [3.0, 0.0]]
    """
    checks.real("prune_weights", "share", share, least=0.0, most=1.0)
    checks.floating("prune_weights", params)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    chosen = [leaf.ndim >= 2 for leaf in leaves]
    if not any(chosen):
        checks.fail("prune_weights", "params", "with an array of two axes at least", "none that is pruned")
    sizes = np.concatenate([np.abs(leaf).ravel() for leaf, own in zip(leaves, chosen, strict=True) if own])
    kept = np.ones(len(sizes), bool)
    smallest = np.argsort(sizes[::-1], kind="stable")[: round(float(share) * len(sizes))]
    kept[len(sizes) - 1 - smallest] = False
    found: list[Any] = []
    for leaf, own in zip(leaves, chosen, strict=True):
        if own:
            inside, kept = kept[: leaf.size], kept[leaf.size :]
            leaf = np.where(inside.reshape(leaf.shape), leaf, np.zeros((), leaf.dtype))  # noqa: PLW2901
        found.append(jnp.asarray(leaf))
    return jax.tree.unflatten(trees.structure(params), found)

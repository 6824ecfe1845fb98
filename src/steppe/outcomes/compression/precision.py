"""Mixed precision: which layers bear few bits, by their curvature and by the loss after rounding."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe import curvature
from steppe.core import checks, entry, names, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.layer_table import layer_moments
from steppe.landscape.filters import FilterAxis, filter_axes
from steppe.sharpness.evaluation import mean_loss, rounding, with_rounding

Granularity = Literal["channel", "tensor"]


class LayerPrecision(NamedTuple):
    """What rounding the weights of one layer does.

    Attributes
    ----------
    layer : str
        Its name, see `steppe.core.names.layers`.
    bits : int
        Of a rounded weight.
    size : int
        How many weights are rounded, n.
    trace : Estimate
        tr H of the block of these weights.
    squared_error : float
        ‖W − Q(W)‖².
    sensitivity : Estimate
        tr H / n · ‖W − Q(W)‖², by which HAWQ-V2 ranks layers.
    predicted : Estimate
        Half of that: the change of the loss to second order, if the rounding errors are like independent noise.
    change : Estimate
        L with this layer rounded − L, measured; its standard error is that of the loss's own rounding.
    """

    layer: str
    bits: int
    size: int
    trace: Estimate
    squared_error: float
    sensitivity: Estimate
    predicted: Estimate
    change: Estimate


def precision_table(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    bits: Sequence[int] = (8, 4, 3, 2),
    granularity: Granularity = "channel",
    filter_axis: FilterAxis = None,
    probes: int = 32,
    key: Key = 0,
) -> list[LayerPrecision]:
    """For each layer and number of bits: what curvature says that rounding costs, and what it costs.

    Weights are rounded to nearest, symmetrically and uniformly, without calibration:

        Q(W) = s · round(W/s),   s = max |W| / (2^(k−1) − 1),

    over each output channel or the whole array. With Δ = Q(W) − W the loss changes by gᵀΔ + ½ ΔᵀHΔ + …; at a minimum,
    and for errors that are uncorrelated and of one size, the mean of that is

        ½ · (tr H / n) · ‖W − Q(W)‖²,

    half of the sensitivity of HAWQ-V2 (Dong et al. 2020), which ranks layers by the mean eigenvalue tr H / n.

    Parameters
    ----------
    loss : callable
        ``loss(params, batch)``, the mean over the batch.
    params : pytree of floating arrays
    batches : batch, or list of batches
        L and H are those of the mean over all examples.
    bits : sequence of int
        Each k from 2 to 16.
    granularity : {"channel", "tensor"}
        Whether each output has a scale s of its own, or each array.
    filter_axis
        Which axis of an array is its outputs, where names do not tell; see `steppe.landscape`. Of "channel" alone.
    probes : int
        Random vectors for the traces, which all layers share; see `curvature.layer_table`.
    key : int or key array

    Returns
    -------
    list of LayerPrecision
        Layer by layer in the order of the parameters, with the bits in the order given. Arrays of one axis, and biases,
        are never rounded; a layer without others has no row. Cost: `probes` products with the Hessian, and one forward
        pass for each row.

    Raises
    ------
    InputError
        Bits out of range; parameters without an array of two axes; an axis that is not known; a loss, parameters or
        batches that cannot be used.

    Notes
    -----
    `predicted` leaves out the slope gᵀΔ: of a network that is far from a minimum `change` can be anything, of either
    sign. With few bits errors are large, alike within a channel, and terms beyond the second count.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda p, x: 3 * jnp.sum((p["a"]["w"] - 1) ** 2) + jnp.sum((p["b"]["w"] - 0.3) ** 2) + 0 * jnp.mean(x)
    >>> params = {"a": {"w": jnp.ones((2, 2))}, "b": {"w": jnp.array([[1.0, 0.3], [0.3, 0.3]])}}
    >>> for row in precision_table(loss, params, jnp.ones(1), bits=[2], granularity="tensor"):
    ...     print(row.layer, row.bits, round(row.trace.mean), round(row.predicted.mean, 3), round(row.change.mean, 3))
    a 2 24 0.0 0.0
    b 2 8 0.27 0.27
    """
    name = "precision_table"
    checks.one_of(name, "granularity", granularity, ("channel", "tensor"))
    checks.whole(name, "probes", probes)
    several = [checks.whole(name, "bits", k, least=2, most=16) for k in bits]
    loss, known = entry.loss_and_batches(name, loss, params, batches)
    axes = scale_axes(name, params, granularity, filter_axis)
    mask = jax.tree.unflatten(trees.structure(params), [found is not None for found in axes])
    H = curvature.hessian(loss, params, known, where=mask)
    traces, _ = layer_moments(H, jax.random.split(checks.key_array(name, key), probes))
    value = _value(loss, params, known)
    error = float(rounding(loss, params, known.first, float(value)))
    rows = []
    for place, layer in enumerate(dict.fromkeys(names.layers(H.like))):
        trace = Estimate(*(float(jnp.asarray(part)[place]) for part in traces))
        for k in several:
            rounded, moved, size = _rounded_layer(params, axes, layer, k)
            rise = _value(loss, rounded, known) - value
            change = with_rounding(Estimate(rise, jnp.zeros_like(rise)), error, still=moved == 0)
            sensitivity = Estimate(moved / size * trace.mean, moved / size * trace.sem)
            predicted = Estimate(sensitivity.mean / 2, sensitivity.sem / 2)
            measured = Estimate(float(change.mean), float(change.sem))
            rows.append(LayerPrecision(layer, k, size, trace, moved, sensitivity, predicted, measured))
    return rows


def _rounded_layer(
    params: Params, axes: list[tuple[int, ...] | None], layer: str, bits: int
) -> tuple[Params, float, int]:
    """The parameters with one layer rounded, ‖W − Q(W)‖², and how many weights that is."""
    leaves, rounded, moved, size = jax.tree.leaves(params), [], 0.0, 0
    for leaf, own, outputs in zip(leaves, names.layers(params), axes, strict=True):
        if own != layer or outputs is None:
            rounded.append(leaf)
            continue
        rounded.append(rounded_to(leaf, bits, outputs))
        moved += float(trees.norm_squared(rounded[-1] - leaf))
        size += np.size(leaf)
    return jax.tree.unflatten(trees.structure(params), rounded), moved, size


def rounded_to(weights: Any, bits: int, outputs: tuple[int, ...] = ()) -> jax.Array:
    """Weights rounded to so many bits, symmetrically: 2^bits − 1 levels around zero, up to the largest |weight|.

    Parameters
    ----------
    weights : array
    bits : int
        From 2.
    outputs : tuple of int
        The axes along which every index has a scale of its own; () for one scale.

    Returns
    -------
    jax.Array
        Of the shape and dtype of the weights.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> rounded_to(jnp.array([[1.0, 0.6], [4.0, 1.0]]), 2, (0,)).tolist()
    [[1.0, 1.0], [4.0, 0.0]]
    """
    weights = jnp.asarray(weights)
    wide = weights.astype(trees.accumulator_dtype(weights))
    within = tuple(axis for axis in range(weights.ndim) if axis not in outputs)
    scale = jnp.max(jnp.abs(wide), axis=within, keepdims=True) / (2 ** (bits - 1) - 1)
    safe = jnp.where(scale > 0, scale, 1)
    return (safe * jnp.round(wide / safe)).astype(weights.dtype)


def scale_axes(
    function: str, params: Params, granularity: Granularity, filter_axis: FilterAxis
) -> list[tuple[int, ...] | None]:
    """For each array the axes of its scales, None for one that is not rounded."""
    found: list[tuple[int, ...] | None]
    if granularity == "tensor":
        found = [() if np.ndim(leaf) >= 2 else None for leaf in jax.tree.leaves(params)]
    else:
        found = [axes or None for axes in filter_axes(function, params, filter_axis)]
    if all(axes is None for axes in found):
        checks.fail(function, "params", "with an array of two axes at least", "none that is rounded")
    return found


@compiled
def _value(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    return mean_loss(loss, params, batches)

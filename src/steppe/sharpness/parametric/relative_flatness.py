"""Relative flatness: the curvature of one layer's weights, in units of these weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe import curvature
from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches, average
from steppe.core.losses import NetworkLoss
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Criterion, Estimate, Key, Params
from steppe.curvature import layers
from steppe.curvature.estimators.estimates import exact
from steppe.curvature.estimators.probes import rademacher
from steppe.curvature.layers import last
from steppe.curvature.layers.detection import Layer
from steppe.sharpness.evaluation import flag
from steppe.sharpness.parametric import layer_view

MOST_PRODUCTS = 10_000
"""The largest number of products with the Hessian that an exact value may cost."""


class Settings(NamedTuple):
    """What is measured of a network, fixed in a compiled program."""

    layer: str
    standardise: bool


def relative_flatness(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    criterion: Criterion = losses.cross_entropy,
    layer: str | None = None,
    standardise: bool = False,
    probes: int | None = None,
    key: Key = 0,
) -> Estimate:
    """The relative flatness of one layer's weights W, κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_ss' (Petzka et al. 2021).

    w_s are the weights of output s, and H_ss' = ∂²L / ∂w_s ∂w_s' with L the mean over all examples. The bias is left
    aside. For softmax cross-entropy and the last layer, with features φ, that is

        κ = 1/N Σᵢ ‖φᵢ‖² (Σ_s p_s ‖w_s‖² − ‖Σ_s p_s w_s‖²) = 1/N Σᵢ ‖φᵢ‖² ½ Σ_{s,t} p_s p_t ‖w_s − w_t‖².

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs, each its own input's (no statistics of the batch).
    params : pytree of floating arrays.
    batches : a list of batches ``{"x": …, "y": …}`` or ``(x, y)``, or anything else: one batch.
    criterion : ``criterion(outputs, y)``, the mean over the batch.
    layer : the path of W in params, see `curvature.find_layers`; None: the matrix that meets the inputs last,
        `curvature.last_layer`, which also says its name.
    standardise : scale each feature that enters the layer to a standard deviation of 1 over all examples, and its
        weights by the inverse, before measuring; a constant feature then counts for nothing. For dense layers.
    probes : None: the exact value. A number M: an unbiased estimate from M random directions, for any layer.
    key : of the directions.

    Returns
    -------
    Estimate, in units of the loss; standard error 0 where exact. Cost: exactly, for the last layer under
    `losses.cross_entropy` one forward pass; for a dense layer that meets each example once, min(inputs, outputs)
    products with the Hessian of the part above it; for any other layer inputs × min(inputs, outputs) products with the
    layer's Hessian, up to 10,000. An estimate: M such products.

    Raises
    ------
    InputError : a layer that is not there, no layer at all; no single last one, where none is named: two heads, or a
        head whose weights are used elsewhere (tied to an embedding, decayed within the loss) or stand inside a loop or
        `remat`; a convolution with `standardise`; an exact value that would cost more than 10,000 products; parameters
        or batches that cannot be used.

    Notes
    -----
    The estimate is the mean of vᵀHv with v_sa = Σ_c W_sc G_ca, G a square matrix of random signs, for which
    E v_sa v_s'b = ⟨w_s, w_s'⟩ δ_ab. Where W has more inputs than outputs, a root of ⟨w_s, w_s'⟩ takes its place.

    Does not change when the layers of a ReLU network are rescaled (aW₁, ab₁, W₂/a), nor when the nodes that the layer
    itself computes are. When the nodes that feed it are rescaled one by one it does change, but not with `standardise`:
    that is the paper's remedy. Code released with a later study sums κ over mini-batches; here it is the mean.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> apply = lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"]
    >>> params = {"in": jnp.eye(2), "out": jnp.array([[1.0, 0.0], [2.0, 1.0]])}
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
    >>> round(float(relative_flatness(apply, params, batch).mean), 4)
    0.2517
    >>> estimate = relative_flatness(apply, params, batch, probes=100)
    >>> abs(float(estimate.mean) - 0.2517) < 4 * float(estimate.sem)
    True
    """
    name = "relative_flatness"
    loss, known = entry.network_and_batches(name, apply, criterion, params, batches)
    flag(name, "standardise", standardise)
    at = chosen_layer(loss.apply, params, known, layer)
    if standardise and at.kind != "dense":
        checks.fail(name, "layer", "a dense one with standardise=True", f"{at.name!r}, a {at.kind}")
    settings = Settings(at.name, standardise)
    if probes is not None:
        checks.whole(name, "probes", probes)
        return _estimated(loss, params, known, jax.random.split(checks.key_array(name, key), probes), settings=settings)
    if is_closed(loss, at.name, params, known.first):
        return _by_rows(loss, params, known, settings=settings, closed=True)
    if at.kind == "dense" and at.rows == known.shapes[0][1]:
        return _by_rows(loss, params, known, settings=settings, closed=False)
    inputs = layer_view.matrix(at, params).shape[0]
    count = inputs * min(inputs, at.fan_out)
    if count > MOST_PRODUCTS:
        checks.fail(name, "probes", f"a number for the layer {at.name!r}",
                    f"None, whose exact value costs {count:,} products", "Say probes=100.")  # fmt: skip
    return _by_products(loss, params, known, settings=settings)


def chosen_layer(apply: Apply, params: Params, batches: Batches, layer: str | None) -> Layer:
    """The layer that is measured: the one of that path, or the last one."""
    x, _ = checks.inputs_and_targets("relative_flatness", batches.first)
    return last.chosen("relative_flatness", "apply", layers.traced(apply, params, x), params, layer)


def is_closed(loss: losses.NetworkLoss, layer: str, params: Params, batch: Batch) -> bool:
    """Whether a layer is the network's last and meets softmax cross-entropy: `in_closed_form` then tells κ."""
    found = []

    def look(params: Params, batch: Batch) -> None:
        at = layer_view.view(loss.apply, layer, params, checks.inputs_and_targets("relative_flatness", batch)[0])
        found.append(at.layer.kind == "dense" and layer_view.is_last(at))

    # smoothed labels, too: the Hessian in the logits does not know the labels
    if loss.criterion is losses.cross_entropy or isinstance(loss.criterion, losses.SmoothedCrossEntropy):
        jax.eval_shape(look, params, batch)
    return found == [True]


def in_closed_form(at: layer_view.View, a: jax.Array, W: jax.Array) -> jax.Array:
    """κ of the last layer under softmax cross-entropy, from what enters it, (rows, inputs), and its weights."""
    logits = at.outputs(at.still).reshape(-1, at.layer.fan_out).astype(W.dtype)
    return jnp.mean(jnp.sum(a**2, axis=1) * _variance(logits, W))


def by_rows(at: layer_view.View, a: jax.Array, W: jax.Array, loss: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """κ = Σ over rows of ‖a‖² tr(WWᵀ ∂²L/∂y²) with L = loss(outputs), for rows that do not meet each other above."""
    product = jax.linearize(jax.grad(lambda move: loss(at.outputs(move))), at.still)[1]

    def form(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        along = jnp.broadcast_to(pair[0].astype(at.still.dtype)[None], at.still.shape)
        return jnp.matmul(product(along).astype(W.dtype), pair[1])

    # tr(WᵀW S) as Σ w_d·S w_d over the inputs, or as Σ (WᵀW)_s·S e_s over the outputs
    wide = W.shape[0] <= W.shape[1]
    pairs = (W, W) if wide else (jnp.eye(W.shape[1], dtype=W.dtype), W.T @ W)
    return jnp.sum(jnp.sum(a**2, axis=1) * jnp.sum(jax.lax.map(jax.checkpoint(form), pairs), axis=0))


def _scales(loss: NetworkLoss, params: Params, batches: Batches, settings: Settings) -> tuple[Any, Any]:
    """(inputs, 1) standard deviations of the layer's inputs, 0 where constant, and inverses; ones where unasked."""
    if not settings.standardise:
        ones = jnp.ones((1, 1), trees.accumulator_dtype(params))
        return ones, ones

    def features(batch: Batch) -> jax.Array:
        x, _ = checks.inputs_and_targets("relative_flatness", batch)
        a = layer_view.view(loss.apply, settings.layer, params, x).a
        return a.astype(trees.accumulator_dtype(a))

    mean = average(lambda batch: jnp.mean(features(batch), 0), batches.by_size)
    sigma = jnp.sqrt(average(lambda batch: jnp.mean((features(batch) - mean[None]) ** 2, 0), batches.by_size))
    size = average(lambda batch: jnp.max(jnp.abs(features(batch)), 0), batches.by_size)
    varies = sigma > 4 * jnp.finfo(sigma.dtype).eps * size  # the mean of equal numbers is not quite their value
    return jnp.where(varies, sigma, 0)[:, None], jnp.where(varies, 1 / jnp.where(varies, sigma, 1), 0)[:, None]


@compiled(static=("settings", "closed"))
def _by_rows(loss: NetworkLoss, params: Params, batches: Batches, *, settings: Settings, closed: bool) -> Estimate:
    """κ in closed form, or from products with the Hessian of the part above the layer."""
    sigma, inverse = _scales(loss, params, batches, settings)

    def part(batch: Batch) -> jax.Array:
        x, y = checks.inputs_and_targets("relative_flatness", batch)
        at = layer_view.view(loss.apply, settings.layer, params, x)
        W = layer_view.matrix(at.layer, params) * sigma
        a = at.a.astype(W.dtype) * jnp.ravel(inverse)[None]
        if closed:
            return in_closed_form(at, a, W)
        return by_rows(at, a, W, lambda outputs: loss.criterion(outputs, y))

    return exact(average(part, batches))


def _variance(logits: jax.Array, W: jax.Array) -> jax.Array:
    """(rows,) Σ_s p_s ‖w_s‖² − ‖Σ_s p_s w_s‖², without the difference."""
    if logits.shape[1] == 1:
        z = logits[:, 0]
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z) * jnp.sum(W**2)
    centred = W - jnp.mean(W, axis=1, keepdims=True)
    products = centred.T @ centred
    squares = jnp.diagonal(products)
    distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * products, 0)  # exactly 0 on the diagonal
    p = jax.nn.softmax(logits)
    return jnp.sum((p @ distances) * p, axis=1) / 2


def _directions(
    loss: NetworkLoss, params: Params, batches: Batches, settings: Settings
) -> tuple[Any, jax.Array, Callable]:
    """The layer's Hessian; a root R of the weights' products, RᵀR = WᵀW; and v = (inputs, outputs) -> vᵀHv."""
    x = checks.inputs_and_targets("relative_flatness", batches.first)[0]
    layer = layer_view.view(loss.apply, settings.layer, params, x).layer
    leaves, treedef = jax.tree.flatten(params)
    mask = jax.tree.unflatten(treedef, [index == layer.leaf for index in range(len(leaves))])
    H = curvature.hessian(loss, params, batches, where=mask)
    weight = jax.ShapeDtypeStruct(jnp.shape(leaves[layer.leaf]), jnp.result_type(leaves[layer.leaf]))
    sigma, inverse = _scales(loss, params, batches, settings)
    W = layer_view.matrix(layer, params) * sigma
    root = W if W.shape[0] <= W.shape[1] else jnp.linalg.qr(W, mode="r")

    def form(matrix: jax.Array) -> jax.Array:
        kernel = (matrix * inverse).reshape(layer.kernel_shape).astype(layer.site.weight_dtype)
        (own,) = jax.linear_transpose(layer.weights, weight)(kernel)
        v = jax.tree.unflatten(treedef, [own if index == layer.leaf else None for index in range(len(leaves))])
        return trees.dot(v, H.matvec(v))

    return root, W, form


@compiled(static=("settings",))
def _by_products(loss: NetworkLoss, params: Params, batches: Batches, *, settings: Settings) -> Estimate:
    """κ = Σ over inputs c and rows d of R of vᵀHv, v with the one row R_d at c."""
    root, W, form = _directions(loss, params, batches, settings)

    def one(at: jax.Array) -> jax.Array:
        row = root[at % len(root)]
        value: jax.Array = form(jnp.zeros_like(W).at[at // len(root)].set(row))
        return value

    return exact(jnp.sum(jax.lax.map(one, jnp.arange(W.shape[0] * len(root)))))


@compiled(static=("settings",))
def _estimated(loss: NetworkLoss, params: Params, batches: Batches, keys: jax.Array, *, settings: Settings) -> Estimate:
    """The mean of vᵀHv with v = GR."""
    root, W, form = _directions(loss, params, batches, settings)
    like = jnp.zeros((W.shape[0], len(root)), W.dtype)
    return curvature.estimate(jax.lax.map(lambda key: form(rademacher(key, like) @ root), keys))

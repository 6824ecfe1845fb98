"""Relative flatness of one layer as a penalty (FAM)."""

import logging
from typing import Any

import jax
import optax

from steppe.core import checks, losses
from steppe.core.batches import average
from steppe.core.types import Batch, Estimate, Loss, Params
from steppe.curvature import layers
from steppe.curvature.estimators.estimates import exact
from steppe.curvature.layers import last
from steppe.curvature.layers.detection import Layer
from steppe.methods.accumulation import microbatches_of
from steppe.methods.contract import Strength, whole
from steppe.methods.penalties.penalty import added
from steppe.sharpness.parametric import layer_view
from steppe.sharpness.parametric.relative_flatness import by_rows, in_closed_form, is_closed

LOG = logging.getLogger("steppe")


def fam(
    lam: Strength,
    *,
    layer: str | None = None,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of the relative flatness of one layer to the gradients (Adilova et al. 2023, "FAM").

    Minimises ``L(θ) + λ κ(θ)`` with κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_ss' (Petzka et al. 2021), w_s the weights of the
    layer's output s and H_ss' = ∂²L / ∂w_s ∂w_s', L the mean loss of the mini-batch: `sharpness.relative_flatness` of
    that batch, differentiated in *all* parameters, through the weights and through the Hessian.

    Parameters
    ----------
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    layer : the path of the layer's weights in the parameters, see `curvature.find_layers`. None: the matrix that meets
        the batch last; ``curvature.last_layer(loss, params, batch).name`` says which one that
        is, and so does the logger ``steppe``, at level INFO.
    every : the penalty acts on updates 0, k, 2k, ….
    where : add the gradient of κ to some parameters only: globs of their names, a pytree of bools, or a function from
        params to one of these, see `fa`. It changes neither the layer nor κ.
    microbatches : compute κ, which is a mean over examples, in so many equal parts of the batch; see `sam`.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``, and optionally
    ``penalty_loss``. ``state.monitor`` is the last κ, exact, in units of the loss. Stands after methods that replace
    the gradient.

    Cost of an acting update: for the last layer of a loss that is ``losses.of(apply)``, softmax cross-entropy, about
    one gradient, by the closed form of κ. For any other loss, or layer: min(inputs, outputs) products with the Hessian
    of what is above the layer and their derivatives, each of three gradients or so of that part.

    Raises
    ------
    InputError : arguments out of range, when made; when updated a missing loss, batch or params, no layer or none of
        that path; no single last one, where none is named: two heads, a head tied to an embedding; a layer whose κ
        takes more than that (a convolution; one that meets an example more than once).

    Notes
    -----
    The paper penalises the penultimate layer of a network; name it to do the same. The sum is not divided by the
    layer's number of inputs d_in, as it is there: the paper's λ is λ/d_in here. Nor is this its cheap variant
    λ ‖W‖ tr H. The released code cuts the Hessian off the parameters before it is differentiated, so that only
    ⟨w_s, w_s'⟩ has a gradient, and indexes it in another order than it is computed in; here is the gradient of the
    formula.

    The examples' losses must not meet each other, as in a mean over examples they do not: statistics of the batch
    inside the loss (BatchNorm) would add terms that are not seen.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = steppe.losses.of(lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"])
    >>> params = {"in": jnp.eye(2), "out": jnp.array([[1.0, 0.0], [2.0, 1.0]])}
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
    >>> tx = optax.chain(steppe.methods.fam(0.1), optax.sgd(0.1))
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
    >>> round(float(steppe.monitor(state)["fam"].mean), 4)
    0.2517
    """
    if layer is not None and not isinstance(layer, str):
        checks.fail("fam", "layer", "None or the path of a layer's weights", checks.shown(layer))

    parts = microbatches if microbatches is None else whole("fam", "microbatches", microbatches)

    def value(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Estimate]:
        split = microbatches_of("fam", loss, batch, parts)
        at = last.chosen("fam", "loss", layers.program(loss, params, split.first), params, layer)
        LOG.info("fam looks at the layer %s.", at.name)  # once for each compiled program
        found = average(lambda part: _relative_flatness(loss, at, params, part), split)
        return found, exact(found)

    return added("fam", value, lam, every=every, where=where, parts=parts, block=False)


def _relative_flatness(loss: Loss, layer: Layer, params: Params, batch: Batch) -> jax.Array:
    """κ of one layer on one batch."""
    W = layer_view.matrix(layer, params)
    if isinstance(loss, losses.NetworkLoss) and is_closed(loss, layer.name, params, batch):
        x, _ = checks.inputs_and_targets("fam", batch)
        at = layer_view.view(loss.apply, layer.name, params, x)
        return in_closed_form(at, at.a.astype(W.dtype), W)
    if layer.kind != "dense":
        checks.fail("fam", "layer", "a dense one", f"{layer.name!r}, a {layer.kind}")
    size = checks.batch_size("fam", batch)
    if layer.rows != size:
        checks.fail("fam", "layer", "one that meets each example once",
                    f"{layer.name!r}, which meets {layer.rows} rows of {size} examples")  # fmt: skip
    at = layer_view.view(loss, layer.name, params, batch)
    return by_rows(at, at.a.astype(W.dtype), W, lambda value: value)

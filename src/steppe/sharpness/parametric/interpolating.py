"""The interpolating information criterion: the evidence for a network that fits its data exactly."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe.core import checks, entry, trees
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Params
from steppe.sharpness.evaluation import flag


class InterpolatingInformation(NamedTuple):
    """The criterion and its parts; m = NK is the number of outputs.

    Attributes
    ----------
    criterion : norm + sharpness + manifold − log m + 1 + log 4π.
    norm : log ‖θ‖².
    sharpness : 1/m log det JJᵀ.
    manifold : 1/m (log det Hess_M R − log det Hess R); −log 2 of a network taken as linear around θ.
    aligned : the part of ‖θ‖² in the span of J's rows, 1 where θ is a stationary point of the norm among interpolants.
    rank : of JJᵀ, to rounding; below m the determinant is one of rounding errors.
    """

    criterion: jax.Array
    norm: jax.Array
    sharpness: jax.Array
    manifold: jax.Array
    aligned: jax.Array
    rank: jax.Array


def interpolating_information(
    apply: Apply, params: Params, batches: Batch | list[Batch], *, manifold: bool = False
) -> InterpolatingInformation:
    """The interpolating information criterion of a network that fits all outputs (after Hodgkinson et al. 2023).

        IIC = log R(θ) + 1/m log det JJᵀ + 1/m (log det Hess_M R − log det Hess R) − log m + 1 + log 4π,

    with R(θ) = ‖θ‖², J the (m, n) Jacobian of all m = NK outputs in the n parameters, M the set of parameters with
    these outputs and Hess_M R the Hessian of R on it, of size n − m. It is −2/m log p(f) for the density p(f) of the
    outputs f under the prior θ ~ exp(−γR), by Laplace's method around the θ of least norm on M, with γ = m/2R, where p
    is largest. Lower is better. Nothing else of the paper's is assumed, and the constants are our own.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    params : pytree of floating arrays, n scalars.
    batches : a list of batches ``{"x": …, "y": …}`` or ``(x, y)``, or anything else: one batch. The labels are unused.
    manifold : False: the network is taken as linear around θ, Hess_M R = 2I. True: with the curvature of M.

    Returns
    -------
    InterpolatingInformation, exact. Cost: m forward and backward passes over all examples at once, and m² numbers;
    with `manifold` also a matrix of m × n and the Hessian, n²: for small networks. NaN where Hess_M R is not positive
    definite, so that θ is no least norm. Determinants of near-singular matrices are better taken in float64.

    Raises
    ------
    InputError : more outputs than parameters, which leave nothing to interpolate with; parameters or batches that
        cannot be used.

    Notes
    -----
    For a linear network at its interpolant of least norm it is exact: −2/m max_γ log p(y), the evidence of ridge
    regression without noise. Elsewhere it rests on: outputs that equal their targets (a classifier's logits never do;
    there the criterion speaks of the logits as they are), θ near the least norm (see `aligned`), γ large.

    Changes when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node: the prior does
    not follow.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([3.0, 4.0])}
    >>> found = interpolating_information(lambda w, x: x @ w, jnp.array([[3.0], [4.0]]), batch)
    >>> round(float(found.criterion), 4)  # log 25 + 0 − log 2 − log 2 + 1 + log 4π
    5.3636
    """
    name = "interpolating_information"
    known = entry.checked_batches(name, params, batches)
    flag(name, "manifold", manifold)
    rows = [checks.inputs_and_targets(name, stack)[0] for stack in known.stacks]
    x = jax.tree.map(lambda *parts: jnp.concatenate([p.reshape(-1, *p.shape[2:]) for p in parts]), *rows)
    return _information(entry.capture_apply(name, apply, params, [x]), params, x, manifold=manifold)


@compiled(static=("manifold",))
def _information(apply: Apply, params: Params, x: Any, *, manifold: bool) -> InterpolatingInformation:
    outputs, push = jax.linearize(lambda p: apply(p, x).reshape(-1), params)
    m, n = outputs.size, trees.size(params)
    if m > n:
        checks.fail("interpolating_information", "batches", f"of at most {n} outputs, the number of parameters",
                    f"{m} outputs", "Take fewer examples.")  # fmt: skip

    pull = jax.linear_transpose(push, params)
    dtype = trees.accumulator_dtype(params)
    gram = jax.lax.map(lambda e: push(pull(e)[0]), jnp.eye(m, dtype=outputs.dtype)).astype(dtype)
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    least = m * jnp.finfo(dtype).eps * jnp.max(values)
    rank = jnp.sum(values > least)
    values = jnp.maximum(values, jnp.maximum(least, jnp.finfo(dtype).tiny))

    squared = trees.norm_squared(params)
    slope = push(params).astype(dtype)
    multipliers = 2 * vectors @ ((vectors.T @ slope) / values)  # 2θ = Jᵀμ + what is along M
    aligned = jnp.sum(slope * multipliers) / 2 / jnp.where(squared > 0, squared, 1)
    on_manifold = jnp.asarray(-math.log(2), dtype)
    if manifold:
        on_manifold = _on_manifold(lambda p: apply(p, x).reshape(-1), params, multipliers)
    norm, sharpness = jnp.log(squared), jnp.mean(jnp.log(values))
    criterion = norm + sharpness + on_manifold - math.log(m) + 1 + math.log(4 * math.pi)
    return InterpolatingInformation(criterion, norm, sharpness, on_manifold, aligned, rank)


def _on_manifold(outputs: Callable[[Params], jax.Array], params: Params, multipliers: jax.Array) -> jax.Array:
    """1/m (log det Hess_M R − log det Hess R): ∇²(R − μ·f) on the directions that move no output, and 2I."""
    flat, unravel = ravel_pytree(params)
    m = multipliers.size
    J = jax.jacrev(lambda p: outputs(unravel(p)))(flat)
    bent = jax.hessian(lambda p: outputs(unravel(p)) @ multipliers.astype(flat.dtype))(flat)
    along = jnp.linalg.qr(J.T, mode="complete")[0][:, m:]
    values = jnp.linalg.eigvalsh(2 * jnp.eye(flat.size - m, dtype=flat.dtype) - along.T @ bent @ along)
    proper = jnp.all(values > 0)
    logs = jnp.sum(jnp.log(jnp.where(proper, values, 1)))
    return jnp.where(proper, (logs - flat.size * math.log(2)) / m, jnp.nan)

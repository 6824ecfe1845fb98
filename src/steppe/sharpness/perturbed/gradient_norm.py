"""Flatness by the gradient: how large it can get nearby, and how it compares with the curvature."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from steppe import curvature
from steppe.core import checks, entry, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators.probes import gaussian
from steppe.sharpness.evaluation import mean_gradient, strength


class GradientNormFlatness(NamedTuple):
    """How large the gradient gets within a distance ρ.

    Attributes
    ----------
    flatness : ρ times the largest ‖∇L(θ + d)‖ that was found with ‖d‖ ≤ ρ: a lower bound of the maximum.
    gradient_norm : ‖∇L(θ)‖.
    eigenvalue : flatness / ρ². At a minimum and for small ρ, a lower bound of the largest |λ| of the Hessian.
    """

    flatness: jax.Array
    gradient_norm: jax.Array
    eigenvalue: jax.Array


class NormalisedCurvature(NamedTuple):
    """The trace of the Hessian in units of the gradient.

    Attributes
    ----------
    ratio : tr H / ‖∇L‖; ±∞ where the gradient is zero, 0 where the trace is too.
    trace : tr H.
    gradient_norm : ‖∇L‖.
    """

    ratio: Estimate
    trace: Estimate
    gradient_norm: jax.Array


def gradient_norm_flatness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    rho: float | jax.Array = 0.1,
    steps: int = 10,
    key: Key = 0,
) -> GradientNormFlatness:
    """First-order flatness R = ρ max ‖∇L(θ + d)‖ over ‖d‖ ≤ ρ (Zhang et al. 2023, "GAM").

    The maximum is sought by d ← ρ u/‖u‖ with u = ∇ ½‖∇L(θ + d)‖² = H(θ + d) ∇L(θ + d), from d = 0. On a quadratic
    loss each step raises the norm, and at a minimum it is the power method for H². One step, steps=1, is the one that
    the authors train with (they difference gradients in the place of H).

    Parameters
    ----------
    loss : ``loss(params, batch)``, the mean over the batch.
    params : pytree of floating arrays.
    batches : a list of batches, weighted by their sizes, or anything else: one batch. L is the mean over all examples.
    rho : the radius ρ > 0.
    steps : how many; the largest norm met on the way counts, that at d = 0 included.
    key : of the direction that starts where u = 0, as it is at an exact minimum.

    Returns
    -------
    GradientNormFlatness, a lower bound of the maximum, in units of the loss. Cost: about 3 gradients a step, and one,
    over all examples.

    Raises
    ------
    InputError : rho not above 0, steps below 1; parameters, batches or a key that cannot be used.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node: the ball does
    not follow.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bowl = lambda w, batch: jnp.sum(jnp.array([0.5, 2.0]) * w**2) + 0.0 * jnp.mean(batch)
    >>> found = gradient_norm_flatness(bowl, jnp.zeros(2), jnp.ones(1), rho=0.1, steps=20)
    >>> round(float(found.flatness), 4), round(float(found.eigenvalue), 4)  # λmax = 4, times ρ²
    (0.04, 4.0)
    """
    name = "gradient_norm_flatness"
    checks.whole(name, "steps", steps)
    (loss, known), rho = entry.loss_and_batches(name, loss, params, batches), strength(name, "rho", rho, params)
    return _flatness(loss, params, known, rho, checks.key_array(name, key), steps=steps)


@compiled(static=("steps",))
def _flatness(
    loss: Loss, params: Params, batches: Batches, rho: jax.Array, key: jax.Array, *, steps: int
) -> GradientNormFlatness:
    def climb(at: Params, g: Params) -> Params:
        """The next point, along H(at) g."""
        u = trees.unit(curvature.hessian(loss, at, batches).matvec(trees.unit(g)))
        return trees.add_scaled(params, rho, u)

    def step(state: tuple[Params, Params], _: None) -> tuple[tuple[Params, Params], jax.Array]:
        at = climb(*state)
        g = mean_gradient(loss, at, batches)
        return (at, g), trees.norm(g)

    g = mean_gradient(loss, params, batches)
    # where the gradient or its slope is zero, a random direction takes the place of the first gradient
    blind = trees.norm(curvature.hessian(loss, params, batches).matvec(trees.unit(g))) == 0
    start = jax.tree.map(lambda x, r: jnp.where(blind, r, x), g, gaussian(key, params))
    norms = jax.lax.scan(step, (params, start), length=steps)[1]
    flatness = rho * jnp.maximum(trees.norm(g), jnp.max(norms))
    return GradientNormFlatness(flatness, trees.norm(g), flatness / rho**2)


def normalised_curvature(
    loss: Loss, params: Params, batches: Batch | list[Batch], *, probes: int = 32, key: Key = 0
) -> NormalisedCurvature:
    """The normalised Hessian trace tr H / ‖∇L‖ (Wu et al. 2024, "CR-SAM").

    Parameters
    ----------
    loss : ``loss(params, batch)``, the mean over the batch.
    params : pytree of floating arrays.
    batches : a list of batches, weighted by their sizes, or anything else: one batch. L is the mean over all examples.
    probes : random vectors for the trace, see `curvature.trace`.
    key : an int or a JAX key array.

    Returns
    -------
    NormalisedCurvature. The gradient is exact, so the ratio's standard error is that of the trace over ‖∇L‖. Cost:
    probes Hessian-vector products and a gradient over all examples.

    Raises
    ------
    InputError : probes below 1; parameters, batches or a key that cannot be used.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node; not when the
    loss is multiplied by a number. It grows without bound as training ends and ‖∇L‖ vanishes, so compare networks at
    matched gradients, or read `trace`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bowl = lambda w, batch: jnp.sum(w**2) + 0.0 * jnp.mean(batch)
    >>> round(float(normalised_curvature(bowl, jnp.array([3.0, 4.0]), jnp.ones(1)).ratio.mean), 4)  # 4 / 10
    0.4
    """
    name = "normalised_curvature"
    checks.whole(name, "probes", probes)
    loss, known = entry.loss_and_batches(name, loss, params, batches)
    return _normalised(loss, params, known, checks.key_array(name, key), probes=probes)


@compiled(static=("probes",))
def _normalised(loss: Loss, params: Params, batches: Batches, key: jax.Array, *, probes: int) -> NormalisedCurvature:
    size = trees.norm(mean_gradient(loss, params, batches))
    trace = curvature.trace(curvature.hessian(loss, params, batches), key, probes=probes)

    def over(value: jax.Array | float) -> jax.Array:
        return jnp.where(value == 0, 0, value / size)

    return NormalisedCurvature(Estimate(over(trace.mean), over(trace.sem)), trace, size)

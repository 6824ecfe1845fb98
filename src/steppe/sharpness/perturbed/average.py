"""Sharpness as the rise of the loss when the weights move: at random, or one step up the gradient."""

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators.estimates import estimate, exact
from steppe.curvature.estimators.probes import gaussian, uniform
from steppe.sharpness.evaluation import (
    NORMS,
    Norm,
    each,
    flag,
    mean_gradient,
    mean_loss,
    moved,
    over_batches,
    rounding,
    single,
    strength,
    with_rounding,
)


def random_sharpness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    rho: float | jax.Array = 0.005,
    draws: int = 100,
    key: Key = 0,
) -> Estimate:
    """The mean change of the loss under small random noise, S = E|L(θ + e) − L(θ)|/ρ with e = ρ N(0, I)/√n.

    Published as "SAM-sharpness", though nothing in it is adversarial (Mason-Williams et al. 2025, released code).
    The noise has norm ρ in the mean square; L is the mean over all examples. Here only parameters are moved, and n
    counts them; the released code also moves the running statistics of BatchNorm.

    Parameters
    ----------
    loss : ``loss(params, batch)``, the mean over the batch.
    params : pytree of floating arrays, n scalars.
    batches : a list of batches, weighted by their sizes, or anything else: one batch. How they are split is no matter.
    rho : the radius ρ > 0.
    draws : how many noises.
    key : an int or a JAX key array.

    Returns
    -------
    Estimate of S, in units of the loss per unit of distance: the mean over draws and its standard error (over draws,
    the examples held fixed; NaN for one draw). Cost: draws + 1 forward passes over all examples.

    Raises
    ------
    InputError : rho not above 0, draws below 1, parameters, batches or a key that cannot be used.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node.
    For small ρ, S is √(2/π)‖g‖/√n + O(ρ): most of what it sees is the gradient. Float32 knows L to about 10⁻⁷ L, hence
    S to about 10⁻⁷ L/ρ; values near that are rounding, which their standard error then holds, and need float64. In
    bfloat16 moves below 0.4 % of a weight are lost.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> slope = lambda w, batch: 3.0 * w[0] + jnp.mean(batch)
    >>> S = random_sharpness(slope, jnp.zeros(1), jnp.zeros(4), draws=2000)
    >>> abs(float(S.mean) - 3.0 * (2 / jnp.pi) ** 0.5) < 4 * S.sem
    Array(True, dtype=bool)
    """
    name = "random_sharpness"
    checks.whole(name, "draws", draws)
    (loss, known), rho = entry.loss_and_batches(name, loss, params, batches), strength(name, "rho", rho, params)
    return _random(loss, params, known, rho, checks.key_array(name, key), draws=draws)


@compiled(static=("draws",))
def _random(loss: Loss, params: Params, batches: Batches, rho: jax.Array, key: jax.Array, *, draws: int) -> Estimate:
    base = mean_loss(loss, params, batches)
    scale = rho / trees.size(params) ** 0.5

    def change(key: jax.Array) -> jax.Array:
        noisy = trees.add_scaled(params, scale, gaussian(key, params))
        return jnp.abs(mean_loss(loss, noisy, batches) - base) / rho

    found = estimate(jax.lax.map(change, jax.random.split(key, draws)))
    return with_rounding(found, rounding(loss, params, batches.first, base) / rho)


def sam_sharpness(
    loss: Loss, params: Params, batches: Batch | list[Batch], *, rho: float | jax.Array = 0.05, per_batch: bool = False
) -> Estimate:
    """The rise of the loss one step up its gradient, L(θ + ρ g/‖g‖) − L(θ) with g = ∇L(θ) (Foret et al. 2021, eq. 2).

    The norm is global, over all parameters. To first order in ρ this is the maximum over the ball of radius ρ, ρ‖g‖.

    Parameters
    ----------
    loss, params : ``loss(params, batch)``, the mean over the batch; pytree of floating arrays.
    batches : a list of batches, weighted by their sizes, or anything else: one batch.
    rho : the radius ρ > 0.
    per_batch : False: L is the mean over all examples, one step. True: each batch makes its own step and measures its
        own rise (m-sharpness, m the size of a batch), and the rises are averaged; at least as large for small ρ.

    Returns
    -------
    Estimate in units of the loss; 0 where the gradient is zero. Its standard error is 0 (exact for these examples), or
    with per_batch that over batches, as draws of m examples (NaN for one batch); where the rise is no more than the
    rounding of two losses (10 ε |L|), it holds that of their difference: take float64. Cost: one gradient and two
    forward passes over all examples.

    Raises
    ------
    InputError : rho not above 0, parameters or batches that cannot be used.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise or node by node.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bowl = lambda w, batch: jnp.sum(w**2) + 0.0 * jnp.mean(batch)
    >>> round(float(sam_sharpness(bowl, jnp.array([3.0, 4.0]), jnp.ones(1), rho=0.1).mean), 4)  # 5.1² − 5²
    1.01
    >>> float(sam_sharpness(bowl, jnp.zeros(2), jnp.ones(1)).mean)
    0.0
    """
    name = "sam_sharpness"
    flag(name, "per_batch", per_batch)
    (loss, known), rho = entry.loss_and_batches(name, loss, params, batches), strength(name, "rho", rho, params)
    return _sam(loss, params, known, rho, per_batch=per_batch)


@compiled(static=("per_batch",))
def _sam(loss: Loss, params: Params, batches: Batches, rho: jax.Array, *, per_batch: bool) -> Estimate:
    def rise(part: Batches) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How far the loss rises from which value, and whether there is no way up."""
        up, slope = trees.unit_and_norm(mean_gradient(loss, params, part))
        base = mean_loss(loss, params, part)
        return mean_loss(loss, trees.add_scaled(params, rho, up), part) - base, base, slope == 0

    if per_batch:
        unused = jnp.zeros(batches.count)  # nothing is drawn
        (rises, bases, still), shares = each(lambda batch, _: rise(single(batch)), batches, unused)
        found, base = over_batches(rises, shares), over_batches(bases, shares).mean
    else:
        increase, base, still = rise(batches)
        found = exact(increase)
    return with_rounding(found, rounding(loss, params, batches.first, base), jnp.all(still))


def average_sharpness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    rho: float | jax.Array,
    draws: int = 100,
    adaptive: bool = False,
    norm: Norm = "l2",
    key: Key = 0,
) -> Estimate:
    """The mean rise of the loss under random noise, E L_S(θ + d) − L_S(θ) (Andriushchenko et al. 2023, section 3).

    d ~ N(0, ρ² diag c²) for "l2", of norm about ρ‖c‖, not ρ; d ~ U[−ρ, ρ]·c for "linf". c = |θ| if adaptive, else 1.
    To second order the rise is ρ²/2 Σᵢ cᵢ² Hᵢᵢ, and a third of that for "linf".

    Parameters
    ----------
    loss, params : ``loss(params, batch)``, the mean over the batch; pytree of floating arrays.
    batches : a list of batches S, weighted by their sizes, or anything else: one batch. Each has noise of its own. In
        the mean over the noise it is no matter how the examples are split.
    rho : the scale ρ > 0 of the noise. The authors took 0.05 to 0.4 ("l2") and 0.1 to 0.8 ("linf") on ResNets.
    draws : noises for each batch.
    adaptive : whether a weight's noise is in proportion to its magnitude. Weights of zero then stay put.
    norm : "l2" for normal noise, "linf" for uniform noise.
    key : an int or a JAX key array.

    Returns
    -------
    Estimate in units of the loss. With several batches its standard error is that of their spread, which covers the
    noise and the choice of the batches; with one batch it covers the noise alone, the examples held fixed (NaN for one
    draw). Where the rise is no more than rounding, it holds that, see `sam_sharpness`. Cost: draws + 1 forward passes
    over all examples.

    Raises
    ------
    InputError : rho not above 0, draws below 1, an unknown norm, parameters, batches or a key that cannot be used.

    Notes
    -----
    Adaptive: unchanged, draw by draw, when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or
    node by node. Otherwise it changes. Scaling the logits changes both; see `logit_normalised`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> bowl = lambda w, batch: jnp.sum(w**2) + 0.0 * jnp.mean(batch)
    >>> rise = average_sharpness(bowl, jnp.zeros(2), jnp.ones(1), rho=0.1, draws=1000)
    >>> abs(float(rise.mean) - 0.02) < 4 * float(rise.sem)  # ρ²/2 tr H, tr H = 4
    True
    """
    name = "average_sharpness"
    checks.whole(name, "draws", draws)
    flag(name, "adaptive", adaptive)
    checks.one_of(name, "norm", norm, NORMS)
    (loss, known), rho = entry.loss_and_batches(name, loss, params, batches), strength(name, "rho", rho, params)
    keys = checks.key_array(name, key)
    return _average(loss, params, known, rho, keys, draws=draws, adaptive=adaptive, norm=norm)


@compiled(static=("draws", "adaptive", "norm"))
def _average(
    loss: Loss,
    params: Params,
    batches: Batches,
    rho: jax.Array,
    key: jax.Array,
    *,
    draws: int,
    adaptive: bool,
    norm: Norm,
) -> Estimate:
    draw = gaussian if norm == "l2" else uniform

    def rises(batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        part = single(batch)
        base = mean_loss(loss, params, part)

        def rise(key: jax.Array) -> jax.Array:
            noise = trees.scale(rho, draw(key, params))
            return mean_loss(loss, moved(params, noise, adaptive), part) - base

        return jax.lax.map(rise, jax.random.split(key, draws)), base

    (values, bases), shares = each(rises, batches, jax.random.split(key, batches.count))
    found = estimate(values[0]) if len(shares) == 1 else over_batches(jnp.mean(values, axis=1), shares)
    return with_rounding(found, rounding(loss, params, batches.first, over_batches(bases, shares).mean))

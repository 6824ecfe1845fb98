"""Methods that look at the loss at random nearby points."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, trees
from steppe.core.types import Estimate, Key, Params
from steppe.curvature.estimators.estimates import estimate
from steppe.curvature.estimators.probes import gaussian, uniform
from steppe.methods.contract import Call, Strength, as_like, method, unless_zero, whole

Scalar = Callable[[jax.Array], jax.Array]

UNROLLED = 4
"""So many points nearby are looked at without a loop: convolutions inside one are slow on a CPU."""


def nso(
    sigma: Strength = 0.01,
    *,
    pairs: int = 1,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by its mean over two-sided weight noise (Zhang, Li and Ju 2024, "NSO").

        1/(2k) Σⱼ [∇L(θ + σUⱼ) + ∇L(θ − σUⱼ)],   U ~ N(0, I):   the gradient of E L(θ + σU) ≈ L + σ²/2 tr H.

    Parameters
    ----------
    sigma : σ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    pairs : k, how many noises, each with both signs: the term of first order in σ cancels.
    where, microbatches : see `sam`. With `where`, U is zero elsewhere, and tr H is that of the chosen block.
    key : seed of the noise.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is an
    estimate of tr H, 1/k Σⱼ Uⱼᵀ[∇L(θ + σUⱼ) − ∇L(θ − σUⱼ)]/(2σ), good to O(σ²), at no further cost. Cost: 2k gradients,
    for the one that comes in is not used.

    Raises
    ------
    InputError : sigma below 0, pairs below 1, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    Stands first in a chain. The loss is called with the masks that it closes over. In bfloat16, noise of less than
    0.4 % of a weight is lost. The paper's weight of the plain gradient, λ₀, is 0, as in its code.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(jnp.array([1.0, 3.0]) * w**2) / 2
    >>> tx, w = steppe.methods.nso(0.1, pairs=500), jnp.array([1.0, 1.0])
    >>> updates, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> [round(float(u), 3) for u in updates]  # of a quadratic loss the noise cancels
    [1.0, 3.0]
    >>> bool(abs(state.monitor.mean - 4.0) < 4 * state.monitor.sem)  # tr H
    True
    """
    pairs = whole("nso", "pairs", pairs)

    def act(call: Call) -> tuple[Params, Estimate]:
        call, sigma = call.in_loops, call.distance

        def add(total: Params, key: jax.Array) -> tuple[Params, jax.Array]:
            U = call.confined(gaussian(key, call.params))
            up, down = (call.gradient_at(trees.add_scaled(call.params, s * sigma, U)) for s in (1, -1))
            slope = trees.dot(U, jax.tree.map(jnp.subtract, up, down)) / jnp.where(sigma > 0, 2 * sigma, 1)
            return trees.add(trees.add(total, up), down), slope

        total, slopes = _summed(add, call, pairs)
        return as_like(trees.scale(1 / (2 * pairs), total), call.gradient), estimate(slopes)

    return method("nso", act, sigma, called="sigma", where=where, microbatches=microbatches, key=key)


def universal(
    phi: Scalar,
    psi: Scalar,
    measure: Callable[[jax.Array, Params], Params],
    *,
    lam: Strength,
    rho: float,
    samples: int = 1,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
    name: str = "universal",
) -> optax.GradientTransformationExtraArgs:
    """The universal class of sharpness measures (Tahmasebi et al. 2024): minimise L + λρ² S with

        S = φ(1/n Σᵢ ψ(dᵢ)),   dᵢ = [L(θ + ρxᵢ) − L(θ)]/ρ² ≈ xᵢᵀHxᵢ/2 at a critical point,   xᵢ drawn from a measure.

    Added is the gradient λ φ'(1/n Σ ψ(dᵢ)) · 1/n Σᵢ ψ'(dᵢ) [∇L(θ + ρxᵢ) − ∇L(θ)]. With ψ = φ = identity, λ = 1 and
    normal xᵢ it is `trace_sam`; with ψ = e^(−t/2) and φ = t⁻², `det_sam`.

    Parameters
    ----------
    phi, psi : differentiable functions of a scalar.
    measure : ``(key, like) -> x``, a pytree like the parameters.
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    rho : ρ > 0, the distance.
    samples : n.
    where, microbatches : see `sam`. With `where`, xᵢ is zero elsewhere, and S is a function of all parameters still:
        all receive its gradient.
    key : seed of the draws.
    name : under which it is known in errors and in its random stream.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is S; its
    standard error is NaN. Cost: n gradients and a forward pass.

    Raises
    ------
    InputError : arguments out of range, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    dᵢ is a small difference divided by ρ²: float32 knows it to about 10⁻⁷ L/ρ².

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> from steppe.curvature.estimators.probes import gaussian, uniform
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> tx = steppe.methods.universal(jnp.log, jnp.exp, gaussian, lam=0.1, rho=0.1)
    >>> w = jnp.array([1.0, 2.0])
    >>> updates, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> bool(jnp.isfinite(updates).all())
    True
    """
    samples = whole(name, "samples", samples)
    checks.positive(name, "rho", rho)

    def act(call: Call) -> tuple[Params, Estimate]:
        call, base = call.in_loops, call.loss(call.params, call.batch)

        def add(total: Params, key: jax.Array) -> tuple[Params, jax.Array]:
            up = trees.add_scaled(call.params, rho, call.confined(measure(key, call.params)))
            value, gradient = jax.value_and_grad(call.loss)(up, call.batch)
            d = (value - base).astype(trees.accumulator_dtype(value)) / rho**2
            level, slope = jax.value_and_grad(psi)(d)
            more = jax.tree.map(jnp.subtract, as_like(gradient, total), as_like(call.gradient, total))
            return trees.add_scaled(total, slope, more), level

        total, levels = _summed(add, call, samples)
        sharpness, slope = jax.value_and_grad(phi)(jnp.mean(levels))
        scaled = unless_zero(call.strength, call.strength * slope / samples, total)
        return trees.add(call.gradient, scaled), Estimate(sharpness, jnp.full_like(sharpness, jnp.nan))

    return method(name, act, lam, where=where, microbatches=microbatches, key=key, replaces=False)


def trace_sam(
    rho: Strength = 0.01, *, where: Any = None, microbatches: int | None = None, key: Key = 0
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that at a random nearby point, ∇L(θ + ρz), z ~ N(0, I) (Tahmasebi et al. 2024).

    In the mean that of E L(θ + ρz) ≈ L + ρ²/2 tr H: one-sided `nso`, at the cost of a plain step more.

    Parameters
    ----------
    rho : ρ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost. The paper's sphere normalisation is computed but not applied in its code; nor is it here.
    where, microbatches : see `sam`. With `where`, z is zero elsewhere, and tr H is that of the chosen block.
    key : seed of the noise.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is
    zᵀ[∇L(θ + ρz) − ∇L(θ)]/ρ, an estimate of tr H to O(ρ). Cost: one gradient more.

    Raises
    ------
    InputError : rho below 0, when made; a missing loss, batch or params, when updated.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> tx, w = steppe.methods.trace_sam(0.1), jnp.zeros(1000)
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> bool(abs(state.monitor.mean - 1000) < 4 * 2000**0.5)
    True
    """

    def act(call: Call) -> tuple[Params, Estimate]:
        rho, z = call.distance, call.confined(gaussian(call.key, call.params))
        found = call.gradient_at(trees.add_scaled(call.params, rho, z))
        change = trees.dot(z, jax.tree.map(jnp.subtract, found, call.gradient)) / jnp.where(rho > 0, rho, 1)
        return found, Estimate(change, jnp.full_like(change, jnp.nan))

    return method("trace_sam", act, rho, called="rho", where=where, microbatches=microbatches, key=key)


def det_sam(
    lam: Strength = 1.0,
    *,
    rho: float = 1.0,
    samples: int = 1,
    box: float = 0.01,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add a gradient that lowers the determinant of the Hessian: `universal` with ψ = e^(−t/2), φ = t⁻², x ~ U[−c, c]ⁿ.

    Over all of space instead of a box, ∫ e^(−xᵀHx/4) dx ∝ det(H)^(−1/2), so that φ of it is ∝ det H (Tahmasebi 2024).

    Parameters
    ----------
    lam, rho, samples, where, microbatches, key : see `universal`.
    box : c, the half width of the box.

    Returns
    -------
    As `universal`.

    Raises
    ------
    InputError : as `universal`; a box that is not positive.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> tx, w = steppe.methods.det_sam(), jnp.ones(3)
    >>> updates, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> bool(jnp.abs(updates - w).max() < 0.02)  # steps of up to 0.01
    True
    """
    checks.positive("det_sam", "box", box)

    def within(key: jax.Array, like: Params) -> Params:
        return trees.scale(box, uniform(key, like))

    psi, phi = lambda t: jnp.exp(-t / 2), lambda t: t**-2
    settings = {"samples": samples, "where": where, "microbatches": microbatches, "key": key}
    return universal(phi, psi, within, lam=lam, rho=rho, name="det_sam", **settings)


def frob_sam(
    lam: Strength = 0.005,
    *,
    rho: float = 0.005,
    samples: int = 2,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of λ/(2ρ²) Var L(θ + ρz), z ~ N(0, I) (Tahmasebi et al. 2024, "Frob-SAM").

    At a critical point that variance is about ρ⁴/2 · ‖H‖²_F; elsewhere ρ²‖∇L‖² comes first, and is penalised too. The
    gradient is λ/ρ² times the sample covariance (over n − 1) of L(θ + ρzᵢ) and ∇L(θ + ρzᵢ), unbiased.

    Parameters
    ----------
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    rho : ρ > 0.
    samples : n, at least 2.
    where, microbatches : see `sam`. With `where`, z is zero elsewhere, and H is the chosen parameters' block; all
        parameters receive the gradient of the variance.
    key : seed of the draws.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is
    2 Var L/ρ⁴, at a critical point an estimate of ‖H‖²_F; its standard error is NaN. Cost: n gradients.

    Raises
    ------
    InputError : arguments out of range, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    Differences of L are small: float32 knows their variance to about (10⁻⁷ L)².

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> tx, w = steppe.methods.frob_sam(rho=0.1, samples=2000), jnp.zeros(10)
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> bool(abs(state.monitor.mean - 10) < 2)  # ‖I‖²
    True
    """
    samples = whole("frob_sam", "samples", samples, least=2)
    checks.positive("frob_sam", "rho", rho)

    def act(call: Call) -> tuple[Params, Estimate]:
        call, base = call.in_loops, call.loss(call.params, call.batch)

        def add(sums: tuple[Params, Params], key: jax.Array) -> tuple[tuple[Params, Params], jax.Array]:
            up = trees.add_scaled(call.params, rho, call.confined(gaussian(key, call.params)))
            value, gradient = jax.value_and_grad(call.loss)(up, call.batch)
            rise = (value - base).astype(trees.accumulator_dtype(value))
            plain, weighted = sums
            wide = as_like(gradient, plain)
            return (trees.add(plain, wide), trees.add_scaled(weighted, rise, wide)), rise

        (plain, weighted), rises = _summed(add, call, samples, copies=2)
        mean = jnp.mean(rises)
        covariance = trees.add_scaled(weighted, -mean, plain)
        scaled = unless_zero(call.strength, call.strength / rho**2 / (samples - 1), covariance)
        spread = 2 * jnp.sum((rises - mean) ** 2) / (samples - 1) / rho**4
        return trees.add(call.gradient, scaled), Estimate(spread, jnp.full_like(spread, jnp.nan))

    return method("frob_sam", act, lam, where=where, microbatches=microbatches, key=key, replaces=False)


def _summed(add: Callable, call: Call, count: int, copies: int = 1) -> tuple[Any, jax.Array]:
    """``(total, key) -> (total, value)`` over so many keys, from zeros like the gradient in the dtype of sums."""
    zeros = trees.zero_sums(call.gradient)
    start, keys = (zeros if copies == 1 else (zeros,) * copies), jax.random.split(call.key, count)
    if count > UNROLLED:
        return jax.lax.scan(add, start, keys)
    outs = []
    for at in range(count):
        start, out = add(start, keys[at])
        outs.append(out)
    return start, jnp.stack(outs)

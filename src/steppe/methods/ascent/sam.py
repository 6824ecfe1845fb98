"""Sharpness-aware minimisation: the gradient is taken where the loss is higher nearby."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, losses, trees
from steppe.core.types import Batch, Estimate, Params
from steppe.curvature.estimators.estimates import estimate, exact
from steppe.methods.accumulation import accumulate, part_shares, part_size, split_batch
from steppe.methods.contract import Call, Strength, as_like, method, whole


def sam(
    rho: Strength = 0.05, *, every: int = 1, where: Any = None, microbatches: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that at the highest nearby point, ∇L(θ + ρ g/‖g‖) (Foret et al. 2021, eq. 3).

    g is the gradient that comes in, ∇L(θ), and its norm the global one over all parameters. Stands first in a chain:

        tx = optax.chain(steppe.methods.sam(0.05), optax.sgd(0.1, momentum=0.9))
        updates, state = tx.update(grads, state, params, loss=loss, batch=batch)

    Parameters
    ----------
    rho : ρ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    every : on updates 0, k, 2k, … the gradient is replaced, on the others it stays.
    where : perturb some parameters only: globs of their names, ``"blocks.*.attn"`` or a list of such (what a module's
        name matches is all in it); a pytree of bools, a prefix of params; or a function from params to one of these. g
        in the step ρ g/‖g‖ is then the gradient in these parameters and zero elsewhere. All parameters receive their
        gradient at the perturbed point (as in "SAM-ON", Mueller et al. 2023).
    microbatches : take the gradient in so many equal parts of the batch: the same one, to rounding, in the memory of
        one part. The loss must treat examples alike: dropout masks that it closes over are those of one part, repeated.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. The loss is called again with
    the masks that it closes over, and whatever else it does besides returning a number (such as statistics of
    BatchNorm) is lost, as it should be. ``state.monitor`` is ρ‖g‖. Cost: one gradient more.

    Raises
    ------
    InputError : rho below 0, every below 1, when made; when updated a missing loss, batch or params, microbatches that
        do not divide the batch, a place in a chain after the optimiser or another method, or inside `optax.MultiSteps`.

    Notes
    -----
    Where the gradient is zero the point is not perturbed. What is added before SAM in a chain, such as weight decay, is
    lost: SAM replaces what comes in. Under `shard_map`, with parameters that vary over devices (`jax.lax.pcast`) and a
    loss without ``pmean``, each device is perturbed by its own gradient (`m_sam`); under `jit` with a sharded batch the
    batch is one. Weight decay is not part of g unless it is part of the loss.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = steppe.methods.sam(0.5)
    >>> updates, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> [round(float(u), 3) for u in updates], float(state.monitor.mean)  # w + 0.5 w/‖w‖, and 0.5 ‖w‖
    ([3.3, 4.4], 2.5)
    """

    def act(call: Call) -> tuple[Params, Estimate]:
        return _uphill(call, *trees.unit_and_norm(call.confined(call.gradient)))

    return method("sam", act, rho, called="rho", every=every, where=where, microbatches=microbatches)


def asam(
    rho: Strength = 0.5,
    *,
    eta: float = 0.01,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM in units of the weights, ∇L(θ + ρ T²g/‖Tg‖) with T = |θ| + η (Kwon et al. 2021, eq. 6).

    T is 1 for parameters of fewer than two axes (biases, scales of normalisation).

    Parameters
    ----------
    rho, every, where, microbatches : see `sam`. ρ counts in units of the weights: ten times that of `sam` is usual.
    eta : η ≥ 0. At 0, weights of zero stay put, and the perturbed point does not change when layers of a ReLU network
        without biases are rescaled, layer-wise or node by node.

    Returns
    -------
    As `sam`; ``state.monitor`` is ρ‖Tg‖.

    Raises
    ------
    InputError : as `sam`; eta below 0.

    Notes
    -----
    The released code takes T = |w| + η for every parameter whose name contains "weight", BatchNorm's scale included.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w)
    >>> w = jnp.array([[3.0, 4.0]])
    >>> tx = steppe.methods.asam(0.5, eta=0.0)
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> float(state.monitor.mean)  # ρ‖Tg‖ = 0.5 ‖(3, 4)‖
    2.5
    """
    checks.real("asam", "eta", eta, least=0.0)

    def act(call: Call) -> tuple[Params, Estimate]:
        units = jax.tree.map(lambda w: jnp.abs(w) + eta if w.ndim >= 2 else jnp.ones_like(w), call.params)
        towards, slope = trees.unit_and_norm(trees.multiply(units, call.confined(call.gradient)))
        return _uphill(call, trees.multiply(units, towards), slope)

    return method("asam", act, rho, called="rho", every=every, where=where, microbatches=microbatches)


def m_sam(
    rho: Strength = 0.05,
    *,
    shards: int = 2,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM shard by shard, 1/m Σⱼ ∇Lⱼ(θ + ρ gⱼ/‖gⱼ‖), gⱼ = ∇Lⱼ(θ) on the j-th of m parts (Behdin et al. 2022).

    Parameters
    ----------
    rho, every, where : see `sam`.
    shards : m, disjoint parts of equal size in the order of the batch; 1 is `sam`. (Foret et al. call the *size* of a
        part m.)
    microbatches : split the shards further where that takes less memory: to parts of the batch's size over this number,
        or smaller ones.

    Returns
    -------
    As `sam`; ``state.monitor`` is the mean of ρ‖gⱼ‖ with its standard error over shards. Cost: two gradients, for the
    one that comes in is not used; the memory of one shard.

    Raises
    ------
    InputError : as `sam`; shards below 1, or none of the batch's divisors. The loss must treat examples alike: dropout
        masks that it closes over are those of one shard, repeated.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, x: jnp.mean(jnp.square(x * w))
    >>> tx = steppe.methods.m_sam(0.5, shards=2)
    >>> w, x = jnp.array(1.0), jnp.array([1.0, 3.0])
    >>> updates, state = tx.update(jax.grad(loss)(w, x), tx.init(w), w, loss=loss, batch=x)
    >>> float(updates), float(state.monitor.mean)  # mean of 2x²·1.5, and of 0.5·2x²
    (15.0, 5.0)
    """
    shards = whole("m_sam", "shards", shards)
    parts = microbatches if microbatches is None else whole("m_sam", "microbatches", microbatches)

    def act(call: Call) -> tuple[Params, Estimate]:
        split, within = split_batch("m_sam", "shards", call.batch, shards), None
        if parts is not None:
            size = part_size("m_sam", "microbatches", call.batch, parts)
            within = _fewest_parts(part_size("m_sam", "shards", call.batch, shards), size)
        shard = call._replace(loss=accumulate("m_sam", call.loss, within)).in_loops

        def add(total: Params, at: tuple[Batch, jax.Array]) -> tuple[Params, jax.Array]:
            part, share = at
            g = call.confined(jax.grad(shard.loss)(call.params, part))
            gradient, rise = _uphill(shard._replace(batch=part), *trees.unit_and_norm(g))
            return jax.tree.map(lambda t, g: t + losses.weigh(share, g.astype(t.dtype)), total, gradient), jnp.asarray(
                rise.mean
            )

        shares = part_shares(call.loss, split)
        total, rises = jax.lax.scan(add, trees.zero_sums(call.gradient), (split, shares))
        return as_like(total, call.gradient), estimate(rises)

    return method("m_sam", act, rho, called="rho", every=every, where=where)


def _fewest_parts(shard: int, size: int) -> int:
    """The smallest number of equal parts of a shard that are no larger than `size`."""
    return next(parts for parts in range(1, shard + 1) if shard % parts == 0 and shard // parts <= size)


def gam(
    rho: Strength = 0.2,
    *,
    ascent: float = 0.1,
    beta: tuple[float, float] = (0.5, 0.6),
    gamma: float = 0.03,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gradient-norm aware minimisation, the released step of four gradients (Zhang et al. 2023, "GAM").

    It goes towards small R = ρ max ‖∇L(θ + d)‖ over ‖d‖ ≤ ρ, the first-order flatness, at a minimum ρ² λmax. With
    g₀ = ∇L(θ), r′ = `ascent` · ρ and v̂ = v/‖v‖:

        g₁ = ∇L(θ + r′ĝ₀),   p = θ + ρ ĥ with h = g₁ − g₀,   g₂ = ∇L(p),   g₃ = ∇L(p + r′ĝ₂),
        a = β₁ g₁ + (1 − β₁) g₃,   m = g₀ + (1 − β₀) g₂,   step = a − γ (m − its projection on a).

    Parameters
    ----------
    rho : ρ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    ascent : r′ as a part of ρ.
    beta : (β₀, β₁).
    gamma : γ. The defaults are those for ResNets on CIFAR-100.
    every, where, microbatches : see `sam`. With `where`, ĝ₀, ĥ and ĝ₂ are directions in the chosen parameters, and R is
        the largest gradient in these; the step mixes the gradients in all of them.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is ρ‖g₂‖, a
    lower bound of R. Cost: three gradients more.

    Raises
    ------
    InputError : rho below 0, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    This follows the authors' code, which differences gradients in the place of a product with the Hessian and mixes
    four of them; the objective itself is measured by `sharpness.gradient_norm_flatness`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
    >>> tx, w = steppe.methods.gam(), jnp.array([0.0, 1.0])
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> round(float(state.monitor.mean), 2)  # 0.2 · 4 · 1.2
    0.96
    """
    beta_0, beta_1 = (checks.real("gam", "beta", b, least=0.0, most=1.0) for b in beta)
    checks.real("gam", "ascent", ascent, least=0.0)
    checks.real("gam", "gamma", gamma, least=0.0)

    def act(call: Call) -> tuple[Params, Estimate]:
        rho, g0 = call.distance, call.gradient

        def uphill(at: Params, g: Params, length: jax.Array) -> Params:
            return trees.add_scaled(at, length, trees.unit(call.confined(g)))

        g1 = call.gradient_at(uphill(call.params, g0, ascent * rho))
        p = uphill(call.params, jax.tree.map(jnp.subtract, g1, g0), rho)
        g2 = call.gradient_at(p)
        g3 = call.gradient_at(uphill(p, g2, ascent * rho))
        a = _mixed((beta_1, g1), (1 - beta_1, g3))
        m = _mixed((1.0, g0), (1 - beta_0, g2))
        across = _mixed((1.0, m), (-trees.dot(trees.unit(a), m), trees.unit(a)))
        return _mixed((1.0, a), (-gamma, across)), exact(rho * trees.norm(call.confined(g2)))

    return method("gam", act, rho, called="rho", every=every, where=where, microbatches=microbatches)


def cr_sam(
    rho: Strength = 0.1,
    *,
    gamma: float = 0.1,
    beta: float = 0.01,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """SAM with the curvature along the gradient held down (Wu et al. 2024, "CR-SAM"), as released.

    With g± = ∇L(θ ± ρĝ) the gradient becomes g₊ + γ (g₊ + g₋ − 2g) + β (g₊ − g₋).

    Parameters
    ----------
    rho : ρ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost.
    gamma, beta : weights of the two differences.
    every, where, microbatches : see `sam`. With `where`, ĝ is a direction in the chosen parameters.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is
    ĝᵀ(g₊ − g₋)/(2ρ), the curvature ĝᵀHĝ along the gradient to O(ρ²). Cost: two gradients more.

    Raises
    ------
    InputError : arguments below 0, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    The paper's regulariser is built on tr H/‖∇L‖ (`sharpness.normalised_curvature`), which its code neither divides nor
    takes the trace of; we could not read the exact form, and follow the code.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
    >>> tx, w = steppe.methods.cr_sam(), jnp.array([0.0, 1.0])
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> round(float(state.monitor.mean), 3)
    4.0
    """
    checks.real("cr_sam", "gamma", gamma, least=0.0)
    checks.real("cr_sam", "beta", beta, least=0.0)

    def act(call: Call) -> tuple[Params, Estimate]:
        rho, towards = call.distance, trees.unit(call.confined(call.gradient))
        up, down = (call.gradient_at(trees.add_scaled(call.params, s * rho, towards)) for s in (1, -1))
        found = _mixed((1 + gamma + beta, up), (gamma - beta, down), (-2 * gamma, call.gradient))
        curvature = trees.dot(towards, jax.tree.map(jnp.subtract, up, down)) / jnp.where(rho > 0, 2 * rho, 1)
        return found, exact(curvature)

    return method("cr_sam", act, rho, called="rho", every=every, where=where, microbatches=microbatches)


def _mixed(*parts: tuple[float | jax.Array, Params]) -> Params:
    """Σ weight · tree."""
    total, *others = (trees.scale(weight, tree) for weight, tree in parts)
    return functools.reduce(trees.add, others, total)


def _uphill(call: Call, towards: Params, slope: jax.Array) -> tuple[Params, Estimate]:
    """The gradient at θ + ρ `towards`, and by how much the loss rises on the way there, ρ · slope to first order."""
    up = trees.add_scaled(call.params, call.distance, towards)
    return call.gradient_at(up), exact(call.distance * slope)

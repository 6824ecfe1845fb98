"""Entropy-SGD: the gradient of the loss's local entropy, which a wide valley has more of than a deep one."""

from typing import Any

import jax
import optax

from steppe.core import checks, trees
from steppe.core.types import Estimate, Key, Params
from steppe.curvature.estimators.estimates import exact
from steppe.curvature.estimators.probes import gaussian
from steppe.methods.contract import Call, Strength, as_like, method, whole


def entropy_sgd(
    gamma: Strength = 0.03,
    *,
    steps: int = 20,
    rate: float = 0.1,
    average: float = 0.75,
    noise: float = 1e-4,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that of the negative local entropy, γ(θ − μ) (Chaudhari et al. 2017, "Entropy-SGD").

    Descends on −log ∫ exp(−L(x) − γ/2 ‖θ − x‖²) dx, whose gradient is γ(θ − E x), x from the density in the integral.
    Langevin dynamics draws x, and an average that forgets takes the expectation: from x = μ = θ, `steps` times

        x ← x − η[∇L(x) + γ(x − θ)] + √η ε N(0, I),      μ ← α μ + (1 − α) x,      η = rate, ε = noise, α = average.

    Parameters
    ----------
    gamma : γ > 0: a float, a traced value, or an Optax schedule (the paper raises it, "scoping"). A large γ looks at
        what is near: the plain gradient is the limit γ → ∞ with a rate of order 1/γ, and there is none for γ → 0,
        where this vanishes. A literal 0 is therefore refused.
    steps : of the chain.
    rate : η > 0, in units of a learning rate; the chain is stable below about 2/(γ + λmax), λmax the largest eigenvalue
        of the Hessian.
    average : α in [0, 1).
    noise : ε ≥ 0; √2 at the temperature of the density, in practice far below. 0: the chain only descends.
    where : the chain moves some parameters only, see `sam`. The others receive their gradient's average along the chain
        with the same weights, one step behind: from ν = ∇L(θ), ν ← α ν + (1 − α) ∇L(x) at each step's start.
    microbatches : see `sam`.
    key : seed of the noise.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``. ``state.monitor`` is ‖θ − μ‖,
    how far the chain's average got. Cost: steps − 1 gradients more, for the one that comes in is the chain's first.

    Raises
    ------
    InputError : arguments out of range, when made; a missing loss, batch or params, when updated.

    Notes
    -----
    Stands first in a chain. The factor γ belongs to the gradient and is small: the released code leaves it out. To
    follow that code multiply the learning rate by 1/γ. Its noise is √2 times larger than the paper's, which is ours.
    The paper draws a new mini-batch for every step of the chain; here all are on the update's batch and its masks.

    On a quadratic loss with Hessian H a long chain gives γH(H + γI)⁻¹θ: steep directions are capped at γ. The chain is
    kept as a difference from θ in at least float32, so that small steps are not lost in bfloat16.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(jnp.array([1.0, 4.0]) * w**2) / 2
    >>> tx, w = steppe.methods.entropy_sgd(1.0, steps=200, noise=0.0), jnp.array([1.0, 1.0])
    >>> updates, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> [round(float(u), 3) for u in updates]  # 1/(1 + 1) and 4/(4 + 1)
    [0.5, 0.8]
    """
    steps = whole("entropy_sgd", "steps", steps)
    checks.positive("entropy_sgd", "rate", rate)
    checks.real("entropy_sgd", "noise", noise, least=0.0)
    if not checks.is_traced(checks.real("entropy_sgd", "average", average, least=0.0, most=1.0)) and average == 1:
        checks.fail("entropy_sgd", "average", "a number of at least 0 and below 1", average)

    def act(call: Call) -> tuple[Params, Estimate]:
        call, gamma = call.in_loops, call.strength
        others_of = lambda tree: trees.partition(tree, call.where)[1]  # noqa: E731

        def moved(x: Params, mu: Params, nu: Params, gradient: Params, key: jax.Array) -> tuple[Params, Params, Params]:
            """One step; x and μ are differences from θ, ν is the average gradient of the parameters that stay."""
            x = trees.add_scaled(x, -rate, trees.add(trees.scale(gamma, x), call.confined(gradient)))
            x = trees.add_scaled(x, rate**0.5 * noise, call.confined(gaussian(key, x)))
            mu = trees.add_scaled(trees.scale(average, mu), 1 - average, x)
            return x, mu, trees.add_scaled(trees.scale(average, nu), 1 - average, others_of(gradient))

        def further(chain: tuple[Params, Params, Params], key: jax.Array) -> tuple[tuple[Params, Params, Params], None]:
            x, mu, nu = chain
            return moved(x, mu, nu, call.gradient_at(trees.add(call.params, x)), key), None

        still, keys = trees.zero_sums(call.params), jax.random.split(call.key, steps)
        resting = as_like(others_of(call.gradient), others_of(still))
        (_, mu, nu), _ = jax.lax.scan(further, moved(still, still, resting, call.gradient, keys[0]), keys[1:])
        chosen, _ = trees.partition(trees.scale(-gamma, mu), call.where)
        return as_like(trees.merge(chosen, nu), call.gradient), exact(trees.norm(mu))

    never = "The local entropy has no gradient at 0; the plain gradient is the limit of a large gamma."
    settings = {"where": where, "microbatches": microbatches, "key": key}
    return method("entropy_sgd", act, gamma, called="gamma", no_zero=never, **settings)

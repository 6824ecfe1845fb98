"""The second moment of the gradients of single examples, C = 1/N Σᵢ gᵢgᵢᵀ, without the matrix."""

import jax
import jax.numpy as jnp

from steppe import curvature
from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches, average
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Params
from steppe.curvature import Operator, layers
from steppe.curvature.estimators.probes import rademacher

SOLVER_STEPS, SOLVER_TOLERANCE = 1000, 1e-6
"""Of conjugate gradients: products, and the residual as a part of the right-hand side."""


def quotient(a: jax.Array | float, b: jax.Array | float) -> jax.Array:
    """a/b, and 0 where b is."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


@compiled(static=("both",))
def diagonals(loss: losses.NetworkLoss, params: Params, batches: Batches, *, both: bool) -> tuple:
    """The diagonals of C and (`both`) of the Gauss-Newton matrix, two pytrees like params, example by example."""
    zeros = trees.zero_sums(params)

    def one(totals: tuple[Params, Params], at: tuple[Batch, jax.Array]) -> tuple[tuple[Params, Params], None]:
        example, share = at
        x, y = jax.tree.map(lambda leaf: leaf[None], checks.inputs_and_targets("takeuchi", example))
        outputs, pull = jax.vjp(lambda p: layers.through(loss.apply)(p, x), params)
        own = lambda f: loss.criterion(f.reshape(outputs.shape), y)  # noqa: E731
        f = outputs.reshape(-1)
        back = lambda u: pull(u.reshape(outputs.shape))[0]  # noqa: E731
        g = back(jax.grad(own)(f))
        C = jax.tree.map(lambda total, g: total + losses.weigh(share, g.astype(total.dtype) ** 2), totals[0], g)
        if not both:
            return (C, totals[1]), None
        S, J = jax.hessian(own)(f), jax.vmap(back)(jnp.eye(f.size, dtype=f.dtype))

        def add(total: jax.Array, j: jax.Array) -> jax.Array:
            j = j.astype(total.dtype)
            return total + losses.weigh(share, jnp.sum(j * jnp.tensordot(S.astype(total.dtype), j, 1), axis=0))

        return (C, jax.tree.map(add, totals[1], J)), None

    def part(batch: Batch) -> tuple[Params, Params]:
        shares = losses.shares(losses.weight_of(loss), batch)
        return jax.lax.scan(one, (zeros, zeros), (batch, shares))[0]

    return average(part, batches)


def signed_gradient(loss: losses.NetworkLoss, params: Params, batches: Batches, key: jax.Array) -> Params:
    """Σᵢ ±√pᵢ gᵢ, whose second moment over the signs is C; pᵢ is an example's share, 1/N unless there are weights."""
    count = batches.examples
    signs = batches.cut(rademacher(key, jnp.zeros(count, trees.accumulator_dtype(params))))
    shares = entry.example_shares(loss, batches)
    signs = [sign * jnp.sqrt(share).astype(sign.dtype) for sign, share in zip(signs, shares, strict=True)]
    signed_batches = Batches(tuple(zip(batches.stacks, signs, strict=True)))

    def signed_loss(params: Params, signed: tuple[Batch, jax.Array]) -> jax.Array:
        x, y = checks.inputs_and_targets("takeuchi", signed[0])
        values = losses.example_losses(loss.criterion, layers.through(loss.apply)(params, x), y)
        return jnp.mean(losses.weigh(signed[1], values))

    gradient = average(lambda signed: jax.grad(signed_loss)(params, signed), signed_batches)
    return trees.scale(count, gradient)


@compiled
def solve(
    loss: losses.NetworkLoss,
    params: Params,
    batches: Batches,
    *,
    H: Operator,
    alpha: jax.Array,
    keys: jax.Array,
) -> Estimate:
    """The mean of vᵀ(H + αI)⁻¹v."""

    def one(key: jax.Array) -> jax.Array:
        v = signed_gradient(loss, params, batches, key)
        shifted = lambda u: trees.add_scaled(H.matvec(u), alpha, u)  # noqa: E731
        solution = jax.scipy.sparse.linalg.cg(shifted, v, tol=SOLVER_TOLERANCE, maxiter=SOLVER_STEPS)[0]
        return trees.dot(v, solution)

    return curvature.estimate(jax.lax.map(one, keys))


@compiled
def ratio(
    loss: losses.NetworkLoss,
    params: Params,
    batches: Batches,
    *,
    H: Operator,
    alpha: jax.Array,
    keys: jax.Array,
) -> Estimate:
    """Estimates of tr C and tr H, independent, one by the other."""
    signed = lambda key: trees.norm_squared(signed_gradient(loss, params, batches, key))  # noqa: E731
    C = curvature.estimate(jax.lax.map(signed, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)))
    trace = curvature.trace(H, keys[0], probes=len(keys))
    below = trace.mean + alpha
    value = quotient(C.mean, below)
    return Estimate(value, jnp.sqrt(quotient(C.sem, below) ** 2 + quotient(value * trace.sem, below) ** 2))

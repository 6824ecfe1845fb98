"""Lanczos' tridiagonalisation of an operator."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe.core.types import Params
from steppe.curvature import operators
from steppe.curvature.layout import spread
from steppe.curvature.operators import Operator


class Tridiagonal(NamedTuple):
    """T of A Qₘᵀ = Qₘᵀ Tₘ + βₘ qₘ₊₁ eₘᵀ with orthonormal rows Q.

    Attributes
    ----------
    diagonal : (m,).
    beside : β₁ … βₘ₋₁, (m − 1,), the off-diagonal. All entries are zero from where the Krylov space is exhausted, and
        NaN from where a product was not finite.
    """

    diagonal: jax.Array
    beside: jax.Array


class _State(NamedTuple):
    """Rows Q so far, zero beyond; T so far, with the length that leads on; and by what products are divided."""

    Q: jax.Array
    diagonal: jax.Array
    beside: jax.Array
    size: jax.Array


@functools.cache
def tridiagonal(steps: int) -> Callable[[Operator, jax.Array], Tridiagonal]:
    """``(A, start) -> Tridiagonal`` after m = `steps` products, `start` flat, (n,). Memory: about nm numbers.

    Every vector is made orthogonal to all before it, twice: the quadrature then has no copies of converged eigenvalues.
    """

    def computed(A: Operator, start: jax.Array) -> Tridiagonal:
        unravel, multiply = flattening(A)[1], operators.multiplication(A)

        def step(at: jax.Array, state: _State) -> _State:
            image = spread(ravel_pytree(multiply(unravel(state.Q[at])))[0].astype(start.dtype))
            # products are divided by the size of the first, so that no square leaves the range of the dtype
            size = jnp.where(at == 0, _positive(jnp.max(jnp.abs(image))), state.size)
            image = image / size
            diagonal = state.diagonal.at[at].set(state.Q[at] @ image)
            for _ in range(2):
                image = image - jnp.matmul(
                    jnp.matmul(state.Q, image, precision="highest"), state.Q, precision="highest"
                )
            length = jnp.linalg.norm(image)
            met = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(state.beside, initial=0))
            # a shorter remainder is rounding: the space is exhausted, and all that follows is zero. NaN is not shorter
            ends = length <= 30 * jnp.finfo(start.dtype).eps * met
            following = jnp.where(ends, 0, image / _positive(length))
            return _State(
                spread(state.Q.at[at + 1].set(following, mode="drop")),
                diagonal,
                state.beside.at[at].set(jnp.where(ends, 0, length)),
                size,
            )

        start = spread(start)
        Q = spread(jnp.zeros((steps, start.size), start.dtype).at[0].set(start / jnp.linalg.norm(start)))
        empty = jnp.zeros(steps, start.dtype)
        found = jax.lax.fori_loop(0, steps, step, _State(Q, empty, empty, jnp.ones((), start.dtype)))
        return Tridiagonal(found.diagonal * found.size, found.beside[:-1] * found.size)

    return operators.compiled(computed)


def _positive(x: jax.Array) -> jax.Array:
    """The same, and 1 in the place of 0."""
    return jnp.where(x == 0, 1, x)


def flattening(A: Operator) -> tuple[jax.Array, Callable[[jax.Array], Params]]:
    """A flat vector of zeros for A, in the dtype of its sums, and the way back to pytrees."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), A.like)
    flat, unravel = ravel_pytree(zeros)
    return flat.astype(A.dtype), lambda v: unravel(v.astype(flat.dtype))


def dense(T: Tridiagonal) -> jax.Array:
    """The (m, m) matrix."""
    return jnp.diag(T.diagonal) + jnp.diag(T.beside, 1) + jnp.diag(T.beside, -1)

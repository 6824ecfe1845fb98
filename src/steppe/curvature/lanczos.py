"""Lanczos' tridiagonalisation of an operator (by matfree), safe where it breaks down."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from matfree import decomp

from steppe.curvature import operators
from steppe.curvature.operators import Operator
from steppe.typing import Params


class Tridiagonal(NamedTuple):
    """A Qₘᵀ = Qₘᵀ Tₘ + βₘ qₘ₊₁ eₘᵀ with orthonormal rows Q.

    Attributes
    ----------
    basis : Q, (m, n).
    diagonal : of T, (m,).
    beside : β₁ … βₘ: the off-diagonal of T, and the length of what is left over.
    length : how many rows are sound. The Krylov space is exhausted after them where it is below m; all entries
        beyond are zero.
    rest : qₘ₊₁, (n,), of length βₘ.
    """

    basis: jax.Array
    diagonal: jax.Array
    beside: jax.Array
    length: jax.Array
    rest: jax.Array


@functools.cache
def tridiagonal(steps: int) -> Callable[..., Tridiagonal]:
    """``(A, start) -> Tridiagonal`` after m = `steps` products; ``(A, start, locked)`` on the complement of `locked`.

    `start` is a flat vector (n,), `locked` (l, n) has rows that are orthonormal or zero. Memory: about 2nm numbers, and
    half of them where the basis is not used.
    """
    # without reorthogonalisation matfree 0.6.3 computes every product twice, which costs more where products are dear
    algorithm = decomp.tridiag_sym(steps, materialize=False, reortho="full", custom_vjp=False)

    def computed(A: Operator, start: jax.Array, *locked: jax.Array) -> Tridiagonal:
        unravel = flattening(A)[1]

        def complement(v: jax.Array) -> jax.Array:
            for U in locked:
                v = v - (U @ v) @ U
            return v

        def matvec(v: jax.Array) -> jax.Array:
            Av = operators.apply(A, (unravel(v),))[0]
            return complement(ravel_pytree(Av)[0].astype(v.dtype))

        found = algorithm(matvec, complement(start))
        diagonal, off_diagonal = found.J_small
        beside = jnp.append(off_diagonal, jnp.linalg.norm(found.residual))
        size = jnp.nanmax(jnp.abs(jnp.stack([diagonal, beside])), initial=0.0)
        limit = 30 * jnp.finfo(start.dtype).eps * size
        sound = jnp.cumprod(beside > limit).astype(bool)  # NaN is not above it
        inside = jnp.append(jnp.ones(1, bool), sound[:-1])
        return Tridiagonal(
            jnp.where(inside[:, None], found.Q_tall, 0),
            jnp.where(inside, diagonal, 0),
            jnp.where(sound, beside, 0),
            jnp.sum(inside),
            found.residual,
        )

    return operators.compiled(computed)


def flattening(A: Operator) -> tuple[jax.Array, Callable[[jax.Array], Params]]:
    """A flat vector of zeros for A, in the dtype of its sums, and the way back to pytrees."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), A.like)
    flat, unravel = ravel_pytree(zeros)
    return flat.astype(A.dtype), lambda v: unravel(v.astype(flat.dtype))


def dense(T: Tridiagonal) -> jax.Array:
    """The (m, m) matrix."""
    beside = T.beside[:-1]
    return jnp.diag(T.diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)

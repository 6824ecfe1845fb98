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
    """How far the recurrence is.

    Attributes
    ----------
    Q : rows so far, zero beyond.
    diagonal, beside : T so far, with the length that leads on, divided by `size`.
    size : by what products are divided, so that no square leaves the range of the dtype.
    overlaps : (2, m), estimates of qₖ·qⱼ for the row before the last and for the last.
    noise : the rounding of a product along another row, relative to the entries of T, as far as it was seen.
    """

    Q: jax.Array
    diagonal: jax.Array
    beside: jax.Array
    size: jax.Array
    overlaps: jax.Array
    noise: jax.Array


@functools.cache
def tridiagonal(steps: int) -> Callable[[Operator, jax.Array], Tridiagonal]:
    """``(A, start) -> Tridiagonal`` after m = `steps` products, `start` flat, (n,). Memory: about nm numbers.

    Notes
    -----
    Partial reorthogonalisation (Simon 1984). Rows stay orthogonal to √(ε/m), ε the rounding of the dtype: T is then the
    projection of A to rounding, and has no copies of converged eigenvalues. A recurrence for the overlaps says
    when the last two rows must be made orthogonal to all others, every second to tenth time. Passing over
    all rows of a large network takes longer than a product.
    """

    def computed(A: Operator, start: jax.Array) -> Tridiagonal:
        unravel, multiply = flattening(A)[1], operators.multiplication(A)

        def step(at: jax.Array, state: _State) -> _State:
            image = spread(ravel_pytree(multiply(unravel(state.Q[at])))[0].astype(start.dtype))
            size = jnp.where(at == 0, _positive(jnp.max(jnp.abs(image))), state.size)
            return _extended(state._replace(size=size), at, image / size)

        start = spread(start)
        Q = spread(jnp.zeros((steps, start.size), start.dtype).at[0].set(start / jnp.linalg.norm(start)))
        empty, one = jnp.zeros(steps, start.dtype), jnp.ones((), start.dtype)
        overlaps = jnp.zeros((2, steps), start.dtype).at[1, 0].set(1)
        first = _State(Q, empty, empty, one, overlaps, jnp.finfo(start.dtype).eps * one)
        found = jax.lax.fori_loop(0, steps, step, first)
        return Tridiagonal(found.diagonal * found.size, found.beside[:-1] * found.size)

    return operators.compiled(computed)


def _extended(state: _State, at: jax.Array, image: jax.Array) -> _State:
    """With one row more, from the product with row `at`."""
    Q, eps = state.Q, jnp.finfo(image.dtype).eps
    row = Q[at]
    alpha = row @ image
    left = image - alpha * row - state.beside[at - 1] * Q[at - 1]
    left = left - (row @ left) * row
    state = state._replace(diagonal=state.diagonal.at[at].set(alpha))
    met = jnp.maximum(jnp.max(jnp.abs(state.diagonal)), jnp.max(state.beside, initial=0))
    now, following = _overlaps(state, at, state.noise * met, jnp.linalg.norm(left))
    largest = jnp.max(jnp.abs(following))
    # the first rows are measured, whatever is estimated: they tell how much rounding there is
    due = (largest > (eps / len(Q)) ** 0.5) | (at <= 2)
    row, left, seen = jax.lax.cond(due, lambda: _orthogonal(Q, at, left), lambda: (row, left, largest / 2))
    # estimates are in proportion to the noise, which rises at once and falls by and by
    factor = 2 * seen / _positive(largest)
    noise = state.noise * jnp.where(factor > 1, factor, jnp.sqrt(jnp.maximum(factor, 1e-2)))
    noise = jnp.clip(noise, 1e-4 * eps, 1e2 * eps)
    now, following = (jnp.where(due & (overlap != 0), noise, overlap) for overlap in (now, following))
    length = jnp.linalg.norm(left)
    # a shorter remainder is rounding: the space is exhausted, and all that follows is zero. NaN is not shorter
    ends = length <= 30 * eps * met
    Q = Q.at[at].set(row).at[at + 1].set(jnp.where(ends, 0, left / _positive(length)), mode="drop")
    overlaps = jnp.stack([now.at[at].set(1), following.at[at + 1].set(1, mode="drop")])
    beside = state.beside.at[at].set(jnp.where(ends, 0, length))
    return _State(spread(Q), state.diagonal, beside, state.size, overlaps, noise)


def _overlaps(state: _State, at: jax.Array, noise: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """qₖ·q of row `at` and of the next one, k ≤ `at`, which has this length before it is made orthogonal.

    Estimates: A qⱼ·qₖ = qⱼ·A qₖ, with both products written out by the recurrence, and `noise` on top.
    """
    before, now = state.overlaps
    rows = jnp.arange(len(now))
    above, below = jnp.pad(now[1:], (0, 1)), jnp.pad((state.beside * now)[:-1], (1, 0))
    image = state.beside * above + (state.diagonal - state.diagonal[at]) * now + below - state.beside[at - 1] * before
    estimates = (jnp.abs(image) + 2 * noise) / _positive(length) * jnp.where(image < 0, -1, 1)
    return now, jnp.where(rows < at, estimates, jnp.where(rows == at, noise / _positive(length), 0))


def _orthogonal(Q: jax.Array, at: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row `at` without its part in the rows before, the part of a vector outside all rows, and its largest cosine with
    one of them. Products of a matrix with one vector each: with two together, CPUs rearrange the matrix.
    """
    length = jnp.linalg.norm(left)
    of_row, of_left = _multiply(Q, Q[at]).at[at].set(0), _multiply(Q, left)
    row, once = Q[at] - _multiply(of_row, Q), left - _multiply(of_left, Q)
    row = row / _positive(jnp.linalg.norm(row))
    once = once - (row @ once) * row

    def twice() -> jax.Array:
        return once - _multiply(_multiply(Q, once), Q)

    # where little is left, rounding has brought some of the rows back
    short = ~(jnp.linalg.norm(once) > 0.5 * length)
    return row, jax.lax.cond(short, twice, lambda: once), jnp.max(jnp.abs(of_left)) / _positive(length)


def _multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """In full precision, wherever it is called from."""
    return jnp.matmul(a, b, precision="highest")


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

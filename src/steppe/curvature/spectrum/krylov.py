"""Subspaces of parameter space that grow by products with an operator: the linear algebra of a search for eigenpairs.

Vectors are flat rows. Where the parameters lie on several devices, so do all rows, each device with its columns; zeros
at their end make them divisible. One program computes a product for whatever needs one; what is made of it is in small
programs beside it, so that a dear product is compiled once.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from steppe.core.programs import jit
from steppe.curvature import lanczos, layout, operators
from steppe.curvature.operators import Operator

CHUNK = 1 << 16
"""Columns that are recombined at once: a basis is changed in place, not copied."""

_matmul = functools.partial(jnp.matmul, precision="highest")


@operators.compiled
def product(A: Operator, row: jax.Array, factor: jax.Array) -> jax.Array:
    """A times a flat vector, times a number."""
    unravel = lanczos.flattening(A)[1]
    image = ravel_pytree(operators.apply(A, unravel(row[: A.size])))[0].astype(row.dtype) * factor
    return layout.spread(layout.padded(image, row.size))


def zero(A: Operator) -> jax.Array:
    """A row of zeros."""
    flat, mesh = lanczos.flattening(A)[0], layout.mesh_of(A)
    if mesh is None:
        return flat
    place = NamedSharding(mesh, layout.columns(mesh.axis_names, 1))
    return jnp.zeros(-(-flat.size // mesh.size) * mesh.size, flat.dtype, device=place)


def random(key: jax.Array, like: jax.Array, size: int) -> jax.Array:
    """A row of standard normal entries, of which the first `size` are not padding."""
    if not layout.is_spread(like):
        return jax.random.normal(key, like.shape, like.dtype)
    drawn: jax.Array = jax.jit(_normal, static_argnums=(1, 2, 3), out_shardings=like.sharding)(
        key, like.size, size, like.dtype
    )
    return drawn


def _normal(key: jax.Array, columns: int, size: int, dtype: Any) -> jax.Array:
    return layout.padded(jax.random.normal(key, (size,), dtype), columns)


class Basis(NamedTuple):
    """Rows W that are orthonormal, or zero and free, and A times each of them; both (rows, n); n without padding."""

    W: jax.Array
    AW: jax.Array
    size: int

    @classmethod
    def empty(cls, rows: int, like: jax.Array, size: int) -> "Basis":
        """No rows yet."""
        place = None
        if layout.is_spread(like) and isinstance(like.sharding, NamedSharding):
            place = NamedSharding(like.sharding.mesh, PartitionSpec(None, *like.sharding.spec))
        W, AW = (jnp.zeros((rows, like.size), like.dtype, device=place) for _ in range(2))
        return cls(W, AW, size)

    def grown(self, rows: int) -> "Basis":
        """With so many free rows more."""
        W, AW = (jnp.pad(x, ((0, rows), (0, 0))) for x in (self.W, self.AW))
        return Basis(W, AW, self.size)

    @property
    def pairs(self) -> tuple[jax.Array, jax.Array]:
        """W and AW without padding."""
        return self.W[:, : self.size], self.AW[:, : self.size]

    def row(self, at: int) -> jax.Array:
        """One of W."""
        return _row(self.W, at)

    def residual(self, at: int, value: float) -> jax.Array:
        """Aw − θw for one row."""
        return _residual(self.W, self.AW, at, jnp.asarray(value, self.W.dtype))

    def outside(self, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The part of a vector outside all rows, and its length."""
        return outside(self.W, row, len(self.W))

    def placed(self, at: int, row: jax.Array, key: jax.Array, least: float) -> tuple["Basis", jax.Array]:
        """With one more row, the direction of `row` outside W, and how long that part of it was.

        Where it was no longer than `least`, a random direction takes its place.
        """
        W, length = _placed(self.W, row, at, key, least, self.size)
        return self._replace(W=W), length

    def multiplied(self, at: int, image: jax.Array) -> "Basis":
        """With A times one of the rows."""
        return self._replace(AW=_stored(self.AW, image, at))

    def ritz(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The Ritz values of the first rows, rising, and combinations of them (columns) that are orthonormal."""
        gram, form = (np.asarray(x, np.float64)[:rows, :rows] for x in _grams(self.W, self.AW))
        if not (np.isfinite(form).all() and np.isfinite(gram).all()):
            raise FloatingPointError("products that are not finite")
        values, weights = scipy.linalg.eigh((form + form.T) / 2, gram)
        return values, weights

    def combined(self, weights: np.ndarray, values: np.ndarray) -> tuple["Basis", np.ndarray]:
        """Other rows, weights @ W in place of the first ones, and RRᵀ of their residuals R = AW − θW."""
        whole = np.zeros((len(self.W),) * 2)
        whole[: weights.shape[0], : weights.shape[1]] = weights
        theta = np.zeros(len(whole))
        theta[: len(values)] = values
        dtype = self.W.dtype
        chunk = (
            self.W.shape[1] if layout.is_spread(self.W) else min(CHUNK, self.W.shape[1])
        )  # of its own on each device
        W, AW, coupling = _combined(self.W, self.AW, jnp.asarray(whole, dtype), jnp.asarray(theta, dtype), chunk)
        return Basis(W, AW, self.size), np.asarray(coupling, np.float64)[: len(values), : len(values)]


@jit
def _row(W: jax.Array, at: jax.Array | int) -> jax.Array:
    return W[at]


@jit
def _residual(W: jax.Array, AW: jax.Array, at: jax.Array | int, value: jax.Array) -> jax.Array:
    return AW[at] - value * W[at]


@jit
def outside(W: jax.Array, row: jax.Array, rows: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """The part of a vector outside the first rows of W, and its length; orthogonalised twice, which is enough."""
    W = jnp.where(jnp.arange(len(W))[:, None] < rows, W, 0)
    for _ in range(2):
        row = row - _matmul(_matmul(W, row), W)
    return row, jnp.linalg.norm(row)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=5)
def _placed(
    W: jax.Array, row: jax.Array, at: jax.Array, key: jax.Array, least: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    left, found = outside(W, row, len(W))

    def random() -> tuple[jax.Array, jax.Array]:
        return outside(W, _normal(key, row.size, size, row.dtype), len(W))

    left, length = jax.lax.cond(found > least, lambda: (left, found), random)
    # what rounding left of W in a short remainder counts for more once it has unit length
    left, length = outside(W, left / length, len(W))
    return W.at[at].set(left / length), found


@functools.partial(jax.jit, donate_argnums=0)
def _stored(AW: jax.Array, image: jax.Array, at: jax.Array) -> jax.Array:
    return AW.at[at].set(image)


@jit
def _grams(W: jax.Array, AW: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _matmul(W, W.T), _matmul(W, AW.T)


@functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=4)
def _combined(
    W: jax.Array, AW: jax.Array, weights: jax.Array, theta: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, size = W.shape

    def change(at: int | jax.Array, columns: int, state: tuple) -> tuple:
        *both, coupling = state
        parts = [jax.lax.dynamic_slice(x, (0, at), (rows, columns)) for x in both]
        w, aw = (_matmul(weights, part) for part in parts)
        r = aw - theta[:, None] * w
        new = (jax.lax.dynamic_update_slice(x, part, (0, at)) for x, part in zip(both, (w, aw), strict=True))
        return *new, coupling + _matmul(r, r.T)

    state = (W, AW, jnp.zeros((rows, rows), W.dtype))
    state = jax.lax.fori_loop(0, size // chunk, lambda i, state: change(i * chunk, chunk, state), state)
    rest = size % chunk
    return change(size - rest, rest, state) if rest else state


@jit
def three_term(
    W: jax.Array, image: jax.Array, before: jax.Array, now: jax.Array, beta: jax.Array, rows: jax.Array | int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A step of Lanczos' recurrence outside the first rows of W, without a basis: α, the next β, the next vector.

    Orthogonality to older vectors is lost as Ritz values converge. That repeats eigenvalues and harms no bound.
    """
    left, _ = outside(W, image, rows)
    alpha = now @ left
    left = left - alpha * now - beta * before
    length = jnp.linalg.norm(left)
    return alpha, length, left / jnp.where(length > 0, length, 1)

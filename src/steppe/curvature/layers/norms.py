"""The squared norm of Z = daᵀG + aᵀdG, a linear layer's part of Hv, in the cheapest of three forms."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from steppe.core import trees
from steppe.curvature.layers.detection import Layer

COLUMNS = 32
"""Of a sketch P: it adds 2/32 or less to the relative variance of ‖Z‖²."""

WORTH = 0.5
"""A sketch, which adds noise, must save at least half of the operations."""


Norm = Callable[[Layer, jax.Array, jax.Array | None, jax.Array, jax.Array, jax.Array | None], jax.Array]
"""``(layer, a, da, G, dG, P) -> (M,)``: a and G of a layer; da (None where a is data), dG and P stacks of M."""


def exact(
    layer: Layer, a: jax.Array, da: jax.Array | None, G: jax.Array, dG: jax.Array, P: jax.Array | None
) -> jax.Array:
    """‖Z‖², Z formed."""

    def one(da: jax.Array | None, dG: jax.Array) -> jax.Array:
        return trees.norm_squared(_product(layer, a, da, G, dG))

    squares: jax.Array = each(one, da, dG)
    return squares


def sketch(
    layer: Layer, a: jax.Array, da: jax.Array | None, G: jax.Array, dG: jax.Array, P: jax.Array | None
) -> jax.Array:
    """‖ZP‖², P random with E PPᵀ = I and few columns."""

    def one(da: jax.Array | None, dG: jax.Array, P: jax.Array) -> jax.Array:
        return trees.norm_squared(_product(layer, a, da, G @ P, dG @ P))

    squares: jax.Array = each(one, da, dG, P)
    return squares


def gram(
    layer: Layer, a: jax.Array, da: jax.Array | None, G: jax.Array, dG: jax.Array, P: jax.Array | None
) -> jax.Array:
    """‖Z‖² = Σᵢⱼ (da daᵀ)(GGᵀ) + 2(da aᵀ)(G dGᵀ) + (aaᵀ)(dG dGᵀ), from products of rows."""
    dtype = trees.accumulator_dtype(a)
    a, G, dG = a.astype(dtype), G.astype(dtype), dG.astype(dtype)
    total = _quadratic(a @ a.T, dG)
    if da is None:
        return total
    da = da.astype(dtype)
    cross = (da @ a.T) * jnp.swapaxes(dG @ G.T, 1, 2)
    return total + _quadratic(G @ G.T, da) + 2 * jnp.sum(cross, axis=(1, 2))


def cheapest(layer: Layer) -> Norm:
    """The form to take, by counting multiplications of the value and its gradient."""
    terms = 1 if layer.from_data else 2
    rows, sides = layer.rows, layer.fan_in + layer.fan_out
    counts: dict[Norm, int] = {exact: 3 * terms * rows * layer.fan_in * layer.fan_out}
    if layer.groups > 1:  # a sketch would mix the columns of different groups
        return exact
    if layer.kind == "dense":
        counts[gram] = rows**2 * (layer.fan_in + 2 * layer.fan_out if layer.from_data else 4 * sides)
    best = min(counts, key=counts.__getitem__)
    return sketch if 3 * terms * rows * COLUMNS * sides < WORTH * counts[best] else best


def each(function: Callable[..., Any], *stacks: Any) -> Any:
    """`function` of each member of the stacks. A single one is not batched, so that a layer's product stays one."""
    if len(jax.tree.leaves(stacks)[0]) > 1:
        return jax.vmap(function)(*stacks)
    return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], stacks)))


def _product(layer: Layer, a: jax.Array, da: jax.Array | None, G: jax.Array, dG: jax.Array) -> jax.Array:
    """Z, or ZP where G and dG have been multiplied by P."""
    Z = layer.outer(a, dG)
    return Z if da is None else Z + layer.outer(da, G)


@jax.custom_jvp
def _quadratic(S: jax.Array, d: jax.Array) -> jax.Array:
    """(M,) sums over S ∘ (d dᵀ), S symmetric, d a stack; the derivative in d takes one product for both factors."""
    return jnp.sum(S[None] * _rows(d), axis=(1, 2))


@functools.partial(_quadratic.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (S, d), (S_dot, d_dot) = primals, tangents
    squares = _rows(d)
    value = jnp.sum(S[None] * squares, axis=(1, 2))
    tangent = jnp.zeros_like(value)
    if not isinstance(S_dot, SymbolicZero):
        tangent += jnp.sum(S_dot[None] * squares, axis=(1, 2))
    if not isinstance(d_dot, SymbolicZero):
        spread = jnp.broadcast_to(S[None], squares.shape)  # a product for each d: one of all would rearrange them
        tangent += 2 * jnp.sum(jnp.matmul(spread, d) * d_dot, axis=(1, 2))
    return value, tangent


def _rows(d: jax.Array) -> jax.Array:
    """Products of all rows, d dᵀ, for each of a stack."""
    return jnp.einsum("mbi,mci->mbc", d, d)

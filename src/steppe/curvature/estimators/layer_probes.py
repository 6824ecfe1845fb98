"""Random vectors v with E vvᵀ = I, made of parts that are cheap to meet the layers of a network."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import trees
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from steppe.curvature.layers import norms
from steppe.curvature.layers.detection import Layer

RANK = 16
"""Columns r of S and T in a thin probe V = S Tᵀ/√r."""

SIGN = 8
"""What a random sign costs, in multiplications."""


class Probes(NamedTuple):
    """M random vectors: every array has a leading axis of length M (or none, for one vector).

    Attributes
    ----------
    direct : the entries outside layers.
    left, right : for each layer S and T, V = S Tᵀ. T is None where S is all of V, or of its projection on the rows.
    sketch : P with E PPᵀ = I, with which the norm of a layer's part of Hv is taken, or None: taken exactly.
    """

    direct: list[jax.Array]
    left: list[jax.Array]
    right: list[jax.Array | None]
    sketch: list[jax.Array | None]


class Plan(NamedTuple):
    """How one layer is treated: the form of its probes, and that of its norm."""

    form: str
    norm: norms.Norm


def plan(layer: Layer, count: int) -> Plan:
    """The cheapest forms for a layer and `count` probes."""
    norm = norms.cheapest(layer)
    return Plan(form(layer, norm, count), norm)


def draw(
    key: jax.Array, count: int, layers: tuple[Layer, ...], plans: list[Plan], direct: list[Any], distribution: str
) -> Probes:
    """`count` vectors, all their parts from one draw of independent entries."""
    left, right, sketch = zip(*map(_shapes, layers, plans), strict=True)
    like = Probes(direct, list(left), list(right), list(sketch))
    stacks = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), like)
    drawn: Probes = DISTRIBUTIONS[distribution](key, stacks)
    return drawn._replace(
        left=[S if T is None else S / math.sqrt(RANK) for S, T in zip(drawn.left, drawn.right, strict=True)],
        sketch=[None if P is None else P / math.sqrt(norms.COLUMNS) for P in drawn.sketch],
    )


def form(layer: Layer, norm: norms.Norm, count: int) -> str:
    """The cheapest way to draw a layer's part V of `count` probes, by counting multiplications.

    "full": independent entries. "thin": S Tᵀ/√r. "rows", where the input x is data: V reaches the loss only as xV,
    which has the mean and covariance of CS with C Cᵀ = xxᵀ and S of as many rows as x.
    """
    rows, fan_in, fan_out = layer.rows, layer.fan_in, layer.fan_out
    if layer.groups > 1:  # columns of different groups see different channels: no product of two serves them all
        return "full"
    costs = {"full": (rows + SIGN) * fan_in * fan_out, "thin": (rows + SIGN) * RANK * (fan_in + fan_out)}
    if layer.from_data and layer.kind == "dense":
        products = 0 if norm is norms.gram else rows**2 * fan_in  # xxᵀ is there already
        factor = 10 * rows**3  # few operations, badly parallel
        costs["rows"] = (rows + SIGN) * rows * fan_out + (products + factor) // count
    return min(costs, key=costs.__getitem__)


def _shapes(layer: Layer, plan: Plan) -> tuple[Any, Any, Any]:
    """Of S, T and P of one probe."""
    thin, dtype = plan.form == "thin", layer.site.dtype
    lead = (layer.rows,) if plan.form == "rows" else layer.kernel_shape[:-1]
    left = jax.ShapeDtypeStruct((*lead, RANK if thin else layer.fan_out), dtype)
    right = jax.ShapeDtypeStruct((layer.fan_out, RANK), dtype) if thin else None
    sketched = plan.norm is norms.sketch
    return left, right, jax.ShapeDtypeStruct((layer.fan_out, norms.COLUMNS), dtype) if sketched else None


def root(x: jax.Array) -> jax.Array:
    """C with C Cᵀ = xxᵀ to rounding in every row, however long or short, also where rows are parallel or zero."""
    wide = x.astype(trees.accumulator_dtype(x))
    squares = wide @ wide.T  # the very product that the norm from products of rows needs
    diagonal = jnp.diagonal(squares)
    length = jnp.where(diagonal > 0, jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)[:, None]
    units = jnp.where(length > 0, length, 1)
    return (length * _cholesky(squares / units / units.T)).astype(x.dtype)


def _cholesky(cosines: jax.Array) -> jax.Array:
    """The Cholesky factor of a matrix that is positive semidefinite but for rounding, with a diagonal of ones.

    Cholesky's own rounding errors must not make a singular matrix indefinite: a few units of rounding are added to the
    diagonal. Sums over many columns, or in a coarser precision, may have lost more; the lowest eigenvalue says it.
    """
    few = 4 * jnp.finfo(cosines.dtype).eps * len(cosines)

    def factor(shift: jax.Array) -> jax.Array:
        lower: jax.Array = jnp.linalg.cholesky(cosines + shift * jnp.eye(len(cosines), dtype=cosines.dtype))
        return lower

    def lost() -> jax.Array:
        lowest = jnp.linalg.eigvalsh(jax.lax.stop_gradient(cosines))[0]
        return factor(2 * few - jnp.minimum(lowest, 0))

    usual = factor(jnp.asarray(few, cosines.dtype))
    lower: jax.Array = jax.lax.cond(jnp.all(jnp.isfinite(usual)), lambda: usual, lost)
    return lower

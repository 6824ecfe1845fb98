"""Symmetric operators on parameter space, known by their products with vectors."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from steppe.core import checks, programs, trees
from steppe.core.types import Params
from steppe.curvature import layout

P = ParamSpec("P")
R = TypeVar("R")

DENSE_LIMIT = 30_000
"""The largest n of a matrix that `dense` makes: 7 GB in float64."""

TOGETHER = 8
"""The most vectors that pass over several batches together, or that are mapped."""

STACK_BYTES = 2**30
"""The most that such vectors and their images take together."""

MAPPED_SIZE = 2**20
"""The largest n whose products are mapped, `TOGETHER` at a time, on a device that is no CPU: small products leave it
idle. Beyond, and on CPUs, one product after another is as fast and takes the memory of one."""


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Operator:
    """A symmetric linear operator A on pytrees shaped like `like`.

    Operators are pytrees, arguments of compiled functions: one compilation serves every operator whose products compute
    the same, at whatever parameters and data. An operator is that of the time when it was made: what its product closes
    over may change afterwards, and is then in the next operator only.

    Attributes
    ----------
    product : ``product(v, *data) -> Av``, linear in v, a pytree like `like` in and out. It is captured as a program.
    like : a pytree that gives the shapes and dtypes of vectors.
    data : what the product depends on besides v: pytrees of arrays.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v, d: d * v, jnp.zeros(2), (jnp.array([1.0, 3.0]),))
    >>> A.matvec(jnp.ones(2)).tolist(), A.size
    ([1.0, 3.0], 2)
    """

    product: Callable[..., Params]
    like: Params
    data: tuple = field(default=(), repr=False)

    def __post_init__(self) -> None:
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), self.like)
        object.__setattr__(self, "like", like)
        if not programs.is_program(self.product):
            label = programs.Label("Operator", "product")
            object.__setattr__(self, "product", programs.capture(label, self.product, [(like, *self.data)]))

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """As a pytree: its data, and the arrays in its product, are its leaves."""
        leaves, treedef = jax.tree.flatten(self.like)
        return (self.product, *self.data), (treedef, tuple(leaves))

    @classmethod
    def tree_unflatten(cls, static: Any, children: tuple) -> "Operator":
        """The inverse of `tree_flatten`."""
        made = object.__new__(cls)
        like = jax.tree.unflatten(*static)
        for name, value in zip(("product", "like", "data"), (children[0], like, tuple(children[1:])), strict=True):
            object.__setattr__(made, name, value)
        return made

    @property
    def size(self) -> int:
        """The number n of rows."""
        return trees.size(self.like)

    @property
    def dtype(self) -> jnp.dtype:
        """In which its sums are kept: float32, or float64 where a leaf is."""
        return trees.accumulator_dtype(self.like)

    def matvec(self, v: Params) -> Params:
        """Av. Compiled once for all operators of this product and these shapes.

        Raises
        ------
        InputError : a vector of another structure or other shapes.
        """
        if not _alike(v, self.like):
            checks.fail("matvec", "v", f"a pytree like {_shapes(self.like)}", _shapes(v))
        return matvec(self, v)

    def dense(self) -> jax.Array:
        """The (n, n) matrix, rows in `ravel_pytree` order. Cost: n products, n² memory; for small n.

        Raises
        ------
        InputError : n above 30,000.
        """
        if self.size > DENSE_LIMIT:
            checks.fail("dense", "operator", f"of at most {DENSE_LIMIT:,} parameters", f"one of {self.size:,}",
                        "Use trace, moments, top_eigenpairs or spectral_density.")  # fmt: skip
        return _dense(self)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` of an operator and arrays under `jax.jit`, or as it is where its arguments are traced already."""
    fast = programs.compiled(function)

    @functools.wraps(function)
    def called(*arguments: P.args, **options: P.kwargs) -> R:
        if any(checks.is_traced(leaf) for leaf in jax.tree.leaves((arguments, options))):
            with programs.user_errors(programs.label_of((arguments, options))):
                return function(*arguments, **options)
        mesh = layout.mesh_of((arguments, options))
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            return fast(*arguments, **options)

    return called


def apply(A: Operator, v: Params) -> Params:
    """Av."""
    image: Params = A.product(v, *A.data)
    return image


matvec = compiled(apply)


def multiplication(A: Operator) -> Callable[[Params], Params]:
    """``v -> Av`` for a loop over vectors.

    Where the data are one batch, its gradient is linearised here and not in the loop.
    """
    prepared = getattr(A.product, "prepared", None)
    if prepared is not None:
        multiply: Callable[[Params], Params] = prepared(*A.data)
        return multiply
    return lambda v: apply(A, v)


def images(A: Operator, vectors: Params) -> Params:
    """A times each of a stack of vectors, leaves (M, ...). The product stands in the program once, in a loop.

    All vectors of the stack pass over the data together: each batch's gradient is linearised once.
    """
    stacked = getattr(A.product, "stacked", None)
    if stacked is not None:
        found: Params = stacked(vectors, *A.data)
        return found
    return jax.lax.map(multiplication(A), vectors)


def passes_over_several(A: Operator) -> bool:
    """Whether a product goes through several batches, one after another."""
    asked = getattr(A.product, "passes_over_several", None)
    return asked is not None and bool(asked(*A.data))


def samples(
    A: Operator,
    keys: jax.Array,
    draw: Callable[[jax.Array], Params],
    value: Callable[[Params, Params], Any],
) -> Any:
    """``value(v, Av)`` of v = ``draw(key)`` for each key, a pytree of arrays with a leading axis.

    The product stands in the compiled program once, whatever the number of keys. Over one batch its gradient is
    linearised once for all, and each vector is forgotten before the next one is drawn. Over several batches up to
    `TOGETHER` vectors pass together, as many as `STACK_BYTES` hold.
    """
    if passes_over_several(A):

        def together(some: jax.Array) -> Any:
            vectors = jax.lax.map(draw, some)
            return jax.lax.map(lambda pair: value(*pair), (vectors, images(A, vectors)))

        return in_blocks(together, keys, stack_size(A))
    multiply = multiplication(A)

    def one(key: jax.Array) -> Any:
        v = draw(key)
        return value(v, multiply(v))

    if A.size <= MAPPED_SIZE and jax.default_backend() != "cpu":
        with contextlib.suppress(NotImplementedError):  # something in the product cannot be mapped
            return in_blocks(jax.vmap(one), keys, TOGETHER)
    return jax.lax.map(one, keys)


def stack_size(A: Operator) -> int:
    """How many vectors pass over several batches together."""
    each = 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(A.like))
    return int(min(max(STACK_BYTES // max(each, 1), 1), TOGETHER))


def in_blocks(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """``function(rows)``, arrays with a leading axis of rows, in a loop over equal blocks of at most `size` rows.

    What is missing from the last block is filled with its last row, so that the function stands in the program once.
    """
    count = len(jax.tree.leaves(rows)[0])
    blocks = -(-count // size)
    if blocks == 1:
        return function(rows)
    each = -(-count // blocks)
    filled = np.minimum(np.arange(blocks * each), count - 1)
    parts = jax.tree.map(lambda x: x[filled].reshape(blocks, each, *x.shape[1:]), rows)
    found = jax.lax.map(function, parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)


@compiled
def _dense(A: Operator) -> jax.Array:
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), A.like))
    unit = jnp.eye(flat.size, dtype=flat.dtype)
    multiply = multiplication(A)
    rows: jax.Array = jax.lax.map(lambda e: ravel_pytree(multiply(unravel(e)))[0], unit)
    return rows.T


def rescaled(operator: Operator, weights: Params) -> Operator:
    """The operator W A W with W = diag(weights), weights a pytree like the operator's vectors.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> identity = Operator(lambda v: v, jnp.zeros(2))
    >>> rescaled(identity, jnp.array([2.0, 3.0])).dense().tolist()
    [[4.0, 0.0], [0.0, 9.0]]
    """
    return Operator(_RescaledOperator(operator.product), operator.like, (weights, *operator.data))


@programs.holder
@dataclass(frozen=True)
class _RescaledOperator:
    product: Callable[..., Params]

    def __call__(self, v: Params, weights: Params, *data: Any) -> Params:
        return trees.multiply(weights, self.product(trees.multiply(weights, v), *data))

    def prepared(self, weights: Params, *data: Any) -> Callable[[Params], Params]:
        prepared = getattr(self.product, "prepared", None)
        multiply = prepared(*data) if prepared is not None else lambda v: self.product(v, *data)
        return lambda v: trees.multiply(weights, multiply(trees.multiply(weights, v)))


def _alike(v: Params, like: Params) -> bool:
    if trees.structure(v) != trees.structure(like):
        return False
    pairs = zip(jax.tree.leaves(v), jax.tree.leaves(like), strict=True)
    return all(jnp.shape(a) == b.shape and jnp.result_type(a) == b.dtype for a, b in pairs)


def _shapes(tree: Params) -> str:
    return checks.shown(jax.tree.map(lambda leaf: f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}", tree))

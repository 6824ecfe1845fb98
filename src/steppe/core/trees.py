"""Pytree algebra, safe where a value is zero."""

import functools
import operator
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from steppe.core import checks, names
from steppe.core.types import Params

Kind = TypeVar("Kind")


def accumulator_dtype(*trees: Any) -> jnp.dtype:
    """The dtype in which sums over these trees are kept: float32, or float64 where a leaf is."""
    double = any(jnp.result_type(leaf) == jnp.float64 for leaf in jax.tree.leaves(trees))
    return jnp.dtype("float64") if double else jnp.dtype("float32")


def structure(tree: Any) -> PyTreeDef:
    """How a pytree is nested, without its leaves."""
    return cast(PyTreeDef, jax.tree.structure(tree))


def instances(tree: Any, kind: type[Kind]) -> list[tuple[tuple[Any, ...], Kind]]:
    """The nodes of a class in a pytree, however deep, each with its path; nothing within them is looked at."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, kind))
    return [(path, node) for path, node in nodes if isinstance(node, kind)]


def size(tree: Params) -> int:
    """The number of scalars in a pytree."""
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


def dot(a: Params, b: Params) -> jax.Array:
    """The inner product ⟨a, b⟩ over all leaves, summed in at least float32."""
    dtype = accumulator_dtype(a, b)
    products = jax.tree.map(lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype)), a, b)
    return functools.reduce(operator.add, jax.tree.leaves(products), jnp.zeros((), dtype))


def norm_squared(tree: Params) -> jax.Array:
    """‖a‖² over all leaves, summed in at least float32."""
    return dot(tree, tree)


def norm(tree: Params) -> jax.Array:
    """‖a‖ over all leaves, also where its square is too small or too large for the dtype."""
    squared = norm_squared(tree)
    tiny, huge = jnp.finfo(squared.dtype).tiny, jnp.finfo(squared.dtype).max
    # rarely: by the largest entry first; the squares of tiny gradients would vanish
    usual = (squared > 1e8 * tiny) & (squared <= huge)
    length: jax.Array = jax.lax.cond(usual, lambda: jnp.sqrt(squared), lambda: _far_norm(tree))
    return length


def _far_norm(tree: Params) -> jax.Array:
    dtype = accumulator_dtype(tree)
    peaks = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in jax.tree.leaves(tree)]
    peak = functools.reduce(jnp.maximum, peaks or [jnp.zeros((), dtype)])
    shrunk = jax.tree.map(lambda x: x.astype(dtype) / jnp.where(peak == 0, 1, peak), tree)
    return peak * jnp.sqrt(norm_squared(shrunk))


def unit(tree: Params) -> Params:
    """A pytree divided by its norm; zeros where that is zero."""
    return unit_and_norm(tree)[0]


def unit_and_norm(tree: Params) -> tuple[Params, jax.Array]:
    """A pytree divided by its norm, zeros where that is zero; and the norm."""
    length = norm(tree)
    divisor = jnp.where(length == 0, 1, length)
    return jax.tree.map(lambda x: (x.astype(length.dtype) / divisor).astype(x.dtype), tree), length


def scale(factor: Any, tree: Params) -> Params:
    """Each leaf times a scalar, in the leaf's own dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, tree)


def add(a: Params, b: Params) -> Params:
    """Leafwise sum, in the dtype of the leaves of `a`."""
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def add_scaled(a: Params, factor: Any, b: Params) -> Params:
    """The sum a + factor · b, in the dtype of the leaves of `a`."""
    return add(a, scale(factor, b))


def multiply(a: Params, b: Params) -> Params:
    """The elementwise product a ∘ b."""
    return jax.tree.map(operator.mul, a, b)


def zeros_like(tree: Params) -> Params:
    """A pytree of zeros."""
    return jax.tree.map(jnp.zeros_like, tree)


def zero_sums(like: Params) -> Params:
    """Zeros to which trees of these shapes are added up, each leaf in the dtype of its sums."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, accumulator_dtype(leaf)), like)


def mask_of(tree: Params, where: Any) -> Any:
    """What `where` says of a tree: None for all of it, or a pytree of bools that is a prefix of it.

    `where` is one of these, a glob of the names of its arrays or a list of globs (`names.match`), or a function from
    the tree to any of these. A pytree of bools stays one where it can be called, as an Equinox module can.

    Examples
    --------
    >>> mask_of({"attn": {"kernel": 1.0, "bias": 2.0}, "head": 3.0}, "attn.k*")
    {'attn': {'bias': False, 'kernel': True}, 'head': False}
    """
    flags = jax.tree.leaves(where)
    if flags and all(isinstance(flag, str) for flag in flags):
        return jax.tree.unflatten(structure(tree), names.match(names.names(tree), flags))
    is_mask = bool(flags) and all(isinstance(flag, (bool, np.bool_)) for flag in flags)
    return mask_of(tree, where(tree)) if callable(where) and not is_mask else where


def partition(tree: Params, where: Any) -> tuple[Params, Params]:
    """The leaves that a mask chooses and the others: two trees, each with None in the place of the other's leaves.

    `where` is None (all), a pytree of bools that is a prefix of `tree`, a glob of names or several, or a function from
    the tree to one of these; see `mask_of`.
    """
    mask = mask_of(tree, where)
    mask = True if mask is None else mask
    try:
        spread = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), mask, tree)
    except ValueError as error:
        checks.fail("where", "mask", "a prefix of the parameters' pytree", f"another structure ({error})")
    flags = jax.tree.leaves(spread)
    for flag in flags:
        if not isinstance(flag, (bool, np.bool_)):
            checks.fail("where", "mask", "a pytree of bools, one for whole arrays", checks.shown(flag))
    if not any(flags):
        checks.fail("where", "mask", "true somewhere", "one that chooses nothing")
    leaves, treedef = jax.tree.flatten(tree)
    parts = ([x if f == side else None for f, x in zip(flags, leaves, strict=True)] for side in (True, False))
    chosen, others = (jax.tree.unflatten(treedef, part) for part in parts)
    return chosen, others


def merge(chosen: Params, others: Params) -> Params:
    """The whole tree again from the two parts of `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, chosen, others, is_leaf=lambda leaf: leaf is None)


def confined(tree: Params, where: Any) -> Params:
    """The tree with zeros in the place of the leaves that a mask does not choose; see `partition`."""
    if where is None:
        return tree
    chosen, others = partition(tree, where)
    return merge(chosen, zeros_like(others))

"""Layout over devices: vectors like parameters lie where these do, and of flat ones each device has a part."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxlib.mlir.dialects import sdy

from steppe.core.types import Params


def mesh_of(tree: Any) -> Mesh | None:
    """The devices over which arrays are laid out; None where that is one, or where types say it (explicit axes)."""
    for leaf in jax.tree.leaves(tree) if jax.device_count() > 1 else ():
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            automatic = all(kind == AxisType.Auto for kind in sharding.mesh.axis_types)
            return sharding.mesh if automatic and isinstance(sharding.mesh, Mesh) else None
    return None


def spread(rows: jax.Array) -> jax.Array:
    """Flat vectors within a program of `operators.compiled`, (..., n), of which each of its devices has a part."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return rows
    laid_out: jax.Array = jax.lax.with_sharding_constraint(rows, columns(mesh.axis_names, rows.ndim))
    return laid_out


def columns(axes: tuple[Any, ...], dimensions: int) -> PartitionSpec:
    """The layout of flat vectors over all axes of a mesh."""
    return PartitionSpec(*[None] * (dimensions - 1), axes)


def is_spread(rows: jax.Array) -> bool:
    """Whether rows lie on several devices."""
    return len(rows.sharding.device_set) > 1


def padded(row: jax.Array, columns: int) -> jax.Array:
    """A flat vector with zeros at its end, so that devices can share it equally."""
    return row if row.size == columns else jnp.pad(row, (0, columns - row.size))


def on_host(array: jax.Array) -> np.ndarray:
    """All of an array in the memory of this process, also where other processes have parts of it."""
    if not (array.is_fully_addressable or array.is_fully_replicated) and isinstance(array.sharding, NamedSharding):
        array = jax.jit(lambda x: x, out_shardings=NamedSharding(array.sharding.mesh, PartitionSpec()))(array)
    return np.asarray(array)


_groups = itertools.count(1_000_000)
"""Numbers of groups of arrays that are laid out alike, apart from those that JAX itself may give."""


def shard_alike(tree: Params, like: Params) -> Params:
    """The same tree, laid out over devices as another one of its shapes is, with no value of which it has to do.

    Otherwise nothing says that a random vector, or a product with it, is not whole on every device. Where a process
    sees one device alone, nothing is added to a program.
    """
    if jax.device_count() == 1 or not getattr(jax.config, "jax_use_shardy_partitioner", True):
        return tree
    laid_out: Params = jax.tree.map(_alike.bind, tree, jax.lax.stop_gradient(like))
    return laid_out


# JAX 0.11 took `jax.experimental.shard_alike` away. This is its operation of the partitioner, linear in its first
# argument and constant in its second.


def _lower(_: Any, x: Any, like: Any) -> list[Any]:
    group = next(_groups)
    sdy.sharding_group(x, group)
    sdy.sharding_group(like, group)
    return [x]


def _differentiate(tangent: Any, _: jax.Array, like: jax.Array) -> Any:
    return _alike.bind(tangent, like)


def _transpose(cotangent: Any, _: Any, like: jax.Array) -> tuple[Any, None]:
    return cotangent if type(cotangent) is ad.Zero else _alike.bind(cotangent, like), None


def _batch(arguments: tuple[jax.Array, jax.Array], axes: tuple[int | None, int | None]) -> tuple[jax.Array, int | None]:
    (x, like), (axis, of_like) = arguments, axes
    if axis is None:  # the batch of what it is laid out like says nothing of it
        return x, None
    stack = jnp.moveaxis(x, axis, 0)
    rows = jnp.broadcast_to(like, stack.shape) if of_like is None else jnp.moveaxis(like, of_like, 0)
    return _alike.bind(stack, rows), 0


_alike = Primitive("shard_alike")
_alike.def_impl(jax.jit(_alike.bind))
_alike.def_abstract_eval(lambda x, _: x)
mlir.register_lowering(_alike, _lower)
ad.defjvp(_alike, _differentiate, None)
ad.primitive_transposes[_alike] = _transpose
batching.primitive_batchers[_alike] = _batch

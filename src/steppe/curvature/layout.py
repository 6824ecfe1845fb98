"""Where flat vectors lie whose parameters lie on several devices: each device has a part of every one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


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

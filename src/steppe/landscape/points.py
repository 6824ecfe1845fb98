"""Values of a function at many points of parameter space, each a weighted sum of a few pytrees.

Lines and planes, around one network or between two, are all of this form: one compiled program serves them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import batches as many
from steppe.core import checks, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Batch, Params

Function = Callable[[Params, Batch], Any]
"""``function(params, batch)``: a pytree of scalars, means over the batch, such as a loss; see `loss_and_accuracy`."""

Prepare = Callable[[Params], Any]
"""``prepare(params)``: what a function gets in place of the parameters, computed once at each point."""

Progress = Callable[[Any, int], None]
"""``progress(values, points)``: the values at the first points, as far as they are known, and how many are asked."""

REPORTS = 50
"""How often, at most, progress is told."""


def alike(function: str, name: str, given: Params, params: Params) -> None:
    """Check that a pytree has the structure and the shapes of the parameters."""
    if trees.structure(given) != trees.structure(params):
        checks.fail(function, name, "a pytree of the network's structure", "another structure")
    checks.floating(function, given)
    for (path, a), b in zip(jax.tree.leaves_with_path(given), jax.tree.leaves(params), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            place = f"{name}{jax.tree_util.keystr(path)}"
            checks.fail(function, place, f"of the network's shape {jnp.shape(b)}", f"an array of shape {jnp.shape(a)}")


def valued(
    function: Function,
    prepare: Prepare | None,
    terms: tuple[Params, ...],
    weights: jax.Array,
    batches: Batches,
    *,
    block: int,
    progress: Progress | None,
    known: Any,
) -> Any:
    """The function's values at Σᵢ weights[p, i] · terms[i], in one program or, to tell progress, in several alike."""
    points = len(weights)
    block = min(block, points)
    if progress is None and known is None:
        return _mapped(function, prepare, terms, weights, batches, block)
    values, size = known, block * math.ceil(points / (REPORTS * block))
    for at in range(known_points(known), points, size):
        # the last part reaches beyond the end and is cut: one program serves all, with the same bits
        rows = jnp.minimum(at + jnp.arange(size), points - 1)
        part = jax.block_until_ready(_mapped(function, prepare, terms, weights[rows], batches, block))
        part = jax.tree.map(lambda leaf, count=points - at: leaf[:count], part)
        values = part if values is None else jax.tree.map(lambda *ends: jnp.concatenate(ends), values, part)
        if progress is not None:
            progress(values, points)
    return values


def known_points(values: Any) -> int:
    """How many points values are there for."""
    return 0 if values is None else len(jax.tree.leaves(values)[0])


@compiled(static=("block",))
def _mapped(
    function: Function,
    prepare: Prepare | None,
    terms: tuple[Params, ...],
    weights: jax.Array,
    batches: Batches,
    block: int,
) -> Any:
    """The function's values at all points, so many at once."""

    def at(weight: jax.Array) -> Any:
        moved = jax.tree.map(functools.partial(_combined, weight), *terms)
        given = moved if prepare is None else prepare(moved)
        return many.average(lambda batch: function(given, batch), batches)

    return jax.lax.map(at, weights, batch_size=block if block > 1 else None)


def _combined(weights: jax.Array, *parts: jax.Array) -> jax.Array:
    """Σᵢ weightsᵢ · partsᵢ, rounded once to the dtype of the first."""
    total = weights[0] * parts[0].astype(weights.dtype)
    for i, part in enumerate(parts[1:], start=1):
        total = total + weights[i] * part.astype(weights.dtype)
    return total.astype(parts[0].dtype)

"""Batches in equal parts, and the loss of a big batch computed part by part.

Accumulation happens here and not around a method, because ‖mean Hᵢ v‖² is not mean ‖Hᵢ v‖².
"""

import jax
import jax.numpy as jnp

from steppe.core import checks, losses
from steppe.core.batches import Batches, average
from steppe.core.types import Batch, ExampleLosses, Loss, Params
from steppe.curvature import layers


def part_size(function: str, argument: str, batch: Batch, parts: int) -> int:
    """The size of one of so many equal parts of a batch."""
    size = checks.batch_size(function, batch)
    if size % parts:
        checks.fail(function, argument, f"a divisor of the batch size {size}", parts)
    return size // parts


def split_batch(function: str, argument: str, batch: Batch, parts: int) -> Batch:
    """A batch as so many equal ones, stacked: leaves (parts, B/parts, ...)."""
    size = part_size(function, argument, batch, parts)
    return jax.tree.map(lambda x: x.reshape((parts, size, *x.shape[1:])), batch)


def microbatches_of(function: str, loss: Loss, batch: Batch, parts: int | None) -> Batches:
    """A batch as equal micro-batches, with the weights that the loss gives them; None is one of them."""
    split, weight = split_batch(function, "microbatches", batch, parts or 1), losses.weight_of(loss)
    return Batches((split,), None if weight is None else (jax.lax.map(weight, split),))


def accumulate(function: str, loss: Loss, parts: int | None) -> Loss:
    """The same loss, as a loop over so many equal micro-batches; None is the loss itself.

    It must be a mean over examples, or know what divides it (`losses.weighted`). Every derivative of it is that of the
    big batch, to rounding, in the memory of one part.
    """
    if parts is None:
        return loss
    one = layers.through(loss)  # derivatives of convolutions are slow in loops

    def accumulated(params: Params, batch: Batch) -> jax.Array:
        values: jax.Array = average(lambda part: one(params, part), microbatches_of(function, loss, batch, parts))
        return values

    return accumulated


def accumulate_examples(
    function: str, loss: Loss, each: ExampleLosses | None, parts: int | None
) -> ExampleLosses | None:
    """The same losses of single examples, computed micro-batch by micro-batch."""
    if parts is None or each is None:
        return each

    def accumulated(params: Params, batch: Batch) -> jax.Array:
        split = split_batch(function, "microbatches", batch, parts)
        values: jax.Array = jax.lax.map(jax.checkpoint(lambda part: each(params, part)), split)
        if getattr(each, "__self__", None) is loss:  # scaled to the mean of a part, see `NetworkLoss.each`
            values = losses.weigh(parts * part_shares(loss, split), values)
        return values.reshape(-1)

    return accumulated


def part_shares(loss: Loss, split: Batch) -> jax.Array:
    """The share of each part in the loss of the whole, (parts,), summing to 1: by what divides it, see `weighted`."""
    weight, parts = losses.weight_of(loss), len(jax.tree.leaves(split)[0])
    if weight is None:
        return jnp.full(parts, 1 / parts)
    shares: jax.Array = losses.parts_of(jax.lax.map(weight, split))
    return shares

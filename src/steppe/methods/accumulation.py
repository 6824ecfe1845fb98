"""Batches in equal parts, and the loss of a big batch computed part by part."""

import jax
import jax.numpy as jnp

from steppe import checks
from steppe.typing import Batch, Loss, Params


def in_parts(function: str, argument: str, batch: Batch, parts: int) -> Batch:
    """A batch as so many equal ones, stacked: leaves (parts, B/parts, ...)."""
    size = checks.batch_size(function, batch)
    if size % parts:
        checks.fail(function, argument, f"a divisor of the batch size {size}", parts)
    return jax.tree.map(lambda x: x.reshape((parts, size // parts, *x.shape[1:])), batch)


def in_microbatches(function: str, loss: Loss, parts: int) -> Loss:
    """The same mean loss, as a loop over `parts` equal micro-batches whose insides are recomputed, never stored.

    Every derivative of it is that of the big batch, to rounding, in the memory of one part. This is why
    accumulation happens here and not around a method: ‖mean Hᵢ v‖² is not mean ‖Hᵢ v‖².
    """
    if parts == 1:
        return loss

    def accumulated(params: Params, batch: Batch) -> jax.Array:
        split, one = in_parts(function, "microbatches", batch, parts), jax.checkpoint(loss)
        total, _ = jax.lax.scan(
            lambda t, b: (t + one(params, b), None), jnp.zeros((), loss_shape(one, params, split).dtype), split
        )
        return total / parts

    return accumulated


def loss_shape(loss: Loss, params: Params, split: Batch) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the loss on one micro-batch."""
    return jax.eval_shape(loss, params, jax.tree.map(lambda x: x[0], split))

"""Data that stay on the host: they come to the device in blocks of batches, the next one while this one is computed.

Which examples a block holds depends on their order alone, never
on how fast anything is. The order is drawn as for data on the device, which rules out libraries that shuffle by
themselves; what is left of loading is this file.
"""

import contextlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core.batches import prefetched
from steppe.core.types import Batch
from steppe.data.archives import available

BLOCK_BYTES = 2**26
"""Of a block, or one batch where that is larger. Three blocks are on the device at most: computed, next, arriving."""

SHARE = 0.5
"""Of the device's memory: larger data stay on the host unless asked otherwise."""


class Block(NamedTuple):
    """Some batches, one after another.

    Attributes
    ----------
    examples : on the device, those of all its batches.
    rows : (K, B), where among them each batch has its own; K is the same for all blocks.
    first : the number of its first batch.
    number : how many batches it holds, at most K.
    """

    examples: Batch
    rows: Any
    first: Any
    number: Any


def stays_on_host(train: Batch, data_on: str | None) -> bool:
    """Whether training data stay on the host: because that is asked for, or because of their size.

    Parameters
    ----------
    train : Batch
        Arrays of the host.
    data_on : str or None
        "host", "device", or None for what their size says.
    """
    if data_on is not None:
        return data_on == "host"
    stats = jax.local_devices()[0].memory_stats() or {}  # a CPU has none
    size: int = sum(leaf.nbytes for leaf in jax.tree.leaves(train))
    return size > SHARE * float(stats.get("bytes_limit", available()))


def batches_of_block(train: Batch, size: int, count: int) -> int:
    """K, how many of `count` batches of so many examples make a block."""
    bytes_: int = size * sum(leaf.nbytes // len(leaf) for leaf in jax.tree.leaves(train))
    return max(1, min(count, BLOCK_BYTES // max(bytes_, 1)))


def block_shape(train: Batch, size: int, most: int) -> Block:
    """The shapes of a block of so many batches of so many examples."""
    shaped = jax.ShapeDtypeStruct
    examples = jax.tree.map(lambda leaf: shaped((most * size, *leaf.shape[1:]), leaf.dtype), train)
    return Block(examples, shaped((most, size), np.int32), *(shaped((), np.int32) for _ in range(2)))


def blocks(train: Batch, order: np.ndarray, most: int, sharding: Any = None) -> Generator[Block]:
    """The data in blocks of `most` batches. Close what this returns: then its thread has ended.

    Parameters
    ----------
    train : Batch
        Arrays of the host, which may be mapped from files.
    order : numpy.ndarray
        (count, B), the rows of each batch.
    most : int
        K.
    sharding : Sharding, optional
        Of the examples over devices; JAX's default device unless said otherwise.

    Raises
    ------
    InputError
        Data that cannot be read, or do not fit on the device.
    """
    starts = range(0, len(order), most)
    return prefetched(lambda place: block(train, order, most, starts[place], sharding), len(starts))


def block(train: Batch, order: np.ndarray, most: int, first: int, sharding: Any = None) -> Block:
    """The block that begins with a batch; see `blocks`. Files are read from their beginning to their end."""
    chosen = order[first : first + most]
    flat = chosen.ravel()
    sequence = np.argsort(flat, kind="stable")
    rows = np.zeros((most, order.shape[1]), np.int32)
    rows.reshape(-1)[sequence] = np.arange(len(flat), dtype=np.int32)

    def gathered(leaf: np.ndarray) -> jax.Array:
        values = np.zeros((rows.size, *leaf.shape[1:]), leaf.dtype)
        values[: len(flat)] = leaf[flat[sequence]]
        sent: jax.Array = jax.device_put(values, sharding)
        return sent

    return Block(jax.tree.map(gathered, train), rows, np.int32(first), np.int32(len(chosen)))


class HostEpoch:
    """An epoch on data that stay on the host; called as an epoch on data of the device is.

    Parameters
    ----------
    order : callable
        The examples of an epoch, of a seed and the epoch's number; compiled.
    part : callable
        `Recipe.part_of_epoch`, compiled; it consumes progress and what is known.
    known : tuple
        The shapes of what the updates of an epoch give.
    size : int
        Examples of a batch.
    most : int
        Batches of a block.
    sharding : Sharding, optional
        Of a block's examples, see `blocks`.
    """

    def __init__(
        self,
        order: Callable[[Any, Any], jax.Array],
        part: Callable[..., Any],
        known: Any,
        size: int,
        most: int,
        sharding: Any = None,
    ) -> None:
        self.order, self.part, self.known, self.size, self.most = order, part, known, size, most
        self.sharding = sharding

    def __call__(self, progress: Any, strengths: Any, train: Batch) -> tuple[Any, jax.Array, Any]:
        """Progress after the epoch, its mean loss, and what was tracked.

        Raises
        ------
        InputError
            See `blocks`.
        """
        (steps,) = self.known[0].shape
        order = np.asarray(self.order(progress.seed, progress.epoch))[: steps * self.size].reshape(steps, self.size)
        known, mean = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), self.known), jnp.zeros(())
        with contextlib.closing(blocks(train, order, self.most, self.sharding)) as stream:
            for part in stream:
                before = mean
                progress, known, mean = self.part(progress, known, strengths, part)
                jax.block_until_ready(before)  # so that blocks do not pile up on the device
        return progress._replace(epoch=progress.epoch + 1), mean, known[1]

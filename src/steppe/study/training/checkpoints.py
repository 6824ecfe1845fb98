"""Checkpoints within a run: a killed run is resumed where it was, bit for bit.

```
checkpoints/<condition>-s<seed>/<question>/progress.npz      the leaves of its progress, and its rows as Parquet
                                           progress-4.npz    the same of a run on 4 devices
```
"""

import io
import time

import jax
import jax.numpy as jnp
import numpy as np
import polars

from steppe.storage.checkpoint import Checkpoint, Values
from steppe.study.history import ROWS, History, written
from steppe.study.training.recipe import Progress


class Checkpoints:
    """Saves the progress and history of one run, at most every so many seconds.

    Epochs are pure functions of their progress, so that a resumed run repeats the interrupted one exactly, whenever
    its checkpoints were taken. The last bit of a sum depends on the number of devices, so that a run goes on with as
    many as it began with: with another number it begins anew.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where they lie.
    every_seconds : float
        Between checkpoints.
    """

    def __init__(self, checkpoint: Checkpoint, every_seconds: float):
        self.checkpoint = checkpoint
        self.every_seconds = every_seconds
        self.saved_at = time.monotonic()

    def latest(self, like: Progress) -> tuple[Progress, History] | None:
        """The last checkpoint; None where there is none that can be read, and the run begins anew."""
        arrays = self.checkpoint.read(_name(like))
        try:
            return _restored(arrays, like) if arrays else None
        except (ValueError, KeyError):
            return None

    def offer(self, progress: Progress, history: History) -> None:
        """Save, if the last time is long enough ago.

        Raises
        ------
        InputError : the study's folder is gone.
        OSError : the disk is full, or does not let itself be written; the last checkpoint stays.
        """
        if time.monotonic() - self.saved_at < self.every_seconds:
            return
        leaves = {str(place): np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(progress))}
        self.checkpoint.write(_name(progress), leaves | {"rows": np.frombuffer(written(history.rows), np.uint8)})
        self.saved_at = time.monotonic()


def _name(progress: Progress) -> str:
    """Of a checkpoint of such a progress."""
    devices = len(progress.seed.sharding.device_set)
    return "progress" if devices == 1 else f"progress-{devices}"


def _restored(arrays: Values, like: Progress) -> tuple[Progress, History]:
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) + 1 != len(arrays):
        raise ValueError("it is of another program")
    found = [arrays[str(place)].view(leaf.dtype) for place, leaf in enumerate(leaves)]  # NumPy knows no bfloat16
    if any(array.shape != leaf.shape for array, leaf in zip(found, leaves, strict=True)):
        raise ValueError("it is of another program")
    rows = polars.read_parquet(io.BytesIO(arrays["rows"].tobytes()))
    if dict(rows.schema) != ROWS:
        raise ValueError("it is of another version")
    return jax.tree.unflatten(structure, map(jnp.asarray, found)), History(rows)

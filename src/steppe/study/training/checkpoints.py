"""Checkpoints within a run: a killed run goes on where it was, bit for bit.

```
checkpoints/<condition>-s<seed>/<epoch>/progress.npz      the leaves of its progress, and its history as JSON
```
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from steppe.storage import files
from steppe.study.training.program import Progress

NAME = "progress.npz"
History = list[dict[str, Any]]


class Checkpoints:
    """Saves the progress and history of one run, at most every so many seconds.

    Epochs are pure functions of their progress, so that a resumed run repeats the interrupted one exactly, whenever
    its checkpoints were taken.

    Parameters
    ----------
    place : callable
        gives the folder to use, in one that is there; or fails where that is gone.
    every_seconds : float
        between checkpoints.
    """

    def __init__(self, place: Callable[[], Path], every_seconds: float):
        self.place = place
        self.every_seconds = every_seconds
        self.saved_at = time.monotonic()

    def latest(self, like: Progress) -> tuple[Progress, History] | None:
        """The last whole checkpoint, or None; where none can be read they are thrown away, and the run begins anew."""
        folder = self.place()
        if not folder.exists():
            return None
        for epoch in sorted(_epochs(files.make(folder, folder.parent)), reverse=True):
            try:
                return files.read(folder / str(epoch) / NAME, lambda stream: _restored(stream, like))
            except files.Damaged:
                continue
        shutil.rmtree(folder)
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
        folder, now = self.place(), int(progress.epoch)
        leaves = {str(place): np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(progress))}
        arrays = leaves | {"history": np.array(json.dumps(history))}
        files.write_checked(files.make(folder / str(now), folder.parent) / NAME, files.of_arrays(arrays))
        for epoch in _epochs(folder) - {now}:
            shutil.rmtree(folder / str(epoch))
        self.saved_at = time.monotonic()


def _epochs(folder: Path) -> set[int]:
    """Those at which there are checkpoints."""
    return {int(path.name) for path in folder.iterdir() if path.name.isdecimal() and not path.is_symlink()}


def _restored(stream: BinaryIO, like: Progress) -> tuple[Progress, History]:
    arrays = files.read_arrays(stream)
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) + 1 != len(arrays):
        raise ValueError("it is of another program")
    found = [arrays[str(place)].view(leaf.dtype) for place, leaf in enumerate(leaves)]  # NumPy knows no bfloat16
    if any(array.shape != leaf.shape for array, leaf in zip(found, leaves, strict=True)):
        raise ValueError("it is of another program")
    return jax.tree.unflatten(structure, map(jnp.asarray, found)), json.loads(str(arrays["history"]))

"""Checkpoints within a run (Orbax): a killed run goes on where it was, bit for bit."""

import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steppe.study.program import Progress


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

    def latest(self, like: Progress) -> tuple[Progress, list[dict[str, Any]]] | None:
        """The last whole checkpoint, or None; one that cannot be read is thrown away, and the run begins anew."""
        folder = self._folder()
        if not folder.is_dir():
            return None
        import orbax.checkpoint as ocp

        what = ocp.args.Composite(progress=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore())
        try:
            with _manager(folder) as manager:
                step = manager.latest_step()
                restored = None if step is None else manager.restore(step, args=what)
        except Exception as error:  # Orbax, its JSON and its array store each have their own words for damage
            _raise_if_of_disk(error, folder)
            shutil.rmtree(folder)
            return None
        return restored and (restored["progress"], restored["history"])

    def offer(self, progress: Progress, history: list[dict[str, Any]]) -> None:
        """Save, if the last time is long enough ago.

        Raises
        ------
        InputError : the study's folder is gone.
        OSError : the disk is full, or does not let itself be written.
        """
        if time.monotonic() - self.saved_at < self.every_seconds:
            return
        import orbax.checkpoint as ocp

        folder = self._folder()
        what = ocp.args.Composite(progress=ocp.args.StandardSave(progress), history=ocp.args.JsonSave(history))
        try:
            with _manager(folder) as manager:
                manager.save(int(progress.epoch), args=what)
                manager.wait_until_finished()
        except Exception as error:
            self.place()  # fails where the folder was taken away in the meantime
            _raise_if_of_disk(error, folder)
            raise
        self.saved_at = time.monotonic()

    def _folder(self) -> Path:
        """Where checkpoints lie; a link there, or in there, is removed with its name, for it would lead elsewhere."""
        folder = self.place().absolute()
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif any(path.is_symlink() for path in folder.rglob("*")):
            shutil.rmtree(folder)
        return folder


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it also raises
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder, options=options)


OF_DISK = (
    "ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "EMFILE", "ENFILE", "ESTALE",
)  # fmt: skip
"""What the system says where nothing can be written, though all that was written is whole."""


def _raise_if_of_disk(error: BaseException | None, folder: Path) -> None:
    """Raise an OSError where one lies behind an error: Orbax and its array store tell it in words alone."""
    first = error
    while error is not None:
        for name in OF_DISK:
            number = getattr(errno, name)
            said = getattr(error, "errno", None) == number or re.search(
                rf"\b{name}\b|\[Errno {number}\]|OS error {number}\b|{re.escape(os.strerror(number))}", str(error)
            )
            if said:
                raise OSError(number, os.strerror(number), str(folder)) from first
        error = error.__cause__ or error.__context__

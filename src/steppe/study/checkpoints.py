"""Checkpoints within a run (Orbax): a killed run goes on where it was, bit for bit."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from steppe.study.program import Progress


class Checkpoints:
    """Saves the progress and history of one run, at most every so many seconds.

    Epochs are pure functions of their progress, so that a resumed run repeats the interrupted one exactly, whenever
    its checkpoints were taken.
    """

    def __init__(self, folder: Path, every_seconds: float):
        self.folder = folder.absolute()
        self.every_seconds = every_seconds
        self.saved_at = time.monotonic()

    def latest(self, like: Progress) -> tuple[Progress, list[dict[str, Any]]] | None:
        """The last whole checkpoint, or None; one that cannot be read is thrown away, and the run begins anew."""
        if not self.folder.is_dir():
            return None
        import orbax.checkpoint as ocp

        what = ocp.args.Composite(progress=ocp.args.StandardRestore(like), history=ocp.args.JsonRestore())
        try:
            with self._manager() as manager:
                step = manager.latest_step()
                restored = None if step is None else manager.restore(step, args=what)
        except Exception:  # Orbax, its JSON and its array store each have their own words for damage
            shutil.rmtree(self.folder)
            return None
        return restored and (restored["progress"], restored["history"])

    def offer(self, progress: Progress, history: list[dict[str, Any]]) -> None:
        """Save, if the last time is long enough ago."""
        if time.monotonic() - self.saved_at < self.every_seconds:
            return
        import orbax.checkpoint as ocp

        what = ocp.args.Composite(progress=ocp.args.StandardSave(progress), history=ocp.args.JsonSave(history))
        with self._manager() as manager:
            manager.save(int(progress.epoch), args=what)
            manager.wait_until_finished()
        self.saved_at = time.monotonic()

    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it also raises
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self.folder, options=options)

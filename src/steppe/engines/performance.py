"""What a worker does: it checks that a task is its to compute, computes it, and says how far it is."""

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from steppe.core import checks, extras, programs
from steppe.engines import tasks
from steppe.engines.base import BLIND, FAILED, REFUSED
from steppe.engines.progress import Watcher
from steppe.storage import compilation, provenance

SECONDS = 0.5
"""Between two words on progress."""


class Reporter(Watcher):
    """Writes what it is told into the task's folder, now and then, for the process that asked.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path):
        self.path, self.wrote = path, 0.0
        self.done: dict[str, int] = {}
        self.said: list[str] = []
        self.at, self.state = "", [0.0, 0.0]
        self.later: threading.Timer | None = None
        self.closed, self._writing = False, threading.Lock()
        self.write()

    def write(self) -> None:
        """What is known now."""
        with self._writing:  # an earlier word never replaces a later one
            if not self.closed:
                self._write()

    def close(self) -> None:
        """Write for the last time: the folder may go now, while this process stays."""
        with self._writing:
            self._write()
            self.closed = True

    def _write(self) -> None:
        self.wrote, self.later = time.monotonic(), None
        where = {"host": provenance.host(), "process": os.getpid()}
        content = {**where, "at": self.at, "done": self.done, "state": self.state, "said": self.said}
        tasks.tell(self.path, content)

    def _count(self, steps: int) -> None:
        self.done[self.at] = self.done.get(self.at, 0) + steps
        rest = self.wrote + SECONDS - time.monotonic()
        if rest <= 0:
            self.write()
        elif self.later is None:  # nothing else may come for long
            self.later = threading.Timer(rest, self.write)
            self.later.daemon = True
            self.later.start()

    def stage(self, text: str) -> None:
        """See `Watcher`."""
        self.at = text
        self._count(0)

    def epoch(self, loss: float, frobenius_squared: float | None = None) -> None:
        """See `Watcher`."""
        self.state = [loss] if frobenius_squared is None else [loss, frobenius_squared]
        self._count(1)

    def skip(self, epochs: int) -> None:
        """See `Watcher`."""
        self._count(epochs)

    def points(self, count: int) -> None:
        """See `Watcher`."""
        self._count(count)

    def say(self, text: str) -> None:
        """See `Watcher`."""
        self.said.append(text)
        self.write()


def perform(folder: Path, mark: str) -> int:
    """Compute the task of a folder; the status with which the worker is to end."""
    task = tasks.read(folder / tasks.TASK)
    if task.get("mark") != mark:
        print(f"steppe: {folder} is another one on this machine.", file=sys.stderr)
        return BLIND
    reporter = Reporter(folder / tasks.PROGRESS)
    try:
        tasks.check_versions(task["made_with"])
        sys.path += [path for path in task["path"] if path not in sys.path]
        compilation.cache_programs()
        module, _, name = task["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        function(units=task["units"], **task["arguments"], watcher=reporter)
    except (checks.InputError, extras.MissingExtra) as error:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        _fail(folder, "refused", str(error), cause)  # where in the user's own code it was
        return REFUSED
    except BaseException as error:  # also sys.exit() and Ctrl-C in a user's code
        _fail(folder, "failed", programs.line(error), error)
        return FAILED
    finally:
        reporter.close()
    return 0


def _fail(folder: Path, kind: str, why: str, cause: BaseException | None) -> None:
    """Say why a task ended early, also in its log, whatever a user's code did to the standard streams."""
    tasks.tell(folder / tasks.FAILURE, {"kind": kind, "why": why, "host": provenance.host()})
    with contextlib.suppress(OSError), (folder / tasks.LOG).open("a", encoding="utf-8") as log:
        if cause:
            traceback.print_exception(cause, file=log)
        print(f"steppe: {why}", file=log)

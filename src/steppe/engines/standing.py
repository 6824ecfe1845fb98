"""A worker that stays for further jobs, for its start costs more than many a run: what begins and asks it."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from steppe.engines import worker
from steppe.engines.worker import Word


class Standing:
    """A worker on this machine, which takes one job after another, and ends with the process that began it.

    Jobs are told to it on its standard input. On its standard output it says how each ended, and whether it stays for
    another: only after one that ended well, and that ran no code of a user, so that nothing of a failure or of a user's
    module is there when the next job begins.

    Parameters
    ----------
    folder, mark : Path, str
        Of its first job.
    environment : Mapping
        Its variables.
    home : str, optional
        The folder in which it begins.
    cores : sequence of int
        Those that it may use; all of its machine if there are none.
    """

    def __init__(
        self,
        folder: Path,
        mark: str,
        environment: Mapping[str, str],
        home: str | None = None,
        cores: Sequence[int] = (),
    ):
        self.process = subprocess.Popen(
            worker.command(folder, mark, cores=cores, tied=True),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=home,
            start_new_session=True,  # Ctrl-C is the command's
        )
        self._stays = False

    def give(self, folder: Path, mark: str) -> None:
        """Tell it of its next job; one that is gone says so when its status is asked."""
        assert self.process.stdin is not None
        self._stays = False
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([str(folder), mark]).encode() + b"\n")
            self.process.stdin.flush()

    def status(self, seconds: float = 0.0) -> int | None:
        """The status of its job; None while it computes, for which it is waited so long."""
        assert self.process.stdout is not None
        said = bool(select.select([self.process.stdout], [], [], seconds)[0])
        if said and (word := os.read(self.process.stdout.fileno(), len(Word._fields))):
            status, self._stays = Word(*word)
            return status
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that it left behind may hold its output
            return self.process.wait(seconds if said else 0)
        return None

    @property
    def stays(self) -> bool:
        """Whether it waits for another job."""
        return self._stays and self.process.poll() is None

    def dismiss(self) -> None:
        """Tell it that there are no more jobs: it ends at once while it computes, and otherwise as Python does."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self) -> None:
        """End it, whatever it does, and what a user's code left running, which may hold files or use cores."""
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(worker.LEAVE_SECONDS + 1)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left: PermissionError on macOS
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

"""A worker that stays for further jobs, for its start costs more than many a run: what begins and asks it."""

import contextlib
import json
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from steppe.engines import worker


class Standing:
    """A worker on this machine, which takes one job after another, and ends with the process that began it.

    Jobs are told to it on its standard input. On its standard output it says that one ended well; after any other end
    it ends itself, by its status, so that nothing of a failure is there when the next job begins.

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

    def give(self, folder: Path, mark: str) -> None:
        """Tell it of its next job; one that is gone says so when its status is asked."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([str(folder), mark]).encode() + b"\n")
            self.process.stdin.flush()

    def status(self, seconds: float = 0.0) -> int | None:
        """The status of its job; None while it computes, for which it is waited so long."""
        assert self.process.stdout is not None
        if select.select([self.process.stdout], [], [], seconds)[0]:
            return 0 if os.read(self.process.stdout.fileno(), 1) else self.process.wait()
        return self.process.poll()  # a process that it left behind may hold its output

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

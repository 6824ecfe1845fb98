"""A worker: the process that computes tasks, on whichever machine it was carried to.

It is a process of its own with every engine, so that nothing of JAX is there before it, its log is the task's, and its
end, however it comes, is its own. ``python -P -m steppe.engines.worker FOLDER MARK`` begins it. One that is tied to the
process that began it stays for further tasks, see `standing`.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LEAVE_SECONDS = 5.0
"""How long a worker that computes nothing more may take to end: for what a user's code does then, or left running."""


class Word(NamedTuple):
    """What a worker that may stay says at the end of a task: as bytes, one for each.

    Attributes
    ----------
    status : int
        That of the task, as a process has it.
    stays : bool
        Whether the worker waits for another one.
    """

    status: int
    stays: bool


def command(folder: Path, mark: str, *, cores: Sequence[int] = (), tied: bool = False) -> list[str]:
    """The words that begin a worker with this Python.

    Parameters
    ----------
    folder, mark : Path, str
        Of a job.
    cores : sequence of int
        Those that it may use; all of its machine if there are none.
    tied : bool
        Whether it ends with the process that begins it, which holds the other ends of its standard input and output,
        and stays for further jobs, as long as they end well and run no code of a user.
    """
    words = [sys.executable, "-P", "-m", "steppe.engines.worker", str(folder), mark]
    return words + (["--cores", ",".join(map(str, cores))] if cores else []) + (["--tied"] if tied else [])


def main(words: Sequence[str] | None = None) -> int:
    """Compute a task, or several; the status with which the process is to end."""
    parser = argparse.ArgumentParser("steppe.engines.worker", description="Compute tasks of a Steppe command.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("mark")
    parser.add_argument("--cores", default="")
    parser.add_argument("--tied", action="store_true")
    given = parser.parse_args(words)
    if given.cores and hasattr(os, "sched_setaffinity"):  # before libraries count cores
        os.sched_setaffinity(0, set(map(int, given.cores.split(","))))
    return _stay(given.folder, given.mark) if given.tied else _compute(given.folder, given.mark)


def _stay(folder: Path, mark: str) -> int:
    """Compute a task and all that follow it, until one fails or runs a user's code; the status of the last."""
    asked, told = os.dup(0), os.dup(1)  # what a task begins inherits neither
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what is printed is no word to the other end
    jobs: queue.SimpleQueue[tuple[Path, str] | None] = queue.SimpleQueue()
    busy = threading.Event()
    busy.set()
    threading.Thread(target=_listen, args=(asked, jobs, busy), daemon=True, name="tie").start()
    job: tuple[Path, str] | None = (folder, mark)
    while job:
        status = _compute(*job)
        word = Word(status, status == 0 and not _ran_users_code())
        if word.stays:
            _print_to(Path(os.devnull))  # the folder of the task goes now
        busy.clear()
        os.write(told, bytes(word))
        if not word.stays:
            return status
        job = jobs.get()
    return 0


def _listen(asked: int, jobs: "queue.SimpleQueue[tuple[Path, str] | None]", busy: threading.Event) -> None:
    """Put jobs into a queue; with the other end, end the process: at once while it computes."""
    with open(asked, "rb", buffering=0) as words:  # a buffer has a lock, which the end of Python waits for
        for line in words:
            folder, mark = json.loads(line)
            busy.set()
            jobs.put((Path(folder), mark))
    if busy.is_set():
        os.killpg(0, signal.SIGKILL)  # with what a user's code began
    jobs.put(None)


def _ran_users_code() -> bool:
    """Whether this process may not be what it was: a user's module may have changed itself, JAX or the system's state.

    The next task is to have the bits of a process of its own, whatever was computed before.
    """
    from steppe import extensions

    return extensions.any_loaded()


def _compute(folder: Path, mark: str) -> int:
    """Compute a task; its status."""
    if not (folder / "task.json").is_file():
        print(f"steppe: {folder} is not there on this machine.", file=sys.stderr)
        return 3  # `base.BLIND`, which is behind imports that count cores
    _print_to(folder / "log.txt")
    from steppe.engines import performance

    return performance.perform(folder, mark)


def _print_to(path: Path) -> None:
    """From now on, all that is printed goes to the end of a file."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, AttributeError, OSError):  # closed, taken away, or on a full disk
            stream.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)


if __name__ == "__main__":
    ended = main()
    end = threading.Timer(LEAVE_SECONDS, os._exit, (ended,))  # Python itself waits for threads without end
    end.daemon = True
    end.start()
    sys.exit(ended)

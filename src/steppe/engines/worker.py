"""A worker: the process that computes one task, on whichever machine it was carried to.

It is a process of its own with every engine, so that nothing of JAX is there before it, its log is the task's, and its
end, however it comes, is its own. ``python -P -m steppe.engines.worker FOLDER MARK`` begins it.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

ORPHANED = 6
"""The status of a worker whose beginner is gone."""


def command(folder: Path, mark: str, *, cores: Sequence[int] = (), tied: bool = False) -> list[str]:
    """The words that begin a worker with this Python.

    Parameters
    ----------
    folder, mark : Path, str
        Of a job.
    cores : sequence of int
        Those that it may use; all of its machine if there are none.
    tied : bool
        Whether it ends with the process that begins it, which holds the other end of its standard input.
    """
    words = [sys.executable, "-P", "-m", "steppe.engines.worker", str(folder), mark]
    return words + (["--cores", ",".join(map(str, cores))] if cores else []) + (["--tied"] if tied else [])


def main(words: Sequence[str] | None = None) -> int:
    """Compute a task; the status with which the process is to end."""
    parser = argparse.ArgumentParser("steppe.engines.worker", description="Compute one task of a Steppe command.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("mark")
    parser.add_argument("--cores", default="")
    parser.add_argument("--tied", action="store_true")
    given = parser.parse_args(words)
    if given.cores and hasattr(os, "sched_setaffinity"):  # before libraries count cores
        os.sched_setaffinity(0, set(map(int, given.cores.split(","))))
    if given.tied:
        threading.Thread(target=_end_with_the_other_end, daemon=True, name="tie").start()
    if not (given.folder / "task.json").is_file():
        print(f"steppe: {given.folder} is not there on this machine.", file=sys.stderr)
        return 3  # `base.BLIND`, which is behind imports that count cores
    log = os.open(given.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from steppe.engines import performance

    return performance.perform(given.folder, given.mark)


def _end_with_the_other_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())

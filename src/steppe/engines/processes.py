"""Several processes on this machine, each with cores of its own, and a GPU of its own where there are several."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from steppe.core import checks
from steppe.engines.base import Ending, Job, Waits
from steppe.engines.standing import Standing
from steppe.storage import provenance


class Place(NamedTuple):
    """What one worker has of the machine: cores, and a GPU or none."""

    cores: tuple[int, ...]
    gpu: str


class Processes:
    """Carries jobs to processes on this machine.

    Parameters
    ----------
    workers : int, optional
        How many compute at once: one a GPU where there are GPUs, and otherwise one a core.

    Raises
    ------
    InputError
        No whole number from 1 on.
    """

    name = "processes"

    def __init__(self, workers: int | None = None):
        gpus, cores = _gpus(), _cores()
        if workers is not None:
            checks.whole("processes", "--workers", workers)
        self.asked = workers
        self.workers = workers or len(gpus) or len(cores)
        self._free = [
            Place(_share(cores, place, self.workers), gpus[place % len(gpus)] if len(gpus) > 1 else "")
            for place in reversed(range(self.workers))
        ]
        self._idle: list[tuple[Standing, Place]] = []
        self._running: dict[str, tuple[Standing, Place]] = {}

    def parts(self, count: int) -> int:
        """See `Engine`: four tasks for each worker, so that none waits long for the last."""
        return min(count, 4 * self.workers)

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`: workers end with the process that began them."""
        return []

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`."""
        started = list(jobs[: len(self._free) + len(self._idle)])
        for job in started:
            if self._idle:
                standing, place = self._idle.pop()
                standing.give(job.folder, job.mark)
            else:
                place = self._free.pop()
                standing = Standing(job.folder, job.mark, _environment(place), cores=place.cores)
            self._running[job.name] = standing, place
        return started

    def ended(self) -> dict[str, Ending]:
        """See `Engine`; workers for which there was no other job since this was last asked are ended."""
        self._end_idle()
        found = {}
        for name, (standing, place) in list(self._running.items()):
            status = standing.status()
            if status is not None:
                found[name] = Ending(status, explained(status))
                del self._running[name]
                if standing.stays:
                    self._idle.append((standing, place))
                else:
                    standing.close()
                    self._free.append(place)
        return found

    def _end_idle(self) -> None:
        for standing, _ in self._idle:
            standing.dismiss()
        for standing, place in self._idle:
            standing.close()
            self._free.append(place)
        self._idle.clear()

    def waits(self) -> Waits:
        """See `Engine`: nothing that is known."""
        return Waits()

    def stop(self) -> None:
        """See `Engine`."""
        self._idle += self._running.values()
        self._running.clear()
        self._end_idle()

    def preview(self, folder: Path, count: int) -> str:
        """See `Engine`."""
        return "".join(f"{_told(place)}\n" for place in reversed(self._free[-count:]))


def explained(status: int) -> str:
    """How a process ended, in words; nothing where that was well.

    Examples
    --------
    >>> explained(-9), explained(2), explained(0)
    ('its process was killed by SIGKILL', 'its process ended with status 2', '')
    """
    if status < 0:
        return f"its process was killed by {signal.Signals(-status).name}"
    return f"its process ended with status {status}" if status else ""


def environment(threads: int | None = None) -> dict[str, str]:
    """What a worker's environment needs besides that of its machine.

    It computes with as many threads as this process would, so that its results have the same bits; and takes no more
    of a GPU's memory than it needs.
    """
    return {provenance.THREADS: str(threads or provenance.threads()), **memory()}


def memory() -> dict[str, str]:
    """What lets several processes share a GPU's memory, unless the user says otherwise."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    return {name: os.environ.get(name, "false")}


def _environment(place: Place) -> dict[str, str]:
    gpu = {"CUDA_VISIBLE_DEVICES": place.gpu} if place.gpu else {}
    return {**os.environ, **environment(), **gpu}


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _share(cores: Sequence[int], place: int, workers: int) -> tuple[int, ...]:
    """The cores of one of several workers: equal shares, and where there are fewer cores, one each in turn.

    Examples
    --------
    >>> [_share([0, 1, 2, 3, 4], place, 2) for place in range(2)], _share([0, 1], 2, 3)
    ([(0, 1, 2), (3, 4)], (0,))
    """
    if workers > len(cores):
        return (cores[place % len(cores)],)
    ends = [-(-len(cores) * i // workers) for i in (place, place + 1)]
    return tuple(cores[ends[0] : ends[1]])


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA numbers them; found without JAX, which would take their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return []
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def _told(place: Place) -> str:
    cores = f"core{'s' if len(place.cores) > 1 else ''} {','.join(map(str, place.cores))}"
    return f"A worker on {cores}" + (f" with GPU {place.gpu}" if place.gpu else "")

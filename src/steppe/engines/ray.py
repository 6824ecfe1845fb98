"""A cluster of Ray, which finds a machine with room for each worker; or a local one, where no address is given.

Ray carries, and nothing else: a worker is a process of its own that a task of Ray waits for, so that Ray's processes
never load JAX, and what was lost is given again by `pool`, which reads it from the folder.
"""

import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from steppe.core import checks, extras, programs
from steppe.engines.base import Ending, Job, Waits
from steppe.engines.processes import environment, explained
from steppe.engines.standing import Standing

CONNECT_SECONDS = 10
"""How long an address may take to answer."""

IDLE_SECONDS = 10.0
"""How long a worker that has ended its job stays for the next one."""

WAIT_SECONDS = 1.0
"""Between two looks at a worker whose output somebody else may hold."""


class Ray:
    """Carries jobs by Ray.

    Parameters
    ----------
    address : str, optional
        That of the cluster, as ``ray.init`` takes it; "auto" is the one that ``RAY_ADDRESS`` names, or that runs on
        this machine. Without it, a cluster of this machine is begun and ended.
    workers : int, optional
        How many compute at once, at most; as many as the cluster has room for.
    cpus, gpus : float, optional
        What is reserved for each; one core, and a GPU where there are any. With `cpus`, each computes with so many
        threads instead of as many as this process would.

    Raises
    ------
    InputError
        No cluster at that address, or one of another version; a cluster without what one worker needs.
    MissingExtra
        Ray is not installed.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
    ):
        if workers is not None:
            checks.whole("ray", "--workers", workers)
        for option, value in (("--cpus-per-run", cpus), ("--gpus-per-run", gpus)):
            if value is not None:
                checks.real("ray", option, value, least=0.0)
        extras.require("--on ray", "ray")
        self.ray, self.given = _connected(address), address is not None
        room = self.ray.cluster_resources()
        self.needs = {"CPU": 1.0 if cpus is None else cpus, "GPU": _default_gpus(room) if gpus is None else gpus}
        self.limit = self.asked = workers
        self.environment = environment(None if cpus is None else max(1, int(cpus))) | _set_here()
        self._running: dict[Any, str] = {}
        self._check_room()

    def _check_room(self) -> None:
        """Fail where no machine has room for one worker."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0) >= count for kind, count in self.needs.items()) for node in nodes):
            asked = checks.joined(f"{count:g} {kind}" for kind, count in self.needs.items() if count)
            most = checks.joined(f"{max((n.get(kind, 0) for n in nodes), default=0):g} {kind}" for kind in self.needs)
            checks.fail("ray", "--cpus-per-run and --gpus-per-run", "what one machine of the cluster has",
                        f"{asked} where the largest have {most}")  # fmt: skip

    @property
    def workers(self) -> int:
        """How many compute at once, as far as the cluster has room for them now."""
        room = self.ray.cluster_resources()
        fit = [int(room.get(kind, 0) / count) for kind, count in self.needs.items() if count]
        return max(1, min([*fit, *([self.limit] if self.limit else [])], default=1))

    def parts(self, count: int) -> int:
        """See `Engine`."""
        return min(count, 4 * self.workers)

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`: Ray ends the tasks of a process that is gone."""
        return []

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`: those that the cluster has no room for wait there, in Ray's own queue."""
        started = list(jobs[: self.limit - len(self._running)] if self.limit else jobs)
        remote = self.ray.remote(carry).options(
            num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_retries=0, scheduling_strategy="SPREAD"
        )
        for job in started:
            stays = not self.needs["GPU"]  # which Ray gives to others once its task has ended
            ref = remote.remote(str(job.folder), job.mark, os.getcwd(), self.environment, stays)
            self._running[ref] = job.name
        return started

    def ended(self) -> dict[str, Ending]:
        """See `Engine`."""
        found = {}
        ready, _ = (
            self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0) if self._running else ([], [])
        )
        for ref in ready:
            found[self._running.pop(ref)] = self._ending(ref)
        return found

    def _ending(self, ref: Any) -> Ending:
        try:
            status = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return Ending(None, _short(error))
        return Ending(status, explained(status))

    def waits(self) -> Waits:
        """See `Engine`: nothing that is known."""
        return Waits()

    def stop(self) -> None:
        """See `Engine`."""
        for ref in self._running:
            with contextlib.suppress(Exception):  # the cluster may be what is gone
                self.ray.cancel(ref, force=True)
        self._running.clear()

    def preview(self, folder: Path, count: int) -> str:
        """See `Engine`."""
        needs = checks.joined(f"{value:g} {kind}" for kind, value in self.needs.items() if value)
        where = self.ray.get_runtime_context().gcs_address if self.given else "one that the command begins"
        tasks = f"{count} task{'s' if count != 1 else ''}"
        return f"{tasks} of Ray, {self.workers} at once, each with {needs}, on this cluster: {where}\n"


def carry(folder: str, mark: str, home: str, more: Mapping[str, str], stays: bool) -> int:
    """Have a job computed on a machine of the cluster, and wait for it; its status.

    The worker ends with the process that waits, however that ends. Where it `stays`, it is there for a while for the
    next job that Ray gives to this process.
    """
    variables, place = {**os.environ, **more}, home if os.path.isdir(home) else None
    standing = _taken(variables, place)
    if standing:
        standing.give(Path(folder), mark)
    else:
        standing = Standing(Path(folder), mark, variables, place)
    try:
        while (status := standing.status(WAIT_SECONDS)) is None:
            pass
        return status
    finally:
        if stays and standing.stays:
            _leave(standing, variables, place)
        else:
            standing.close()


class _Left(NamedTuple):
    """A worker without a job, what it was begun with, and what ends it."""

    standing: Standing
    variables: Mapping[str, str]
    home: str | None
    end: threading.Timer


_left: list[_Left] = []
_one_at_a_time = threading.Lock()


def _leave(standing: Standing, variables: Mapping[str, str], home: str | None) -> None:
    """Keep a worker for the next job of this process of Ray, for a while."""
    end = threading.Timer(IDLE_SECONDS, _taken, ({}, None))
    end.daemon = True
    with _one_at_a_time:
        _left.append(_Left(standing, variables, home, end))
    end.start()


def _taken(variables: Mapping[str, str], home: str | None) -> Standing | None:
    """The worker that was left here, if it was begun with the same; otherwise it is ended."""
    with _one_at_a_time:
        left = _left.pop() if _left else None
    if left is None:
        return None
    left.end.cancel()
    if (left.variables, left.home) == (variables, home) and left.standing.stays:
        return left.standing
    left.standing.close()
    return None


def _connected(address: str | None) -> Any:
    """Ray, with a cluster behind it.

    Raises
    ------
    InputError : there is none at that address, or one of another version.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default, without its warning
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return ray
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    where: dict[str, Any] = (
        {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    )
    try:
        _reach(address)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)  # what forks executes at once
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR, namespace="steppe")
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        _refuse(address, error)
    return ray


def _refuse(address: str | None, error: Exception) -> NoReturn:
    """Fail as there is no cluster to be used."""
    if address == "auto" and isinstance(error, ConnectionError):
        checks.fail("ray", "--address auto", "given where RAY_ADDRESS names a cluster, or one runs on this machine",
                    "no cluster", "`ray start --head` begins one; without --address, the command does.")  # fmt: skip
    checks.fail("ray", "--address", "that of a cluster of Ray that can be reached, with the same versions of "
                "Python and Ray", f"{checks.shown(address)} ({programs.line(error)})",
                "`ray status --address=…` says whether it is there. "
                "If it asks for a token, set RAY_AUTH_MODE=token.")  # fmt: skip


def _reach(address: str | None) -> None:
    """Fail at once where nothing listens at ``HOST:PORT``: Ray itself asks for minutes, and says little."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _default_gpus(room: Mapping[str, float]) -> float:
    return 1.0 if room.get("GPU", 0) >= 1 else 0.0


def _set_here() -> dict[str, str]:
    """Variables of this process that change what XLA, JAX and Steppe compute."""
    return {name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_", "STEPPE_"))}


def _short(error: BaseException) -> str:
    """What Ray says of a task that was lost, in a few words."""
    known = {
        "WorkerCrashedError": "its process was killed",
        "NodeDiedError": "its machine was lost",
        "OutOfMemoryError": "its machine had too little memory",
        "TaskCancelledError": "it was cancelled",
    }
    return next((words for kind in type(error).__mro__ if (words := known.get(kind.__name__))), programs.line(error))

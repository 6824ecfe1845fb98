"""What tests need of machines: a cluster of Ray, which is processes here; workers that run; a port."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock


@contextlib.contextmanager
def reserved() -> Iterator[int]:
    """A port of this machine that the system gives to nobody else, and at which a server can still listen."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def cluster_of(machines: int) -> Iterator[Any]:
    """A cluster of so many machines of one core; `others` are those that may be lost."""
    import ray
    from ray.cluster_utils import Cluster

    tests = os.path.dirname(os.path.dirname(__file__))
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    os.environ |= {"PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                   "RAY_raylet_start_wait_time_s": "300"}  # fmt: skip
    services = "ray._private.services"
    with (
        mock.patch(f"{services}.get_node", patient(ray._private.services.get_node)),
        mock.patch(f"{services}.wait_for_node", patient(ray._private.services.wait_for_node)),
    ):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.others = [cluster.add_node(num_cpus=1) for _ in range(machines - 1)]
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def patient(function: Callable[..., Any], seconds: float = 300) -> Callable[..., Any]:
    """A function that is asked again for so long: Ray gives a machine thirty seconds to begin, busy or not."""

    def asked(*arguments: Any) -> Any:
        began = time.monotonic()
        while True:
            try:
                return function(*arguments)
            except (RuntimeError, TimeoutError):
                if time.monotonic() - began > seconds:
                    raise
                time.sleep(0.5)

    return asked


def workers_of(folder: Path) -> list[int]:
    """The processes of workers in a folder, as Linux lists them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().decode(errors="replace")
            if "steppe.engines.worker" in words and str(folder) in words:
                found.append(int(path.parent.name))
    return found


def left_of(folder: Path, seconds: float = 300) -> list[int]:
    """The workers in a folder that do not end within so long."""
    until = time.monotonic() + seconds
    while (found := workers_of(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    return found

"""Where numbers came from."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

THREADS = "NPROC"
"""Of the environment: the number of XLA's threads, that of the cores unless it is set."""

PACKAGES = ("steppe", "jax", "jaxlib", "optax", "flax", "numpy")


def host() -> str:
    """The machine's name."""
    return platform.node()


@functools.cache
def machine(trained_on: int = 1) -> dict[str, str]:
    """Versions and hardware of this process, as text; with the number of devices where several trained."""
    devices = sorted({device.device_kind for device in jax.devices()})
    places = f"JAX on {len(jax.devices())} × {', '.join(devices)}"
    places += f", trained on {trained_on} of them" if trained_on > 1 else ""
    return {
        "versions": versions(),
        "hardware": f"{processor()}, {os.cpu_count()} cores{_limited()}; {places}",
        "system": platform.platform(),
    }


def versions() -> str:
    """Versions of Python and of the packages that results depend on."""
    return ", ".join([f"Python {platform.python_version()}"]
                     + [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES])  # fmt: skip


def threads() -> int:
    """The number of threads with which JAX computes on a CPU: sums are split by it, so that last bits depend on it."""
    given = os.environ.get(THREADS, "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limited() -> str:
    """The number of threads, where it is not that of the cores."""
    return "" if threads() == os.cpu_count() else f", {threads()} threads"


def processor() -> str:
    """The processor's name, as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

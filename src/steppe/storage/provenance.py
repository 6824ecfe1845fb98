"""Where numbers came from."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

PACKAGES = ("steppe", "jax", "jaxlib", "optax", "flax", "numpy")


def host() -> str:
    """The machine's name."""
    return platform.node()


@functools.cache
def machine(trained_on: int = 1) -> dict[str, str]:
    """Versions and hardware of this process, as text; with the number of devices where several trained."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    devices = sorted({device.device_kind for device in jax.devices()})
    places = f"JAX on {len(jax.devices())} × {', '.join(devices)}"
    places += f", trained on {trained_on} of them" if trained_on > 1 else ""
    return {
        "versions": f"Python {platform.python_version()}, {versions}",
        "hardware": f"{processor()}, {os.cpu_count()} cores; {places}",
        "system": platform.platform(),
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

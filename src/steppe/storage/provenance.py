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
def machine() -> dict[str, str]:
    """Versions and hardware of this process, as text."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    devices = sorted({device.device_kind for device in jax.devices()})
    return {
        "versions": f"Python {platform.python_version()}, {versions}",
        "hardware": f"{processor()}, {os.cpu_count()} cores; JAX on {len(jax.devices())} × {', '.join(devices)}",
        "system": platform.platform(),
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

"""Compiled programs kept from one command to the next: JAX's cache on disk, in a folder of the user's.

Of a second start of the same command most of the time before training is compilation again. JAX keys what it keeps by
the program, its own version, the device, and XLA's options; what it leaves out is which instructions a processor has
and how many cores a process may use, so that each kind of machine has a folder of its own here: a home folder may be
seen by several.
"""

import contextlib
import hashlib
import os
import stat
import sys
import warnings
from pathlib import Path

import jax

from steppe.storage import provenance

VARIABLE = "STEPPE_CACHE"
"""Of the environment: the folder to keep programs in, or "off"."""

LARGEST = 2**30
"""Bytes kept for a kind of machine; of more, JAX removes what was not used for longest."""

LEAST_SECONDS = 0.05
"""What compiles faster is not kept: reading it takes about as long."""

PATIENCE = 2.0
"""Seconds to wait for another process that uses the folder."""


def cache_programs() -> Path | None:
    """Keep the compiled programs of this process on disk, and use those that are there; the folder, or None.

    Nothing happens where the user has set JAX's own cache (`JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE`) or ``STEPPE_CACHE=off``, nor where the folder cannot be made, written or locked, or
    others may write to it: what is read there is executed. Nothing that goes wrong later is an error either: the
    program is then compiled as ever.
    """
    chosen = os.environ.get(VARIABLE, "")
    if chosen.strip().lower() in ("off", "0", "no", "none", "false") or _is_set_by_user():
        return None
    folder = (Path(chosen).expanduser() if chosen else _user_folder() / "steppe") / "programs" / _machine()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return None
        bounded = _sweep(folder)
    except (OSError, NotImplementedError):  # the second: a file system without locks
        return None
    warnings.filterwarnings("ignore", message=".*persistent compilation cache entry", category=UserWarning)
    warnings.filterwarnings("ignore", message="Cache value for key", category=UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", LARGEST if bounded else -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return folder


def _is_set_by_user() -> bool:
    """Whether JAX's own cache is set, or is not wanted."""
    is_set, is_wanted = (
        getattr(jax.config, f"jax_{name}") for name in ("compilation_cache_dir", "enable_compilation_cache")
    )
    return is_set is not None or not is_wanted


def _user_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # others are to be ignored, says the specification
        return Path(given)
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError as error:  # no home
        raise OSError(str(error)) from None


def _machine() -> str:
    """Tells kinds of machines apart: the processor's name and instructions, and the threads that a process has."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{provenance.processor()} {features} {provenance.threads()}".encode()).hexdigest()[:16]


def _is_private(folder: Path) -> bool:
    """Whether nobody else can write to a folder."""
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _sweep(folder: Path) -> bool:
    """Remove what a killed process left half written; whether the folder can be kept from growing.

    JAX writes a program and then the time of its use. Without that time nothing more could be written to the folder.

    Raises
    ------
    OSError, NotImplementedError : the folder cannot be written or locked.
    """
    try:
        import filelock
    except ImportError:
        return False
    lock = filelock.FileLock(folder / ".lockfile", timeout=PATIENCE)  # JAX's own
    with contextlib.suppress(filelock.Timeout), lock:  # another process may be there
        for program in folder.glob("*-cache"):
            if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").is_file():
                program.unlink()
    return True

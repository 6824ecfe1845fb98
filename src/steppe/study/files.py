"""Files that are there whole or not at all."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from steppe import process


def write(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> Path:
    """Write text, bytes, or what a function writes into a file; the name changes hands when every byte is on disk.

    What a killed process leaves is called ``.<name>.partial``.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with process.removed_at_the_end(partial), partial.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return path


DAMAGED = (OSError, ValueError, zipfile.BadZipFile)
"""What `arrays` raises for a file that is not there, or not whole."""


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; pickled objects are never read."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

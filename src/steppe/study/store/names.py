"""The names of a study's files, and what removes them and nothing else."""

import contextlib
import shutil
from pathlib import Path

from steppe.storage import files

SUMS = "SHA256SUMS"
ROWS, OLD_ROWS = "measurements.parquet", "history.json"
"""What a run says of its network, and the file in which older versions kept it."""

ADDED = "additions.parquet"
"""What a finished run was asked later, of measures that its study names since; it has a checksum of its own."""

OF_A_RUN = ("parameters.npz", ROWS, "run.json", SUMS)
BESIDE = (OLD_ROWS, ADDED, f"{ADDED}.sha256")
"""Further files that a run's folder may hold."""

OF_A_STUDY = (
    "study.toml", "data.json", "tuning.json", "surfaces.npz", "measurements.parquet", "measures.parquet",
    "densities.npz", "results.parquet", "summary.md", "report.html", "landscape.html", "measures.html",
)  # fmt: skip
"""Files that Steppe writes."""

FRESH = {f"{name}{end}" for name in ("study.toml", "data.json") for end in ("", ".sha256")} | {".lock", "runs", "tasks"}
"""What the folder of a study holds before anything is computed."""


def remove_run(folder: Path) -> None:
    """Remove a run's files, and the folder if there is nothing else in it."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.is_dir():
        files.sweep(folder, OF_A_RUN)
        for name in (*OF_A_RUN, *BESIDE):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody put something there
            folder.rmdir()


def remove(path: Path) -> None:
    """Remove a file, a link (never what it leads to) or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def node(path: Path) -> tuple[int, int] | None:
    """What a folder is, whatever its name; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

"""The files of a folder into which another process writes."""

import os
from pathlib import Path


def paths_in(folder: Path) -> list[Path]:
    """Every file under a folder that another process may write or remove meanwhile.

    `Path.glob` raises FileNotFoundError where a folder is removed between being listed and being entered.
    """
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)

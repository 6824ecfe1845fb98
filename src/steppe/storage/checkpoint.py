"""What is known so far of a long computation, for the process that resumes it.

```
PLACE/<16 digits of the question>/<name>.npz
```
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steppe.storage import files

Values = dict[str, np.ndarray]
"""Arrays by name."""


class Checkpoint:
    """Arrays of an unfinished computation on disk, each file whole or not there.

    Parameters
    ----------
    place : callable
        Gives the folder, made if need be; it fails where that is gone.
    question : Any
        All that the values depend on, as JSON writes it. Another question begins anew, so that the bits of two
        computations never mix.
    """

    def __init__(self, place: Callable[[], Path], question: Any):
        asked = json.dumps(question, sort_keys=True, default=str)
        self.place, self.name = place, hashlib.sha256(asked.encode()).hexdigest()[:16]

    def read(self, name: str) -> Values | None:
        """What was written under a name; None where there is nothing, or it cannot be read."""
        folder = self.place() / self.name
        files.sweep(folder, (f"{name}.npz",))
        try:
            return files.arrays(folder / f"{name}.npz")
        except files.DamagedFile:
            return None

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write arrays under a name; those before stay until all bytes of these are on disk.

        Raises
        ------
        InputError
            The place is gone.
        OSError
            The disk is full.
        """
        folder = self.place()
        files.write_checked(files.make(folder / self.name, folder) / f"{name}.npz", files.array_content(values))

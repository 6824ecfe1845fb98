"""Measures of trained networks: what can be asked of them, and the table of numbers on disk.

```
FOLDER/measures.parquet      one row a number
FOLDER/densities.npz         curves, under the fingerprint of their row
```
"""

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars

from steppe.core import checks
from steppe.storage import files

NAME, CURVES = "measures.parquet", "densities.npz"
AGAIN = "Move it away, and measure again."
CHECKED = {"checksum": f"{NAME}.sha256"}
"""What a table's file says of itself."""

SCHEMA = {
    "run": polars.String,
    "condition": polars.String,
    "seed": polars.Int64,
    "measure": polars.String,
    "quantity": polars.String,
    "value": polars.Float64,
    "sem": polars.Float64,
    "converged": polars.Boolean,
    "note": polars.String,
    "remark": polars.String,
    "scale": polars.String,
    "dataset": polars.String,
    "split": polars.String,
    "examples": polars.Int64,
    "batch_size": polars.Int64,
    "dtype": polars.String,
    "probes": polars.Int64,
    "draw_seed": polars.Int64,
    "settings": polars.String,
    "source": polars.String,
    "network": polars.String,
    "fingerprint": polars.String,
    "steppe_version": polars.String,
    "jax_version": polars.String,
    "measure_seconds": polars.Float64,
    "host": polars.String,
}
"""Columns. `note` is what to know of the number, `remark` what to know of all numbers of its network: which arrays were
no parameters. `scale` is "log" where logarithms are what is compared; `draw_seed` that of random vectors and of the
choice of examples; `settings` the measure's own, as JSON; `network` what makes outputs or a loss of parameters;
`fingerprint` that of parameters, data, program, measure and settings: what makes a row the same."""

ASKED = ("measure", "settings", "dataset", "split", "examples", "batch_size", "dtype", "draw_seed")
"""Columns that say what was asked, whoever was asked it."""


def fingerprinted(*parts: Any) -> str:
    """Sixteen digits for anything JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Table:
    """The rows in a folder, and the curves that belong to some.

    Rows go to disk as they come, measure by measure, each time whole; a folder that is not there is made for the first
    one. As long as it is open, no other process measures into the folder.
    """

    def __init__(self, folder: Path):
        """What a folder holds, or nothing yet.

        Raises
        ------
        InputError : a table that cannot be read, or is of another form; a folder in which another process measures.
        """
        self.folder = folder
        self.lock: int | None = None
        try:
            if folder.is_dir():
                self._hold()
                files.sweep(folder, (NAME, CURVES))
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes in."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _read(self) -> None:
        self.rows = read(self.folder)
        self.known = set(self.rows["fingerprint"])

    def _hold(self) -> None:
        """Keep other processes out; the system lets go if this one dies."""
        self.lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            checks.fail("measure", str(self.folder), "free", "a folder that another process measures into",
                        "Wait for it to end, or choose another --out.")  # fmt: skip

    def _make(self) -> None:
        files.begin(self.folder, "measure")
        self._hold()
        self._read()

    def add(self, rows: Iterable[Mapping[str, Any]], curve: Mapping[str, np.ndarray] | None) -> None:
        """Write the rows of one measure, and its curve before them."""
        new = polars.DataFrame(list(rows), schema=SCHEMA)
        if self.lock is None:
            self._make()
        if curve is not None:
            fingerprint = new["fingerprint"][0]
            arrays = curves(self.folder) | {f"{fingerprint}/{name}": array for name, array in curve.items()}
            files.write_checked(self.folder / CURVES, files.of_arrays(arrays))
        self.rows = polars.concat([self.rows, new])
        self.known |= set(new["fingerprint"])
        buffer = io.BytesIO()
        self.rows.write_parquet(buffer, metadata=CHECKED)
        files.write_checked(self.folder / NAME, buffer.getvalue())


def read(folder: Path) -> polars.DataFrame:
    """The table of a folder; without rows where there is none.

    Raises
    ------
    InputError : it cannot be read, or is of another form.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return polars.DataFrame(schema=SCHEMA)
    rows, checked = files.read(path, _parquet, todo=AGAIN)
    if checked:
        files.require_sums(path, AGAIN)
    if dict(rows.schema) != SCHEMA:
        checks.fail("measure", str(path), "a table of this version's columns", "one with others",
                    AGAIN)  # fmt: skip
    return rows


def _parquet(stream: BinaryIO) -> tuple[polars.DataFrame, bool]:
    """A table, and whether it was written with a checksum, as older versions did not."""
    try:
        metadata = polars.read_parquet_metadata(stream)
        stream.seek(0)
        return polars.read_parquet(stream), CHECKED.items() <= metadata.items()
    except polars.exceptions.PanicException as error:  # no Exception, though damage is all that it tells
        raise files.Unfit("no Parquet file") from error


def curves(folder: Path) -> dict[str, np.ndarray]:
    """All curves of a folder, ``{"<fingerprint>/<name>": array}``; none where there is no such file.

    Raises
    ------
    Damaged : it is not what was written there.
    """
    path = folder / CURVES
    todo = f"Move it and {NAME} away, and measure again."
    return files.arrays(path, todo=todo) if os.path.lexists(path) else {}

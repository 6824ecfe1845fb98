"""Measures of trained networks: what can be asked of them, and the table of numbers on disk.

```
FOLDER/measurements.parquet  one row a number
FOLDER/densities.npz         curves, under the fingerprint of their row
```
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars

from steppe.core import checks
from steppe.measures.answers import Answer
from steppe.measures.registry import MEASURES
from steppe.measures.subject import Quantity
from steppe.storage import files

NAME, CURVES = "measurements.parquet", "densities.npz"
OLD = "measures.parquet"
"""What older versions called the table: it is read where there is no newer one, and left as it is."""

AGAIN = "Move it away, and measure again."
CHECKED = {"checksum": f"{NAME}.sha256"}
"""What a table's file says of itself."""

SCHEMA = {
    "run": polars.String,
    "condition": polars.String,
    "seed": polars.Int64,
    "partner": polars.String,
    "epoch": polars.Int64,
    "update": polars.Int64,
    "stage": polars.String,
    "measure": polars.String,
    "question": polars.String,
    "quantity": polars.String,
    "value": polars.Float64,
    "sem": polars.Float64,
    "residual": polars.Float64,
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
"""Columns. `partner` is the second network of a number of two, otherwise empty.
`epoch` is the number of epochs after which a network was asked; `update` counts updates from 1, where a
number is of one of them, and `epoch` is then the next one that was measured; `stage` says when: "training", of what a
study asks throughout, "end", of what it asks of the last network alone, or "later", by `steppe measure`. `question` is
that of the measure in words, which of a user's own only its code says. `residual` is how far an eigenvalue of the
Hessian, or what else was searched for, can be from the number. `note` is what to know of the number, `remark` what to
know of all numbers of its network: which arrays were no parameters. `scale` is "log" where logarithms are what is
compared; `draw_seed` that of random vectors and of the choice of examples; `settings` the measure's own, as JSON;
`network` what makes outputs or a loss of parameters; `fingerprint` that of parameters, data, program, measure and
settings: what makes a row the same."""

ADDED = {"partner": "", "epoch": None, "update": None, "stage": "later", "question": "", "residual": None}
"""Columns that tables of older versions lack, and what their rows have there."""

SETTINGS: dict[str, dict[str, Any]] = {
    "calibration_error": {"binning": "width", "classwise": False, "debiased": False, "norm": 1},
    "random_sharpness": {"perturb_statistics": False},
    "relative_flatness": {"reduction": "mean"},
}
"""Settings that measures of older versions did not have, and what they were."""

NUMBER = ["run", "epoch", "update", "stage", "measure", "quantity", "split", "settings"]
"""Columns that say which of a run's numbers a row is."""

ABOUT_THE_MACHINE = polars.col("quantity").str.contains("seconds|memory|host")
"""Numbers that do not repeat when a run does."""

ASKED = ("measure", "settings", "dataset", "split", "examples", "batch_size", "dtype", "draw_seed")
"""Columns that say what was asked, whoever was asked it."""


def columns(answer: Answer, found: Quantity) -> dict[str, Any]:
    """The columns of a row that a measure itself fills; its source is a setting of a user's own."""
    settings = answer.settings if not answer.source else {**answer.settings, "source": answer.source[:16]}
    return {
        "measure": answer.measure,
        "question": answer.question,
        "quantity": found.name,
        "value": found.value,
        "sem": found.sem,
        "residual": found.residual,
        "converged": found.converged,
        "note": found.note,
        "scale": "log" if found.log else "linear",
        "probes": answer.settings.get("probes"),
        "settings": json.dumps(settings, sort_keys=True),
        "measure_seconds": answer.seconds,
    }


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
        self.lock: contextlib.ExitStack | None = None
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
            self.lock.close()
            self.lock = None

    def _read(self) -> None:
        self.rows = read(self.folder)
        self.known = set(self.rows["fingerprint"])

    def _hold(self) -> None:
        """Keep other processes out."""
        todo = "Wait for it to end, or choose another --out."
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.lock(self.folder, "measure", self.folder, "measures into", todo=todo))
            self.lock = stack.pop_all()

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
            self.keep({f"{new['fingerprint'][0]}/{name}": array for name, array in curve.items()})
        self.rows = polars.concat([self.rows, new])
        self.known |= set(new["fingerprint"])
        self._write()

    def keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write curves beside those that are there, ``{"<fingerprint>/<name>": array}``."""
        if self.lock is None:
            self._make()
        if arrays:
            files.write_checked(self.folder / CURVES, files.array_content({**curves(self.folder), **arrays}))

    def take(self, folders: Sequence[Path]) -> None:
        """Put in what tables of other folders hold and this one lacks, with their curves."""
        lacking = [read(folder).filter(~polars.col("fingerprint").is_in(list(self.known))) for folder in folders]
        new = polars.concat([polars.DataFrame(schema=SCHEMA), *lacking])
        if not len(new):
            return
        if self.lock is None:
            self._make()
        arrays = {name: array for folder in folders for name, array in curves(folder).items()}
        self.keep(arrays)
        self.rows = polars.concat([self.rows, new])
        self.known |= set(new["fingerprint"])
        self._write()

    def unite(self, rows: polars.DataFrame) -> list[str]:
        """Put what runs say of themselves in the place of what stands there of the same runs.

        A run whose numbers differ from those that stand there was trained again, into another network: what was asked
        later of the network before goes, too.

        Returns
        -------
        list of str
            The runs of which such rows went.
        """
        whole, gone = united(self.rows, rows)
        if not whole.equals(self.rows, null_equal=True):
            if self.lock is None:
                self._make()
            self.rows, self.known = whole, set(whole["fingerprint"])
            self._write()
        return gone

    def _write(self) -> None:
        buffer = io.BytesIO()
        self.rows.write_parquet(buffer, metadata=CHECKED)
        files.write_checked(self.folder / NAME, buffer.getvalue())


def united(before: polars.DataFrame, now: polars.DataFrame) -> tuple[polars.DataFrame, list[str]]:
    """What a table holds after `Table.unite`, and the runs of which later rows went."""
    of_these, is_later = polars.col("run").is_in(now["run"].unique().to_list()), polars.col("stage") == "later"
    others = _different(before.filter(of_these, ~is_later), now)
    is_other = polars.col("run").is_in(others) | polars.col("partner").is_in(others)
    kept = before.filter(~(of_these & (~is_later | is_other)))
    return polars.concat([kept, now]), sorted(set(before.filter(is_other, is_later)["run"]))


def _different(before: polars.DataFrame, now: polars.DataFrame) -> list[str]:
    """The runs whose numbers before differ from those now, or have none in common with them."""
    pairs = before.filter(~ABOUT_THE_MACHINE).join(now, on=NUMBER, how="left", suffix="_now", nulls_equal=True)
    is_there, value = polars.col("value_now").is_not_null(), polars.col("value")
    by_run = pairs.group_by("run").agg(
        shared=is_there.any(), differs=(is_there & value.ne_missing(polars.col("value_now"))).any()
    )
    return by_run.filter(~polars.col("shared") | polars.col("differs"))["run"].to_list()


def read(folder: Path) -> polars.DataFrame:
    """The table of a folder; without rows where there is none.

    Raises
    ------
    InputError : it cannot be read, or is of another form.
    """
    path = next((folder / name for name in (NAME, OLD) if os.path.lexists(folder / name)), None)
    if path is None:
        return polars.DataFrame(schema=SCHEMA)
    rows, checked = files.read(path, _parquet, todo=AGAIN)
    if checked:
        files.require_sums(path, AGAIN)
    rows = completed(rows, SCHEMA)
    if dict(rows.schema) != SCHEMA:
        checks.fail("measure", str(path), "a table of this version's columns", "one with others",
                    AGAIN)  # fmt: skip
    return rows


def completed(rows: polars.DataFrame, schema: Mapping[str, Any]) -> polars.DataFrame:
    """Rows with the columns of `schema` that older versions did not write; as they are where others lack, too."""
    lacking = {name: value for name, value in ADDED.items() if name in schema and name not in rows.columns}
    if {*rows.columns, *lacking} != set(schema):
        return rows
    if lacking or rows.columns != list(schema):  # ten thousand runs are read one by one: each step counts
        rows = rows.with_columns(polars.lit(v, SCHEMA[n]).alias(n) for n, v in lacking.items()).select(list(schema))
    if SETTINGS.keys().isdisjoint(rows["measure"].to_list()):
        return rows
    whole = [_written_out(*pair) for pair in rows.select("measure", "settings").iter_rows()]
    return rows.with_columns(settings=polars.Series(whole, dtype=polars.String))


def _written_out(measure: str, settings: str) -> str:
    """The settings of a measure with those that an older version did not have."""
    return json.dumps(SETTINGS[measure] | json.loads(settings), sort_keys=True) if measure in SETTINGS else settings


def _parquet(stream: BinaryIO) -> tuple[polars.DataFrame, bool]:
    """A table, and whether it was written with a checksum, as older versions did not."""
    try:
        metadata = polars.read_parquet_metadata(stream)
        stream.seek(0)
        return polars.read_parquet(stream), "checksum" in metadata
    except polars.exceptions.PanicException as error:  # no Exception, though damage is all that it tells
        raise files.ContentError("no Parquet file") from error


def curves(folder: Path) -> dict[str, np.ndarray]:
    """All curves of a folder, ``{"<fingerprint>/<name>": array}``; none where there is no such file.

    Raises
    ------
    Damaged : it is not what was written there.
    """
    path = folder / CURVES
    todo = f"Move it and {NAME} away, and measure again."
    return files.arrays(path, todo=todo) if os.path.lexists(path) else {}


def heading(measure: str, quantity: str, split: str) -> str:
    """The column of a quantity in a table of runs: with its split where it tells of the predictions, or of data that
    are not trained on.

    Examples
    --------
    >>> heading("accuracy", "accuracy", "train"), heading("frobenius_squared", "frobenius_squared", "train")
    ('train_accuracy', 'frobenius_squared')
    """
    family = MEASURES[measure].family if measure in MEASURES else ""
    prefixed = split in ("test", "validation", "clean", "augmented") or family in ("fit", "outcome")
    return f"{split}_{quantity}" if prefixed else quantity

"""Runs that older versions wrote, as rows of today's table: a record with results in it, and a history in JSON."""

import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import polars

from steppe.storage import files
from steppe.study.history import ROWS, Row, of_training
from steppe.study.records import check_row, json_of

ITSELF_THEN = {
    "train_loss": "objective",
    "train_seconds": "train_seconds",
    "first_seconds": "first_seconds",
    "measure_seconds": "measure_seconds",
    "stability_limit": "stability_limit",
}
"""What a history says of the training itself, and what that is called now."""

MEASURED_THEN = {
    "measured_loss": ("loss", "loss", "train"),
    "test_loss": ("loss", "loss", "test"),
    "test_accuracy": ("accuracy", "accuracy", "test"),
    "flatness": ("batch_frobenius_squared", "batch_frobenius_squared", "train"),
    "trace": ("trace", "trace", "train"),
    "frobenius_squared": ("frobenius_squared", "frobenius_squared", "train"),
    "top_eigenvalue": ("spectral_range", "top_eigenvalue", "train"),
    "bottom_eigenvalue": ("spectral_range", "bottom_eigenvalue", "train"),
    "spectral_range": ("spectral_range", "spectral_range", "train"),
}
"""What it says of the network: its measure, quantity and split."""

ENDED_THEN = {"train_loss": "loss", "train_accuracy": "accuracy"}
"""What a record says of the last network on all training examples, and the measure that gives it."""

LOG = ("loss", "batch_frobenius_squared", "frobenius_squared", "top_eigenvalue", "spectral_range")
"""Quantities whose logarithms are compared."""

NUMBERS = dict.fromkeys((*ITSELF_THEN, *MEASURED_THEN, *(f"{name}_sem" for name in MEASURED_THEN)), polars.Float64)
ENDS = ("top_eigenvalue", "bottom_eigenvalue")
COLUMNS = {"epoch": polars.Int64, **NUMBERS, **{f"{end}_residual": polars.Float64 for end in ENDS}} | {
    f"{end}_converged": polars.Boolean for end in ENDS
}
"""What a row of a history may hold, and of which kind."""


def rows(stream: BinaryIO, record: Mapping[str, Any]) -> polars.DataFrame:
    """The rows of a run with that record, from its history.

    Raises
    ------
    ContentError : it does not fit.
    """
    history = json_of(stream)
    if not isinstance(history, list):
        raise files.ContentError("a history that is no list")
    for epoch in history:
        check_row(epoch, COLUMNS, ("epoch",))
    check_row(record, dict.fromkeys(ENDED_THEN, polars.Float64), ())
    seen = [epoch["epoch"] for epoch in history]
    if seen != sorted(set(seen)) or seen[-1:] != [record["epochs"]]:
        raise files.ContentError("a history whose epochs are not the run's")
    answers = record.get("measurements", [])
    if not isinstance(answers, list) or not all(isinstance(row, dict) and "quantity" in row for row in answers):
        raise files.ContentError("a record whose measurements are no list of tables")
    found = [row for epoch in history for row in _epoch(epoch)]
    if record["status"] == "finished":
        last = {"epoch": record["epochs"], "stage": "end"}
        known = {name: record[old] for old, name in ENDED_THEN.items() if record.get(old) is not None}
        found += [_measured(last, name, (name, name, "train"), value) for name, value in known.items()]
        found += [{**_measured(last, "", ("", "", ""), math.nan), **answer, **last} for answer in answers]
    return polars.DataFrame([{name: row.get(name) for name in ROWS} for row in found], schema=ROWS)


def _epoch(epoch: Row) -> list[Row]:
    """What one row of a history says."""
    number = epoch["epoch"]
    found = [of_training(number, new, epoch[old]) for old, new in ITSELF_THEN.items() if old in epoch]
    for name, known in MEASURED_THEN.items():
        if name in epoch:
            found.append(_measured({"epoch": number, "stage": "training"}, name, known, epoch[name], epoch))
    return found


def _measured(when: Row, name: str, known: tuple[str, str, str], value: float | None, epoch: Row | None = None) -> Row:
    """One number, with what else its epoch says of it."""
    beside = epoch or {}
    measure, quantity, split = known
    converged = value is not None and math.isfinite(value) and beside.get(f"{name}_converged", True) is not False
    sem = beside.get(f"{name}_sem", 0.0 if converged else math.nan)
    return {
        **when,
        "measure": measure,
        "question": "",
        "quantity": quantity,
        "split": split,
        "value": math.nan if value is None else float(value),
        "sem": math.nan if sem is None else float(sem),
        "residual": beside.get(f"{name}_residual"),
        "converged": converged,
        "note": "",
        "scale": "log" if quantity in LOG else "linear",
        "settings": "{}",
    }

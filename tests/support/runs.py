"""Finished runs by hand, and how two of them are compared."""

from pathlib import Path
from typing import Any

import polars

from steppe import study
from steppe.study.history import ROWS, of_training

ASKED = {
    "train_loss": ("loss", "loss", "train"),
    "test_loss": ("loss", "loss", "test"),
    "test_accuracy": ("accuracy", "accuracy", "test"),
    "batch_frobenius_squared": ("batch_frobenius_squared", "batch_frobenius_squared", "train"),
}


def rows_of(epochs: int, **values: float) -> polars.DataFrame:
    """The rows of a run that gave the same values after every epoch, and at its end."""
    found: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        times = {"objective": 1.0, "train_seconds": 0.5, "measure_seconds": 0.1}
        found += [of_training(epoch, name, value) for name, value in times.items()]
        found += [_row(epoch, "training", ASKED[name], value) for name, value in values.items()]
    if "train_loss" in values:
        found.append(_row(epochs, "end", ASKED["train_loss"], values["train_loss"]))
    return polars.DataFrame(found, schema=ROWS)


def _row(epoch: int, stage: str, asked: tuple[str, str, str], value: float) -> dict[str, Any]:
    names = dict(zip(("measure", "quantity", "split"), asked, strict=True))
    return of_training(epoch, "", value) | names | {"stage": stage}


def result_of(folder: Path, run: str) -> dict[str, Any]:
    """What the table of a study's results says of one run."""
    condition, _, seed = run.rpartition("-s")
    return study.gathered(study.Store.read(folder)).runs.filter(condition=condition, seed=int(seed)).to_dicts()[0]


def same_run(a: tuple, b: tuple) -> bool:
    """Whether two finished runs, records and rows, are the same."""
    return a[0] == b[0] and a[1].equals(b[1], null_equal=True)

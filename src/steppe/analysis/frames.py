"""The long table of a study in the two forms that its analysis reads: one row a run, and one row a measured epoch."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars

from steppe.analysis.quantities import ACCURACIES, QUANTITIES, REGRESSED, VALIDATED
from steppe.analysis.times import train_seconds
from steppe.measures.table import heading

EPOCHS = (
    "objective", "train_loss", "test_loss", "test_accuracy", "batch_frobenius_squared", "trace", "frobenius_squared",
    "top_eigenvalue", "bottom_eigenvalue", "spectral_range", "stability_limit", "train_seconds", "first_seconds",
    "measure_seconds",
)  # fmt: skip
"""What a history has a column for, null where it was not measured."""

OVER_EPOCHS = {
    "best_test_accuracy": ("test_accuracy", "max"),
    "average_batch_frobenius_squared": ("batch_frobenius_squared", "mean"),
}
"""What is said of all measured epochs of a run together: of which quantity, and how."""

KEYS = ("condition", "seed")
FACTS: dict[str, Any] = {
    "condition": polars.String,
    "seed": polars.Int64,
    "lam": polars.Float64,
    "status": polars.String,
    "epochs": polars.Int64,
    "steps": polars.Int64,
    "parameters": polars.Int64,
}
"""What is known of a run besides its measurements; it comes first in a table of runs."""

MACHINE: dict[str, Any] = {
    "train_seconds": polars.Float64,
    "compile_seconds": polars.Float64,
    "measure_seconds": polars.Float64,
    "step_memory_mb": polars.Float64,
    "host": polars.String,
}
"""What is about the machine; it comes last."""


def histories(rows: polars.DataFrame) -> polars.DataFrame:
    """One row a measured epoch of a run: what was asked during training.

    Parameters
    ----------
    rows : polars.DataFrame
        See `measures.table.SCHEMA`.

    Returns
    -------
    polars.DataFrame
        condition, seed, epoch, and for each quantity its value and its _sem, _residual and _converged, null where they
        are not known; named as `measures.table.heading` has it.
    """
    asked = _headed(rows.filter(polars.col("stage") == "training", polars.col("update").is_null()))
    index = [*KEYS, "epoch"]
    keys = asked.select(index).unique(maintain_order=True)
    parts = {"value": "", "sem": "_sem", "residual": "_residual", "converged": "_converged"}
    for part, suffix in parts.items():
        wide = asked.pivot("heading", index=index, values=part, aggregate_function="first")
        named = wide.rename({name: f"{name}{suffix}" for name in wide.columns if name not in index})
        keys = keys.join(named, on=index, how="left", maintain_order="left")
        kind = polars.Boolean if part == "converged" else polars.Float64
        lacking = [f"{name}{suffix}" for name in EPOCHS if f"{name}{suffix}" not in keys.columns]
        keys = keys.with_columns(polars.lit(None, kind).alias(name) for name in lacking)
    return keys


def runs(records: Iterable[Mapping[str, Any]], rows: polars.DataFrame, history: polars.DataFrame) -> polars.DataFrame:
    """One row a run: what is known of it, a column for each quantity at its end, and its machine.

    Of a run that has diverged only the times are numbers. Where a quantity has a standard error, a column with _sem
    holds it.

    Parameters
    ----------
    records : iterable of Mapping
        What is known of each run besides its measurements, in order.
    rows : polars.DataFrame
        Their measurements, see `measures.table.SCHEMA`.
    history : polars.DataFrame
        What was asked of them in training, see `histories`.
    """
    epochs = {key: part for key, part in history.group_by(KEYS, maintain_order=True)}
    ends = finals(rows)
    found = []
    for record in records:
        key = (record["condition"], record["seed"])
        path = epochs.get(key)
        known = _times(path) if path is not None else {}
        if record["status"] == "finished" and path is not None:
            known |= ends.get(key, {}) | _over_epochs(path)
        found.append(known | {name: value for name, value in record.items() if value is not None})
    names = dict.fromkeys(name for row in found for name in row)
    optional = {*REGRESSED, *VALIDATED, *(ACCURACIES if "test_r_squared" in names else ())}
    there = [name for name in QUANTITIES if name in names or name not in optional]
    schema = {**FACTS, **{name: polars.Float64 for name in (*there, *names) if name not in FACTS | MACHINE}}
    schema |= MACHINE
    return polars.DataFrame([{name: row.get(name) for name in schema} for row in found], schema=schema)


def _headed(rows: polars.DataFrame) -> polars.DataFrame:
    """Rows with their column's name, and with null in the place of values that are no numbers."""
    asked = rows.select("measure", "quantity", "split").unique()
    names = asked.with_columns(polars.Series("heading", [heading(*row) for row in asked.iter_rows()], polars.String))
    numbers = [polars.when(polars.col(name).is_finite()).then(polars.col(name)).alias(name)
               for name in ("value", "sem", "residual")]  # fmt: skip
    return rows.with_columns(numbers).join(names, on=["measure", "quantity", "split"], maintain_order="left")


def finals(rows: polars.DataFrame) -> dict[tuple[Any, ...], dict[str, float]]:
    """(condition, seed) -> the quantities at the end of training, with standard errors where there are any.

    What is asked of the last network alone goes before what was asked throughout, of fewer examples.
    """
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in final_rows(rows).iter_rows(named=True):
        known = found.setdefault((row["condition"], row["seed"]), {})
        known[row["heading"]] = row["value"]
        if row["sem"]:
            known[f"{row['heading']}_sem"] = row["sem"]
    return found


def final_rows(rows: polars.DataFrame) -> polars.DataFrame:
    """The rows of quantities at the end of training, one a run and quantity, with the column `heading`."""
    of_networks = polars.col("update").is_null()
    ended = rows.filter(polars.col("stage") != "later", polars.col("measure") != "training", of_networks)
    ended = _headed(ended.filter(polars.col("epoch") == polars.col("epoch").max().over(KEYS)))
    ordered = ended.sort(polars.col("stage") != "end", maintain_order=True)
    return ordered.unique([*KEYS, "heading"], keep="first", maintain_order=True)


def _over_epochs(history: polars.DataFrame) -> dict[str, float]:
    """What is said of all measured epochs of a run together: the best, the average, and what validation selects."""
    there = {name: history[of] for name, (of, _) in OVER_EPOCHS.items() if history[of].count()}
    return {name: getattr(column, OVER_EPOCHS[name][1])() for name, column in there.items()} | _selected(history)


def _selected(history: polars.DataFrame) -> dict[str, float]:
    """The epoch of the highest validation accuracy, of several that of the lowest validation loss, then the first; and
    the test accuracy there. In a regression that of the lowest loss, and the test loss. Nothing without a validation
    part.
    """
    if "validation_loss" not in history.columns:
        return {}
    by = [name for name in ("validation_accuracy", "validation_loss", "epoch") if name in history.columns]
    best = history.sort(by, descending=["accuracy" in name for name in by], nulls_last=True).row(0, named=True)
    judged = "test_accuracy" if "validation_accuracy" in by else "test_loss"
    return {"selected_epoch": float(best["epoch"]), f"selected_{judged}": best[judged]}


def _times(history: polars.DataFrame) -> dict[str, float | None]:
    """How long a run took to train and to measure."""
    rows = history.select("epoch", "train_seconds", "first_seconds").to_dicts()
    return {"train_seconds": train_seconds(rows), "measure_seconds": float(history["measure_seconds"].sum())}

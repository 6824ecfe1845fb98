"""What runs say of their networks, as rows of one long table: during training, and at its end."""

import json
import math
from typing import Any

import polars

from steppe.core import checks
from steppe.measures import table
from steppe.measures.table import SCHEMA, fingerprinted
from steppe.study.records import run_name
from steppe.study.spec.conditions import conditions
from steppe.study.spec.tables import Spec
from steppe.study.store import Store

Row = dict[str, Any]

EPOCH = {
    "train_loss": ("training", "objective", "train"),
    "train_seconds": ("training", "train_seconds", "train"),
    "stability_limit": ("training", "stability_limit", "train"),
    "measured_loss": ("loss", "loss", "train"),
    "test_loss": ("loss", "loss", "test"),
    "test_accuracy": ("accuracy", "accuracy", "test"),
    "flatness": ("batch_frobenius_squared", "frobenius_squared", "train"),
    "trace": ("trace", "trace", "train"),
    "frobenius_squared": ("frobenius_squared", "frobenius_squared", "train"),
    "top_eigenvalue": ("spectral_range", "top_eigenvalue", "train"),
    "bottom_eigenvalue": ("spectral_range", "bottom_eigenvalue", "train"),
    "spectral_range": ("spectral_range", "spectral_range", "train"),
}
"""What an epoch's record holds: its measure, quantity and split. "training" is what training says of itself: the mean
of what it minimised over an epoch's batches, and how long that took."""

END = {"train_loss": ("loss", "loss", "train"), "train_accuracy": ("accuracy", "accuracy", "train")}
"""What a run's record says of the last network on all training examples."""

LOG = ("loss", "frobenius_squared", "top_eigenvalue", "spectral_range")
"""Quantities whose logarithms are compared."""


def of_run(store: Store, spec: Spec, run: Row, history: list[Row]) -> polars.DataFrame:
    """All rows of one finished run, in the columns of `measures.table.SCHEMA`.

    Parameters
    ----------
    store : Store
        The study's folder.
    spec : Spec
        The settings of the run's condition.
    run, history
        What the run's files hold, see `Store.load`.

    Returns
    -------
    polars.DataFrame
        The same run gives the same rows, fingerprints included, however often it is read.
    """
    rows = []
    if run["status"] == "finished":
        last = {"epoch": run["epochs"]}
        for name, (measure, quantity, split) in END.items():
            known = {"measure": measure, "quantity": quantity, "split": split, "value": run.get(name)}
            rows.append(last | known | {"stage": "training", "settings": '{"examples": "all"}'})
        rows += [last | {"stage": "end"} | answer for answer in run.get("measurements", [])]
    rows += [_epoch(spec, epoch, name, known) for epoch in history for name, known in EPOCH.items() if name in epoch]
    name = run_name(run["condition"], run["seed"])
    base = {
        "run": name,
        "condition": run["condition"],
        "seed": run["seed"],
        "dataset": spec.data["name"],
        "source": f"runs/{name}",
        "network": ", ".join(f"{k} {v}" if k != "name" else str(v) for k, v in spec.model.items()),
        "host": run.get("host"),
        **_versions(run),
    }
    mark = fingerprinted(name, spec.identity(), store.fingerprint)
    return polars.DataFrame([_whole(base | row, mark) for row in rows], schema=SCHEMA)


def _versions(run: Row) -> dict[str, str | None]:
    """Of the software that made a run, as far as its record says."""
    pairs = (part.partition(" ")[::2] for part in run.get("made_with", {}).get("versions", "").split(", "))
    known = dict(pairs)
    return {f"{name}_version": known.get(name) for name in ("steppe", "jax")}


def _epoch(spec: Spec, epoch: Row, name: str, known: tuple[str, str, str]) -> Row:
    """One number of an epoch's record."""
    measure, quantity, split = known
    row = {
        "epoch": epoch["epoch"],
        "stage": "training",
        "measure": measure,
        "quantity": quantity,
        "split": split,
        "value": epoch[name],
        "sem": epoch.get(f"{name}_sem", math.nan if "eigenvalue" in name else 0.0),
        "converged": epoch.get(f"{name}_converged", True),
    }
    if f"{name}_residual" in epoch:
        row["note"] = f"residual {epoch[f'{name}_residual']:.1g}"
    if name == "flatness":
        settings = spec.measure.model_dump(exclude={"every", "names"})
        size = spec.measure.batch_size or spec.train.batch_size
        row |= {"probes": spec.measure.probes, "settings": json.dumps(settings, sort_keys=True), "batch_size": size}
    return row


def _whole(row: Row, mark: str) -> Row:
    """A row with all columns; its fingerprint is that of the run and of what was asked, never of the answer."""
    value, sem = row.get("value"), row.get("sem", 0.0)
    whole = {
        "note": "",
        "remark": "",
        "scale": "log" if row["quantity"] in LOG else "linear",
        "dtype": "float32",
        "draw_seed": 0,
        "settings": "{}",
        **row,
        "value": math.nan if value is None else float(value),
        "sem": math.nan if sem is None or value is None else float(sem),
        "converged": row.get("converged", True) and value is not None and math.isfinite(value),
    }
    asked = [whole.get(name) for name in ("epoch", "stage", "measure", "quantity", "split", "settings")]
    return {name: whole.get(name) for name in SCHEMA} | {"fingerprint": fingerprinted(mark, asked)}


def of_study(store: Store, runs: list[tuple[Row, list[Row]]]) -> polars.DataFrame:
    """All rows of some runs of a study."""
    specs = {column.name: column.spec for column in conditions(store.spec, run_code=False)}
    frames = [of_run(store, specs[run["condition"]], run, history) for run, history in runs]
    return polars.concat([polars.DataFrame(schema=SCHEMA), *frames])


def finals(rows: polars.DataFrame, taken: list[str]) -> polars.DataFrame:
    """One row a run: condition, seed, and a column for each quantity at the end that is not among those `taken`."""
    found = {name: by for name, by in table.final(rows).items() if name not in taken}
    keys = rows.select("condition", "seed").unique(maintain_order=True)
    columns = [
        polars.Series(name, [by.get(c, {}).get(s) for c, s in keys.iter_rows()], dtype=polars.Float64, strict=False)
        for name, by in found.items()
    ]
    return keys.with_columns(*columns)


def unite(store: Store, rows: polars.DataFrame) -> str:
    """Put the rows of runs into the study's table, beside those that `steppe measure` put there.

    Returns
    -------
    str
        What left the table, or why it was left as it is, in a sentence; nothing where there is nothing to say. The rows
        are in the runs' folders, too, so that nothing is lost.
    """
    try:
        whole = table.Table(store.directory)
    except checks.InputError as error:
        return f"The table of all measurements was left as it is: {error}"
    try:
        gone = whole.unite(rows)
    finally:
        whole.close()
    if not gone:
        return ""
    return (f"What `steppe measure` found of earlier networks left the table of measurements: {', '.join(gone)} were "
            "trained again. Measure them again.")  # fmt: skip

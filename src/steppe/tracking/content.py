"""What is sent of a study, as data: the same results give the same content, and the same digest."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars

from steppe.analysis.results import Results
from steppe.measures.table import heading
from steppe.study.records import run_name
from steppe.study.spec.conditions import conditions
from steppe.study.store import Store

REPORT = "report"
"""What the run is called that holds the files of a study."""

FILES = ("report.html", "landscape.html", "summary.md", "results.parquet", "study.toml")
"""Which those are, where they are there."""

KEYS = ("condition", "seed", "epoch", "lam")


class Metric(NamedTuple):
    """A number of a run after an epoch."""

    name: str
    value: float
    epoch: int


class RunContent(NamedTuple):
    """What is sent of one run, or of the report.

    Attributes
    ----------
    name : its name.
    params : settings by their dotted paths.
    metrics : histories, and what was measured at the end or later.
    tags : what is neither.
    files : paths.
    digest : equal for equal content.
    """

    name: str
    params: dict[str, str]
    metrics: tuple[Metric, ...]
    tags: dict[str, str]
    files: tuple[Path, ...]
    digest: str


def contents(store: Store, results: Results) -> Iterator[RunContent]:
    """Every finished run of a study, then its report, if it is written."""
    specs = {column.name: column.spec for column in conditions(store.spec, run_code=False)}
    for record in results.runs.iter_rows(named=True):
        condition, seed = record["condition"], record["seed"]
        params = {path: _text(value) for path, value in _flat(specs[condition].identity())}
        params |= {"condition": condition, "seed": str(seed)}
        metrics = tuple(_metrics(results, record))
        tags = {"status": record["status"], "host": record.get("host") or ""}
        yield _content(run_name(condition, seed), params, metrics, tags)
    files = tuple(path for name in FILES if (path := store.directory / name).is_file() and not path.is_symlink())
    if any(path.name == "report.html" for path in files):
        facts = {key: _text(value) for key, value in results.provenance.items()}
        yield _content(REPORT, facts, (), {"title": results.title}, files)


def _content(
    name: str, params: dict[str, str], metrics: tuple[Metric, ...], tags: dict[str, str], files: tuple[Path, ...] = ()
) -> RunContent:
    marks = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    whole = json.dumps([name, params, metrics, tags, marks], sort_keys=True)
    return RunContent(name, params, metrics, tags, files, hashlib.sha256(whole.encode()).hexdigest())


def _metrics(results: Results, record: Mapping[str, Any]) -> Iterator[Metric]:
    """Finite numbers of a run: epoch by epoch, at its end, and what was asked later."""
    mine = (polars.col("condition") == record["condition"]) & (polars.col("seed") == record["seed"])
    history = results.history.filter(mine)
    sent: set[str] = set()
    for name in history.columns:
        if name not in KEYS and history[name].dtype.is_numeric():
            values = zip(history["epoch"], history[name], strict=True)
            series = [Metric(name, float(value), epoch) for epoch, value in values if _is_number(value)]
            sent |= {name} if series else set()
            yield from series
    for name, value in record.items():
        if name not in (*KEYS, "epochs") and name not in sent and _is_number(value):
            yield Metric(name, float(value), record["epochs"])
    later = results.measurements.filter(mine, polars.col("stage") == "later")
    for row in later.iter_rows(named=True):
        name = heading(row["measure"], row["quantity"], row["split"])
        if not row.get("partner") and name not in sent and _is_number(row["value"]):
            sent.add(name)
            yield Metric(name, float(row["value"]), record["epochs"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flat(table: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths of nested tables, with their values."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, table


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)

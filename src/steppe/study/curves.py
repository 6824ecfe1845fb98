"""Curves that a study's own measures leave, such as reliability diagrams: kept beside the table of measurements."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import polars

from steppe.core.checks import joined
from steppe.engines.progress import Watcher
from steppe.measures.table import Table, curves
from steppe.study.additions import Examinations
from steppe.study.datasets import Datasets
from steppe.study.questions import further
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.table import FinishedRuns


def keep(
    store: Store, columns: Iterable[Condition], datasets: Datasets, finished: FinishedRuns, watcher: Watcher
) -> None:
    """Ask finished runs once more what leaves a curve, and keep the curves under the marks of the runs' rows.

    A run's own files hold numbers alone. The networks, examples and random vectors are those of the end of training,
    so that a curve belongs to the number that stands in the run's row. What is there already is not asked again.

    Raises
    ------
    InputError : another process measures into the study's folder, or a file of it is damaged.
    OSError : the folder cannot be written; curves that are there stay.
    """
    asked = [question.measure.name for question in further(store.spec) if question.measure.curve]
    if not asked:
        return
    specs, examinations = {column.name: column.spec for column in columns}, Examinations(datasets)
    rows = finished.rows.filter(
        polars.col("stage") == "end", polars.col("measure").is_in(asked), polars.col("value").is_finite()
    )
    with contextlib.closing(Table(store.directory)) as table:
        known = {name.partition("/")[0] for name in curves(store.directory)}
        there = polars.col("fingerprint").is_in(known).any().over("condition", "seed", "measure")
        for (name,), part in rows.filter(~there).group_by("condition", maintain_order=True):
            condition = str(name)
            watcher.stage(f"{condition}: curves of {joined(part['measure'].unique(maintain_order=True))}")
            found = (_of_run(store, examinations, specs[condition], run) for _, run in part.group_by("seed"))
            table.keep(dict(itertools.chain.from_iterable(found)))


def _of_run(
    store: Store, examinations: Examinations, spec: Spec, rows: polars.DataFrame
) -> Iterator[tuple[str, np.ndarray]]:
    """The curves of a run, under the marks of its rows."""
    marks = {tuple(row): mark for *row, mark in rows.select("measure", "quantity", "split", "fingerprint").iter_rows()}
    examination = examinations.of(spec, list(rows["measure"].unique(maintain_order=True)))
    condition, seed = rows.select("condition", "seed").row(0)
    for question, quantity in examination.curves(store.network(condition, seed)):
        mark = marks[question.measure.name, quantity.name, question.sample.split]
        yield from ((f"{mark}/{name}", array) for name, array in (quantity.curve or {}).items())

"""What runs say of their networks, as rows of one long table: during training, and at its end."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe.core import checks
from steppe.measures import table
from steppe.measures.table import SCHEMA, fingerprinted
from steppe.storage import files
from steppe.study.records import RunRecord, run_name
from steppe.study.spec.conditions import conditions
from steppe.study.spec.tables import Spec
from steppe.study.store import Store

ASKED = ("epoch", "stage", "measure", "quantity", "split", "settings")
"""What makes a row of a run what it is, whatever the answer; and its update, where it has one."""


def _shared(spec: Spec, run: RunRecord) -> dict[str, Any]:
    """What all rows of a run have in common, by its columns."""
    name = run_name(run["condition"], run["seed"])
    return {
        "run": name,
        "condition": run["condition"],
        "seed": run["seed"],
        "partner": "",
        "remark": "",
        "dataset": spec.data["name"],
        "dtype": "float32",
        "draw_seed": 0,
        "source": f"runs/{name}",
        "network": ", ".join(f"{k} {v}" if k != "name" else str(v) for k, v in spec.model.items()),
        "host": run.get("host"),
        **_versions(run),
    }


def _versions(run: RunRecord) -> dict[str, str | None]:
    """Of the software that made a run, as far as its record says."""
    pairs = (part.partition(" ")[::2] for part in run.get("made_with", {}).get("versions", "").split(", "))
    known = dict(pairs)
    return {f"{name}_version": known.get(name) for name in ("steppe", "jax")}


def of_study(store: Store, runs: list[tuple[RunRecord, polars.DataFrame]]) -> polars.DataFrame:
    """All rows of some runs of a study, in the columns of `measures.table.SCHEMA`.

    Parameters
    ----------
    store : Store
        The study's folder.
    runs : list
        The record and the rows of each, see `Store.load`.

    Returns
    -------
    polars.DataFrame
        The same run gives the same rows, fingerprints included, however often it is read.
    """
    specs = {column.name: column.spec for column in conditions(store.spec, run_code=False)}
    identities = {name: spec.identity() for name, spec in specs.items()}
    marks: list[str] = []
    for run, rows in runs:
        name, condition = run_name(run["condition"], run["seed"]), run["condition"]
        mark = fingerprinted(name, identities[condition], store.fingerprint(condition))
        asked = zip(rows.select(ASKED).iter_rows(), rows["update"], strict=True)
        marks += [fingerprinted(mark, [*row, *([] if update is None else [update])]) for row, update in asked]
    if not runs:
        return polars.DataFrame(schema=SCHEMA)
    tables = [_shared(specs[run["condition"]], run) for run, _ in runs]
    shared = polars.DataFrame(tables, schema={name: SCHEMA[name] for name in tables[0]})
    place = np.repeat(np.arange(len(runs)), [len(rows) for _, rows in runs])  # whole columns at once, not run by run
    whole = polars.concat([rows for _, rows in runs]).with_columns(
        *shared[place].get_columns(), polars.Series("fingerprint", marks, polars.String)
    )
    return whole.select([polars.col(column).cast(kind) for column, kind in SCHEMA.items()])


class Gathered(NamedTuple):
    """All that is known of a study's networks.

    Attributes
    ----------
    rows : what runs say of themselves, and what `steppe measure` found of these very networks.
    curves : see `measures.table.curves`.
    notes : what was left out, a sentence each.
    """

    rows: polars.DataFrame
    curves: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def gathered(store: Store, rows: polars.DataFrame) -> Gathered:
    """The rows of finished runs, beside what was asked of the same networks later.

    The table on disk may be older than a run: a process that was killed after it trained a run again left there what
    was asked of the network before.

    Parameters
    ----------
    store : Store
        The study's folder.
    rows : polars.DataFrame
        Those of the runs' own folders, which are the truth.
    """
    try:
        whole, gone = table.united(table.read(store.directory), rows)
        curves = table.curves(store.directory)
    except checks.InputError as error:
        name, why = table.NAME, "a table of other columns"
        if isinstance(error, files.DamagedFile):
            name, why = error.path.name, error.why
        note = f"What `steppe measure` added is left out, for a file is damaged: {name} ({why})."
        return Gathered(rows, {}, (f"{note} Move it away, and measure again.",))
    return Gathered(whole, curves, (replaced(gone),) if gone else ())


def replaced(runs: list[str]) -> str:
    """What is said where runs were trained again into other networks."""
    return (f"What `steppe measure` found of earlier networks is left out: {', '.join(runs)} were trained again. "
            "Measure them again.")  # fmt: skip


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
    return replaced(gone) if gone else ""

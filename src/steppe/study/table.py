"""Store → Results: everything that is on disk of a study, as tables."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import polars

from steppe.analysis import Plan, frames
from steppe.analysis.measurements import described
from steppe.analysis.results import (
    CorrelationPlan,
    LateMargin,
    Protocol,
    PublishedTable,
    Results,
    Surfaces,
    infinite,
)
from steppe.analysis.statistics.differences import Alternative
from steppe.core.checks import joined
from steppe.storage import files
from steppe.study import measurements
from steppe.study.datasets import DataRecord
from steppe.study.records import FACTS, RunRecord
from steppe.study.spec.conditions import Condition, conditions
from steppe.study.spec.identity import differences, varied_settings
from steppe.study.spec.reading import load, shipped
from steppe.study.spec.tables import ProtocolTable, Spec
from steppe.study.store import Store
from steppe.study.tuning import trials

T = TypeVar("T")


class FinishedRuns(NamedTuple):
    """The finished runs of a study, in its order.

    Attributes
    ----------
    records : the record of each.
    rows : what they say of their networks, in the columns of `measures.table.SCHEMA`.
    damaged : why others cannot be read.
    """

    records: list[RunRecord]
    rows: polars.DataFrame
    damaged: list[files.DamagedFile]


def gathered(store: Store) -> Results:
    """The finished runs of a study, in the study's order, and where they came from.

    What is damaged is left out, and the notes say so.
    """
    return results(store, read_runs(store))


def results(store: Store, finished: FinishedRuns) -> Results:
    """What `gathered` gives, of runs that have been read."""
    spec, records = store.spec, finished.records
    columns = conditions(spec, run_code=False)
    damaged = list(finished.damaged)
    history = frames.histories(finished.rows)
    runs = frames.runs([{name: run.get(name) for name in FACTS} for run in records], finished.rows, history)
    made_with = {json.dumps(run.get("made_with", {})): run.get("made_with", {}) for run in records}
    _check_margins(spec, finished.rows)
    surfaces, facts = _whole(store.surfaces, damaged), _whole(store.data, damaged)
    tuned = _whole(functools.partial(trials.load, store), damaged)
    measured = measurements.gathered(store, finished.rows)
    return Results(
        name=spec.name,
        title=spec.title or spec.name,
        about=spec.about.strip(),
        baseline=spec.baseline,
        conditions=tuple(column.name for column in columns),
        controls={column.name: column.control for column in columns if column.control},
        margins=spec.equivalence,
        late_margins=dict(_late_margins(spec, records)),
        **_declaration(spec),
        settings=varied_settings({column.name: column.spec.identity() for column in columns}),
        planned=len(columns) * spec.seeds,
        runs=runs,
        history=history.join(
            runs.select("condition", "seed", "lam"), on=["condition", "seed"], how="left", maintain_order="left"
        ),
        surfaces=surfaces,
        tuning=tuned[0] if tuned else None,
        published=tuple(
            PublishedTable(p.title, " ".join(p.caveat.split()), tuple(p.columns), tuple(map(tuple, p.rows)))
            for p in spec.published
        ),
        protocols=tuple(map(_protocol, spec.protocols)),
        provenance=_provenance(spec, facts or DataRecord(), list(made_with.values())),
        notes=(
            *_damage(store, damaged),
            *measured.notes,
            *_unanswered(spec, finished),
            *_withdrawn(store),
            *_late_plan(spec, records),
            *_infinite(surfaces),
            *_batch_sizes(columns),
            *_different_data(facts or DataRecord(), spec.baseline),
            *_changes(spec),
            *_notes(list(made_with.values())),
        ),
        spec_toml=spec.toml(),
        measurements=measured.rows,
        curves=measured.curves,
        spreads=spec.spreads,
    )


def _check_margins(spec: Spec, rows: polars.DataFrame) -> None:
    """Fail where a margin is none on the scale of the quantity that it is declared for, which its rows tell."""
    ends = frames.final_rows(rows)
    for name, margin in spec.equivalence.items():
        described(ends, name).check_margin(f"equivalence.{name}", margin)


Known = dict[tuple[str, int], tuple[RunRecord, polars.DataFrame]]
"""Finished runs that were read already, by condition and seed."""


def read_runs(store: Store, known: Known | None = None) -> FinishedRuns:
    """All finished runs of a study, read once; those that are known are not read again."""
    known = {} if known is None else known
    damaged: list[files.DamagedFile] = []
    found = []
    for column in conditions(store.spec, run_code=False):
        for seed in range(store.spec.seeds):
            run = (column.name, seed)
            if run in known or store.has(*run):
                try:
                    known[run] = record, rows = known[run] if run in known else store.load(*run)
                except files.DamagedFile as error:
                    damaged.append(error)
                else:
                    added = _whole(functools.partial(store.additions, column.name, seed), damaged)
                    found.append((record, rows if added is None or not len(added) else polars.concat([rows, added])))
    return FinishedRuns([record for record, _ in found], measurements.of_study(store, found), damaged)


def unanswered(spec: Spec, finished: FinishedRuns) -> dict[tuple[str, int], list[str]]:
    """(condition, seed) -> the measures that a study names and that the finished run was not asked."""
    names = [entry["name"] if isinstance(entry, dict) else entry for entry in spec.measure.names]
    runs = [(run["condition"], run["seed"]) for run in finished.records if run["status"] == "finished"]
    ends = finished.rows.filter(polars.col("stage") == "end").select("condition", "seed", "measure")
    known = set(ends.iter_rows())
    found = {run: [name for name in names if (*run, name) not in known] for run in runs}
    return {run: lacking for run, lacking in found.items() if lacking}


def _unanswered(spec: Spec, finished: FinishedRuns) -> Iterator[str]:
    """What runs were not asked yet."""
    found = unanswered(spec, finished)
    if found:
        names = joined(dict.fromkeys(name for names in found.values() for name in names))
        yield f"Answers to {names} are missing in {len(found)} of {len(finished.records)} runs: run the study again."


def _whole(read: Callable[[], T], damaged: list[files.DamagedFile]) -> T | None:
    """What is read, or nothing where it is damaged, which is kept in mind."""
    try:
        return read()
    except files.DamagedFile as error:
        damaged.append(error)
        return None


def _damage(store: Store, damaged: list[files.DamagedFile]) -> Iterator[str]:
    """What was left out, and why; and a study.toml that Steppe did not leave so."""
    for error in damaged:
        name = error.path.relative_to(store.directory)
        yield f"A damaged file is left out: {name} ({error.why}). `steppe run` recreates it."
    if store.changed():
        yield "study.toml is not what Steppe wrote: it was changed by hand, or is damaged."


def _withdrawn(store: Store) -> Iterator[str]:
    """Conditions that the specification no longer has."""
    gone = store.withdrawn()
    if gone:
        listed = joined(f"{name} ({count} run{'s' if count > 1 else ''})" for name, count in gone.items())
        yield (
            f"The specification no longer has {'these conditions' if len(gone) > 1 else 'this condition'}, which had "
            f"runs: {listed}. The runs are still in the study’s folder, and this report leaves them out."
        )


def _declaration(spec: Spec) -> dict[str, Any]:
    """What the study declares of its analysis."""
    if not spec.analysis:
        return {}
    given = spec.analysis.model_dump(exclude={"correlation"})
    correlated = spec.analysis.correlation
    judged = "" if correlated else "test_loss" if spec.is_regression else "test_accuracy"
    primary = given.pop("primary") or judged
    family = tuple(dict.fromkeys(filter(None, (primary, *given.pop("family")))))
    found = {"primary": primary, "family": family, "plan": Plan(**given)}
    if correlated:
        asked = correlated.model_dump(exclude_none=True)
        found["correlation"] = CorrelationPlan(**asked | {"measures": tuple(correlated.measures)})
    return found


def _protocol(stated: ProtocolTable) -> Protocol:
    """Others' claims and tests, as the study states them."""
    claims: dict[str, Alternative] = {name: "greater" for name in stated.higher}
    claims |= {name: "less" for name in stated.lower}
    plan = Plan(stated.test, stated.paired, correction=stated.correction)
    return Protocol(stated.title, plan, claims, ordered=stated.pairs == "ordered")


def _late_plan(spec: Spec, runs: list[RunRecord]) -> Iterator[str]:
    """That the plan of the analysis did not stand when all runs were trained."""
    now = spec.analysis.model_dump(exclude_none=True) if spec.analysis else None
    others = [run for run in runs if run.get("analysis") != now]
    if others:
        when = f"{len(others)} of {len(runs)} runs had finished"
        if now is None:
            yield f"A plan of the analysis was declared when {when}. It has been withdrawn since."
        else:
            yield (
                f"The plan of the analysis was declared or changed after {when}: its primary metric, family and test "
                "could have been chosen in view of their results."
            )


def _late_margins(spec: Spec, runs: list[RunRecord]) -> Iterator[tuple[str, LateMargin]]:
    """Quantity -> its margin, where some runs were trained while it did not stand as it does now."""
    for name in dict.fromkeys([*spec.equivalence, *(name for run in runs for name in run.get("equivalence", {}))]):
        margin = spec.equivalence.get(name)
        stood = [run.get("equivalence", {}).get(name) for run in runs]
        others = [then for then in stood if then != margin]
        if others:
            earlier = tuple(dict.fromkeys(float(then) for then in others if then is not None))
            yield name, LateMargin(margin, len(others), len(runs), earlier)


def _batch_sizes(columns: list[Condition]) -> Iterator[str]:
    """That tr(H²) of mini-batches is not the same quantity where these differ in size."""
    sizes = sorted({column.spec.measure.batch_size or column.spec.train.batch_size for column in columns})
    if len(sizes) > 1:
        yield (
            f"tr(H²) is that of mini-batches of {sizes[0]} to {sizes[-1]} examples, depending on the condition. The "
            "smaller a batch, the larger it is, whatever the network: it does not compare conditions whose batches "
            "differ in size. A study with measure.batch_size measures all of them alike."
        )


def _different_data(data: DataRecord, baseline: str) -> Iterator[str]:
    """That differences are of tasks, too, where conditions have different data."""
    others = [names for names in data.groups().values() if baseline not in names]
    if others:
        named = joined(name for names in others for name in names)
        yield (
            f"These conditions are trained, tested and measured on other data than {baseline}, with which they are "
            f"compared: {named}. A difference is then one between the tasks, too."
        )


def _infinite(surfaces: Surfaces | None) -> Iterator[str]:
    """What figures of surfaces leave out."""
    count = infinite(surfaces.lines, surfaces.grids) if surfaces else ""
    if count:
        yield f"In the loss surfaces {count} and are left out of the figures: landscape.radius is too large."


def _provenance(spec: Spec, data: DataRecord, made_with: list[dict[str, str]]) -> dict[str, str]:
    """What the report says about where the numbers came from."""
    facts = {"study": spec.name, "seeds": ", ".join(map(str, range(spec.seeds)))}
    facts |= {f"data {key}": value for key, value in data.shared.items()}
    for names in data.groups().values():
        facts |= {f"data {key} of {joined(names)}": value for key, value in data.conditions[names[0]].items()}
    for key in ("versions", "hardware", "system"):
        facts[key] = "; and ".join(dict.fromkeys(made.get(key, "unknown") for made in made_with))
    return facts


SHORT = 60
"""Longer values are in the specification below, and are named alone."""


def _changes(spec: Spec) -> Iterator[str]:
    """What differs from the shipped study of this name, whose words the report repeats."""
    if spec.name not in shipped():
        return
    there = load(spec.name).identity()
    changes = [
        f"{path} = {new} (shipped: {old})" if max(len(str(new)), len(str(old))) <= SHORT else path
        for path, old, new in differences(there, spec.identity())
        if path != "baseline"
    ]
    if changes:
        listed = "; ".join(changes)
        yield f"Some settings differ from those of the shipped study, which the text below describes: {listed}."


def _notes(made_with: list[dict[str, str]]) -> tuple[str, ...]:
    """Warnings that concern the whole study."""
    mixed = [key for key in ("versions", "hardware") if len({made.get(key) for made in made_with}) > 1]
    return tuple(f"The runs of this study were made with different {key}: compare them with care." for key in mixed)

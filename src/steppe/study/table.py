"""Store → Results: everything that is on disk of a study, as tables."""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import polars

from steppe.analysis import frames
from steppe.analysis.results import LateMargin, PublishedTable, Results, Surfaces, infinite
from steppe.core.checks import joined
from steppe.storage import files
from steppe.study import measurements
from steppe.study.spec.comparisons import MARGINS
from steppe.study.spec.conditions import conditions
from steppe.study.spec.identity import differences
from steppe.study.spec.reading import load, shipped
from steppe.study.spec.tables import Spec
from steppe.study.store import Store

T = TypeVar("T")

FinishedRuns = list[tuple[dict[str, Any], polars.DataFrame]]
"""The record of each, and its rows of the long table."""


def gathered(store: Store) -> Results:
    """The finished runs of a study, in the study's order, and where they came from.

    What is damaged is left out, and the notes say so.
    """
    spec = store.spec
    columns = conditions(spec, run_code=False)
    damaged: list[files.DamagedFile] = []
    found = whole_runs(store, damaged)
    rows = measurements.of_study(store, found)
    runs = frames.runs([_facts(run) for run, _ in found], rows)
    made_with = {json.dumps(run.get("made_with", {})): run.get("made_with", {}) for run, _ in found}
    surfaces, facts = _whole(store.surfaces, damaged), _whole(store.data, damaged)
    return Results(
        name=spec.name,
        title=spec.title or spec.name,
        about=spec.about.strip(),
        baseline=spec.baseline,
        conditions=tuple(column.name for column in columns),
        controls={column.name: column.control for column in columns if column.control},
        margins={MARGINS[name].name: margin for name, margin in spec.equivalence.items()},
        late_margins=dict(_late_margins(spec, [run for run, _ in found])),
        planned=len(columns) * spec.seeds,
        runs=runs,
        history=frames.histories(rows).join(
            runs.select("condition", "seed", "lam"), on=["condition", "seed"], how="left", maintain_order="left"
        ),
        surfaces=surfaces,
        published=tuple(
            PublishedTable(p.title, " ".join(p.caveat.split()), tuple(p.columns), tuple(map(tuple, p.rows)))
            for p in spec.published
        ),
        provenance=_provenance(spec, facts or {}, list(made_with.values())),
        notes=(
            *_damage(store, damaged),
            *_withdrawn(store),
            *_infinite(surfaces),
            *_changes(spec),
            *_notes(list(made_with.values())),
        ),
        spec_toml=spec.toml(),
    )


def _facts(run: dict[str, Any]) -> dict[str, Any]:
    """What a table of runs has from a record: the times, too, where an older version put them there."""
    return {name: run.get(name) for name in (*frames.FACTS, *frames.MACHINE)}


def whole_runs(store: Store, damaged: list[files.DamagedFile]) -> FinishedRuns:
    """The record and the rows of each finished run, in the study's order; what is damaged is added to that list."""
    found = []
    for column in conditions(store.spec, run_code=False):
        for seed in range(store.spec.seeds):
            if store.has(column.name, seed):
                try:
                    found.append(store.load(column.name, seed))
                except files.DamagedFile as error:
                    damaged.append(error)
    return found


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


def _late_margins(spec: Spec, runs: list[dict[str, Any]]) -> Iterator[tuple[str, LateMargin]]:
    """Quantity -> its margin, where some runs were trained while it did not stand as it does now."""
    for name, quantity in MARGINS.items():
        margin = spec.equivalence.get(name)
        stood = [run.get("equivalence", {}).get(name) for run in runs]
        others = [then for then in stood if then != margin]
        if others:
            earlier = tuple(dict.fromkeys(float(then) for then in others if then is not None))
            yield quantity.name, LateMargin(margin, len(others), len(runs), earlier)


def _infinite(surfaces: Surfaces | None) -> Iterator[str]:
    """What figures of surfaces leave out."""
    count = infinite(surfaces.lines, surfaces.grids) if surfaces else ""
    if count:
        yield f"In the loss surfaces {count} and are left out of the figures: landscape.radius is too large."


def _provenance(spec: Spec, data: dict[str, str], made_with: list[dict[str, str]]) -> dict[str, str]:
    """What the report says about where the numbers came from."""
    facts = {"study": spec.name, "seeds": ", ".join(map(str, range(spec.seeds)))}
    facts |= {f"data {key}": value for key, value in data.items()}
    for key in ("versions", "hardware", "system"):
        facts[key] = "; and ".join(dict.fromkeys(made.get(key, "unknown") for made in made_with))
    return facts


def _changes(spec: Spec) -> Iterator[str]:
    """What differs from the shipped study of this name, whose words the report repeats."""
    if spec.name not in shipped():
        return
    there = load(spec.name).identity()
    changes = [
        f"{path} = {new} (shipped: {old})"
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

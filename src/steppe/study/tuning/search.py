"""The trials of a study, round by round, and the choice that they lead to.

A round is a study of its own in the folder: its conditions are trials, so that any executor trains them, a killed round
is resumed, and finished trials are never trained again. Which settings a trial has depends on the rounds before, the
seed and its number alone.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe.core import checks
from steppe.storage import files
from steppe.study.datasets import DataRecord, Datasets
from steppe.study.progress import Watcher
from steppe.study.spec import conditions as columns_of
from steppe.study.spec.conditions import Condition, resolve, with_settings
from steppe.study.spec.limits import MOST
from steppe.study.spec.ranges import fail_without_validation, ranges_of, seeds_of_trials, setting
from steppe.study.spec.tables import Spec, Tune
from steppe.study.store import Store
from steppe.study.training.run import is_pruned
from steppe.study.tuning import engine, trials
from steppe.study.tuning.trials import Trial, TrialsOfCondition

Run = tuple[str, int]
Train = Callable[[Store, list[Run]], None]
"""Trains runs of a study, and returns when they have ended."""

FOLDER = "tuning"

BEFORE_PRUNING = 5
"""Trials of a condition that are trained to their end before others are compared with them."""

PARTS = ("data", "model", "method", "then", "loss", "augment", "average", "train")
"""Tables in which a trial may differ from another."""


def _untuned(store: Store, known: Sequence[TrialsOfCondition] | None) -> list[Condition]:
    """Conditions, as they are written, whose settings are not chosen yet, or whose record is lost.

    A choice that came with the study.toml of another folder is taken as it is: there are no trials here.
    """
    if store.spec.tune is None:
        return []
    chosen, given = store.spec.chosen or {}, not (store.directory / FOLDER).is_dir()
    settled = {name for name in chosen if given or name in {each.name for each in known or ()}}
    columns = columns_of(store.spec.model_copy(update={"chosen": None}))
    return [column for column in columns if column.name not in settled and ranges_of(column.spec)]


def _known(store: Store) -> list[TrialsOfCondition] | None:
    """The record of trials; None where it is not there, or is damaged and made again."""
    try:
        found = trials.load(store)
    except files.DamagedFile:
        return None
    return found[1] if found else None


def first_round(store: Store) -> tuple[Path, Spec, list[Run]] | None:
    """The folder, the study and the runs of the first round of trials; None where no trials are missing."""
    known, plan = _known(store), store.spec.tune
    columns = _untuned(store, known)
    if not columns or plan is None:
        return None
    found = [TrialsOfCondition(column.name, ranges_of(column.spec), []) for column in columns]
    folder = store.directory / FOLDER / "000"
    drawn = _drawn(folder, store.spec, columns, found, range(min(plan.parallel, plan.trials)))
    return folder, drawn.spec, [(name, seed) for name in drawn.entries for seed in reversed(seeds_of_trials(plan))]


def tune(store: Store, datasets: Datasets, train: Train, watcher: Watcher) -> None:
    """Find the settings of the conditions that have none yet, and keep them in the study.

    Parameters
    ----------
    store : Store
        The study, held by this process.
    datasets : Datasets
        What it runs on.
    train : callable
        Trains runs.
    watcher : Watcher
        Is told of progress.

    Raises
    ------
    InputError
        Data without a validation part; a condition of which all trials diverged; trials that ended without a result.
    MissingExtra
        Optuna is not installed.
    """
    known, plan = _known(store), store.spec.tune
    columns = _untuned(store, known)
    if not columns or plan is None:
        return
    engine.require()
    if any(datasets.of(column.spec).validation is None for column in columns):
        fail_without_validation()
    maximize = plan.objective == "validation_accuracy"
    found = [TrialsOfCondition(column.name, ranges_of(column.spec), []) for column in columns]
    earlier = [each for each in known or () if each.name not in {column.name for column in columns}]
    watcher.begin(sum(column.spec.train.epochs for column in columns) * plan.trials * plan.seeds)
    for number, first in enumerate(range(0, plan.trials, plan.parallel)):
        numbers = range(first, min(first + plan.parallel, plan.trials))
        folder = store.directory / FOLDER / f"{number:03d}"
        files.make(folder, store.directory)
        drawn = _drawn(folder, store.spec, columns, found, numbers)
        results = _trained(folder, drawn, plan, datasets, train, watcher)
        for each in found:
            each.trials.extend(results[name, n] for name, n in results if name == each.name)
            engine.record(folder.parent, each.name, each.ranges, each.trials, maximize=maximize)
        trials.save(store, plan, [*earlier, *found])
    chosen = trials.chosen_values(found, plan.objective)
    lost = [each for each in found if each.name not in chosen]
    if {**(before := store.spec.chosen or {}), **chosen} != before:
        store.choose({**before, **chosen})
    if lost:
        names = checks.joined(repr(each.name) for each in lost)
        todo = (
            f"The trials are in {store.directory / FOLDER}, and the other conditions have their settings. Choose "
            "smaller strengths and learning rates in [tune.ranges], and another --out."
        )
        checks.fail("study", f"tuning of {names}", "a search with a trial that ends with numbers",
                    f"{plan.trials} trials that diverged", todo)  # fmt: skip


class _Round(NamedTuple):
    """The trials of one round.

    Attributes
    ----------
    spec : the study whose conditions they are.
    entries : name of its condition -> the condition, the number and the settings of the trial.
    """

    spec: Spec
    entries: dict[str, tuple[Condition, int, dict[str, Any]]]


def trial_name(condition: str, number: int) -> str:
    """Of a trial, as a condition of its round."""
    return f"{condition}-t{number}"


def _drawn(
    folder: Path, spec: Spec, columns: Sequence[Condition], found: Sequence[TrialsOfCondition], numbers: range
) -> _Round:
    """A round: the trials that its folder has, and new ones of conditions that it lacks."""
    known = Store.read(folder).spec if (folder / "study.toml").is_file() else None
    there = {table["name"]: table for table in known.conditions} if known else {}
    entries: dict[str, tuple[Condition, int, dict[str, Any]]] = {}
    tables = list(there.values())
    for column, history in zip(columns, found, strict=True):
        for number in numbers:
            name = trial_name(column.name, number)
            if name in there:
                values = {path: _inside(there[name], path) for path in history.ranges}
            else:
                values = _settings(column, history, number)
                tables.append(_table(name, column, values, history.trials))
            entries[name] = column, number, values
    return _Round(_spec(spec, tables), entries)


def _settings(column: Condition, known: TrialsOfCondition, number: int) -> dict[str, Any]:
    """The settings of a trial: of the first those that are written, if they lie within the ranges."""
    plan = column.spec.tune
    assert plan is not None
    written = {path: setting(column.spec, path) for path in known.ranges}
    if number == 0 and all(range_.holds(written[path]) for path, range_ in known.ranges.items()):
        return written
    maximize = plan.objective == "validation_accuracy"
    return engine.suggest(known.ranges, known.trials, number, seed=plan.seed, maximize=maximize)


def _table(name: str, column: Condition, values: dict[str, Any], history: Sequence[Trial]) -> dict[str, Any]:
    """A trial as a condition of its round."""
    whole = with_settings(column, values).spec.model_dump(exclude_none=True)
    table = {"name": name, **{part: whole[part] for part in PARTS if part in whole}}
    ended = [trial for trial in history if trial.status == "finished" and trial.losses]
    if column.spec.tune is not None and column.spec.tune.prune and len(ended) >= BEFORE_PRUNING:
        table["train"] = {**table["train"], "bounds": _bounds(ended)}
    return table


def _bounds(ended: Sequence[Trial]) -> list[float]:
    """The median over trials of the lowest validation loss so far, epoch by epoch."""
    length = min(len(trial.losses) for trial in ended)
    lowest = [np.minimum.accumulate(trial.losses[:length]) for trial in ended]
    return [float(value) for value in np.median(lowest, axis=0)]


def _inside(table: Any, path: str) -> Any:
    """A value at a dotted path of nested tables."""
    for step in path.split("."):
        table = table[step]
    return table


def _spec(spec: Spec, tables: list[dict[str, Any]]) -> Spec:
    """The study of a round, which looks at the validation part alone."""
    whole = spec.model_dump(exclude_none=True)
    kept = {part: whole[part] for part in ("name", *PARTS, "source") if part in whole}
    title = f"Trials of {spec.title or spec.name}"
    measure = {"batches": 1, "probes": 1, "parts": ["validation"]}
    raw = {**kept, "title": title, "seeds": MOST["seeds"], "measure": measure, "conditions": tables}
    return resolve(raw, run_code=False)


def _trained(
    folder: Path, drawn: _Round, plan: Tune, datasets: Datasets, train: Train, watcher: Watcher
) -> dict[tuple[str, int], Trial]:
    """(condition, number) -> trial, when all of a round have ended.

    Raises
    ------
    InputError
        Some ended without a result.
    """
    columns = {column.name: column for column in columns_of(drawn.spec)}
    data = DataRecord.of(columns.values(), datasets)
    with Store.open(folder, drawn.spec, data) as store:
        runs = [(name, seed) for name in drawn.entries for seed in reversed(seeds_of_trials(plan))]
        missing = [run for run in runs if not store.is_whole(*run)]
        for run in missing:
            if store.has(*run):
                watcher.say(f"{store.run_folder(*run)} is damaged, or another trial's: it is trained again.")
        watcher.skip(sum(columns[name].spec.train.epochs for name, seed in runs if (name, seed) not in missing))
        if missing:
            train(store, missing)
        lost = [f"{name}-s{seed}" for name, seed in missing if not store.is_whole(name, seed)]
        if lost:
            checks.fail("study", "tuning", "a search whose trials all end", f"{len(lost)} that ended without a result: "
                        f"{', '.join(lost)}", "Run the same command again to train them.")  # fmt: skip
        return {
            (column.name, number): _result(store, name, columns[name].spec, number, values, plan)
            for name, (column, number, values) in drawn.entries.items()
        }


def _result(store: Store, name: str, spec: Spec, number: int, values: dict[str, Any], plan: Tune) -> Trial:
    """What came of a trial; diverged if one of its seeds did."""
    found = [store.load(name, seed) for seed in reversed(seeds_of_trials(plan))]
    scores = [_series(rows, plan.objective)[-1] for _, rows in found]
    losses = [_series(rows, "validation_loss") for _, rows in found]
    epochs = min(record["epochs"] for record, _ in found)
    if any(record["status"] == "diverged" for record, _ in found) or not all(map(math.isfinite, scores)):
        return Trial(number, values, "diverged", math.nan, epochs, [])
    pruned = any(is_pruned(each, spec) and len(each) < spec.train.epochs for each in losses)
    length = min(map(len, losses))
    mean = [float(value) for value in np.mean([each[:length] for each in losses], axis=0)]
    return Trial(number, values, "pruned" if pruned else "finished", float(np.mean(scores)), epochs, mean)


def _series(rows: polars.DataFrame, objective: str) -> list[float]:
    """A quantity of the validation part, epoch by epoch."""
    quantity = objective.removeprefix("validation_")
    asked = (polars.col("stage") == "training") & (polars.col("split") == "validation")
    found: list[float] = rows.filter(asked, polars.col("quantity") == quantity)["value"].to_list()
    return found

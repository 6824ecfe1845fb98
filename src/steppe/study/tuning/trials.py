"""Trials of conditions, as the record of a tuned study holds them, and the one that is chosen.

```
DIR/tuning.json        ranges, trials and scores of each condition
DIR/tuning/<round>/    a study whose conditions are the trials of one round; any executor trains them
DIR/tuning/optuna.log  the same trials for Optuna's own tools
```
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from steppe.analysis.results import TunedCondition, Tuning
from steppe.storage import files
from steppe.study.records import json_of
from steppe.study.spec.ranges import Range
from steppe.study.spec.tables import Tune
from steppe.study.store import AGAIN, Store

FILE = "tuning.json"

EDGE = 0.05
"""The share of a range at each of its ends where a chosen value is said to lie at its edge."""


class Trial(NamedTuple):
    """One trial of a condition.

    Attributes
    ----------
    number : from 0.
    values : dotted key -> value.
    status : "finished", "diverged" or "pruned".
    score : the mean of the objective over the trial's seeds; NaN where it diverged.
    epochs : how many it was trained for.
    losses : the validation loss after each of them, the mean over seeds.
    """

    number: int
    values: dict[str, Any]
    status: str
    score: float
    epochs: int
    losses: list[float]


class TrialsOfCondition(NamedTuple):
    """What is known of the trials of one condition."""

    name: str
    ranges: dict[str, Range]
    trials: list[Trial]


def best(trials: Sequence[Trial], *, maximize: bool) -> Trial | None:
    """The best trial that was trained to its end, of several the first; None where there is none.

    Examples
    --------
    >>> ends = [("finished", 0.5), ("finished", 0.4), ("pruned", 0.1)]
    >>> runs = [Trial(number, {}, *end, epochs=9, losses=[]) for number, end in enumerate(ends)]
    >>> best(runs, maximize=False).number, best(runs, maximize=True).number
    (1, 0)
    """
    ended = [trial for trial in trials if trial.status == "finished"]
    return min(ended, key=lambda trial: -trial.score if maximize else trial.score, default=None)


def save(store: Store, plan: Tune, found: Sequence[TrialsOfCondition]) -> None:
    """Write the record of a study's trials."""
    table = {
        "objective": plan.objective,
        "trials": plan.trials,
        "seeds": plan.seeds,
        "conditions": [
            {
                "name": each.name,
                "ranges": {path: range_.model_dump(exclude_none=True) for path, range_ in each.ranges.items()},
                "trials": [
                    trial._asdict() | {"score": trial.score if math.isfinite(trial.score) else None}
                    for trial in each.trials
                ],
            }
            for each in found
        ],
    }
    files.write_checked(store.directory / FILE, json.dumps(table, indent=1) + "\n")


def load(store: Store) -> tuple[Tuning, list[TrialsOfCondition]] | None:
    """What came of the trials of a study; None where it has none.

    Raises
    ------
    DamagedFile
        The record is not what was written there.
    """
    path = store.directory / FILE
    return files.read(path, _parsed, todo=AGAIN) if os.path.lexists(path) else None


def _parsed(stream: BinaryIO) -> tuple[Tuning, list[TrialsOfCondition]]:
    table = json_of(stream)
    found = [
        TrialsOfCondition(
            each["name"],
            {path: Range(**range_) for path, range_ in each["ranges"].items()},
            [Trial(**{**trial, "score": math.nan if trial["score"] is None else trial["score"]})
             for trial in each["trials"]],
        )
        for each in table["conditions"]
    ]  # fmt: skip
    maximize = table["objective"] == "validation_accuracy"
    said = tuple(filter(None, (_summary(each, maximize) for each in found)))
    return Tuning(table["objective"], table["trials"], table["seeds"], said), found


def _summary(found: TrialsOfCondition, maximize: bool) -> TunedCondition | None:
    """What the report says of a condition; nothing before a trial has ended well."""
    chosen = best(found.trials, maximize=maximize)
    if chosen is None:
        return None
    count = {status: sum(trial.status == status for trial in found.trials) for status in ("diverged", "pruned")}
    first = found.trials[0]
    edges = {path: _edge(range_, chosen.values[path]) for path, range_ in found.ranges.items()}
    return TunedCondition(
        name=found.name,
        ranges={path: in_words(range_) for path, range_ in found.ranges.items()},
        chosen=chosen.values,
        score=chosen.score,
        first=first.score if first.status == "finished" else math.nan,
        trials=len(found.trials),
        diverged=count["diverged"],
        pruned=count["pruned"],
        tied=sum(trial.status == "finished" and trial.score == chosen.score for trial in found.trials) - 1,
        edges={path: edge for path, edge in edges.items() if edge},
    )


def in_words(found: Range) -> str:
    """A range as tables show it."""
    if found.values is not None:
        return ", ".join(map(str, found.values))
    low, high = found.ends
    return f"{low:g} to {high:g}{', logarithmic' if found.log else ''}"


def _edge(found: Range, value: Any) -> str:
    """At which end of a range a value lies: "lowest", "highest" or neither."""
    if found.values is not None:
        numbers = [v for v in found.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(found.values) or len(set(numbers)) < 2:
            return ""
        return "lowest" if value == min(numbers) else "highest" if value == max(numbers) else ""
    low, high = found.ends
    if found.whole:
        return "lowest" if value == low else "highest" if value == high else ""
    low, high, value = np.log([low, high, value]) if found.log else (low, high, value)
    place = (value - low) / (high - low)
    return "lowest" if place < EDGE else "highest" if place > 1 - EDGE else ""


def chosen_values(found: Sequence[TrialsOfCondition], objective: str) -> dict[str, dict[str, Any]]:
    """Condition -> dotted key -> the chosen value, of conditions that have a trial which ended well."""
    maximize = objective == "validation_accuracy"
    winners: Mapping[str, Trial | None] = {each.name: best(each.trials, maximize=maximize) for each in found}
    return {name: dict(trial.values) for name, trial in winners.items() if trial is not None}

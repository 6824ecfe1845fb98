"""Measures that a study names after runs have finished: asked of their networks, which are kept."""

import json
from collections.abc import Iterable

import polars

from steppe.core.checks import joined
from steppe.engines.progress import Watcher
from steppe.study.datasets import Datasets
from steppe.study.examination import Examination
from steppe.study.history import ROWS
from steppe.study.questions import further
from steppe.study.records import stage_name
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.table import FinishedRuns, unanswered


def ask(
    store: Store, columns: Iterable[Condition], datasets: Datasets, finished: FinishedRuns, watcher: Watcher
) -> bool:
    """Ask finished runs what their study names now and did not name when they were trained.

    The answers are those of the end, to the bit: parameters, examples and random vectors are the same. Of the networks
    before the end nothing is kept, so that what a measure with `every` would have been in training stays unknown.

    Returns
    -------
    bool
        Whether anything was asked.

    Raises
    ------
    InputError : a measure that cannot be asked of such a network.
    OSError : the folder cannot be written; answers that are there stay.
    """
    specs, examinations = {column.name: column.spec for column in columns}, Examinations(datasets)
    epochs = {(record["condition"], record["seed"]): record["epochs"] for record in finished.records}
    found = unanswered(store.spec, finished)
    for (condition, seed), lacking in found.items():
        watcher.stage(f"{stage_name(condition, seed)}: {joined(lacking)}")
        network, examination = store.network(condition, seed), examinations.of(specs[condition], lacking)
        examination.prepare(network)
        answers = examination.answers(network, epochs[condition, seed], last=True)
        store.add(condition, seed, polars.DataFrame(list(answers), schema=ROWS))
    return bool(found)


class Examinations:
    """The questions for networks of each kind, so that they compile once."""

    def __init__(self, datasets: Datasets) -> None:
        self.datasets = datasets
        self._known: dict[str, Examination] = {}

    def of(self, spec: Spec, lacking: list[str]) -> Examination:
        """Those of some measures that a study names."""
        dataset = self.datasets.of(spec)
        key = json.dumps([id(dataset), spec.model, lacking], sort_keys=True)
        if key not in self._known:
            asked = further(spec)
            chosen = [question for question in asked if question.measure.name in lacking]
            self._known[key] = Examination(spec.build_model(dataset), dataset, chosen)
        return self._known[key]

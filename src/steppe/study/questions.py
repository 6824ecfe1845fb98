"""What a study asks of a trained network besides what it always measures: measures by name, in ``[measure] names``."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.core.types import Apply, Params
from steppe.data import Dataset
from steppe.measures import run, table
from steppe.measures.registry import MEASURES
from steppe.measures.subject import Subject
from steppe.study.surfaces import chosen

EXAMPLES, BATCH = 1024, 128
"""Training examples at most, and how many of them are looked at together, as `steppe measure` has it."""

CHUNK = 500
"""Test examples that are looked at together."""

ON_TEST = ("fit", "outcome")
"""Families of measures that are asked of all test examples; others of `EXAMPLES` training examples."""


def settings_of(names: list[str | dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Measure -> its settings, from names and tables with a name and settings.

    Raises
    ------
    InputError : a name or a setting that does not exist; a measure that is named twice; one that needs parameters
        before training.

    Examples
    --------
    >>> settings_of(["accuracy", {"name": "calibration_error", "bins": 10}])
    {'accuracy': {}, 'calibration_error': {'bins': 10}}
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in names:
        given = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = given.pop("name", None)
        if not isinstance(name, str):
            checks.fail("study", "measure.names", "names, or tables with a name", checks.shown(entry))
        run.selected([name])
        if name in found:
            checks.fail("study", "measure.names", "different measures", f"{name} twice")
        if MEASURES[name].needs == "initial":
            checks.fail("study", "measure.names", "measures of the trained network alone", checks.shown(name),
                        "Ask `steppe measure` for it.")  # fmt: skip
        found[name] = run.resolved(name, given)
    return found


class Questions:
    """What is asked at the end of each run: the data of each split, made once, and the loop over the measures."""

    def __init__(self, dataset: Dataset, names: list[str | dict[str, Any]]) -> None:
        self.dataset, self.asked = dataset, settings_of(names)
        self._batches: dict[str, Any] = {}

    def answers(self, apply: Apply, params: Params) -> Iterator[dict[str, Any]]:
        """One row a number; see `measures.table.SCHEMA` for what its columns mean."""
        subjects: dict[str, Subject] = {}
        for name, settings in self.asked.items():
            split = "test" if MEASURES[name].family in ON_TEST else "train"
            if split not in subjects:
                params = jax.tree.map(jnp.asarray, params)
                subjects[split] = Subject(apply=apply, params=params, batches=self._of(split))
            answer = run.ask(subjects[split], name, settings)
            examples = subjects[split].batches.examples
            for quantity in answer.rows:
                yield table.columns(answer, quantity) | {
                    "split": split,
                    "examples": examples,
                    "batch_size": min(examples, CHUNK if split == "test" else BATCH),
                }

    def _of(self, split: str) -> Any:
        if split not in self._batches:
            most, size = (math.inf, CHUNK) if split == "test" else (EXAMPLES, BATCH)
            count = int(min(most, checks.batch_size("study", getattr(self.dataset, split))))
            self._batches[split] = chosen(self.dataset, split, count, size=size)
        return self._batches[split]

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
from steppe.measures.answers import ask
from steppe.measures.registry import Measure, Source, lookup
from steppe.measures.subject import Subject
from steppe.study.surfaces import chosen

EXAMPLES, BATCH = 1024, 128
"""Training examples at most, and how many of them are looked at together, as `steppe measure` has it."""

CHUNK = 500
"""Test examples that are looked at together."""

ON_TEST = ("fit", "outcome")
"""Families of measures that are asked of all test examples; others of `EXAMPLES` training examples."""


Asked = dict[str, tuple[Measure, dict[str, Any]]]
"""By its name a measure, and its settings."""


def questions(names: list[str | dict[str, Any]], source: Source | None = None) -> Asked:
    """What names, and tables with a name and settings, ask; `source` is that of the study's code.

    Raises
    ------
    InputError : a name or a setting that does not exist; a measure that is named twice; one that needs parameters
        before training.

    Examples
    --------
    >>> {name: asked for name, (_, asked) in questions(["accuracy", {"name": "calibration_error", "bins": 10}]).items()}
    {'accuracy': {}, 'calibration_error': {'bins': 10}}
    """
    found: Asked = {}
    for entry in names:
        given = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = given.pop("name", None)
        if not isinstance(name, str):
            checks.fail("study", "measure.names", "names, or tables with a name", checks.shown(entry))
        measure = lookup(name, source)
        if name in found:
            checks.fail("study", "measure.names", "different measures", f"{name} twice")
        if measure.needs == "initial":
            checks.fail("study", "measure.names", "measures of the trained network alone", checks.shown(name),
                        "Ask `steppe measure` for it.")  # fmt: skip
        found[name] = measure, run.resolve(measure, given)
    return found


class Questions:
    """What is asked at the end of each run: the data of each split, made once, and the loop over the measures."""

    def __init__(self, dataset: Dataset, names: list[str | dict[str, Any]], source: Source | None = None) -> None:
        self.dataset, self.asked = dataset, questions(names, source)
        self._batches: dict[str, Any] = {}

    def answers(self, apply: Apply, params: Params) -> Iterator[dict[str, Any]]:
        """One row a number; see `measures.table.SCHEMA` for what its columns mean."""
        subjects: dict[str, Subject] = {}
        for measure, settings in self.asked.values():
            split = "test" if measure.family in ON_TEST else "train"
            if split not in subjects:
                params = jax.tree.map(jnp.asarray, params)
                subjects[split] = Subject(apply=apply, params=params, batches=self._of(split))
            answer = ask(subjects[split], measure, settings)
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

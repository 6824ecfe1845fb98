"""The seams behind which other machines can stand: where runs lie, and where they are trained."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import polars

from steppe.core import checks
from steppe.engines.progress import Watcher
from steppe.models import Variables
from steppe.storage.checkpoint import Checkpoint
from steppe.study.records import RunRecord, run_name
from steppe.study.spec.conditions import conditions
from steppe.study.spec.tables import Spec


class Run(NamedTuple):
    """One condition and one seed of a study: the unit of work, which depends on no other."""

    condition: str
    seed: int

    @property
    def id(self) -> str:
        """Its name, that of its folder."""
        return run_name(self.condition, self.seed)


class Storage(Protocol):
    """Where the runs of one study lie; `study.store.Store` keeps them in a folder.

    Several processes may use it at once: a finished run appears whole, and of two attempts at one run the first stays.
    """

    directory: Path
    spec: Spec

    def fingerprint(self, condition: str) -> str | None:
        """That of the data that a condition runs on, if it is known."""
        ...

    def is_whole(self, condition: str, seed: int) -> bool:
        """Whether a finished run is there, undamaged and of this study."""
        ...

    def load(self, condition: str, seed: int) -> tuple[RunRecord, polars.DataFrame]:
        """A finished run's record and rows; it fails where they are damaged or another run's."""
        ...

    def save(self, condition: str, seed: int, network: Variables, rows: polars.DataFrame, run: RunRecord) -> None:
        """Keep a finished run, whole or not at all."""
        ...

    def checkpoint(self, condition: str, seed: int) -> Checkpoint:
        """What is known of an unfinished run, to be resumed."""
        ...


class Executor(Protocol):
    """Trains runs of a study, here or elsewhere."""

    def submit(self, store: Storage, runs: Sequence[Run], watcher: Watcher) -> list[str]:
        """Begin to train runs, whose results appear in the store; one id for each, by which the executor knows it."""
        ...

    def wait(self, ids: Sequence[str]) -> None:
        """Return when these have ended, finished or not."""
        ...


def run_of(name: str) -> Run:
    """The run of an id, see `Run.id`."""
    condition, _, seed = name.rpartition("-s")
    return Run(condition, int(seed))


def check_runs(spec: Spec, runs: Any) -> list[Run]:
    """Runs, or pairs of a condition and a seed as JSON has them, all of this study.

    Raises
    ------
    InputError
        Something else, or a run that the study does not have.
    """
    if isinstance(runs, str | Mapping) or not isinstance(runs, Iterable):
        checks.fail("study", "runs", "a list of runs, each a condition and a seed", checks.shown(runs))
    names = [column.name for column in conditions(spec, run_code=False)]
    known = []
    for run in runs:
        if isinstance(run, str) or not isinstance(run, Sequence) or len(run) != len(Run._fields):
            checks.fail("study", "a run", "a condition and a seed", checks.shown(run))
        checks.one_of("study", "the condition of a run", run[0], names)
        if checks.whole("study", "the seed of a run", run[1], least=0) >= spec.seeds:
            checks.fail("study", "the seed of a run", f"below {spec.seeds}, the study's number of seeds", run[1])
        known.append(Run(run[0], int(run[1])))
    return known


def check_executor(executor: Any) -> Executor:
    """An object with the methods of an executor.

    Raises
    ------
    InputError
        Otherwise.
    """
    if isinstance(executor, type) or not all(callable(getattr(executor, name, None)) for name in ("submit", "wait")):
        checks.fail("run", "executor", "an object with the methods submit and wait", checks.shown(executor),
                    "`steppe.study.execution.base.Executor` says what they do.")  # fmt: skip
    return cast(Executor, executor)

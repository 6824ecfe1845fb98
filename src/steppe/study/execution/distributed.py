"""Runs trained by several workers, wherever an engine carries them."""

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

from steppe.core.checks import joined
from steppe.engines.base import Engine, Task
from steppe.engines.pool import Lost, Pool
from steppe.engines.progress import Watcher
from steppe.study import spec as specs
from steppe.study.execution.base import Run, Storage, check_runs, run_of
from steppe.study.execution.local import CHECKPOINT_SECONDS, work
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.training.recipe import shape_key, shape_of
from steppe.study.tuning.search import first_round


class Distributed:
    """Trains runs of a study by workers, each of which computes some runs of one shape, which it compiles once.

    Parameters
    ----------
    engine : Engine
        What carries work to machines.
    checkpoint_seconds : float
        Seconds of training between checkpoints within a run.

    Attributes
    ----------
    lost : list of Lost
        The runs that ended without a result when it was last waited for.
    """

    def __init__(self, engine: Engine, checkpoint_seconds: float = CHECKPOINT_SECONDS):
        self.engine, self.checkpoint_seconds = engine, checkpoint_seconds
        self.lost: list[Lost] = []
        self._asked: tuple[Storage, list[Run], Watcher] | None = None

    def submit(self, store: Storage, runs: Sequence[Run], watcher: Watcher) -> list[str]:
        """Take runs, which `wait` has trained; see `Executor`."""
        runs = check_runs(store.spec, runs)
        self._asked = store, runs, watcher
        return [run.id for run in runs]

    def wait(self, ids: Sequence[str]) -> None:
        """Have them trained, and tell the watcher of those that were lost.

        Raises
        ------
        InputError : see `Pool.run`.
        """
        assert self._asked is not None
        store, runs, watcher = self._asked

        def missing(task: Task) -> list[str]:
            return [unit for unit in task.units if not store.is_whole(*run_of(unit))]

        pool = Pool(self.engine, missing, watcher)
        self.lost = pool.run(store.directory, self.tasks(store.spec, store.directory, runs))
        say_lost(self.lost, watcher)

    def preview(self, spec: Spec, directory: Path) -> str:
        """What would be given to machines for the runs that a folder lacks, as text; trials first, where some are."""
        store = Store(Path(directory), spec)
        if spec.tune and (store.directory / "study.toml").is_file():
            store.spec = spec.model_copy(update={"chosen": Store.read(directory).spec.chosen})
        runs = [Run(column.name, seed) for seed in range(spec.seeds) for column in specs.conditions(spec)]
        missing = [run for run in runs if not store.has(*run)]
        seeds = self.engine.preview(store.directory, len(self.tasks(spec, directory, missing)))
        trials = first_round(store)
        if not trials or not spec.tune:
            return seeds
        folder, round_, those = trials
        first = self.engine.preview(folder, len(self.tasks(round_, folder, list(itertools.starmap(Run, those)))))
        rounds = math.ceil(spec.tune.trials / spec.tune.parallel)
        return f"{first}# {rounds} rounds of trials; this is the first.\n\n{seeds}# The seeds, after all trials.\n"

    def tasks(self, spec: Spec, directory: Path, runs: Sequence[Run]) -> list[Task]:
        """Runs of a study in that folder, divided into tasks."""
        where = {"directory": os.path.abspath(directory), "checkpoint_seconds": self.checkpoint_seconds}
        names = [[run.id for run in part] for part in divided(spec, runs, self.engine.parts(len(runs)))]
        return [Task(f"{__name__}:{train.__name__}", where, tuple(part)) for part in names]


def train(units: Sequence[str], directory: str, checkpoint_seconds: float, watcher: Watcher) -> None:
    """Train runs of a study as one of its workers, see `local.work`."""
    work(directory, list(map(run_of, units)), watcher=watcher, checkpoint_seconds=checkpoint_seconds)


def divided(spec: Spec, runs: Sequence[Run], parts: int) -> list[list[Run]]:
    """Runs in at least so many parts, as far as there are so many, each of one shape; the first runs are first."""
    shapes = {column.name: shape_key(shape_of(column.spec)[0]) for column in specs.conditions(spec, run_code=False)}
    by_shape: dict[str, list[Run]] = {}
    for run in runs:
        by_shape.setdefault(shapes[run.condition], []).append(run)
    most, found = max(1, len(runs) // max(1, parts)), []
    for those in by_shape.values():
        count = math.ceil(len(those) / most)
        found += [those[len(those) * i // count : len(those) * (i + 1) // count] for i in range(count)]
    place = {run: i for i, run in enumerate(runs)}
    return sorted(found, key=lambda part: place[part[0]])


def say_lost(lost: Sequence[Lost], watcher: Watcher) -> None:
    """Tell why some units ended without a result, a sentence for each reason."""
    by_reason: dict[str, list[Lost]] = {}
    for each in lost:
        by_reason.setdefault(each.why, []).append(each)
    for why, those in by_reason.items():
        named = joined(each.unit for each in those) if len(those) <= 3 else f"{len(those)} of them"
        watcher.say(f"Every attempt at {named} failed: {why.rstrip('.')}. The log is {those[0].log}.")

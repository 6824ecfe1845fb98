"""Runs trained in this process, one after another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from steppe.core import checks
from steppe.engines.progress import Watcher
from steppe.study import spec as specs
from steppe.study.datasets import Datasets
from steppe.study.execution.base import Run, Storage, check_runs
from steppe.study.records import stage_name
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.program import Compiler
from steppe.study.training.run import train
from steppe.study.training.timing import Stopwatch

CHECKPOINT_SECONDS = 30.0


class Local:
    """Trains runs here and now; runs of one shape share a compiled program.

    Parameters
    ----------
    checkpoint_seconds : float
        Seconds of training between checkpoints within a run.
    datasets : Datasets, optional
        What the study runs on, as far as it is loaded already.
    """

    def __init__(self, checkpoint_seconds: float = CHECKPOINT_SECONDS, datasets: Datasets | None = None):
        self.checkpoint_seconds = checks.real("run", "checkpoint_seconds", checkpoint_seconds, least=0.0)
        self.datasets = datasets or Datasets()

    def submit(self, store: Storage, runs: Sequence[Run], watcher: Watcher) -> list[str]:
        """Train runs; see `Executor`. When this returns they have ended.

        Raises
        ------
        InputError : runs that the study does not have; data that are not the study's; a study whose folder is gone.
        OSError : the folder cannot be written; finished runs stay.
        """
        runs = check_runs(store.spec, runs)
        columns = {column.name: column for column in specs.conditions(store.spec)}
        compilers = self._compilers(store, {run.condition: columns[run.condition].spec for run in runs})
        stopwatch = Stopwatch()
        for run in runs:
            watcher.stage(stage_name(*run))
            checkpoint = store.checkpoint(*run)
            checkpoint.place()  # the live page counts the run from now on
            checkpoints = Checkpoints(checkpoint, self.checkpoint_seconds)
            column, compiler = columns[run.condition], compilers[run.condition]
            network, rows, record = train(column, run.seed, compiler, stopwatch, checkpoints, watcher)
            store.save(run.condition, run.seed, network, rows, record)
        return [run.id for run in runs]

    def wait(self, ids: Sequence[str]) -> None:
        """Nothing is left to wait for."""

    def _compilers(self, store: Storage, specs_: Mapping[str, Spec]) -> dict[str, Compiler]:
        """Condition -> what compiles its runs, one a data set; all are loaded before anything is trained."""
        found: dict[int, Compiler] = {}
        compilers = {}
        for condition, spec in specs_.items():
            dataset = self.datasets.of(spec)
            if store.fingerprint(condition) not in (None, dataset.fingerprint):
                todo = "Copy the study's data to it."
                checks.fail("study", "data", "what the study runs on", "other data on this machine", todo)
            compilers[condition] = found.setdefault(id(dataset), Compiler(dataset))
        return compilers


def work(
    directory: Path | str,
    runs: Sequence[Run],
    *,
    watcher: Watcher | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[str]:
    """Train runs of a study that another process runs, as one of its workers.

    The process that opened the study holds its lock; a worker only adds runs, each of which appears whole. A run that
    another worker has finished meanwhile stays as it is.

    Parameters
    ----------
    directory : Path or str
        The study's folder, which this machine sees under that name.
    runs : Sequence of Run
        What to train.
    watcher : Watcher, optional
        Is told of progress.
    checkpoint_seconds : float
        Seconds of training between checkpoints within a run.

    Returns
    -------
    list of str
        The ids of the runs.

    Raises
    ------
    InputError
        No study is there, it does not have such a run, or its data are other ones on this machine.
    OSError
        The folder cannot be written.
    """
    store = Store.read(directory)
    runs = check_runs(store.spec, runs)
    missing = [run for run in runs if not store.is_whole(*run)]
    if missing:
        Local(checkpoint_seconds).submit(store, missing, watcher or Watcher())
    return [run.id for run in runs]

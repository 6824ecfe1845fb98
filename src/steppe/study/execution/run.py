"""A study from its specification to its results: train what is missing, and gather what came of it."""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path

from steppe.analysis.results import Results
from steppe.core import checks, programs
from steppe.engines.progress import Watcher
from steppe.storage import files
from steppe.study import additions, curves, measurements
from steppe.study.datasets import DataRecord, Datasets
from steppe.study.execution.base import Executor, Run, check_executor
from steppe.study.execution.local import CHECKPOINT_SECONDS, Local
from steppe.study.pairs import ask_pairs, pair_questions
from steppe.study.questions import further
from steppe.study.spec.comparisons import margins_of_runs
from steppe.study.spec.conditions import Condition, conditions
from steppe.study.spec.tables import Spec
from steppe.study.store import ForeignRun, Store
from steppe.study.surfaces import add_surfaces
from steppe.study.table import FinishedRuns, Known, read_runs, results
from steppe.study.training.recipe import Recipe, shape_key, shape_of
from steppe.study.training.rehearsal import check_measures, check_parts, unused_outputs
from steppe.study.tuning.search import tune

CODE = programs.Label("study", "the code that it names")
"""What errors are said to be of, where a study names code and they come of no single part."""


def run(
    spec: Spec,
    directory: Path | str,
    *,
    watcher: Watcher | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    executor: Executor | None = None,
) -> Results:
    """Run what is missing of a study, and return all of it.

    Interrupted at any moment, the same call resumes it, with bit-identical results. More seeds later add runs. Runs
    that diverge are recorded as such, and the study goes on.

    Parameters
    ----------
    spec : from `spec.load`.
    directory : the study's folder, made if need be.
    watcher : is told of progress.
    checkpoint_seconds : seconds of training between checkpoints within a run.
    executor : where runs are trained; in this process, one after another, unless somebody says otherwise.

    Raises
    ------
    InputError : unusable data or settings, or a folder of another study; before anything is trained.
    OSError : the folder cannot be written; finished runs stay.

    A finished run whose files are damaged is told to the watcher, and trained again.
    """
    watcher = watcher or Watcher()
    checks.real("run", "checkpoint_seconds", checkpoint_seconds, least=0.0)
    executor = executor if executor is None else check_executor(executor)
    columns, datasets = conditions(spec), Datasets()
    data = DataRecord.of(columns, datasets)
    for remark in _rehearse(columns, datasets, margins_of_runs(spec), here=executor is None):
        watcher.say(remark)
    pair_questions(spec)
    with Store.open(directory, spec, data, watcher.say) as store:
        executor = executor or Local(checkpoint_seconds, datasets)
        tune(store, datasets, functools.partial(_train, executor, watcher), watcher)
        columns = conditions(store.spec) if store.spec.chosen else columns
        known: Known = {}
        missing = _missing(store, columns, spec.seeds, watcher, known)
        epochs = {column.name: column.spec.train.epochs for column in columns}
        watcher.begin(sum(epochs[run.condition] for run in missing))
        if missing:
            executor.wait(executor.submit(store, missing, watcher))
        finished = read_runs(store, known)
        if additions.ask(store, columns, datasets, finished, watcher):
            finished = read_runs(store, known)
        _say_lost(missing, finished, watcher)
        _unite(store, finished, watcher)
        curves.keep(store, columns, datasets, finished, watcher)
        ask_pairs(store, columns, datasets, finished, watcher)
        add_surfaces(store, columns, datasets, watcher)
        return results(store, finished)


def _train(executor: Executor, watcher: Watcher, store: Store, runs: list[tuple[str, int]]) -> None:
    """Train runs of a store, and return when they have ended."""
    executor.wait(executor.submit(store, list(itertools.starmap(Run, runs)), watcher))


def _say_lost(runs: list[Run], finished: FinishedRuns, watcher: Watcher) -> None:
    """Tell the watcher of runs that were to be trained, and ended without a result."""
    there = {(record["condition"], record["seed"]) for record in finished.records}
    lost = [run.id for run in runs if run not in there]
    if lost:
        watcher.say(f"{len(lost)} of {len(runs)} runs ended without a result: {', '.join(lost)}. "
                    "Run the same command again to train them.")  # fmt: skip


def _unite(store: Store, finished: FinishedRuns, watcher: Watcher) -> None:
    """Put the rows of all finished runs into the study's table; the watcher is told what left it, or why not."""
    store.check()
    said = measurements.unite(store, finished.rows)
    if said:
        watcher.say(said)


def _missing(store: Store, columns: list[Condition], seeds: int, watcher: Watcher, known: Known) -> list[Run]:
    """The runs that are to be trained: those that are not there, and the damaged ones, of which the watcher is told.

    All others are `known` from now on.

    Raises
    ------
    InputError : no run there is of this study: its study.toml was changed, and they are not to be lost for that.
    """
    missing: list[Run] = []
    whole = 0
    damaged: list[files.DamagedFile] = []
    for seed, column in itertools.product(range(seeds), columns):
        if store.has(column.name, seed):
            try:
                known[column.name, seed] = store.load(column.name, seed)
            except files.DamagedFile as error:
                damaged.append(error)
            else:
                whole += 1
                continue
        missing.append(Run(column.name, seed))
    if damaged and not whole and all(isinstance(error, ForeignRun) for error in damaged):
        raise damaged[0]
    for each in damaged:
        kind, todo = "damaged", ""
        if isinstance(each, ForeignRun):
            kind, todo = "another run's", "its folder is set aside, and "
        watcher.say(f"{each.path} is {kind} ({each.why}): {todo}the run is trained again.")
    return missing


def _rehearse(columns: list[Condition], datasets: Datasets, margins: Mapping[str, float], *, here: bool) -> list[str]:
    """Trace every shape's epoch, without running it: settings that do not fit stop here, not after an hour. What a user
    should know of the networks is returned.

    The devices of this machine say nothing of those where an executor trains: there each run asks for them itself.
    """
    shapes = [shape_of(column.spec) for column in columns]
    recipes: dict[int, Recipe] = {}
    remarks: list[str] = []
    for shape, strengths in {shape_key(shape): (shape, strengths) for shape, strengths in shapes}.values():
        with programs.user_errors(CODE, own=bool(shape.source)):
            recipe = Recipe.of(shape if here else _of_one_device(shape), datasets.of(shape))
            check_parts(recipe)
            recipe.rehearse(strengths)
            remarks.append(unused_outputs(recipe))
        recipes.setdefault(id(recipe.dataset), recipe)
    for recipe in recipes.values():
        check_measures(further(recipe.spec), recipe, margins)
    return [remark for remark in dict.fromkeys(remarks) if remark]


def _of_one_device(shape: Spec) -> Spec:
    """A shape that asks for no devices."""
    return shape.model_copy(update={"train": shape.train.model_copy(update={"devices": None})})

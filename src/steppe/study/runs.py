"""Spec → runs → store: train what is missing, one run after another, and gather what came of it.

The unit of work is one run. On two CPU cores training three seeds in one vmapped program gained 1.2× on the smallest
network and lost on the others (docs/design.md), and a group of one keeps costs honest and results independent of
how many seeds were asked for.
"""

import functools
import itertools
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.analysis.results import Results
from steppe.core import checks, trees
from steppe.core.types import Params
from steppe.data import Dataset
from steppe.storage import files, provenance
from steppe.study.progress import Watcher
from steppe.study.spec.spec import Condition, Spec, conditions
from steppe.study.store import Foreign, Store
from steppe.study.surfaces import add_surfaces
from steppe.study.table import gathered
from steppe.study.training.chain import stability_limit
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.program import Compiler, Meter, Metrics, Recipe, Trainer, shape_key, shape_of
from steppe.study.training.timing import Stopwatch, train_seconds

CHECKPOINT_SECONDS = 30.0


def run(
    spec: Spec,
    directory: Path | str,
    *,
    watcher: Watcher | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Results:
    """Run what is missing of a study, and return all of it.

    Interrupted at any moment, the same call goes on where it was, with bit-identical results. More seeds later
    add runs. Runs that diverge are recorded as such, and the study goes on.

    Parameters
    ----------
    spec : from `spec.load`.
    directory : the study's folder, made if need be.
    watcher : is told of progress.
    checkpoint_seconds : seconds of training between checkpoints within a run.

    Raises
    ------
    InputError : unusable data or settings, or a folder of another study; before anything is trained.
    OSError : the folder cannot be written; finished runs stay.

    A finished run whose files are damaged is told to the watcher, and trained again.
    """
    watcher = watcher or Watcher()
    checks.real("run", "checkpoint_seconds", checkpoint_seconds, least=0.0)
    dataset = spec.load_data()
    columns = conditions(spec)
    _rehearse(columns, dataset)
    facts = {"about": dataset.about, "fingerprint": dataset.fingerprint}
    with Store.open(directory, spec, facts, watcher.say) as store:
        missing = _missing(store, columns, spec.seeds, watcher)
        watcher.begin(sum(column.spec.train.epochs for column, _ in missing))
        compiler, timed = Compiler(dataset) if missing else None, Stopwatch()
        for column, seed in missing:
            watcher.stage(f"{column.name} seed {seed}")
            checkpoints = Checkpoints(
                functools.partial(store.checkpoints, f"{column.name}-s{seed}"), checkpoint_seconds
            )
            store.save(column.name, seed, *_trained(column, seed, compiler, timed, checkpoints, watcher))
        add_surfaces(store, columns, dataset, watcher)
        return gathered(store)


def _missing(store: Store, columns: list[Condition], seeds: int, watcher: Watcher) -> list[tuple[Condition, int]]:
    """The runs that are to be trained: those that are not there, and the damaged ones, of which the watcher is told.

    Raises
    ------
    InputError : no run there is of this study: its study.toml was changed, and they are not to be lost for that.
    """
    missing, whole, damaged = [], 0, []
    for seed, column in itertools.product(range(seeds), columns):
        if store.has(column.name, seed):
            try:
                store.load(column.name, seed)
            except files.Damaged as error:
                damaged.append(error)
            else:
                whole += 1
                continue
        missing.append((column, seed))
    if damaged and not whole and all(isinstance(error, Foreign) for error in damaged):
        raise damaged[0]
    for error in damaged:
        kind, todo = "damaged", ""
        if isinstance(error, Foreign):
            kind, todo = "another run's", "its folder is set aside, and "
        watcher.say(f"{error.path} is {kind} ({error.why}): {todo}the run is trained again.")
    return missing


def _rehearse(columns: list[Condition], dataset: Dataset) -> None:
    """Trace every shape's epoch, without running it: settings that do not fit stop here, not after an hour."""
    shapes = [shape_of(column.spec) for column in columns]
    for shape, strengths in {shape_key(shape): (shape, strengths) for shape, strengths in shapes}.values():
        Recipe.of(shape, dataset).rehearse(strengths)


def _trained(
    column: Condition, seed: int, compiler: Compiler, timed: Stopwatch, checkpoints: Checkpoints, watcher: Watcher
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """Train one run to its end, measuring now and then outside the training time: parameters, history, record."""
    settings = column.spec.train
    shape, strengths = shape_of(column.spec)
    trainer, meter, tracker = compiler.trainer(shape, strengths), compiler.meter(shape), compiler.tracker(shape)
    progress, history = trainer.start(jnp.uint32(seed), strengths), []
    resumed = checkpoints.latest(progress)
    if resumed:
        progress, history = resumed
        watcher.skip(_epochs(history))
    done = _epochs(history)
    while done < settings.epochs and not _diverged(history) and not _converged(history, column.spec):
        stride = min(column.spec.measure.every - done % column.spec.measure.every, settings.epochs - done)
        each, seconds = [], {"train_seconds": 0.0, "first_seconds": None}
        for _ in range(stride):
            (progress, loss), took, first = timed(trainer.epoch, progress, strengths, compiler.train)
            each.append(loss)
            seconds["train_seconds"] += took
            seconds |= {"first_seconds": took} if first else {}
        trained = time.perf_counter()
        loss, done, network = sum(map(float, each)) / stride, done + stride, trainer.network(progress)
        history.append({"epoch": done, "train_loss": _number(loss)} | seconds | _measured(network, meter, compiler))
        last = done == settings.epochs or _converged(history, column.spec)
        tracked = tracker.at(network, done, due=last) if tracker else {}
        if tracked:
            limit = stability_limit(settings, trainer.steps * settings.epochs, done * trainer.steps - 1)
            history[-1] |= tracked | {"stability_limit": limit}
        history[-1]["measure_seconds"] = time.perf_counter() - trained
        watcher.skip(stride - 1)
        watcher.epoch(loss, history[-1]["flatness"] or math.nan)
        checkpoints.offer(progress, history)
    watcher.skip(settings.epochs - done)
    network = trainer.network(progress)
    final = meter.train(network, compiler.train)
    diverged = _diverged(history) or not math.isfinite(final.loss) or not _finite(network)
    record = _record(column, seed, trainer, history, final, diverged) | {"parameters": trees.size(network)}
    return network, history, record | {"made_with": provenance.machine()}


def _measured(network: Params, meter: Meter, compiler: Compiler) -> dict[str, float | None]:
    """What is measured of a network for a row of the history."""
    metrics, fitted = meter.test(network, compiler.test), meter.fitted(network, compiler.train)
    flatness = meter.flatness(network, compiler.train)
    found = {
        "measured_loss": fitted.loss,
        "test_loss": metrics.loss,
        "test_accuracy": metrics.accuracy,
        "flatness": flatness.mean,
        "flatness_sem": flatness.sem,
    }
    return {name: _number(value) for name, value in found.items()}


def _epochs(history: list[dict[str, Any]]) -> int:
    """How many epochs a history spans."""
    return history[-1]["epoch"] if history else 0


def _number(value: Any) -> float | None:
    """A finite float, or None."""
    return float(value) if math.isfinite(value) else None


def _diverged(history: list[dict[str, Any]]) -> bool:
    """Whether the last epoch left the numbers."""
    return bool(history) and any(history[-1][name] is None for name in ("train_loss", "measured_loss", "test_loss"))


def _finite(network: Params) -> bool:
    """Whether all parameters are numbers."""
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(network))


def _converged(history: list[dict[str, Any]], spec: Spec) -> bool:
    """Whether the epoch's mean training loss has stopped falling (see `EarlyStopping`)."""
    stopping = spec.train.early_stopping
    if stopping is None or len(history) <= stopping.patience:
        return False
    losses = [epoch["train_loss"] for epoch in history]
    return min(losses[-stopping.patience :]) >= min(losses[: -stopping.patience]) - stopping.min_delta


def _record(
    column: Condition, seed: int, trainer: Trainer, history: list[dict[str, Any]], final: Metrics, diverged: bool
) -> dict[str, Any]:
    """One row of results; a run that diverged has none but of its history."""
    last = {key: None for key in history[-1]} if diverged else history[-1]
    flatness = [epoch["flatness"] for epoch in history if epoch["flatness"] is not None]
    return {
        "condition": column.name,
        "seed": seed,
        "lam": column.lam,
        "status": "diverged" if diverged else "finished",
        "epochs": _epochs(history),
        "steps": _epochs(history) * trainer.steps,
        "train_loss": None if diverged else _number(final.loss),
        "train_accuracy": None if diverged else _number(final.accuracy),
        "test_loss": last["test_loss"],
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": None if diverged else max(epoch["test_accuracy"] for epoch in history),
        "average_flatness": None if diverged or not flatness else sum(flatness) / len(flatness),
        "flatness": last["flatness"],
        "flatness_sem": last["flatness_sem"],
        **{name: last.get(name) for name in ("top_eigenvalue", "bottom_eigenvalue", "spectral_range")},
        "train_seconds": train_seconds(history),
        "compile_seconds": trainer.compile_seconds,
        "measure_seconds": sum(epoch["measure_seconds"] for epoch in history),
        "step_memory_mb": trainer.step_memory_mb,
        "host": provenance.host(),
    }

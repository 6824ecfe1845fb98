"""One run, from its first epoch to its record.

The unit of work is one run. On two CPU cores training three seeds in one vmapped program gained 1.2× on the smallest
network and lost on the others (docs/design.md), and a group of one keeps costs honest and results independent of
how many seeds were asked for.
"""

import math
import time

import jax
import jax.numpy as jnp
import polars

from steppe.core import trees
from steppe.engines.progress import Watcher
from steppe.measures.table import heading
from steppe.models import Variables
from steppe.sharpness import CriticalSharpness
from steppe.storage import provenance
from steppe.study.examination import is_finite
from steppe.study.history import History, Row, of_training
from steppe.study.questions import is_due
from steppe.study.records import RunRecord
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec
from steppe.study.training import preconditioning, tracking
from steppe.study.training.chain import stability_limit
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.program import Compiler, Trainer
from steppe.study.training.recipe import shape_of
from steppe.study.training.timing import Stopwatch


def train(
    column: Condition, seed: int, compiler: Compiler, stopwatch: Stopwatch, checkpoints: Checkpoints, watcher: Watcher
) -> tuple[Variables, polars.DataFrame, RunRecord]:
    """Train one run to its end, measuring now and then outside the training time: network, rows, record."""
    settings = column.spec.train
    shape, strengths = shape_of(column.spec)
    trainer, examination = compiler.trainer(shape, strengths), compiler.examination(shape)
    progress, history, alone = trainer.start(jnp.uint32(seed), strengths), History(), trainer.placement.alone
    resumed = checkpoints.latest(progress)
    if resumed:
        progress, history = resumed
        watcher.skip(history.epochs)
    while history.epochs < settings.epochs and not _ended(history, column.spec):
        every = column.spec.measure.every
        stride = min(every - history.epochs % every, settings.epochs - history.epochs)
        each: list[jax.Array] = []
        found: list[CriticalSharpness] = []
        clock = _Clock()
        for _ in range(stride):
            (progress, loss, tracked), took, first = stopwatch(trainer.epoch, progress, strengths, trainer.train)
            each.append(loss)
            found += [] if tracked is None else [tracked]
            clock.add(took, first=first)
        objective, epoch = sum(map(float, each)) / stride, history.epochs + stride
        began = time.perf_counter()
        network = alone(trainer.network(progress, trainer.train))
        rows = examination.validation(network, epoch)
        last = epoch == settings.epochs or _converged(history, column.spec, _watched(column.spec, objective, rows))
        rows += examination.answers(network, epoch, last=last)
        if column.spec.track is not None and is_due(column.spec.track.every, epoch, last=last):
            update = epoch * trainer.steps - 1
            limit = stability_limit(settings, trainer.steps * settings.epochs, update, column.spec.source)
            rows.append(of_training(epoch, "stability_limit", limit))
            rows += preconditioning.rows(column.spec, examination, alone(progress), trainer.steps, epoch)
        rows += tracking.rows(column.spec, history.epochs * trainer.steps + 1, epoch, found)
        rows += clock.rows(epoch)
        rows.append(of_training(epoch, "measure_seconds", time.perf_counter() - began))
        history.add(epoch, objective, rows)
        watcher.skip(stride - 1)
        watcher.epoch(objective, *history.last("batch_frobenius_squared")[:1])
        checkpoints.offer(progress, history)
    watcher.skip(settings.epochs - history.epochs)
    network = alone(trainer.network(progress, trainer.train))
    return network, history.rows, _record(column, seed, trainer, history, network)


class _Clock:
    """How long the epochs between two measurements took, and those of them that were first calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.first: float | None = None

    def add(self, seconds: float, *, first: bool) -> None:
        self.seconds += seconds
        self.first = seconds if first else self.first

    def rows(self, epoch: int) -> list[Row]:
        known = {"train_seconds": self.seconds, "first_seconds": self.first}
        return [of_training(epoch, name, seconds) for name, seconds in known.items() if seconds is not None]


def _ended(history: History, spec: Spec) -> bool:
    """Whether a run ends before its last epoch."""
    return _diverged(history) or _converged(history, spec) or is_pruned(history.series("loss", "validation"), spec)


def is_pruned(losses: list[float], spec: Spec) -> bool:
    """Whether the lowest validation loss so far is beyond the bound of the last epoch, where a trial has bounds."""
    bounds = spec.train.bounds or []
    return 0 < len(losses) <= len(bounds) and min(losses) > bounds[len(losses) - 1]


def _diverged(history: History) -> bool:
    """Whether the last epoch left the numbers."""
    losses = [*history.objectives[-1:], *history.last("loss"), *history.last("loss", "end")]
    return not all(map(math.isfinite, losses))


def _watched(spec: Spec, objective: float, validation: list[Row]) -> float:
    """What early stopping looks at after an epoch."""
    on = spec.train.early_stopping and spec.train.early_stopping.on
    found = [row["value"] for row in validation if heading(row["measure"], row["quantity"], row["split"]) == on]
    return float(found[0]) if found else objective


def _converged(history: History, spec: Spec, *more: float) -> bool:
    """Whether what early stopping looks at has reached its target, or has stopped improving (see `EarlyStopping`); with
    `more` epochs to come.
    """
    stopping = spec.train.early_stopping
    if stopping is None:
        return False
    split, _, quantity = (stopping.on or "train_objective").partition("_")
    sign = -1 if quantity == "accuracy" else 1
    values = [sign * value for value in (*history.series(quantity, split), *more)]
    if not values or not all(map(math.isfinite, values)):
        return False
    if stopping.target is not None and values[-1] <= sign * stopping.target:
        return True
    if stopping.patience is None or len(values) <= stopping.patience:
        return False
    return min(values[-stopping.patience :]) >= min(values[: -stopping.patience]) - stopping.min_delta


def _record(column: Condition, seed: int, trainer: Trainer, history: History, network: Variables) -> RunRecord:
    """What is known of a run besides its measurements."""
    return {
        "condition": column.name,
        "seed": seed,
        "lam": column.lam,
        "status": "diverged" if _diverged(history) or not is_finite(network) else "finished",
        "epochs": history.epochs,
        "steps": history.epochs * trainer.steps,
        "parameters": trees.size(network.params),
        "compile_seconds": trainer.compile_seconds,
        "step_memory_mb": trainer.step_memory_mb,
        "host": provenance.host(),
        "made_with": provenance.machine(trainer.placement.count),
    }

"""One run, from its first epoch to its record.

The unit of work is one run. On two CPU cores training three seeds in one vmapped program gained 1.2× on the smallest
network and lost on the others (docs/design.md), and a group of one keeps costs honest and results independent of
how many seeds were asked for.
"""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import trees
from steppe.models import Variables
from steppe.storage import provenance
from steppe.study.progress import Watcher
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec
from steppe.study.training.chain import stability_limit
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.program import Compiler, Meter, Metrics, Trainer, shape_of
from steppe.study.training.timing import Stopwatch, train_seconds


def train(
    column: Condition, seed: int, compiler: Compiler, stopwatch: Stopwatch, checkpoints: Checkpoints, watcher: Watcher
) -> tuple[Variables, list[dict[str, Any]], dict[str, Any]]:
    """Train one run to its end, measuring now and then outside the training time: network, history, record."""
    settings = column.spec.train
    shape, strengths = shape_of(column.spec)
    trainer, meter, tracker = compiler.trainer(shape, strengths), compiler.meter(shape), compiler.tracker(shape)
    progress = trainer.start(jnp.uint32(seed), strengths)
    history: list[dict[str, Any]] = []
    resumed = checkpoints.latest(progress)
    if resumed:
        progress, history = resumed
        watcher.skip(_epochs(history))
    done = _epochs(history)
    while done < settings.epochs and not _diverged(history) and not _converged(history, column.spec):
        stride = min(column.spec.measure.every - done % column.spec.measure.every, settings.epochs - done)
        each: list[jax.Array] = []
        seconds: dict[str, Any] = {"train_seconds": 0.0, "first_seconds": None}
        for _ in range(stride):
            (progress, loss), took, first = stopwatch(trainer.epoch, progress, strengths, compiler.train)
            each.append(loss)
            seconds["train_seconds"] += took
            seconds |= {"first_seconds": took} if first else {}
        trained = time.perf_counter()
        loss, done, network = sum(map(float, each)) / stride, done + stride, trainer.network(progress, compiler.train)
        history.append({"epoch": done, "train_loss": _number(loss)} | seconds | _measured(network, meter, compiler))
        last = done == settings.epochs or _converged(history, column.spec)
        tracked = tracker.at(network, done, due=last) if tracker else {}
        if tracked:
            updates = trainer.steps * settings.epochs
            limit = stability_limit(settings, updates, done * trainer.steps - 1, column.spec.source)
            history[-1] |= tracked | {"stability_limit": limit}
        history[-1]["measure_seconds"] = time.perf_counter() - trained
        watcher.skip(stride - 1)
        watcher.epoch(loss, history[-1]["flatness"] or math.nan)
        checkpoints.offer(progress, history)
    watcher.skip(settings.epochs - done)
    network = trainer.network(progress, compiler.train)
    final = meter.train(network, compiler.train)
    diverged = _diverged(history) or not math.isfinite(final.loss) or not _finite(network)
    record = _record(column, seed, trainer, history, final, diverged) | {"parameters": trees.size(network.params)}
    return network, history, record | {"made_with": provenance.machine()}


def _measured(network: Variables, meter: Meter, compiler: Compiler) -> dict[str, float | None]:
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


def _finite(network: Variables) -> bool:
    """Whether all parameters and statistics are numbers."""
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(network))


def _converged(history: list[dict[str, Any]], spec: Spec) -> bool:
    """Whether the epoch's mean training loss has stopped falling (see `EarlyStopping`)."""
    stopping = spec.train.early_stopping
    if stopping is None or len(history) <= stopping.patience:
        return False
    losses: list[float] = [epoch["train_loss"] for epoch in history]
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

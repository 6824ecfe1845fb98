"""What `[track]` asks of a network in the units of its optimiser's steps: whether the learning rate is at the edge."""

import inspect
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from steppe.core import checks
from steppe.measures import Quantity, table
from steppe.measures.answers import Answer
from steppe.models import Variables
from steppe.sharpness import preconditioned_sharpness
from steppe.sharpness.preconditioned import ADAM, RMS
from steppe.study.examination import Examination, is_finite
from steppe.study.history import Row, of_training
from steppe.study.questions import TOLERANCE, TRACKED
from steppe.study.spec.optimisers import OPTIMISERS
from steppe.study.spec.settings import split_name
from steppe.study.spec.tables import Spec, Train
from steppe.study.training.chain import learning_rate
from steppe.study.training.recipe import Progress

ADAPTIVE = ("adam", "adamw", "nadam", "nadamw", "amsgrad", "rmsprop")
"""Optimisers whose preconditioner is known."""

TINY = 1e-30
"""In the place of a learning rate of 0, at which there is no limit."""


def rows(spec: Spec, examination: Examination, progress: Progress, steps: int, epoch: int) -> Iterator[Row]:
    """The preconditioned sharpness after an epoch, where `[track]` asks for it, and its limit.

    Parameters
    ----------
    spec : Spec
        What was asked, and the optimiser's settings.
    examination : Examination
        It holds the examples.
    progress : Progress
        The parameters that are trained, not their average, with the optimiser's state.
    steps, epoch : int
        Updates of an epoch, and how many epochs are over.
    """
    variables = Variables(progress.params, progress.state)
    if spec.track is None or not spec.track.preconditioned or not is_finite(variables):
        return
    subject = examination.tracked(spec.track.examples, variables)
    rate = float(learning_rate(spec.train, steps * spec.train.epochs, spec.source)(epoch * steps - 1))
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the row says what has not converged
        found = preconditioned_sharpness(
            subject.loss,
            subject.params,
            subject.batches,
            progress.opt_state,
            learning_rate=max(rate, TINY),
            settings=settings_of(spec.train),
            tol=TOLERANCE,
            key=subject.key_of("preconditioned"),
        )
    converged, residual = bool(found.converged), float(found.residual)
    note = f"residual {residual:.1g}" if converged else f"not converged, residual {residual:.1g}: lower bound"
    value = Quantity("preconditioned_sharpness", float(found.sharpness), 0.0 if converged else np.nan, note, converged,
                     log=True, residual=residual)  # fmt: skip
    answer = Answer("preconditioned_sharpness", {"tol": TOLERANCE}, [value], time.perf_counter() - began)
    yield table.columns(answer, value) | {
        "epoch": epoch,
        "stage": "training",
        "split": "train",
        "examples": subject.batches.examples,
        "batch_size": min(TRACKED, subject.batches.examples),
    }
    yield of_training(epoch, "preconditioned_limit", float(found.limit) if rate > 0 else None)


def settings_of(train: Train) -> dict[str, Any]:
    """What of an adaptive optimiser's settings its preconditioner and its limit depend on.

    Raises
    ------
    InputError
        An optimiser that is not known to precondition; L2 regularisation, which belongs to the loss.
    """
    given = train.optimizer if isinstance(train.optimizer, dict) else {"name": train.optimizer}
    name, settings = split_name(given)
    if name not in ADAPTIVE:
        checks.fail("study", "track.preconditioned", f"left out with the optimiser {name!r}", True,
                    f"It is known of {checks.joined(ADAPTIVE)}.")  # fmt: skip
    if train.weight_decay and name != "adamw":
        checks.fail("study", "track.preconditioned", "left out with train.weight_decay, which changes the loss", True,
                    "Decay by adamw.")  # fmt: skip
    defaults = {key: value.default for key, value in inspect.signature(OPTIMISERS[name]).parameters.items()}
    defaults |= {"weight_decay": train.weight_decay} if train.optimizer == "adamw" else {}
    known = RMS if name == "rmsprop" else ADAM
    return {key: ({**defaults, **settings}[key] or 0) for key in known if key in defaults}

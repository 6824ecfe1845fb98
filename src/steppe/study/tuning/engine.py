"""Optuna: which settings are tried next, and its own record of what came of them."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steppe.core import extras
from steppe.study.spec.ranges import Range
from steppe.study.tuning.trials import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANDOM = 10
"""Trials that are drawn at random, before the sampler learns from them."""

RECORD = "optuna.log"
"""Optuna's journal in a study's folder: `JournalStorage(JournalFileBackend(PATH))`, one study a condition."""


def require() -> None:
    """Fail where Optuna is not installed.

    Raises
    ------
    MissingExtra
        It is not.
    """
    extras.require("[tune] in a study", "tune")


def suggest(
    ranges: Mapping[str, Range], history: Sequence[Trial], number: int, *, seed: int, maximize: bool
) -> dict[str, Any]:
    """The settings of a trial, which depend on its number, the seed and what earlier trials came to alone.

    Conditions with the same ranges begin with the same random draws.

    Parameters
    ----------
    ranges : Mapping
        Dotted key -> range.
    history : Sequence of Trial
        What is known, in the order of their numbers.
    number : int
        Of the trial.
    seed : int
        Of the study's draws.
    maximize : bool
        Whether a higher score is better.

    Returns
    -------
    dict
        Dotted key -> value.

    Examples
    --------
    >>> found = suggest({"train.learning_rate": Range(low=0.01, high=0.1)}, [], 3, seed=0, maximize=False)
    >>> 0.01 <= found["train.learning_rate"] <= 0.1
    True
    """
    import optuna

    with _quiet():
        sampler = optuna.samplers.TPESampler(seed=_mixed(seed, number), n_startup_trials=RANDOM)
        study = optuna.create_study(direction="maximize" if maximize else "minimize", sampler=sampler)
        for trial in history:
            study.add_trial(_frozen(trial, ranges, maximize))
        params = study.ask({path: _distribution(found) for path, found in ranges.items()}).params
    return {path: _value(found, params[path]) for path, found in ranges.items()}


def record(
    folder: Path, condition: str, ranges: Mapping[str, Range], history: Sequence[Trial], *, maximize: bool
) -> None:
    """Add what Optuna's journal in a folder lacks of a condition's trials. It is for Optuna's own tools."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path = os.fspath(folder / RECORD)
    with _quiet():
        storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
        study = optuna.create_study(
            storage=storage,
            study_name=condition,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        for trial in history[len(study.get_trials(deepcopy=False)) :]:
            study.add_trial(_frozen(trial, ranges, maximize))


def _mixed(seed: int, number: int) -> int:
    """A seed for each trial."""
    return (seed * 1_000_003 + number) % 2**32


def _distribution(found: Range) -> "BaseDistribution":
    """A range as Optuna has it; values of a list by their places, since it takes no lists and tables."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if found.values is not None:
        return IntDistribution(0, len(found.values) - 1)
    low, high = found.ends
    return (IntDistribution if found.whole else FloatDistribution)(low, high, log=found.log)


def _value(found: Range, drawn: Any) -> Any:
    return drawn if found.values is None else found.values[drawn]


def _place(found: Range, value: Any) -> Any:
    """The inverse of `_value`."""
    return value if found.values is None else found.values.index(value)


def _frozen(trial: Trial, ranges: Mapping[str, Range], maximize: bool) -> "FrozenTrial":
    """A trial as Optuna keeps it; one that diverged is the worst that there is."""
    from optuna.trial import TrialState, create_trial

    worst = float("-inf") if maximize else float("inf")
    pruned = trial.status == "pruned"
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None if pruned else (trial.score if trial.status == "finished" else worst),
        intermediate_values={trial.epochs: trial.score} if pruned else {},
        params={path: _place(found, trial.values[path]) for path, found in ranges.items()},
        distributions={path: _distribution(found) for path, found in ranges.items()},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Optuna logs, and its warnings of what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)

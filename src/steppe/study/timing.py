"""How long training takes, and how the times of two conditions compare: on a machine that is never quite alone."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import polars

from steppe.outcomes import statistics


class Stopwatch:
    """Times calls of compiled programs; the first call of each is known, for it takes longer than all later ones.

    In a first call memory is taken from the system and threads begin. Compilation is over before.

    Parameters
    ----------
    clock : Callable[[], float]
        Seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self._called: list[Any] = []

    def __call__(self, program: Callable[..., Any], *inputs: Any) -> tuple[Any, float, bool]:
        """Call a program, from inputs that are there to outputs that are there.

        Parameters
        ----------
        program : Callable[..., Any]
            What is called.
        *inputs : Any
            Its arguments, pytrees of arrays.

        Returns
        -------
        tuple[Any, float, bool]
            What it gives, how many seconds that took, and whether this was its first call.
        """
        first = not any(program is known for known in self._called)
        if first:
            self._called.append(program)
        jax.block_until_ready(inputs)
        began = self.clock()
        outputs = jax.block_until_ready(program(*inputs))
        return outputs, self.clock() - began, first


def train_seconds(history: list[dict[str, Any]]) -> float | None:
    """How long a run's epochs take once their program is warm: their number times the mean of all but first calls.

    Parameters
    ----------
    history : list[dict[str, Any]]
        Rows with `epoch`, the number of the last epoch; `train_seconds`, that the row's epochs took; and where one of
        them was a first call, `first_seconds`, what that took.

    Returns
    -------
    float | None
        Seconds; None where there was nothing but first calls.

    Examples
    --------
    >>> train_seconds([{"epoch": 1, "train_seconds": 9.0, "first_seconds": 9.0}, {"epoch": 3, "train_seconds": 4.0}])
    6.0
    """
    first = [row["first_seconds"] for row in history if row.get("first_seconds") is not None]
    epochs = history[-1]["epoch"]
    if epochs == len(first):
        return None
    return epochs * (sum(row["train_seconds"] for row in history) - sum(first)) / (epochs - len(first))


class Times(NamedTuple):
    """The training time of a condition over another's.

    Attributes
    ----------
    ratio, low, high : float
        The geometric mean over seeds of the ratio of the two runs of a seed, which stand next to each other in time,
        and Student's interval for it, from the logarithms; NaN where there is none.
    """

    ratio: float
    low: float
    high: float

    @property
    def differ(self) -> bool:
        """Whether the interval is there and leaves out 1: less is noise."""
        return self.low > 1 or self.high < 1


def compared(finished: polars.DataFrame, condition: str, other: str, *, confidence: float = 0.95) -> Times:
    """The training time of a condition over another's, from runs of the same seed on the same machine.

    Parameters
    ----------
    finished : polars.DataFrame
        Rows of `Results.runs`.
    condition, other : str
        Their names.
    confidence : float
        Of the interval.

    Returns
    -------
    Times
        See there; of a condition with itself 1, without an interval.
    """
    ours, theirs = (_by_run(finished, name) for name in (condition, other))
    shared = [run for run in ours if run in theirs]
    if condition == other:
        return Times(1.0 if shared else math.nan, math.nan, math.nan)
    logs = [math.log(ours[run] / theirs[run]) for run in shared]
    found = statistics.summary(logs, confidence=confidence)
    return Times(*(math.exp(min(value, 700.0)) for value in (found.mean, found.low, found.high)))


def _by_run(finished: polars.DataFrame, condition: str) -> Mapping[tuple[int, str | None], float]:
    """(seed, machine) -> seconds, where they are known."""
    if not {"train_seconds", "seed"} <= set(finished.columns):
        return {}
    rows = finished.filter(polars.col("condition") == condition).iter_rows(named=True)
    return {
        (row["seed"], row.get("host")): row["train_seconds"]
        for row in rows
        if row["train_seconds"] is not None and math.isfinite(row["train_seconds"]) and row["train_seconds"] > 0
    }

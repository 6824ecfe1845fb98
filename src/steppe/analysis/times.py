"""How the training times of two conditions compare, on machines that are never quite alone."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import polars

from steppe.analysis import statistics


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

"""How the training times of two conditions compare, on machines that are never quite alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars

from steppe.analysis.verdict import Ratio, ratio


def time_ratio(finished: polars.DataFrame, condition: str, other: str, *, confidence: float = 0.95) -> Ratio:
    """The training time of a condition over another's, from runs of the same seed on the same machine.

    The two runs of a seed stand next to each other in time. Less than the interval leaves out is noise.

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
    Ratio
        Of a condition with itself 1, without an interval.
    """
    ours, theirs = (_by_run(finished, name) for name in (condition, other))
    shared = [run for run in ours if run in theirs]
    if condition == other:
        return Ratio(1.0 if shared else math.nan, math.nan, math.nan, len(shared))
    return ratio((math.log(ours[run] / theirs[run]) for run in shared), confidence=confidence)


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


def train_seconds(history: Sequence[Mapping[str, Any]]) -> float | None:
    """How long a run's epochs take once their program is warm: their number times the mean of all but first calls.

    Parameters
    ----------
    history : sequence of Mapping
        Rows with `epoch`, the number of the last epoch; `train_seconds`, that the row's epochs took; and where one of
        them was a first call, `first_seconds`, what that took.

    Returns
    -------
    float | None
        Seconds; None where there was nothing but first calls, or nobody timed it.

    Examples
    --------
    >>> train_seconds([{"epoch": 1, "train_seconds": 9.0, "first_seconds": 9.0}, {"epoch": 3, "train_seconds": 4.0}])
    6.0
    """
    if not history or any(row["train_seconds"] is None for row in history):
        return None
    first: list[float] = [row["first_seconds"] for row in history if row.get("first_seconds") is not None]
    total: float = sum(row["train_seconds"] for row in history)
    epochs: int = history[-1]["epoch"]
    if epochs == len(first):
        return None
    return epochs * (total - sum(first)) / (epochs - len(first))

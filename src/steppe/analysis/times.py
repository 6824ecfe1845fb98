"""How the training times of two conditions compare, on machines that are never quite alone."""

import math
from collections.abc import Mapping

import polars

from steppe.analysis.comparison import Ratio, ratio


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

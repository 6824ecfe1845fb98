"""Flatness at equal training loss: what tells a flatter network from one that has trained more, or less.

Curvature falls, or rises, as the loss does, so that final values compare networks at different stages of training.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars

from steppe.outcomes import statistics
from steppe.study.results import Results

EMPTY = np.zeros(0), np.zeros(0)
"""The path of a run without a history."""


class Matched(NamedTuple):
    """Flatness of a condition over the baseline's at the same training loss.

    Attributes
    ----------
    ratio, low, high : geometric mean over seeds, and its interval; NaN where there is none.
    seeds : seeds that could be compared.
    epochs : epochs whose training loss lies in the range of their baseline's, over all seeds.
    """

    ratio: float
    low: float
    high: float
    seeds: int
    epochs: int

    @property
    def verdict(self) -> str:
        """Whether the interval leaves out equality; within 1 % of it, a difference is none that matters."""
        if self.low >= 0.99 and self.high <= 1.01:
            return "equal within 1 %"
        if not math.isfinite(self.low):
            return "not comparable" if self.seeds == 0 else "one seed: no interval"
        return "flatter" if self.high < 1 else "sharper" if self.low > 1 else "no difference shown"


def matched_flatness(
    results: Results, seeds: Mapping[str, tuple[int, ...]], *, confidence: float = 0.95
) -> dict[str, Matched]:
    """Each condition against the baseline run of the same seed.

    For every epoch of a run whose mean training loss ℓ lies between the baseline's lowest and highest, the baseline's
    flatness at ℓ is read off its epochs, linearly between logarithms; a seed's value is the geometric mean over
    epochs of flatness over that. The interval is Student's over seeds, on the logarithm, not corrected for the number
    of conditions.

    Parameters
    ----------
    results : a study's results; conditions of finished runs in `seeds`.
    confidence : of the interval.

    Returns
    -------
    A Matched for each condition but the baseline.
    """
    history = results.history
    paths = {key: _path(rows) for key, rows in history.group_by("condition", "seed")} if len(history) else {}
    found = {}
    for condition in results.conditions:
        if condition == results.baseline:
            continue
        shared = [seed for seed in seeds[condition] if seed in seeds.get(results.baseline, ())]
        pairs = [(paths.get((results.baseline, seed), EMPTY), paths.get((condition, seed), EMPTY)) for seed in shared]
        logs = [_log_ratios(*pair) for pair in pairs]
        logs = [log for log in logs if len(log)]
        summary = statistics.summary([float(log.mean()) for log in logs], confidence=confidence)
        ends = (math.exp(min(value, 700.0)) for value in (summary.mean, summary.low, summary.high))
        found[condition] = Matched(*ends, len(logs), sum(map(len, logs)))
    return found


def _path(rows: polars.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of training loss and flatness, epoch by epoch, sorted by loss; unusable epochs left out."""
    columns = rows.select(polars.col("train_loss", "flatness").cast(polars.Float64).fill_null(math.nan))
    loss, flatness = columns.to_numpy().T
    usable = np.isfinite(loss) & np.isfinite(flatness) & (loss > 0) & (flatness > 0)
    order = np.argsort(loss[usable], kind="stable")
    return np.log(loss[usable][order]), np.log(flatness[usable][order])


def _log_ratios(baseline: tuple[np.ndarray, np.ndarray], path: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Logarithm of flatness − log baseline flatness at the same loss, for the epochs within the baseline's range."""
    (base_loss, base_flatness), (loss, flatness) = baseline, path
    if len(base_loss) < 2:
        return np.zeros(0)
    inside = (loss >= base_loss[0]) & (loss <= base_loss[-1])
    return flatness[inside] - np.interp(loss[inside], base_loss, base_flatness)

"""Confidence intervals of a difference: Welch's, of pairs, and bootstrapped."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from steppe.analysis.statistics.differences import welch_error
from steppe.analysis.statistics.samples import Pairs, Summary, deviation, seeds_of, share, student_quantile, unit
from steppe.core import checks

RESAMPLES = 9_999
"""Of a bootstrap: enough that the ends move by a hundredth of the width from seed to seed."""


def welch_half_width(x: Summary, y: Summary, confidence: float) -> float:
    """Half the width of Welch's interval, NaN where there is no spread to take it from."""
    if min(x.count, y.count) < 2 or x.sd == y.sd == 0:
        return math.nan
    error, freedom = welch_error(x, y)
    return student_quantile(confidence, freedom) * error


def paired_half_width(pairs: Pairs, confidence: float) -> float:
    """Half the width of Student's interval for the mean difference of common seeds, NaN without a spread."""
    count = len(pairs.differences)
    if count < 2 or pairs.sd == 0:
        return math.nan
    return student_quantile(confidence, count - 1) * pairs.sd / math.sqrt(count) * pairs.unit


class BootstrapInterval(NamedTuple):
    """An interval, and how it was made.

    Attributes
    ----------
    low, high : float
        Its ends; NaN where there is nothing to resample.
    method : str
        ``"BCa"``; ``"percentile"`` where BCa is undefined; ``"constant"`` where the values do not vary, so that both
        ends are the statistic itself; ``"too few"`` for a single value.
    """

    low: float
    high: float
    method: Literal["BCa", "percentile", "constant", "too few"]


def bootstrap(
    *samples: Iterable[float],
    statistic: Callable[..., Any] | None = None,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapInterval:
    """Efron's (1987) bias-corrected and accelerated bootstrap interval (BCa) of a statistic of samples.

    For a handful of seeds it is too short: resamples of three values know no more than three values; docs/judging.md
    says how often it covers the truth. The same `seed` gives the same interval.

    Parameters
    ----------
    *samples : sequence of float
        One or several samples over seeds.
    statistic : callable, optional
        Of arrays and ``axis``, as NumPy's functions are. By default the mean of one sample, or the difference of the
        means of two, first − second.
    paired : bool
        Whether values of one place belong together and are resampled together.
    confidence : float
        Of the interval.
    resamples : int
        How many.
    seed : int
        Of the resamples.

    Returns
    -------
    BootstrapInterval
        With the method that was used: where every resample gives the same, or BCa is undefined, it falls back.

    Raises
    ------
    InputError
        No sample, one that is empty or not finite, or unequal lengths where they are paired.

    Examples
    --------
    >>> found = bootstrap([0.90, 0.92, 0.94, 0.91, 0.93])
    >>> round(found.low, 3), round(found.high, 3), found.method
    (0.906, 0.932, 'BCa')
    >>> bootstrap([0.9, 0.9, 0.9])
    BootstrapInterval(low=0.9, high=0.9, method='constant')
    """
    arrays = [seeds_of("bootstrap", "samples", values) for values in samples]
    level, count = share("bootstrap", "confidence", confidence), checks.whole("bootstrap", "resamples", resamples)
    if not arrays:
        checks.fail("bootstrap", "samples", "one or several", "none")
    if paired and len({len(a) for a in arrays}) > 1:
        lengths = checks.joined(str(len(a)) for a in arrays)
        checks.fail("bootstrap", "samples", "of one length where they are paired", lengths)
    function: Callable[..., Any] = statistic or (_mean if len(arrays) == 1 else _difference)
    point = float(function(*arrays, axis=-1))
    if max(map(len, arrays)) < 2:
        return BootstrapInterval(math.nan, math.nan, "too few")
    if all(len(a) < 2 or deviation(a) == 0 for a in arrays):
        return BootstrapInterval(point, point, "constant")
    scale = 1.0 if statistic else unit(np.concatenate(arrays))
    options: dict[str, Any] = {"statistic": function, "paired": paired, "confidence_level": level}
    options |= {"n_resamples": count, "vectorized": True, "batch": 1000}
    for method, name in (("BCa", "BCa"), ("percentile", "percentile")):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of a degenerate distribution, which the fall-back is for
            scaled = tuple(a / scale for a in arrays)
            found = stats.bootstrap(scaled, method=method, rng=np.random.default_rng(seed), **options)
        low, high = (float(end) * scale for end in found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            return BootstrapInterval(low, high, name)  # type: ignore[arg-type]
    return BootstrapInterval(math.nan, math.nan, "percentile")


def _mean(values: np.ndarray, axis: int) -> Any:
    return np.mean(values, axis=axis)


def _difference(first: np.ndarray, second: np.ndarray, axis: int) -> Any:
    return np.mean(first, axis=axis) - np.mean(second, axis=axis)

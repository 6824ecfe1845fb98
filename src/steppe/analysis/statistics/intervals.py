"""Confidence intervals of a difference: Welch's, of pairs, and bootstrapped."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from steppe.analysis.statistics.differences import welch_error
from steppe.analysis.statistics.samples import (
    Pairs,
    Summary,
    deviation,
    random,
    require_flag,
    seeds_of,
    share,
    student_quantile,
    unit,
)
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


SMALL = 10
"""Fewer values than this in a sample are too few for resamples of them to vary as new samples would."""


class BootstrapInterval(NamedTuple):
    """An interval, and how it was made.

    Attributes
    ----------
    low, high : float
        Its ends; NaN where there is nothing to resample.
    method : str
        ``"jackknife"``: Student's t times the jackknife's standard error; ``"BCa"``; ``"percentile"`` where BCa is
        undefined; ``"constant"`` where the values do not vary, so that both ends are the statistic itself;
        ``"too few"`` for a single value.
    is_short : bool
        Whether it is made of resamples of fewer than ten values, and so covers the truth more rarely than it says: at
        95 %, three times in four with three values and seven times in eight with five (docs/judging.md).
    """

    low: float
    high: float
    method: Literal["jackknife", "BCa", "percentile", "constant", "too few"]
    is_short: bool = False


def bootstrap(
    *samples: Iterable[float],
    statistic: Callable[..., Any] | None = None,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    method: Literal["auto", "jackknife", "BCa"] = "auto",
    seed: int = 0,
) -> BootstrapInterval:
    """An interval of any statistic of samples: Efron's (1987) bias-corrected and accelerated bootstrap (BCa), or with
    fewer than ten values Student's t with the jackknife's standard error.

    BCa is too short for a handful of seeds: resamples of three values know no more than three values. The
    jackknife's variance is Σₛ (nₛ − 1)/nₛ Σⱼ (θ₍ⱼ₎ − θ̄)², sample by sample, each value left out in turn, with Welch and
    Satterthwaite's degrees of freedom: of a mean it gives Student's interval, of a difference of means Welch's. It
    needs a smooth statistic: a median is none. docs/judging.md says how often each covers the truth. The same `seed`
    gives the same interval.

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
    method : "auto", "jackknife" or "BCa"
        "auto": the jackknife where a sample has fewer than ten values, and BCa otherwise.
    seed : int
        Of the resamples.

    Returns
    -------
    BootstrapInterval
        With the method that was used, and whether it is known to be too short: where every resample gives the same, or
        BCa is undefined, it falls back.

    Raises
    ------
    InputError
        No sample, one that is empty or not finite, or unequal lengths where they are paired.

    Examples
    --------
    >>> found = bootstrap([0.90, 0.92, 0.94, 0.91, 0.93])
    >>> round(found.low, 3), round(found.high, 3), found.method
    (0.9, 0.94, 'jackknife')
    >>> found = bootstrap([0.90, 0.92, 0.94, 0.91, 0.93], method="BCa")
    >>> round(found.low, 3), round(found.high, 3), found.is_short
    (0.906, 0.932, True)
    >>> bootstrap([0.9, 0.9, 0.9]).method
    'constant'
    """
    checks.one_of("bootstrap", "method", method, ("auto", "jackknife", "BCa"))
    arrays = [seeds_of("bootstrap", "samples", values) for values in samples]
    level, count = share("bootstrap", "confidence", confidence), checks.whole("bootstrap", "resamples", resamples)
    if not arrays:
        checks.fail("bootstrap", "samples", "one or several", "none")
    if require_flag("bootstrap", "paired", paired) and len({len(a) for a in arrays}) > 1:
        lengths = checks.joined(str(len(a)) for a in arrays)
        checks.fail("bootstrap", "samples", "of one length where they are paired", lengths)
    if statistic is None and len(arrays) > 2:
        checks.fail("bootstrap", "statistic", "given for more than two samples", "none")
    function: Callable[..., Any] = statistic or (_mean if len(arrays) == 1 else _difference)
    random("bootstrap", seed)
    scale = 1.0 if statistic else unit(np.concatenate(arrays))
    varied = any(len(a) > 1 and deviation(a) > 0 for a in arrays)
    arrays = [a / scale for a in arrays]
    point = _point(function, arrays)
    if max(map(len, arrays)) < 2:
        return BootstrapInterval(math.nan, math.nan, "too few")
    if not varied:
        return BootstrapInterval(point * scale, point * scale, "constant")
    few = min(map(len, arrays)) < SMALL
    if method == "jackknife" or (method == "auto" and few):
        found = _jackknife(function, arrays, paired, level, point)
        return found._replace(low=found.low * scale, high=found.high * scale)
    return _resampled(function, arrays, level, scale, few, paired=paired, n_resamples=count, seed=seed)


def _point(function: Callable[..., Any], arrays: Sequence[np.ndarray]) -> float:
    """A user's statistic of the samples themselves.

    Raises
    ------
    InputError
        It is no function of arrays and axis that gives a number.
    """
    try:
        return float(function(*arrays, axis=-1))
    except (TypeError, ValueError) as error:
        what = "a function of arrays and axis that gives a number"
        checks.fail("bootstrap", "statistic", what, f"{type(error).__name__}: {error}")


def _resampled(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], level: float, scale: float, few: bool, *,
    seed: int, **more: Any,
) -> BootstrapInterval:  # fmt: skip
    """BCa, or percentiles where that is undefined, of samples in units of `scale`."""
    options: dict[str, Any] = {"statistic": function, "confidence_level": level, "vectorized": True, "batch": 1000}
    for way in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of a degenerate distribution, which the fall-back is for
            found = stats.bootstrap(tuple(arrays), method=way, rng=random("bootstrap", seed), **options, **more)
        low, high = (float(end) * scale for end in found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            return BootstrapInterval(low, high, way, few)
    return BootstrapInterval(math.nan, math.nan, "percentile")


def _jackknife(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], paired: bool, level: float, point: float
) -> BootstrapInterval:
    """Student's t times the jackknife's standard error, each value, or each pair of them, left out in turn."""
    together = [range(len(arrays))] if paired else [range(place, place + 1) for place in range(len(arrays))]
    errors, freedoms = [], []
    for group in together:
        count = len(arrays[group[0]])
        if count < 2:
            continue
        without = [
            float(function(*(np.delete(a, j) if i in group else a for i, a in enumerate(arrays)), axis=-1))
            for j in range(count)
        ]
        if not np.isfinite(without).all():
            return BootstrapInterval(math.nan, math.nan, "jackknife")
        errors.append((count - 1) / math.sqrt(count) * deviation(np.array(without)))
        freedoms.append(count - 1)
    error = math.hypot(*errors)
    if error == 0:
        return BootstrapInterval(point, point, "constant")
    freedom = 1 / sum((e / error) ** 4 / f for e, f in zip(errors, freedoms, strict=True))
    half = student_quantile(level, freedom) * error
    return BootstrapInterval(point - half, point + half, "jackknife")


def _mean(values: np.ndarray, axis: int) -> Any:
    return np.mean(values, axis=axis)


def _difference(first: np.ndarray, second: np.ndarray, axis: int) -> Any:
    return np.mean(first, axis=axis) - np.mean(second, axis=axis)

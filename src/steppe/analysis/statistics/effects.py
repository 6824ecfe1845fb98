"""How large a difference is, in units that do not depend on the quantity."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from steppe.analysis.statistics.differences import without_spread
from steppe.analysis.statistics.samples import RESOLUTION, Pairs, Summary, pooled_sd

LARGE_T = 1000.0
"""Beyond this, Z is nothing beside δ; and SciPy's inverse of the noncentral t takes seconds, then hours."""


class Effect(NamedTuple):
    """A standardised difference with its confidence interval, NaN where the spread is zero or unknown."""

    value: float
    low: float
    high: float


def d_z(pairs: Pairs) -> float:
    """The mean paired difference over its standard deviation; 0 for identical samples, NaN where undefined."""
    if len(pairs.differences) < 2:
        return math.nan
    if pairs.sd > 0:
        return pairs.mean / pairs.sd
    return 0.0 if abs(pairs.mean) <= RESOLUTION * pairs.scale else math.nan


def hedges_g(x: Summary, y: Summary, confidence: float) -> Effect:
    """Hedges' g; the interval inverts the noncentral t distribution of its t statistic."""
    if min(x.count, y.count) < 2:
        return Effect(math.nan, math.nan, math.nan)
    sd = pooled_sd([x, y])
    if sd == 0:
        same = without_spread(y.mean - x.mean, max(abs(x.mean), abs(y.mean))).status == "identical"
        return Effect(0.0 if same else math.nan, math.nan, math.nan)
    freedom = x.count + y.count - 2
    root = math.sqrt(1 / x.count + 1 / y.count)
    correction = 1 - 3 / (4 * freedom - 1)
    t = (y.mean - x.mean) / (sd * root)
    low, high = _noncentrality(t, freedom, confidence)
    return Effect(correction * t * root, correction * low * root, correction * high * root)


def rank_biserial(pairs: Pairs) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): (W₊ − W₋) / (W₊ + W₋) of Wilcoxon's signed ranks.

    1 where every seed is higher, −1 where every one is lower; differences of 0 are left out; 0 where all are, NaN
    without pairs.
    """
    if not len(pairs.differences):
        return math.nan
    differences = pairs.rounded[pairs.rounded != 0]
    if not len(differences):
        return 0.0
    ranks = stats.rankdata(np.abs(differences))
    return float(np.sign(differences) @ ranks / ranks.sum())


def improvement(x: np.ndarray, y: np.ndarray) -> float:
    """The chance that a value of y is above one of x, ties counted half: P(Y > X) + P(Y = X) / 2 (Agarwal 2021).

    0.5 where neither tends to be higher; NaN without values. 2 P − 1 is the rank-biserial correlation of two samples.
    """
    if not len(x) or not len(y):
        return math.nan
    return float(np.mean(np.heaviside(np.sign(y[:, None] - x[None, :]), 0.5)))


def _noncentrality(t: float, freedom: int, confidence: float) -> tuple[float, float]:
    """The interval for δ, given t = (Z + δ) / √(χ²/ν)."""
    tail = (1 - confidence) / 2
    if abs(t) <= LARGE_T:
        return float(special.nctdtrinc(freedom, 1 - tail, t)), float(special.nctdtrinc(freedom, tail, t))
    low, high = sorted(t * math.sqrt(stats.chi2.ppf(p, freedom) / freedom) for p in (tail, 1 - tail))
    return low, high

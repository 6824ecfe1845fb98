"""Tests that a difference is smaller than what matters: equivalence in both directions, non-inferiority in one."""

import math

from scipy import stats

from steppe.analysis.statistics.differences import PValue, welch_error
from steppe.analysis.statistics.samples import Pairs, Summary


def tost(x: Summary, y: Summary, margin: float) -> PValue:
    """Welch's TOST: two one-sided tests that the difference of means is above −margin and below +margin.

    The larger p of the two is the one that counts (Schuirmann 1987), with Welch and Satterthwaite's degrees of freedom.
    Samples without any spread are not tested, even if they are alike: a spread of zero over a few seeds says little of
    the spread over others.

    Parameters
    ----------
    x, y : Summary
        The samples.
    margin : float
        The smallest difference that matters, > 0; NaN where none is declared, and then nothing is tested.
    """
    return _larger(_welch_one_sided(x, y, margin), _welch_one_sided(y, x, margin))


def paired_tost(pairs: Pairs, margin: float) -> PValue:
    """The same of the differences of common seeds, with Student's t."""
    back = pairs._replace(differences=-pairs.differences)
    return _larger(_paired_one_sided(pairs, margin), _paired_one_sided(back, margin))


def non_inferior(x: Summary, y: Summary, margin: float) -> PValue:
    """Welch's test that y's mean is above x's − margin."""
    return _welch_one_sided(x, y, margin)


def paired_non_inferior(pairs: Pairs, margin: float) -> PValue:
    """The same of the differences of common seeds, with Student's t."""
    return _paired_one_sided(pairs, margin)


def _welch_one_sided(x: Summary, y: Summary, margin: float) -> PValue:
    """P of the hypothesis ȳ − x̄ ≤ −margin."""
    if math.isnan(margin):
        return PValue(math.nan, "no margin")
    if min(x.count, y.count) < 2:
        return PValue(math.nan, "too few")
    if x.sd == y.sd == 0:
        return PValue(math.nan, "no spread")
    error, freedom = welch_error(x, y)
    return PValue(float(stats.t.sf((margin + y.mean - x.mean) / error, freedom)), "tested")


def _paired_one_sided(pairs: Pairs, margin: float) -> PValue:
    """P of the hypothesis that the mean difference is at most −margin."""
    count = len(pairs.differences)
    if math.isnan(margin):
        return PValue(math.nan, "no margin")
    if count < 2:
        return PValue(math.nan, "too few")
    if pairs.sd == 0:
        return PValue(math.nan, "no spread")
    t = (margin / pairs.unit + pairs.mean) / (pairs.sd / math.sqrt(count))
    return PValue(float(stats.t.sf(t, count - 1)), "tested")


def _larger(one: PValue, other: PValue) -> PValue:
    """The test of the two that decides."""
    return one if not one.p < other.p else other

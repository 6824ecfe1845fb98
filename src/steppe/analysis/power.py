"""Which differences so many seeds can show: the power of Welch's test."""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.tests import pooled_sd, share
from steppe.core import checks

LEGENDRE = np.polynomial.legendre.leggauss(80)
"""Nodes and weights of an integral over [−1, 1]."""


class Power(NamedTuple):
    """The true differences that the tests of a quantity find, in its units.

    Attributes
    ----------
    seeds : int
        Of the smallest condition tested.
    uniform : bool
        Whether all conditions have as many.
    sd : float
        Of all conditions together; 0 leaves the rest NaN.
    tested : int
        How many comparisons could be tested.
    half, most : float
        Found half of the time, and four times in five, by one test at level α.
    strict_half, strict_most : float
        The same at Holm's strictest step, α over the number of comparisons.
    """

    seeds: int
    uniform: bool
    sd: float
    tested: int
    half: float = math.nan
    most: float = math.nan
    strict_half: float = math.nan
    strict_most: float = math.nan


def power_of(found: QuantityComparison, alpha: float) -> Power | None:
    """What the comparisons of a quantity can show, from the spread within conditions; None where none was tested."""
    tested = [c for c in found.comparisons.values() if c.welch.status not in ("too few", "bounds")]
    if not tested:
        return None
    seeds = min(min(c.baseline.count, c.condition.count) for c in tested)
    sd = pooled_sd(found.scaled.values())
    power = Power(seeds, len({s.count for s in found.summaries.values()}) == 1, sd, len(tested))
    if sd == 0:
        return power
    most = 1.0 if found.quantity.unit == "share" else math.inf  # no difference is larger than the whole scale
    half, often, strict_half, strict_often = (
        min(detectable_difference(seeds, sd, power=chance, alpha=level), most)
        for level in (alpha, alpha / len(tested))
        for chance in (0.5, 0.8)
    )
    return power._replace(half=half, most=often, strict_half=strict_half, strict_most=strict_often)


def welch_power(effect: float, count: int, *, alpha: float = 0.05) -> float:
    """The chance that Welch's test at level α finds a true difference of `effect` standard deviations.

    Exact for two normal samples of `count` values and equal spread: given the two variances, the difference of means
    is normal; what remains is an integral over their total (χ² with 2ν degrees of freedom, ν = count − 1) and over the
    first one's share r (Beta(ν/2, ν/2)), which sets Welch's degrees of freedom, ν / (r² + (1 − r)²).
    The usual power of Student's test is too hopeful here: for 3 against 3, 0.80 where Welch's test has 0.70.

    Examples
    --------
    >>> round(welch_power(3.071, 3), 2), round(welch_power(0.0, 30), 2)
    (0.7, 0.05)
    """
    checks.whole("welch_power", "count", count, least=2)
    level = share("welch_power", "alpha", alpha)
    freedom = count - 1
    nodes, weights = LEGENDRE
    quantiles, weights = (nodes + 1) / 2, weights / 2
    part = stats.beta.ppf(quantiles, freedom / 2, freedom / 2)
    total = stats.chi2.ppf(quantiles, 2 * freedom)
    critical = stats.t.isf(level / 2, freedom / (part**2 + (1 - part) ** 2))
    # in units of the true standard error σ√(2/n), the estimated one is √(total / 2ν)
    reach = critical[:, None] * np.sqrt(total / (2 * freedom))
    shift = effect * math.sqrt(count / 2)
    found = special.ndtr(shift - reach) + special.ndtr(-shift - reach)
    return float(weights @ found @ weights)


def detectable_difference(count: int, sd: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The true difference that Welch's test at level α finds with probability `power`, given `count` runs a side.

    Smaller differences are missed more often than 1 − `power` of the time. In the units of `sd`, the spread between
    seeds, which is itself an estimate; see `welch_power` for what is assumed.

    Raises
    ------
    InputError : if `count` < 2, `sd` is negative or not finite, or `power`, `alpha` are not 0 < alpha < power < 1.

    Examples
    --------
    >>> round(detectable_difference(3, 1.0), 1), round(detectable_difference(30, 1.0), 2)
    (3.5, 0.74)
    """
    name = "detectable_difference"
    checks.whole(name, "count", count, least=2, todo="One run has no spread to compare with.")
    checks.real(name, "sd", sd, least=0.0)
    level, target = share(name, "alpha", alpha), share(name, "power", power)
    if target <= level:
        checks.fail(name, "power", f"greater than alpha = {level:g}", power)
    top = 1.0
    while welch_power(top, count, alpha=level) < target:
        top *= 2
    d = optimize.brentq(lambda d: welch_power(d, count, alpha=level) - target, 0.0, top, xtol=1e-6)
    return float(sd) * float(d)

"""How large a difference so many seeds can show, and how many seeds a difference needs."""

import math

import numpy as np
from scipy import optimize, special, stats

from steppe.analysis.statistics.samples import share
from steppe.core import checks

LEGENDRE = np.polynomial.legendre.leggauss(80)
"""Nodes and weights of an integral over [−1, 1]."""

LEAST = 1e-12
"""The smallest level that is asked about."""

HUGE = 1e100
"""A difference of so many standard deviations is found, whatever the number of seeds."""

MOST_SEEDS = 1_000_000
"""Nobody trains more."""


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
    level = _level("welch_power", alpha)
    weights, reach = _reaches(count, level / 2)
    shift = float(checks.real("welch_power", "effect", effect)) * math.sqrt(count / 2)
    found = special.ndtr(shift - reach) + special.ndtr(-shift - reach)
    return min(float(weights @ found @ weights), 1.0)


def equivalence_power(margin: float, count: int, *, effect: float = 0.0, alpha: float = 0.05) -> float:
    """The chance that Welch's TOST at level α shows equivalence within `margin`, if the true difference is `effect`.

    Both in standard deviations. The same integral as `welch_power`: given the variances, equivalence is shown where the
    difference lies further than t₁₋α standard errors inside both margins.

    Examples
    --------
    >>> round(equivalence_power(1.0, 30), 2), round(equivalence_power(1.0, 3), 2)
    (0.97, 0.02)
    """
    checks.whole("equivalence_power", "count", count, least=2)
    checks.real("equivalence_power", "margin", margin, least=0.0)
    checks.real("equivalence_power", "effect", effect)
    weights, reach = _reaches(count, _level("equivalence_power", alpha))
    root = math.sqrt(count / 2)
    room, shift = np.maximum(margin * root - reach, 0.0), effect * root
    found = special.ndtr(room - shift) - special.ndtr(-room - shift)
    return min(float(weights @ found @ weights), 1.0)


def _level(function: str, alpha: float) -> float:
    """The level of a test, not so small that quantiles of Student's t have no digits."""
    level = share(function, "alpha", alpha)
    if level < LEAST:
        checks.fail(function, "alpha", f"at least {LEAST:g}", alpha)
    return level


def _reaches(count: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """How far Welch's test reaches, t times the estimated standard error in units of the true one, σ√(2/n): over the
    first sample's share of the total variance and over the total, with the weights of both integrals.
    """
    freedom = count - 1
    nodes, weights = LEGENDRE
    quantiles, weights = (nodes + 1) / 2, weights / 2
    part = stats.beta.ppf(quantiles, freedom / 2, freedom / 2)
    total = stats.chi2.ppf(quantiles, 2 * freedom)
    critical = stats.t.isf(tail, freedom / (part**2 + (1 - part) ** 2))
    return weights, critical[:, None] * np.sqrt(total / (2 * freedom))


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
    level, target = _level(name, alpha), share(name, "power", power)
    if target <= level:
        checks.fail(name, "power", f"greater than alpha = {level:g}", power)
    top = 1.0
    while welch_power(top, count, alpha=level) < target:
        top *= 2
    d = optimize.brentq(lambda d: welch_power(d, count, alpha=level) - target, 0.0, top, xtol=1e-6)
    return float(sd) * float(d)


def seeds_needed(
    difference: float, sd: float, *, equivalence: bool = False, power: float = 0.8, alpha: float = 0.05
) -> int:
    """How many seeds a side a difference needs: to be found, or for equivalence within it to be shown.

    The least number with which Welch's test finds a true difference of that size with probability `power`; with
    `equivalence`, with which Welch's TOST shows that equal conditions differ by less.

    Parameters
    ----------
    difference : float
        The smallest difference that matters, > 0.
    sd : float
        The spread between seeds within a condition, in the same units, > 0; itself an estimate, so that the result is
        rough.
    equivalence : bool
        Which of the two is asked.
    power, alpha : float
        0 < alpha < power < 1.

    Returns
    -------
    int
        At least 2, at most a million.

    Raises
    ------
    InputError
        A number out of its range.

    Examples
    --------
    >>> seeds_needed(1.0, 1.0), seeds_needed(1.0, 1.0, equivalence=True)
    (17, 18)
    """
    size = float(checks.positive("seeds_needed", "difference", difference))
    size /= float(checks.positive("seeds_needed", "sd", sd))
    size = min(size, HUGE)
    level, target = _level("seeds_needed", alpha), share("seeds_needed", "power", power)
    if target <= level:
        checks.fail("seeds_needed", "power", f"greater than alpha = {level:g}", power)

    def enough(count: int) -> bool:
        chance = equivalence_power if equivalence else welch_power
        return chance(size, count, alpha=level) >= target

    high = 2
    while high < MOST_SEEDS and not enough(high):
        high = min(2 * high, MOST_SEEDS)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

"""Statistical tests of two samples: of a difference, of equivalence, and Holm's correction of several.

Nothing here returns a silent NaN: what cannot be tested carries the reason in its `TTest.status`.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special, stats

from steppe.core import checks

Status = Literal["tested", "identical", "no spread", "too few", "bounds", "no margin"]
"""Why a p-value is what it is.

``"tested"``: it comes from the test. ``"identical"``: nothing differs, p = 1 by convention. ``"no spread"``: the values
do not vary, so that the test is undefined. ``"too few"``: there are not two values to take a spread from. ``"bounds"``:
some value is only a bound, so that its sample has no known mean. ``"no margin"``: nobody said which differences matter.
"""

RESOLUTION = 4 * float(np.finfo(np.float32).eps)
"""Spread below this share of the largest value is rounding: what is compared was computed in float32."""

LARGE_T = 1000.0
"""Beyond this, Z is nothing beside δ; and SciPy's inverse of the noncentral t takes seconds, then hours."""


class Summary(NamedTuple):
    """What `count` values say about their mean: it, their standard deviation, and the interval [low, high] for it."""

    count: int  # type: ignore[assignment]  # a tuple's method of that name is not used
    mean: float
    sd: float
    low: float
    high: float


class TTest(NamedTuple):
    """A test: p, p after Holm's correction (NaN before it), and whether it could be done at all."""

    p: float
    status: Status
    holm: float = math.nan

    @property
    def decisive(self) -> float:
        """The p that decides: Holm's where the test stands in a family, else the raw one; NaN where there is none."""
        return self.p if math.isnan(self.holm) else self.holm


class Effect(NamedTuple):
    """A standardised difference with its confidence interval, NaN where the spread is zero or unknown."""

    value: float
    low: float
    high: float


def summary(values: Iterable[float], *, confidence: float = 0.95) -> Summary:
    """Mean, standard deviation and Student's interval for the mean: x̄ ± t₍ₙ₋₁₎ s / √n.

    s has n − 1 in its denominator. One value has a mean and no known spread (NaN); no values have neither.
    Values that differ by less than float32 can tell apart count as equal, with s = 0.

    Raises
    ------
    InputError : if a value is not finite (leave such runs out, and say so) or `confidence` is not within (0, 1).

    Examples
    --------
    >>> s = summary([0.90, 0.92, 0.94])
    >>> s.count, round(s.mean, 2), round(s.sd, 2), round(s.low, 3), round(s.high, 3)
    (3, 0.92, 0.02, 0.87, 0.97)
    """
    known = sample("summary", values)
    level = share("summary", "confidence", confidence)
    if known.size == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = _mean(known)
    if known.size == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = _sd(known)
    half = _t(level, known.size - 1) * sd / math.sqrt(known.size)
    return Summary(known.size, mean, sd, mean - half, mean + half)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down correction: p₍ᵢ₎ becomes max over j ≤ i of (m − j + 1) p₍ⱼ₎, at most 1.

    Rejecting where the result is at most α keeps the chance of any false rejection at α, whatever the dependence
    between the tests (they share a baseline). NaN marks a test that was not done; it stays NaN, and m leaves it out.

    Examples
    --------
    >>> holm([0.01, 0.04, float("nan")])
    array([0.02, 0.04,  nan])
    """
    raw = np.asarray(p_values, float)
    corrected = np.full(raw.shape, np.nan)
    order = np.argsort(raw, kind="stable")[: np.count_nonzero(~np.isnan(raw))]  # NaN sorts last
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * raw[order]), 1.0)
    return corrected


def pooled_sd(summaries: Iterable[Summary]) -> float:
    """One spread for several samples: √(Σ (nᵢ − 1) sᵢ² / Σ (nᵢ − 1)), NaN where no sample has two values.

    Examples
    --------
    >>> pooled_sd([summary([1.0, 3.0]), summary([2.0, 4.0])]) == 2**0.5
    True
    """
    known = [s for s in summaries if s.count > 1]
    freedom = sum(s.count - 1 for s in known)
    if not freedom:
        return math.nan
    unit = _unit(np.array([s.sd for s in known]))
    return math.sqrt(sum((s.count - 1) * (s.sd / unit) ** 2 for s in known) / freedom) * unit


def sample(function: str, values: Iterable[float]) -> np.ndarray:
    """The values as a float64 vector, all finite."""
    found = np.array([float(value) for value in values], float)
    if not np.isfinite(found).all():
        bad = found[~np.isfinite(found)][0]
        checks.fail(function, "values", "finite", float(bad), "Leave diverged runs out, and say so.")
    return found


def share(function: str, name: str, value: float) -> float:
    """A number strictly between 0 and 1."""
    number = float(checks.real(function, name, value))
    if not 0 < number < 1:
        checks.fail(function, name, "between 0 and 1", value)
    return number


def _t(confidence: float, freedom: float) -> float:
    """The quantile of Student's t for a two-sided interval."""
    return float(stats.t.isf((1 - confidence) / 2, freedom))


def _unit(sample: np.ndarray) -> float:
    """A power of two of a sample's size: in this unit sums and squares stay in range, and no bit is lost."""
    return 2.0 ** min(math.frexp(float(np.max(np.abs(sample))))[1], 1023)


def _mean(sample: np.ndarray) -> float:
    unit = _unit(sample)
    return float(np.mean(sample / unit)) * unit


def _sd(sample: np.ndarray, scale: float | None = None) -> float:
    """The standard deviation (n − 1), exactly 0 where the values differ by no more than rounding."""
    unit = _unit(sample)
    scaled = sample / unit
    scale = float(np.max(np.abs(scaled))) if scale is None else scale / unit
    if np.ptp(scaled) <= RESOLUTION * scale:
        return 0.0
    sd = float(np.std(scaled, ddof=1)) * unit
    return sd if sd >= sys.float_info.min else 0.0  # smaller ones have lost their digits


def _without_spread(difference: float, scale: float) -> TTest:
    """Neither side varies: either all is equal, or the test is undefined."""
    return TTest(1.0, "identical") if abs(difference) <= RESOLUTION * scale else TTest(math.nan, "no spread")


def welch(x: Summary, y: Summary) -> TTest:
    """Welch's (1947) t-test: t = (ȳ − x̄) / √(s²ₓ/n + s²ᵧ/m), with Welch and Satterthwaite's degrees of freedom."""
    if min(x.count, y.count) < 2:
        return TTest(math.nan, "too few")
    if x.sd == y.sd == 0:
        return _without_spread(y.mean - x.mean, max(abs(x.mean), abs(y.mean)))
    error, freedom = _welch_error(x, y)
    return TTest(float(2 * stats.t.sf(abs(y.mean - x.mean) / error, freedom)), "tested")


def equivalence(x: Summary, y: Summary, margin: float) -> TTest:
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
    if math.isnan(margin):
        return TTest(math.nan, "no margin")
    if min(x.count, y.count) < 2:
        return TTest(math.nan, "too few")
    if x.sd == y.sd == 0:
        return TTest(math.nan, "no spread")
    (error, freedom), difference = _welch_error(x, y), y.mean - x.mean
    below, above = (stats.t.sf(reach / error, freedom) for reach in (margin + difference, margin - difference))
    return TTest(float(max(below, above)), "tested")


def welch_half_width(x: Summary, y: Summary, confidence: float) -> float:
    """Half the width of Welch's interval, NaN where there is no spread to take it from."""
    if min(x.count, y.count) < 2 or x.sd == y.sd == 0:
        return math.nan
    error, freedom = _welch_error(x, y)
    return _t(confidence, freedom) * error


def _welch_error(x: Summary, y: Summary) -> tuple[float, float]:
    """The standard error of the difference of means, and its degrees of freedom; no square of either underflows."""
    a, b = x.sd / math.sqrt(x.count), y.sd / math.sqrt(y.count)
    error = math.hypot(a, b)
    share = (a / error) ** 2
    return error, 1 / (share**2 / (x.count - 1) + (1 - share) ** 2 / (y.count - 1))


def paired(pairs: np.ndarray) -> TTest:
    """The t-test on differences of common seeds."""
    if len(pairs) < 2:
        return TTest(math.nan, "too few")
    pairs = pairs / _unit(pairs)
    scale = float(np.max(np.abs(pairs)))
    differences = pairs[:, 1] - pairs[:, 0]
    if _sd(differences, scale) == 0:
        return _without_spread(float(np.mean(differences)), scale)
    return TTest(float(stats.ttest_rel(pairs[:, 1], pairs[:, 0]).pvalue), "tested")


def d_z(pairs: np.ndarray) -> float:
    """The mean paired difference over its standard deviation; 0 for identical samples, NaN where undefined."""
    if len(pairs) < 2:
        return math.nan
    pairs = pairs / _unit(pairs)
    scale = float(np.max(np.abs(pairs)))
    differences = pairs[:, 1] - pairs[:, 0]
    mean, sd = float(np.mean(differences)), _sd(differences, scale)
    if sd > 0:
        return mean / sd
    return 0.0 if abs(mean) <= RESOLUTION * scale else math.nan


def hedges_g(x: Summary, y: Summary, confidence: float) -> Effect:
    """Hedges' g; the interval inverts the noncentral t distribution of its t statistic."""
    if min(x.count, y.count) < 2:
        return Effect(math.nan, math.nan, math.nan)
    sd = pooled_sd([x, y])
    if sd == 0:
        same = _without_spread(y.mean - x.mean, max(abs(x.mean), abs(y.mean))).status == "identical"
        return Effect(0.0 if same else math.nan, math.nan, math.nan)
    freedom = x.count + y.count - 2
    unit = math.sqrt(1 / x.count + 1 / y.count)
    correction = 1 - 3 / (4 * freedom - 1)
    t = (y.mean - x.mean) / (sd * unit)
    low, high = _noncentrality(t, freedom, confidence)
    return Effect(correction * t * unit, correction * low * unit, correction * high * unit)


def _noncentrality(t: float, freedom: int, confidence: float) -> tuple[float, float]:
    """The interval for δ, given t = (Z + δ) / √(χ²/ν)."""
    tail = (1 - confidence) / 2
    if abs(t) <= LARGE_T:
        return float(special.nctdtrinc(freedom, 1 - tail, t)), float(special.nctdtrinc(freedom, tail, t))
    low, high = sorted(t * math.sqrt(stats.chi2.ppf(p, freedom) / freedom) for p in (tail, 1 - tail))
    return low, high

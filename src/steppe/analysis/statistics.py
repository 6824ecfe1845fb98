"""Statistics over seeds: is a condition different from the baseline, and could we have seen it?

The test is declared in advance: Welch's t-test of each condition against the baseline, with Holm's correction over the
conditions (the protocol of the flatness papers, with the correction they leave out). The seed-paired t-test
stands beside it; where the two disagree, `disagreement` says so. Nothing here returns a silent NaN: a comparison that
cannot be tested carries the reason in its `TTest.status`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import optimize, special, stats

from steppe.core import checks

Status = Literal["tested", "identical", "no spread", "too few"]
"""Why a p-value is what it is.

``"tested"``: it comes from the test. ``"identical"``: nothing differs, p = 1 by convention. ``"no spread"``: the values
differ, but do not vary, so that the test is undefined. ``"too few"``: there are not two values to take a spread from.
"""

RESOLUTION = 4 * float(np.finfo(np.float32).eps)
"""Spread below this share of the largest value is rounding: what is compared was computed in float32."""


LEGENDRE = np.polynomial.legendre.leggauss(80)
"""Nodes and weights of an integral over [−1, 1]."""


class Summary(NamedTuple):
    """What `count` values say about their mean: it, their standard deviation, and the interval [low, high] for it."""

    count: int  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    mean: float
    sd: float
    low: float
    high: float


class TTest(NamedTuple):
    """A two-sided test: p, p after Holm's correction (NaN before it), and whether it could be done at all."""

    p: float
    status: Status
    holm: float = math.nan


class Effect(NamedTuple):
    """A standardised difference with its confidence interval, NaN where the spread is zero or unknown."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A condition against the baseline; positive differences mean that the condition is higher.

    Attributes
    ----------
    baseline, condition : the two samples, summarised.
    difference, low, high : mean(condition) − mean(baseline), and Welch's confidence interval for it.
    welch : Welch's t-test, the one that `verdict` follows.
    paired : the t-test on the differences of common seeds.
    pairs : how many seeds the two have in common.
    hedges_g : the difference in pooled standard deviations, corrected for small samples.
    d_z : the mean difference of common seeds in standard deviations of those differences.
    """

    baseline: Summary
    condition: Summary
    difference: float
    low: float
    high: float
    welch: TTest
    paired: TTest
    pairs: int
    hedges_g: Effect
    d_z: float


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
    sample = _sample("summary", values)
    level = _share("summary", "confidence", confidence)
    if sample.size == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(sample))
    if sample.size == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = _sd(sample)
    half = _t(level, sample.size - 1) * sd / math.sqrt(sample.size)
    return Summary(sample.size, mean, sd, mean - half, mean + half)


def compare(baseline: Mapping[int, float], condition: Mapping[int, float], *, confidence: float = 0.95) -> Comparison:
    """A condition against the baseline, each a mapping from seed to outcome.

    - Welch (1947): t = (x̄ − ȳ) / √(s²ₓ/n + s²ᵧ/m), with Welch and Satterthwaite's degrees of freedom; its interval.
    - Paired: t = d̄ / (s_d / √k) over the k common seeds, the same runs but for the condition.
    - Hedges (1981): g = (1 − 3/(4ν − 1)) (x̄ − ȳ) / s_pooled, ν = n + m − 2, its interval from the noncentral t.
    - d_z = d̄ / s_d (Cohen 1988).

    Holm's correction needs all conditions together: see `compare_all`.

    Raises
    ------
    InputError : if a value is not finite or `confidence` is not within (0, 1).

    Examples
    --------
    >>> c = compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.5})
    >>> round(c.difference, 3), round(c.welch.p, 3), round(c.paired.p, 3)
    (1.167, 0.28, 0.02)
    >>> compare({0: 1.0}, {0: 2.0}).welch.status
    'too few'
    """
    base = _sample("compare", baseline.values())
    other = _sample("compare", condition.values())
    level = _share("compare", "confidence", confidence)
    common = sorted(baseline.keys() & condition.keys())
    pairs = np.array([[baseline[seed], condition[seed]] for seed in common], float).reshape(-1, 2)
    below, above = summary(base, confidence=level), summary(other, confidence=level)
    difference = above.mean - below.mean
    half = _welch_half_width(below, above, level)
    return Comparison(
        baseline=below,
        condition=above,
        difference=difference,
        low=difference - half,
        high=difference + half,
        welch=_welch(below, above),
        paired=_paired(pairs),
        pairs=len(common),
        hedges_g=_hedges_g(below, above, level),
        d_z=_d_z(pairs),
    )


def compare_all(
    baseline: Mapping[int, float], conditions: Mapping[str, Mapping[int, float]], *, confidence: float = 0.95
) -> dict[str, Comparison]:
    """Each condition against the baseline, with Holm's correction over all of them (see `compare`, `holm`).

    Welch's and the paired tests are two families, each corrected by itself. Comparisons that could not be tested stand
    outside the family; identical samples stand in it, with p = 1.

    Examples
    --------
    >>> base = {0: 1.0, 1: 2.0, 2: 3.0}
    >>> found = compare_all(base, {"same": base, "higher": {0: 9.0, 1: 8.0, 2: 9.5}})
    >>> found["same"].paired.status, found["higher"].welch.holm == 2 * found["higher"].welch.p
    ('identical', True)
    """
    return family({name: compare(baseline, values, confidence=confidence) for name, values in conditions.items()})


def family(found: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Comparisons made on purpose together, with Holm's correction over all of them; see `compare_all`."""
    welch = holm([c.welch.p for c in found.values()])
    paired = holm([c.paired.p for c in found.values()])
    return {
        name: c._replace(welch=c.welch._replace(holm=float(w)), paired=c.paired._replace(holm=float(p)))
        for (name, c), w, p in zip(found.items(), welch, paired, strict=True)
    }


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


def verdict(comparison: Comparison, *, alpha: float = 0.05, size: Callable[[float], str] = "{:.3g}".format) -> str:
    """The outcome in plain words, by Welch's test after Holm's correction (by plain Welch for a lone `compare`).

    `size` writes the absolute difference: ``lambda d: f"{100 * d:.1f} points"``.

    Examples
    --------
    >>> verdict(compare({0: 1.0, 1: 1.1, 2: 0.9}, {0: 3.0, 1: 3.1, 2: 2.9}))
    'significantly higher (by 2)'
    >>> verdict(compare({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.5}))
    'no significant difference'
    """
    difference, test = comparison.difference, comparison.welch
    if comparison.baseline.count == 0 or comparison.condition.count == 0:
        return "not tested: no values"
    if test.status == "too few":
        return "not tested: one run cannot be tested"
    if _identical(comparison):
        return "no significant difference: identical in every run"
    direction = "higher" if difference > 0 else "lower"
    if test.status == "no spread":
        return f"{direction} in every run (by {size(abs(difference))}), test undefined: no spread between seeds"
    if _decisive(test) <= alpha:
        return f"significantly {direction} (by {size(abs(difference))})"
    return "no significant difference"


def disagreement(comparison: Comparison, *, alpha: float = 0.05) -> str:
    """One plain sentence where the paired test comes out differently from Welch's; empty where both agree.

    Examples
    --------
    >>> c = compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.5, 2: 3.6})
    >>> disagreement(c)
    'The seed-paired test finds a difference (p = 0.0039) where Welch’s test does not (p = 0.56).'
    """
    welch, paired = comparison.welch, comparison.paired
    if welch.status == "no spread" and paired.status == "no spread":
        return ""
    if paired.status == "no spread" and welch.status == "tested":
        return "Every seed differs by the same amount, so that the seed-paired test is undefined."
    if welch.status not in ("tested", "identical") or paired.status not in ("tested", "identical"):
        return ""
    p, q = _decisive(welch), _decisive(paired)
    if (p <= alpha) == (q <= alpha):
        return ""
    if q <= alpha:
        return f"The seed-paired test finds a difference (p = {q:.2g}) where Welch’s test does not (p = {p:.2g})."
    return f"Welch’s test finds a difference (p = {p:.2g}) that the seed-paired test does not confirm (p = {q:.2g})."


def pooled_sd(summaries: Iterable[Summary]) -> float:
    """One spread for several samples: √(Σ (nᵢ − 1) sᵢ² / Σ (nᵢ − 1)), NaN where no sample has two values.

    Examples
    --------
    >>> pooled_sd([summary([1.0, 3.0]), summary([2.0, 4.0])]) == 2**0.5
    True
    """
    known = [s for s in summaries if s.count > 1]
    freedom = sum(s.count - 1 for s in known)
    return math.sqrt(sum((s.count - 1) * s.sd**2 for s in known) / freedom) if freedom else math.nan


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
    level = _share("welch_power", "alpha", alpha)
    freedom = count - 1
    nodes, weights = LEGENDRE
    quantiles, weights = (nodes + 1) / 2, weights / 2
    share = stats.beta.ppf(quantiles, freedom / 2, freedom / 2)
    total = stats.chi2.ppf(quantiles, 2 * freedom)
    critical = stats.t.isf(level / 2, freedom / (share**2 + (1 - share) ** 2))
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
    level, target = _share(name, "alpha", alpha), _share(name, "power", power)
    if target <= level:
        checks.fail(name, "power", f"greater than alpha = {level:g}", power)
    top = 1.0
    while welch_power(top, count, alpha=level) < target:
        top *= 2
    return float(sd) * optimize.brentq(lambda d: welch_power(d, count, alpha=level) - target, 0.0, top, xtol=1e-6)


def _sample(function: str, values: Iterable[float]) -> np.ndarray:
    """The values as a float64 vector, all finite."""
    sample = np.array([float(value) for value in values], float)
    if not np.isfinite(sample).all():
        bad = sample[~np.isfinite(sample)][0]
        checks.fail(function, "values", "finite", float(bad), "Leave diverged runs out, and say so.")
    return sample


def _share(function: str, name: str, value: float) -> float:
    """A number strictly between 0 and 1."""
    number = float(checks.real(function, name, value))
    if not 0 < number < 1:
        checks.fail(function, name, "between 0 and 1", value)
    return number


def _t(confidence: float, freedom: float) -> float:
    """The quantile of Student's t for a two-sided interval."""
    return float(stats.t.isf((1 - confidence) / 2, freedom))


def _sd(sample: np.ndarray, scale: float | None = None) -> float:
    """The standard deviation (n − 1), exactly 0 where the values differ by no more than rounding."""
    scale = float(np.max(np.abs(sample))) if scale is None else scale
    return 0.0 if np.ptp(sample) <= RESOLUTION * scale else float(np.std(sample, ddof=1))


def _without_spread(difference: float, scale: float) -> TTest:
    """Neither side varies: either all is equal, or the test is undefined."""
    return TTest(1.0, "identical") if abs(difference) <= RESOLUTION * scale else TTest(math.nan, "no spread")


def _welch(x: Summary, y: Summary) -> TTest:
    """Welch's t-test from summaries: scipy warns of lost precision on samples whose values are all equal."""
    if min(x.count, y.count) < 2:
        return TTest(math.nan, "too few")
    if x.sd == y.sd == 0:
        return _without_spread(y.mean - x.mean, max(abs(x.mean), abs(y.mean)))
    result = stats.ttest_ind_from_stats(y.mean, y.sd, y.count, x.mean, x.sd, x.count, equal_var=False)
    return TTest(float(result.pvalue), "tested")


def _welch_half_width(x: Summary, y: Summary, confidence: float) -> float:
    """Half the width of Welch's interval, NaN where there is no spread to take it from."""
    if min(x.count, y.count) < 2 or x.sd == y.sd == 0:
        return math.nan
    a, b = x.sd**2 / x.count, y.sd**2 / y.count
    share = a / (a + b)  # in shares, because squares of small variances underflow
    freedom = 1 / (share**2 / (x.count - 1) + (1 - share) ** 2 / (y.count - 1))
    return _t(confidence, freedom) * math.sqrt(a + b)


def _paired(pairs: np.ndarray) -> TTest:
    """The t-test on differences of common seeds."""
    if len(pairs) < 2:
        return TTest(math.nan, "too few")
    scale = float(np.max(np.abs(pairs)))
    differences = pairs[:, 1] - pairs[:, 0]
    if _sd(differences, scale) == 0:
        return _without_spread(float(np.mean(differences)), scale)
    return TTest(float(stats.ttest_rel(pairs[:, 1], pairs[:, 0]).pvalue), "tested")


def _d_z(pairs: np.ndarray) -> float:
    """The mean paired difference over its standard deviation; 0 for identical samples, NaN where undefined."""
    if len(pairs) < 2:
        return math.nan
    scale = float(np.max(np.abs(pairs)))
    differences = pairs[:, 1] - pairs[:, 0]
    mean, sd = float(np.mean(differences)), _sd(differences, scale)
    if sd > 0:
        return mean / sd
    return 0.0 if abs(mean) <= RESOLUTION * scale else math.nan


def _hedges_g(x: Summary, y: Summary, confidence: float) -> Effect:
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
    tail = (1 - confidence) / 2
    low, high = (float(special.nctdtrinc(freedom, p, t)) for p in (1 - tail, tail))
    return Effect(correction * t * unit, correction * low * unit, correction * high * unit)


def _identical(comparison: Comparison) -> bool:
    """Whether both sides hold the same values: one constant, or one value a seed."""
    all_paired = comparison.pairs == comparison.baseline.count == comparison.condition.count
    return comparison.welch.status == "identical" or (comparison.paired.status == "identical" and all_paired)


def _decisive(test: TTest) -> float:
    """The p that decides: Holm's where the comparison stands in a family, else the raw one."""
    return test.p if math.isnan(test.holm) else test.holm

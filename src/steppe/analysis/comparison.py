"""Conditions compared: any quantity, of each condition and seed, against what its condition is compared with.

The test is declared in advance: Welch's t-test, with Holm's correction over the conditions of one quantity (the
protocol of the flatness papers, with the correction they leave out). The seed-paired t-test stands beside it; where the
two disagree, `Comparison.disagreement` says so. Where a margin is declared, Welch's TOST asks for equivalence too.

Tests of a difference, seed-paired tests and tests of equivalence are three families, each corrected by itself over the
conditions of one quantity: at level α, the chance of calling any two equal conditions different is at most α, and so is
the chance of calling any conditions equivalent that differ by the margin or more. The chance of either is not.
"""

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from steppe.analysis import tests
from steppe.analysis.quantities import Quantity
from steppe.analysis.results import LateMargin
from steppe.analysis.tests import Effect, Summary, TTest
from steppe.analysis.verdict import Verdict

LARGEST_LOG = 700.0
"""The exponential of more is beyond float64."""


class Disagreement(enum.Enum):
    """How the seed-paired test comes out differently from Welch's."""

    ONLY_PAIRED = "only the seed-paired test finds a difference"
    ONLY_WELCH = "only Welch's test finds a difference"
    CONSTANT = "every seed differs by the same amount, so that the seed-paired test is undefined"


class Comparison(NamedTuple):
    """A condition against another; positive differences mean that the condition is higher.

    Attributes
    ----------
    baseline, condition : Summary
        The two samples.
    difference, low, high : float
        mean(condition) − mean(baseline), and Welch's confidence interval for it, of level 1 − α.
    welch : TTest
        Welch's t-test of a difference.
    paired : TTest
        The t-test on the differences of common seeds.
    pairs : int
        How many seeds the two have in common.
    hedges_g : Effect
        The difference in pooled standard deviations, corrected for small samples.
    d_z : float
        The mean difference of common seeds in standard deviations of those differences.
    margin : float
        The smallest difference that matters, on the scale compared; NaN where none is declared.
    equivalence : TTest
        Welch's TOST against that margin.
    alpha : float
        The level of the tests.
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
    margin: float
    equivalence: TTest
    alpha: float

    @property
    def verdict(self) -> Verdict:
        """By Welch's tests after Holm's correction (by themselves for a lone `compare`)."""
        return Verdict.from_tests(self.difference, self.welch, self.equivalence, self.alpha)

    @property
    def different(self) -> bool:
        """Whether a difference was shown; it may be one that does not matter, see `Verdict`."""
        return self.welch.decisive <= self.alpha

    @property
    def identical(self) -> bool:
        """Whether both sides hold the same values: one constant, or one value a seed."""
        complete = self.pairs == self.baseline.count == self.condition.count
        return self.welch.status == "identical" or (self.paired.status == "identical" and complete)

    @property
    def ratio(self) -> "Ratio":
        """The ratio of geometric means, where the difference is one of logarithms."""
        ratio, low, high = (_exponential(log) for log in (self.difference, self.low, self.high))
        return Ratio(ratio, low, high, min(self.baseline.count, self.condition.count), math.exp(self.margin))

    @property
    def disagreement(self) -> Disagreement | None:
        """Where the seed-paired test comes out differently from Welch's.

        Examples
        --------
        >>> compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.5, 2: 3.6}).disagreement
        <Disagreement.ONLY_PAIRED: 'only the seed-paired test finds a difference'>
        """
        done = ("tested", "identical")
        if self.paired.status == "no spread" and self.welch.status == "tested":
            return Disagreement.CONSTANT
        if self.welch.status not in done or self.paired.status not in done:
            return None
        confirmed = self.paired.decisive <= self.alpha
        if self.different == confirmed:
            return None
        return Disagreement.ONLY_PAIRED if confirmed else Disagreement.ONLY_WELCH


def compare(
    baseline: Mapping[int, float], condition: Mapping[int, float], *, confidence: float = 0.95, margin: float = math.nan
) -> Comparison:
    """A condition against another, each a mapping from seed to outcome.

    - Welch (1947): t = (x̄ − ȳ) / √(s²ₓ/n + s²ᵧ/m), with Welch and Satterthwaite's degrees of freedom; its interval.
    - Equivalence: Welch's TOST, two one-sided tests against −margin and +margin.
    - Paired: t = d̄ / (s_d / √k) over the k common seeds, the same runs but for the condition.
    - Hedges (1981): g = (1 − 3/(4ν − 1)) (x̄ − ȳ) / s_pooled, ν = n + m − 2, its interval from the noncentral t.
    - d_z = d̄ / s_d (Cohen 1988).

    Holm's correction needs all conditions together: see `compare_all`.

    Raises
    ------
    InputError
        If a value is not finite or `confidence` is not within (0, 1).

    Examples
    --------
    >>> c = compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.5})
    >>> round(c.difference, 3), round(c.welch.p, 3), round(c.paired.p, 3), c.verdict.name
    (1.167, 0.28, 0.02, 'INCONCLUSIVE')
    >>> compare({0: 1.0}, {0: 2.0}).welch.status
    'too few'
    >>> compare({0: 1.0, 1: 1.1, 2: 0.9}, {0: 1.01, 1: 1.1, 2: 0.9}, margin=0.5).verdict.name
    'EQUIVALENT'
    """
    base = tests.sample("compare", baseline.values())
    other = tests.sample("compare", condition.values())
    level = tests.share("compare", "confidence", confidence)
    common = sorted(baseline.keys() & condition.keys())
    pairs = np.array([[baseline[seed], condition[seed]] for seed in common], float).reshape(-1, 2)
    below, above = tests.summary(base, confidence=level), tests.summary(other, confidence=level)
    difference = above.mean - below.mean
    half = tests.welch_half_width(below, above, level)
    return Comparison(
        baseline=below,
        condition=above,
        difference=difference,
        low=difference - half,
        high=difference + half,
        welch=tests.welch(below, above),
        paired=tests.paired(pairs),
        pairs=len(common),
        hedges_g=tests.hedges_g(below, above, level),
        d_z=tests.d_z(pairs),
        margin=margin,
        equivalence=tests.equivalence(below, above, margin),
        alpha=round(1 - level, 12),
    )


def compare_all(
    baseline: Mapping[int, float],
    conditions: Mapping[str, Mapping[int, float]],
    *,
    confidence: float = 0.95,
    margin: float = math.nan,
) -> dict[str, Comparison]:
    """Each condition against the baseline, with Holm's correction over all of them (see `compare`, `holm`).

    Comparisons that could not be tested stand outside their family; identical samples stand in it, with p = 1.

    Examples
    --------
    >>> base = {0: 1.0, 1: 2.0, 2: 3.0}
    >>> found = compare_all(base, {"same": base, "higher": {0: 9.0, 1: 8.0, 2: 9.5}})
    >>> found["same"].paired.status, found["higher"].welch.holm == 2 * found["higher"].welch.p
    ('identical', True)
    """
    return correct({name: compare(baseline, v, confidence=confidence, margin=margin) for name, v in conditions.items()})


def correct(found: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Comparisons of one quantity with Holm's correction over all of them, each of the three families by itself."""
    columns = {}
    for kind in ("welch", "paired", "equivalence"):
        before = [getattr(comparison, kind) for comparison in found.values()]
        after = tests.holm([test.p for test in before])
        columns[kind] = [test._replace(holm=float(p)) for test, p in zip(before, after, strict=True)]
    rows = zip(*columns.values(), strict=True)
    return {
        name: comparison._replace(**dict(zip(columns, row, strict=True)))
        for (name, comparison), row in zip(found.items(), rows, strict=True)
    }


class Interval(NamedTuple):
    """A mean and its confidence interval; NaN where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class QuantityComparison:
    """All that is known of one quantity of several conditions.

    Attributes
    ----------
    quantity : Quantity
        What it is.
    values : Mapping
        condition -> seed -> value, all finite.
    summaries : Mapping
        condition -> mean, standard deviation and interval over seeds.
    scaled : Mapping
        condition -> the same on the scale that is compared: of logarithms of positive values, where `quantity.log`.
    bounds : Mapping
        condition -> how many of its values are only bounds: censored, or not converged.
    references : Mapping
        condition -> the condition that it is compared with.
    comparisons : Mapping
        condition -> the condition against its reference.
    confidence : float
        Of all intervals.
    late_margin : LateMargin or None
        The margin, where it did not stand when all runs were trained.
    """

    quantity: Quantity
    values: Mapping[str, Mapping[int, float]]
    summaries: Mapping[str, Summary]
    scaled: Mapping[str, Summary]
    bounds: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    confidence: float = 0.95
    late_margin: LateMargin | None = None

    @property
    def margin(self) -> float:
        """The smallest difference that matters, on the scale compared; NaN where none is declared."""
        return next((comparison.margin for comparison in self.comparisons.values()), math.nan)

    def center(self, condition: str) -> Interval:
        """A condition's mean and its interval; those of the geometric mean where logarithms are compared."""
        if not self.quantity.log:
            found = self.summaries[condition]
            return Interval(found.mean, found.low, found.high)
        found = self.scaled[condition]
        low, high = (math.exp(log) if abs(log) < LARGEST_LOG else math.nan for log in (found.low, found.high))
        return Interval(_exponential(found.mean), low, high)

    @property
    def without_logarithm(self) -> tuple[str, ...]:
        """Conditions with values that are 0 or less where logarithms are compared."""
        return tuple(c for c, by in self.values.items() if self.quantity.log and any(v <= 0 for v in by.values()))

    def verdict(self, condition: str) -> Verdict:
        """A condition's verdict; UNTESTABLE where it is compared with nothing."""
        return self.comparisons[condition].verdict if condition in self.comparisons else Verdict.UNTESTABLE


def compare_quantity(
    quantity: Quantity,
    values: Mapping[str, Mapping[int, float | None]],
    references: Mapping[str, str],
    *,
    bounds: Mapping[str, int] | None = None,
    confidence: float = 0.95,
    margin: float | None = None,
) -> QuantityComparison:
    """One quantity, summarised for every condition and compared between some; Holm's correction over the latter.

    Parameters
    ----------
    quantity : Quantity
        What it is, and on which scale it is compared.
    values : Mapping
        condition -> seed -> value; what is None or not finite is left out.
    references : Mapping
        condition -> the condition that it is compared with; those that are no keys are only summarised.
    bounds : Mapping, optional
        condition -> how many of its values are only bounds. A comparison with one is not tested.
    confidence : float
        Of intervals; tests are done at level 1 − confidence.
    margin : float, optional
        The smallest difference that matters, as it is declared: a factor where logarithms are compared.
    """
    known, bounds = {c: _finite(by) for c, by in values.items()}, dict(bounds or {})
    scaled = {c: {s: math.log(v) for s, v in by.items() if v > 0} if quantity.log else by for c, by in known.items()}
    found = {
        condition: compare(scaled[other], scaled[condition], confidence=confidence, margin=quantity.margin(margin))
        for condition, other in references.items()
    }
    for condition, other in references.items():
        if bounds.get(condition) or bounds.get(other):
            found[condition] = _untested(found[condition])
    return QuantityComparison(
        quantity=quantity,
        values=known,
        summaries={c: _summary(quantity.unit, by.values(), confidence) for c, by in known.items()},
        scaled={c: tests.summary(by.values(), confidence=confidence) for c, by in scaled.items()},
        bounds=bounds,
        references=references,
        comparisons=correct(found),
        confidence=confidence,
    )


def _finite(values: Mapping[int, float | None]) -> dict[int, float]:
    """Seed -> value, without what is missing or not finite."""
    return {seed: float(value) for seed, value in values.items() if value is not None and math.isfinite(value)}


def _summary(unit: str, values: Iterable[float], confidence: float) -> Summary:
    """Mean, sd and interval; a share's interval ends at 0 and 1, outside of which its mean cannot lie."""
    found = tests.summary(values, confidence=confidence)
    if unit != "share" or not math.isfinite(found.low):
        return found
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def _untested(comparison: Comparison) -> Comparison:
    """A comparison with values that are only bounds: nothing is said of their means."""
    nothing, unknown = TTest(math.nan, "bounds"), Effect(math.nan, math.nan, math.nan)
    return comparison._replace(
        difference=math.nan, low=math.nan, high=math.nan, welch=nothing, paired=nothing, equivalence=nothing,
        hedges_g=unknown, d_z=math.nan,
    )  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """A quantity of a condition over another's, seed by seed.

    Attributes
    ----------
    ratio, low, high : float
        The geometric mean over seeds, and Student's interval for it, from the logarithms; NaN where there is none.
    seeds : int
        Seeds that could be compared.
    margin : float
        The factor within which ratios do not matter; NaN where none is declared.
    """

    ratio: float
    low: float
    high: float
    seeds: int
    margin: float = math.nan

    @property
    def verdict(self) -> Verdict:
        """By its interval, not corrected for the number of conditions."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low > 0):
            return Verdict.UNTESTABLE
        return Verdict.from_interval(math.log(self.low), math.log(self.high), math.log(self.margin))


def ratio(logs: Iterable[float], *, confidence: float = 0.95, margin: float | None = None) -> Ratio:
    """The ratio whose logarithms over seeds these are.

    Examples
    --------
    >>> found = ratio([math.log(2.0), math.log(2.1), math.log(1.9)])
    >>> round(found.ratio, 2), found.verdict.name
    (2.0, 'HIGHER')
    """
    found = tests.summary(logs, confidence=confidence)
    middle, low, high = (_exponential(log) for log in (found.mean, found.low, found.high))
    return Ratio(middle, low, high, found.count, math.nan if margin is None else margin)


def _exponential(log: float) -> float:
    """The number whose logarithm this is, or the nearest one that float64 holds."""
    return math.exp(min(max(log, -LARGEST_LOG), LARGEST_LOG))

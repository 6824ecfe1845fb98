"""Two samples over seeds, compared: every test of a difference and of equivalence, and the verdict of declared ones.

Studies and arrays take the same way: `judge` takes two arrays (see `arrays`), `compare` two mappings from seed to
value.

The test is declared in advance: Welch's t-test unless said otherwise (see `Plan`), with a correction over the
conditions of one quantity. The seed-paired t-test stands beside it; where the two disagree, `Comparison.disagreement`
says so. Where a margin is declared, TOST asks for equivalence too.

Tests of a difference, seed-paired tests and tests of equivalence are three families, each corrected by itself: at level
α, the chance of calling any two equal conditions different is at most α, and so is the chance of calling any conditions
equivalent that differ by the margin or more. The chance of either is not.
"""

import enum
import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from steppe.analysis.judgement.plan import KINDS, PLAN, Plan
from steppe.analysis.statistics import differences, effects, equivalences, intervals
from steppe.analysis.statistics.corrections import CORRECTIONS
from steppe.analysis.statistics.differences import ALTERNATIVES, PValue, smallest_p
from steppe.analysis.statistics.effects import Effect
from steppe.analysis.statistics.samples import Pairs, Summary, pairs_of, sample, share, summary
from steppe.analysis.verdict import Ratio, Verdict, exponential
from steppe.core import checks

K = TypeVar("K")


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
        mean(condition) − mean(baseline), and its confidence interval of level 1 − α: Welch's, or Student's for the mean
        of the paired differences where samples are paired, or a bootstrapped one where that was asked for. It has two
        sides whatever the alternative is.
    bound : float
        Of a one-sided alternative the one end that goes with its t-test, of level 1 − α: p ≤ α where the bound is on
        the same side of 0 as the alternative ("greater": a lower bound). NaN where the alternative is two-sided.
    test : PValue
        The declared test of a difference: what decides.
    welch : PValue
        Welch's t-test of a difference.
    paired : PValue
        The t-test on the differences of common seeds.
    pairs : int
        How many seeds the two have in common.
    hedges_g : Effect
        The difference in pooled standard deviations, corrected for small samples.
    d_z : float
        The mean difference of common seeds in standard deviations of those differences.
    rank_biserial : float
        Of Wilcoxon's signed ranks of common seeds, from −1 to 1.
    improvement : float
        The chance that a run of the condition is above one of the baseline.
    margin : float
        The smallest difference that matters, on the scale compared; NaN where none is declared.
    equivalence : PValue
        TOST against that margin, Welch's or that of pairs.
    alpha : float
        The level of the tests.
    plan : Plan
        How the samples were to be compared.
    """

    baseline: Summary
    condition: Summary
    difference: float
    low: float
    high: float
    test: PValue
    welch: PValue
    paired: PValue
    pairs: int
    hedges_g: Effect
    d_z: float
    rank_biserial: float
    improvement: float
    margin: float
    equivalence: PValue
    alpha: float
    plan: Plan = PLAN
    bound: float = math.nan

    @property
    def verdict(self) -> Verdict:
        """By the declared tests after their correction (by themselves for a lone comparison)."""
        return Verdict.from_tests(self.difference, self.test, self.equivalence, self.alpha)

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the difference, two-sided; NaN where there is no spread to take it from."""
        return self.low, self.high

    @property
    def p(self) -> float:
        """That of the declared test of a difference, after its correction; NaN where it could not be done."""
        return self.test.decisive

    @property
    def smallest_p(self) -> float:
        """The smallest p that the declared test could have given with so many seeds; 0 for t-tests."""
        if self.plan.test == "t":
            return 0.0
        counts = (self.pairs, self.pairs) if self.plan.paired else (self.baseline.count, self.condition.count)
        if min(counts) < 1:
            return 1.0
        return smallest_p(*counts, pairs=self.plan.paired, two_sided=self.plan.alternative == "two-sided")

    @property
    def different(self) -> bool:
        """Whether a difference was shown; it may be one that does not matter, see `Verdict`."""
        return self.test.decisive <= self.alpha

    @property
    def identical(self) -> bool:
        """Whether both sides hold the same values: one constant, or one value a seed."""
        complete = self.pairs == self.baseline.count == self.condition.count
        return self.welch.status == "identical" or (self.paired.status == "identical" and complete)

    @property
    def ratio(self) -> Ratio:
        """The ratio of geometric means, where the difference is one of logarithms."""
        ratio, low, high = (exponential(log) for log in (self.difference, self.low, self.high))
        return Ratio(ratio, low, high, min(self.baseline.count, self.condition.count), math.exp(self.margin))

    @property
    def disagreement(self) -> Disagreement | None:
        """Where the seed-paired test comes out differently from Welch's, if that is the declared one.

        Examples
        --------
        >>> compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.5, 2: 3.6}).disagreement
        <Disagreement.ONLY_PAIRED: 'only the seed-paired test finds a difference'>
        """
        done = ("tested", "identical")
        if not self.plan.is_welch:
            return None
        if self.paired.status == "no spread" and self.welch.status == "tested":
            return Disagreement.CONSTANT
        if self.welch.status not in done or self.paired.status not in done:
            return None
        confirmed = self.paired.decisive <= self.alpha
        if self.different == confirmed:
            return None
        return Disagreement.ONLY_PAIRED if confirmed else Disagreement.ONLY_WELCH


def compare(
    baseline: Mapping[int, float],
    condition: Mapping[int, float],
    *,
    confidence: float = 0.95,
    margin: float = math.nan,
    plan: Plan = PLAN,
) -> Comparison:
    """A condition against another, each a mapping from seed to outcome.

    - Welch (1947): t = (x̄ − ȳ) / √(s²ₓ/n + s²ᵧ/m), with Welch and Satterthwaite's degrees of freedom; its interval.
    - Equivalence: Welch's TOST, two one-sided tests against −margin and +margin.
    - Paired: t = d̄ / (s_d / √k) over the k common seeds, the same runs but for the condition.
    - Hedges (1981): g = (1 − 3/(4ν − 1)) (x̄ − ȳ) / s_pooled, ν = n + m − 2, its interval from the noncentral t.
    - d_z = d̄ / s_d (Cohen 1988).

    Where the plan is of pairs, seeds that only one side has count in its mean alone. A correction needs all conditions
    together: see `compare_all`.

    Raises
    ------
    InputError
        Sides that are no mappings, values that are not finite, a confidence outside (0, 1), a margin that is neither
        positive nor NaN, a plan with other words than there are.

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
    for name, side in (("baseline", baseline), ("condition", condition)):
        if not isinstance(side, Mapping):
            checks.fail("compare", name, "a mapping from seed to value", checks.shown(side), "Two arrays take judge.")
    base, other = sample("compare", baseline.values()), sample("compare", condition.values())
    level = share("compare", "confidence", confidence)
    _check(plan, margin)
    common = sorted(baseline.keys() & condition.keys())
    both = (np.array([side[seed] for seed in common], float) for side in (baseline, condition))
    return compared(Sides(base, other, pairs_of(*both)), level, margin, plan)


def _check(plan: Plan, margin: float) -> None:
    """Fail for a plan with other words than there are, or a margin of 0 or less."""
    checks.one_of("compare", "test", plan.test, KINDS)
    checks.one_of("compare", "alternative", plan.alternative, ALTERNATIVES)
    checks.one_of("compare", "correction", plan.correction, CORRECTIONS)
    if not (isinstance(margin, float) and math.isnan(margin)):
        checks.positive("compare", "margin", margin)


class Sides(NamedTuple):
    """Two samples, and the pairs among them."""

    base: np.ndarray
    other: np.ndarray
    pairs: Pairs


def compared(sides: Sides, confidence: float, margin: float, plan: Plan, seed: int = 0) -> Comparison:
    """All that two samples say of each other."""
    base, other, pairs = sides
    below, above = summary(base, confidence=confidence), summary(other, confidence=confidence)
    if plan.paired:
        difference = pairs.mean * pairs.unit if len(pairs.differences) else math.nan
        half, to_bound = (intervals.paired_half_width(pairs, level) for level in (confidence, 2 * confidence - 1))
        equivalent = equivalences.paired_tost(pairs, margin)
    else:
        difference = above.mean - below.mean
        half, to_bound = (intervals.welch_half_width(below, above, level) for level in (confidence, 2 * confidence - 1))
        equivalent = equivalences.tost(below, above, margin)
    return Comparison(
        baseline=below,
        condition=above,
        difference=difference,
        low=difference - half,
        high=difference + half,
        test=_declared(sides, below, above, plan, seed),
        welch=differences.welch(below, above),
        paired=differences.paired(pairs),
        pairs=len(pairs.differences),
        hedges_g=effects.hedges_g(below, above, confidence),
        d_z=effects.d_z(pairs),
        rank_biserial=effects.rank_biserial(pairs),
        improvement=effects.improvement(base, other),
        margin=margin,
        equivalence=equivalent,
        alpha=round(1 - confidence, 12),
        plan=plan,
        bound={"two-sided": math.nan, "greater": difference - to_bound, "less": difference + to_bound}[
            plan.alternative
        ],
    )


def _declared(sides: Sides, below: Summary, above: Summary, plan: Plan, seed: int) -> PValue:
    """The test of a difference that was declared."""
    base, other, pairs = sides
    match plan.test, plan.paired:
        case "rank", True:
            return differences.wilcoxon(pairs, plan.alternative)
        case "rank", False:
            return differences.mann_whitney(base, other, plan.alternative)
        case "permutation", True:
            return differences.sign_flips(pairs, plan.alternative, seed=seed)
        case "permutation", False:
            return differences.permutation(base, other, plan.alternative, seed=seed)
        case _, True:
            return differences.paired(pairs, plan.alternative)
    return differences.welch(below, above, plan.alternative)


def compare_all(
    baseline: Mapping[int, float],
    conditions: Mapping[str, Mapping[int, float]],
    *,
    confidence: float = 0.95,
    margin: float = math.nan,
    plan: Plan = PLAN,
) -> dict[str, Comparison]:
    """Each condition against the baseline, with the plan's correction over all of them (see `compare`, `holm`).

    Comparisons that could not be tested stand outside their family; identical samples stand in it, with p = 1.

    Examples
    --------
    >>> base = {0: 1.0, 1: 2.0, 2: 3.0}
    >>> found = compare_all(base, {"same": base, "higher": {0: 9.0, 1: 8.0, 2: 9.5}})
    >>> found["same"].paired.status, found["higher"].welch.corrected == 2 * found["higher"].welch.p
    ('identical', True)
    """
    return correct(
        {name: compare(baseline, v, confidence=confidence, margin=margin, plan=plan) for name, v in conditions.items()}
    )


def correct(found: Mapping[K, Comparison]) -> dict[K, Comparison]:
    """Comparisons with their plan's correction over all of them, each of the families of tests by itself."""
    columns = {}
    correction = CORRECTIONS[next((comparison.plan.correction for comparison in found.values()), PLAN.correction)]
    for kind in ("test", "welch", "paired", "equivalence"):
        before = [getattr(comparison, kind) for comparison in found.values()]
        after = correction([test.p for test in before])
        columns[kind] = [test._replace(corrected=float(p)) for test, p in zip(before, after, strict=True)]
    rows = zip(*columns.values(), strict=True)
    return {
        name: comparison._replace(**dict(zip(columns, row, strict=True)))
        for (name, comparison), row in zip(found.items(), rows, strict=True)
    }

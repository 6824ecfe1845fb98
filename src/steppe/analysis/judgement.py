"""Two samples over seeds, judged: every test of a difference and of equivalence, and the verdict of the declared ones.

Studies and arrays take the same way: `judge` takes two arrays, `compare` two mappings from seed to value.

The test is declared in advance: Welch's t-test unless said otherwise (see `Plan`), with a correction over the
conditions of one quantity. The seed-paired t-test stands beside it; where the two disagree, `Comparison.disagreement`
says so. Where a margin is declared, TOST asks for equivalence too.

Tests of a difference, seed-paired tests and tests of equivalence are three families, each corrected by itself: at level
α, the chance of calling any two equal conditions different is at most α, and so is the chance of calling any conditions
equivalent that differ by the margin or more. The chance of either is not.
"""

import enum
import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from steppe.analysis.statistics import differences, effects, equivalences, intervals
from steppe.analysis.statistics.corrections import CORRECTIONS
from steppe.analysis.statistics.differences import ALTERNATIVES, Alternative, PValue, smallest_p
from steppe.analysis.statistics.effects import Effect
from steppe.analysis.statistics.samples import (
    Pairs,
    Summary,
    pairs_of,
    require_pairs,
    sample,
    seeds_of,
    share,
    summary,
)
from steppe.analysis.verdict import Ratio, Verdict, exponential
from steppe.core import checks

Kind = Literal["t", "rank", "permutation"]
"""What a test looks at: means with Student's t, ranks, or all relabellings of the values."""

K = TypeVar("K")

KINDS: tuple[Kind, ...] = ("t", "rank", "permutation")


class Plan(NamedTuple):
    """How samples are to be compared, declared before they are seen.

    Attributes
    ----------
    test : "t", "rank" or "permutation"
        Of a difference: Welch's t-test, Wilcoxon, Mann and Whitney's rank-sum test, or all relabellings; where samples
        are paired Student's t-test of the differences, Wilcoxon's signed ranks, or all swaps within pairs.
    paired : bool
        Whether runs of the same seed belong together.
    alternative : "two-sided", "greater" or "less"
        Which differences are tested for.
    correction : str
        One of `CORRECTIONS`.
    """

    test: Kind = "t"
    paired: bool = False
    alternative: Alternative = "two-sided"
    correction: str = "holm"

    @property
    def is_welch(self) -> bool:
        """Whether the test of a difference is Welch's, as it is unless said otherwise."""
        return self.test == "t" and not self.paired


PLAN = Plan()
"""Welch's t-test, two-sided, with Holm's correction."""


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
        of the paired differences where samples are paired, or a bootstrapped one where that was asked for.
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

    @property
    def verdict(self) -> Verdict:
        """By the declared tests after their correction (by themselves for a lone comparison)."""
        return Verdict.from_tests(self.difference, self.test, self.equivalence, self.alpha)

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the difference; NaN where there is no spread to take it from."""
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


def judge(
    a: Iterable[float],
    b: Iterable[float],
    *,
    margin: float | None = None,
    paired: bool = False,
    test: Kind = "t",
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
    interval: Literal["t", "bca"] = "t",
    seed: int = 0,
) -> Comparison:
    """Whether a is higher than b, lower, or equivalent, given one value of each for every seed.

    Decide on test and margin before you look at the values.

    Parameters
    ----------
    a, b : sequence of float
        Values over seeds, such as ten test accuracies each. Differences are a − b: `Verdict.HIGHER` says that a is.
    margin : float, optional
        The smallest difference that matters, in the units of the values. Without it nothing is called equivalent.
    paired : bool
        Whether values of one place are of the same seed, and are to be compared pair by pair.
    test : "t", "rank" or "permutation"
        Of a difference. "t": Welch's t-test, of pairs Student's. "rank": the rank-sum test, of pairs Wilcoxon's signed
        ranks. "permutation": of the difference of means over all relabellings, of pairs over all swaps. The last two
        are exact where there are at most 200,000 labels, and cannot give a p below `Comparison.smallest_p`.
    alternative : "two-sided", "greater" or "less"
        Which differences are tested for; "greater": that a is higher.
    confidence : float
        Of the interval; tests are done at level 1 − confidence.
    interval : "t" or "bca"
        Welch's interval, of pairs Student's; or the bootstrap's, which is too short below ten values: see `bootstrap`.
    seed : int
        Of the resamples, and of the relabellings where not all of them are looked at.

    Returns
    -------
    Comparison
        `.verdict`, `.difference`, `.interval`, `.p`, and the tests and effect sizes behind them. A single value is
        UNTESTABLE, and so are two different constants.

    Raises
    ------
    InputError
        Values that are no finite numbers, none, or of unequal lengths where they are paired; an option that is none.

    Examples
    --------
    >>> sam, plain = [0.951, 0.957, 0.949, 0.953, 0.955], [0.941, 0.946, 0.944, 0.939, 0.943]
    >>> found = judge(sam, plain, margin=0.02)
    >>> found.verdict.name, round(found.difference, 4), [round(end, 4) for end in found.interval], found.p < 0.001
    ('EQUIVALENT', 0.0104, [0.0061, 0.0147], True)
    >>> judge(sam, plain).verdict.name
    'HIGHER'
    >>> judge(sam, plain, paired=True, test="rank").p
    0.0625
    """
    first, second = seeds_of("judge", "a", a), seeds_of("judge", "b", b)
    level = share("judge", "confidence", confidence)
    if paired:
        require_pairs("judge", first, second)
    plan = Plan(
        checks.one_of("judge", "test", test, KINDS),
        bool(paired),
        checks.one_of("judge", "alternative", alternative, ALTERNATIVES),
    )
    checks.one_of("judge", "interval", interval, ("t", "bca"))
    reach = math.nan if margin is None else float(checks.positive("judge", "margin", margin))
    pairs = pairs_of(second, first) if len(first) == len(second) else pairs_of(*(np.zeros(0),) * 2)
    found = _compared(_Sides(second, first, pairs), level, reach, plan, seed)
    if interval == "t":
        return found
    ends = intervals.bootstrap(first, second, paired=paired, confidence=level, method="BCa", seed=seed)
    return found._replace(low=ends.low, high=ends.high)


def equivalence(a: Iterable[float], b: Iterable[float], *, margin: float, paired: bool = False) -> PValue:
    """Whether a and b differ by less than a margin: Welch's TOST, two one-sided t-tests (Schuirmann 1987).

    p is the larger of P(T ≥ (margin + d) / se) and P(T ≥ (margin − d) / se), d = mean(a) − mean(b), with Welch and
    Satterthwaite's degrees of freedom. Equivalence is shown at level α where p ≤ α, which is where the interval of
    level 1 − 2α lies within the margin.

    Parameters
    ----------
    a, b : sequence of float
        Values over seeds.
    margin : float
        The smallest difference that matters, > 0.
    paired : bool
        Whether values of one place are of the same seed; then Student's t of their differences.

    Returns
    -------
    PValue
        `.p`, NaN where `.status` says why: "too few" values, or "no spread".

    Raises
    ------
    InputError
        As `judge`.

    Examples
    --------
    >>> round(equivalence([1.00, 1.02, 0.98, 1.01], [1.01, 0.99, 1.00, 1.02], margin=0.05).p, 4)
    0.0026
    """
    first, second = _two("equivalence", a, b, paired)
    reach = float(checks.positive("equivalence", "margin", margin))
    if paired:
        return equivalences.paired_tost(pairs_of(second, first), reach)
    return equivalences.tost(summary(second), summary(first), reach)


def non_inferiority(
    a: Iterable[float], b: Iterable[float], *, margin: float, paired: bool = False, higher_is_better: bool = True
) -> PValue:
    """Whether a is worse than b by less than a margin: one one-sided t-test, Welch's or that of pairs.

    Parameters
    ----------
    a, b : sequence of float
        Values over seeds.
    margin : float
        The largest loss that does not matter, > 0.
    paired : bool
        Whether values of one place are of the same seed.
    higher_is_better : bool
        False for losses and errors.

    Returns
    -------
    PValue
        `.p` of the hypothesis that a is worse by the margin or more; NaN where `.status` says why.

    Raises
    ------
    InputError
        As `judge`.

    Examples
    --------
    >>> round(non_inferiority([0.95, 0.96, 0.94], [0.95, 0.95, 0.95], margin=0.05).p, 3)
    0.007
    """
    first, second = _two("non_inferiority", a, b, paired)
    reach = float(checks.positive("non_inferiority", "margin", margin))
    sign = 1.0 if higher_is_better else -1.0
    if paired:
        return equivalences.paired_non_inferior(pairs_of(sign * second, sign * first), reach)
    return equivalences.non_inferior(summary(sign * second), summary(sign * first), reach)


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
    base, other = sample("compare", baseline.values()), sample("compare", condition.values())
    level = share("compare", "confidence", confidence)
    common = sorted(baseline.keys() & condition.keys())
    both = (np.array([side[seed] for seed in common], float) for side in (baseline, condition))
    return _compared(_Sides(base, other, pairs_of(*both)), level, margin, plan)


class _Sides(NamedTuple):
    """Two samples, and the pairs among them."""

    base: np.ndarray
    other: np.ndarray
    pairs: Pairs


def _compared(sides: _Sides, confidence: float, margin: float, plan: Plan, seed: int = 0) -> Comparison:
    """All that two samples say of each other."""
    base, other, pairs = sides
    below, above = summary(base, confidence=confidence), summary(other, confidence=confidence)
    if plan.paired:
        difference = pairs.mean * pairs.unit if len(pairs.differences) else math.nan
        half = intervals.paired_half_width(pairs, confidence)
        equivalent = equivalences.paired_tost(pairs, margin)
    else:
        difference = above.mean - below.mean
        half = intervals.welch_half_width(below, above, confidence)
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
    )


def _declared(sides: _Sides, below: Summary, above: Summary, plan: Plan, seed: int) -> PValue:
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


def _two(function: str, a: Iterable[float], b: Iterable[float], paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two samples, of one length where they are paired."""
    first, second = seeds_of(function, "a", a), seeds_of(function, "b", b)
    if paired:
        require_pairs(function, first, second)
    return first, second

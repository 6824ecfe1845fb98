"""Two arrays of values over seeds, judged."""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from steppe.analysis.judgement.comparison import Comparison, Sides, compared
from steppe.analysis.judgement.plan import KINDS, Kind, Plan
from steppe.analysis.statistics import equivalences, intervals
from steppe.analysis.statistics.differences import ALTERNATIVES, Alternative, PValue
from steppe.analysis.statistics.samples import pairs_of, random, require_flag, require_pairs, seeds_of, share, summary
from steppe.core import checks


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
        Which differences are tested for; "greater": that a is higher. The interval has two sides all the same, and may
        hold 0 where a one-sided test finds a difference: what goes with that test is `Comparison.bound`.
    confidence : float
        Of the interval, and of the bound; tests are done at level 1 − confidence.
    interval : "t" or "bca"
        Welch's interval, of pairs Student's; or the bootstrap's, which is too short below ten values (see `bootstrap`)
        and has no bound.
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
    >>> round(judge(sam, plain, alternative="greater").bound, 4)
    0.0069
    """
    first, second = seeds_of("judge", "a", a), seeds_of("judge", "b", b)
    level = share("judge", "confidence", confidence)
    if require_flag("judge", "paired", paired):
        require_pairs("judge", first, second)
    random("judge", seed)
    plan = Plan(
        checks.one_of("judge", "test", test, KINDS),
        bool(paired),
        checks.one_of("judge", "alternative", alternative, ALTERNATIVES),
    )
    checks.one_of("judge", "interval", interval, ("t", "bca"))
    reach = math.nan if margin is None else float(checks.positive("judge", "margin", margin))
    pairs = pairs_of(second, first) if len(first) == len(second) else pairs_of(*(np.zeros(0),) * 2)
    found = compared(Sides(second, first, pairs), level, reach, plan, seed)
    if interval == "t":
        return found
    ends = intervals.bootstrap(first, second, paired=paired, confidence=level, method="BCa", seed=seed)
    return found._replace(low=ends.low, high=ends.high, bound=math.nan)


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


def _two(function: str, a: Iterable[float], b: Iterable[float], paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two samples, of one length where they are paired."""
    first, second = seeds_of(function, "a", a), seeds_of(function, "b", b)
    if require_flag(function, "paired", paired):
        require_pairs(function, first, second)
    return first, second

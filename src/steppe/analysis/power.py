"""Which differences the comparisons of a study can show, and how many seeds its margin needs."""

import math
from typing import NamedTuple

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.judgement.plan import PLAN, Plan
from steppe.analysis.statistics.corrections import strictest
from steppe.analysis.statistics.power import detectable_difference, seeds_needed
from steppe.analysis.statistics.samples import pooled_sd


class Power(NamedTuple):
    """The true differences that Welch's test of a quantity finds, two-sided or one-sided as declared, in its units.

    Attributes
    ----------
    seeds : int
        Of the smallest condition tested.
    uniform : bool
        Whether all conditions have as many.
    sd : float
        Of all conditions together; 0 leaves the rest NaN.
    tested : int
        How many tests of a difference are corrected together, those of other declared quantities among them.
    half, most : float
        Found half of the time, and four times in five, by one test at level α.
    strict_half, strict_most : float
        The same for the smallest p of all where no other is small: with Holm's correction at α over the number of
        comparisons.
    strict_alpha : float
        That level.
    margin : float
        The smallest difference that matters, on the scale that is compared; NaN where none is declared.
    to_find, to_equate : int
        How many seeds would find a difference of the margin, and show equivalence of equal conditions within it, four
        times in five by one test; 0 where there is no margin.
    plan : Plan
        What was declared, which may be another test than Welch's.
    """

    seeds: int
    uniform: bool
    sd: float
    tested: int
    half: float = math.nan
    most: float = math.nan
    strict_half: float = math.nan
    strict_most: float = math.nan
    strict_alpha: float = math.nan
    margin: float = math.nan
    to_find: int = 0
    to_equate: int = 0
    plan: Plan = PLAN


def power_of(found: QuantityComparison, alpha: float) -> Power | None:
    """What the comparisons of a quantity can show, from the spread within conditions; None where none was tested."""
    tested = [c for c in found.comparisons.values() if c.welch.status not in ("too few", "bounds")]
    if not tested:
        return None
    seeds = min(min(c.baseline.count, c.condition.count) for c in tested)
    sd = pooled_sd(found.scaled.values())
    uniform = len({s.count for s in found.summaries.values()}) == 1
    power = Power(seeds, uniform, sd, found.together, plan=found.plan)
    if sd == 0:
        return power
    most = 1.0 if found.quantity.unit == "share" else math.inf  # no difference is larger than the whole scale
    strict = alpha / strictest(found.plan.correction, max(found.together, 1))
    sides = 1 if found.plan.alternative == "two-sided" else 2  # one side of a test at 2α is one test at α
    half, often, strict_half, strict_often = (
        min(detectable_difference(seeds, sd, power=chance, alpha=level * sides), most)
        for level in (alpha, strict)
        for chance in (0.5, 0.8)
    )
    power = power._replace(
        half=half, most=often, strict_half=strict_half, strict_most=strict_often, strict_alpha=strict
    )
    if math.isnan(found.margin):
        return power
    find = seeds_needed(found.margin, sd, alpha=alpha * sides)
    equate = seeds_needed(found.margin, sd, equivalence=True, alpha=alpha)
    return power._replace(margin=found.margin, to_find=find, to_equate=equate)

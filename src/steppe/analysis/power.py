"""Which differences the comparisons of a study can show, and how many seeds its margin needs."""

import math
from typing import NamedTuple

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.statistics.power import detectable_difference, seeds_needed
from steppe.analysis.statistics.samples import pooled_sd


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
        How many tests of a difference are corrected together, those of other declared quantities among them.
    half, most : float
        Found half of the time, and four times in five, by one test at level α.
    strict_half, strict_most : float
        The same at Holm's strictest step, α over the number of comparisons.
    margin : float
        The smallest difference that matters, on the scale that is compared; NaN where none is declared.
    to_find, to_equate : int
        How many seeds would find a difference of the margin, and show equivalence of equal conditions within it, four
        times in five by one test; 0 where there is no margin.
    """

    seeds: int
    uniform: bool
    sd: float
    tested: int
    half: float = math.nan
    most: float = math.nan
    strict_half: float = math.nan
    strict_most: float = math.nan
    margin: float = math.nan
    to_find: int = 0
    to_equate: int = 0


def power_of(found: QuantityComparison, alpha: float) -> Power | None:
    """What the comparisons of a quantity can show, from the spread within conditions; None where none was tested."""
    tested = [c for c in found.comparisons.values() if c.welch.status not in ("too few", "bounds")]
    if not tested:
        return None
    seeds = min(min(c.baseline.count, c.condition.count) for c in tested)
    sd = pooled_sd(found.scaled.values())
    power = Power(seeds, len({s.count for s in found.summaries.values()}) == 1, sd, found.together)
    if sd == 0:
        return power
    most = 1.0 if found.quantity.unit == "share" else math.inf  # no difference is larger than the whole scale
    half, often, strict_half, strict_often = (
        min(detectable_difference(seeds, sd, power=chance, alpha=level), most)
        for level in (alpha, alpha / max(found.together, 1))
        for chance in (0.5, 0.8)
    )
    power = power._replace(half=half, most=often, strict_half=strict_half, strict_most=strict_often)
    if math.isnan(found.margin):
        return power
    find, equate = (seeds_needed(found.margin, sd, equivalence=e, alpha=alpha) for e in (False, True))
    return power._replace(margin=found.margin, to_find=find, to_equate=equate)

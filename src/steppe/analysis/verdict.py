"""What a comparison came to, as a value: made of a difference with its tests or its interval, never of a sentence."""

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from steppe.analysis.statistics.differences import PValue
from steppe.analysis.statistics.samples import RESOLUTION, summary

LARGEST_LOG = 700.0
"""The exponential of more is beyond float64."""


class Verdict(enum.Enum):
    """What is known of a condition's difference from what it is compared with.

    A difference may be certain and yet smaller than the margin below which differences do not matter. It is then
    `EQUIVALENT`, for the margin was declared to settle just this; the comparison keeps both facts. So a wider margin
    moves a verdict towards `EQUIVALENT` and never away from it, and without a margin nothing is equivalent.
    """

    HIGHER = "higher"
    LOWER = "lower"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    UNTESTABLE = "untestable"

    @property
    def directed(self) -> bool:
        """Whether a difference was shown, and matters."""
        return self in (Verdict.HIGHER, Verdict.LOWER)

    @classmethod
    def from_tests(cls, difference: float, test: PValue, equivalence: PValue, alpha: float) -> "Verdict":
        """The verdict of a test of a difference and one of equivalence, each at level α after its correction."""
        if test.status not in ("tested", "identical"):
            return cls.UNTESTABLE
        if equivalence.decisive <= alpha:  # false for NaN
            return cls.EQUIVALENT
        if test.decisive <= alpha:
            return cls.HIGHER if difference > 0 else cls.LOWER
        return cls.INCONCLUSIVE

    @classmethod
    def from_interval(cls, low: float, high: float, margin: float = math.nan) -> "Verdict":
        """The verdict of an interval for a difference: whether it lies within ±margin, or leaves out 0.

        Ends nearer to 0 than float32 can tell count as 0.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            return cls.UNTESTABLE
        if -margin <= low and high <= margin:
            return cls.EQUIVALENT
        if low > RESOLUTION:
            return cls.HIGHER
        return cls.LOWER if high < -RESOLUTION else cls.INCONCLUSIVE


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
    found = summary(logs, confidence=confidence)
    middle, low, high = (exponential(log) for log in (found.mean, found.low, found.high))
    return Ratio(middle, low, high, found.count, math.nan if margin is None else margin)


def exponential(log: float) -> float:
    """The number whose logarithm this is, or the nearest one that float64 holds."""
    return math.exp(min(max(log, -LARGEST_LOG), LARGEST_LOG))

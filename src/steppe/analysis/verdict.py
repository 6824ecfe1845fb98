"""What a comparison came to, as a value: made of a difference with its tests or its interval, never of a sentence."""

import enum
import math

from steppe.analysis.tests import RESOLUTION, TTest


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
    def from_tests(cls, difference: float, welch: TTest, equivalence: TTest, alpha: float) -> "Verdict":
        """The verdict of a test of a difference and one of equivalence, each at level α after its correction."""
        if welch.status not in ("tested", "identical"):
            return cls.UNTESTABLE
        if equivalence.decisive <= alpha:  # false for NaN
            return cls.EQUIVALENT
        if welch.decisive <= alpha:
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

"""How samples are to be compared, declared before they are seen."""

from typing import Literal, NamedTuple

from steppe.analysis.statistics.differences import Alternative

Kind = Literal["t", "rank", "permutation"]
"""What a test looks at: means with Student's t, ranks, or all relabellings of the values."""

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

"""How conditions were compared, in words: the test, its correction, and what was declared."""

from collections.abc import Iterable

from steppe.analysis.comparison import QuantityComparison, Role
from steppe.analysis.judgement.plan import Plan
from steppe.analysis.statistics.corrections import strictest
from steppe.report.formats import percent

TESTS = {
    ("t", False): "Welch’s t-test",
    ("t", True): "the seed-paired t-test",
    ("rank", False): "the rank-sum test",
    ("rank", True): "Wilcoxon’s signed-rank test",
    ("permutation", False): "the permutation test",
    ("permutation", True): "the test of all swaps within seeds",
}
COLUMNS = {
    ("t", False): "Welch p",
    ("t", True): "Paired p",
    ("rank", False): "Rank-sum p",
    ("rank", True): "Wilcoxon p",
    ("permutation", False): "Permutation p",
    ("permutation", True): "Swaps p",
}
CORRECTIONS = {
    "holm": "Holm’s correction",
    "benjamini_hochberg": "Benjamini and Hochberg’s correction",
    "benjamini_yekutieli": "Benjamini and Yekutieli’s correction",
}
SHORT = {"holm": "Holm", "benjamini_hochberg": "BH", "benjamini_yekutieli": "BY"}
"""Corrections in the head of a column."""

ROLES = {
    None: "",
    Role.PRIMARY: "Primary metric: the study declared that it is judged by this. ",
    Role.FAMILY: "Declared together with the primary metric. ",
    Role.EXPLORATORY: "Exploratory: not among what the study declared. ",
}
"""What a table says first of its quantity."""


def test(plan: Plan) -> str:
    """The test of a difference.

    Examples
    --------
    >>> test(Plan()), test(Plan("rank", paired=True, alternative="greater"))
    ('Welch’s t-test', 'Wilcoxon’s signed-rank test (one-sided: higher)')
    """
    side = {"two-sided": "", "greater": " (one-sided: higher)", "less": " (one-sided: lower)"}[plan.alternative]
    return f"{TESTS[plan.test, plan.paired]}{side}"


def two_sided(plan: Plan) -> str:
    """That intervals have two sides, where the test has one."""
    if plan.alternative == "two-sided":
        return ""
    return " and two-sided, so that one may hold 0 where the one-sided test finds a difference"


def equivalence_test(plan: Plan) -> str:
    """The test of equivalence."""
    return "the seed-paired TOST" if plan.paired else "Welch’s TOST"


def too_few(quantities: Iterable[QuantityComparison], alpha: float) -> list[str]:
    """A sentence for each number of seeds with which the declared test can show nothing, whatever the data."""
    found = []
    for by in quantities:
        least = max((c.smallest_p for c in by.comparisons.values()), default=0.0)
        corrected = min(least * strictest(by.plan.correction, max(by.together, 1)), 1.0)
        if corrected > alpha:
            seeds = min(min(c.baseline.count, c.condition.count) for c in by.comparisons.values())
            rest = f", and {corrected:.3g} after correction over {by.together} comparisons" if by.together > 1 else ""
            found.append(
                f"With {seeds} seed{'s' if seeds != 1 else ''} a side, {test(by.plan)} cannot give a p below "
                f"{least:.3g}{rest}: at the {percent(alpha)} level it may show no difference, however large it is."
            )
    return list(dict.fromkeys(found))

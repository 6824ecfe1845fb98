"""Verdicts in words."""

from collections.abc import Iterable, Mapping

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.judgement.comparison import Comparison, Disagreement
from steppe.analysis.quantities import Quantity
from steppe.analysis.verdict import Ratio, Verdict
from steppe.report.wording.sizes import margin_size, size

NO_DIFFERENCE, CANNOT_TELL = "no difference shown", "cannot tell"


def verdict(quantity: Quantity, found: Comparison) -> str:
    """A comparison's verdict with the size of the difference.

    Examples
    --------
    >>> from steppe.analysis import compare
    >>> plain = Quantity("loss", "Loss")
    >>> verdict(plain, compare({0: 1.0, 1: 1.1, 2: 0.9}, {0: 3.0, 1: 3.1, 2: 2.9}))
    'significantly higher (by 2)'
    >>> verdict(plain, compare({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.5}))
    'no difference shown'
    """
    margin = margin_size(quantity, found.margin)
    by = f"(by {size(quantity, found.difference)})"
    way = direction(found.difference)
    match found.verdict:
        case Verdict.HIGHER | Verdict.LOWER:
            return f"significantly {way} {by}"
        case Verdict.EQUIVALENT:
            return f"equivalent within {margin}" + (f", though significantly {way} {by}" if found.different else "")
        case Verdict.UNTESTABLE:
            return f"{CANNOT_TELL}: {_reason(quantity, found)}"
    if found.identical:
        return f"{NO_DIFFERENCE}: identical in every run"
    if found.equivalence.status == "tested":
        return f"{CANNOT_TELL}: neither a difference nor equivalence within {margin} was shown"
    return NO_DIFFERENCE


def direction(difference: float) -> str:
    """Which way a difference goes."""
    return "higher" if difference > 0 else "lower"


def _reason(quantity: Quantity, found: Comparison) -> str:
    """Why nothing could be tested."""
    if found.welch.status == "bounds":
        return "some values are only bounds"
    if min(found.baseline.count, found.condition.count) == 0:
        return "no values"
    if found.welch.status == "too few":
        return "one run cannot be tested"
    by = size(quantity, found.difference)
    return f"{direction(found.difference)} in every run by {by}, and without spread between seeds no test is defined"


def ratio_verdict(found: Ratio) -> str:
    """The verdict of a ratio by its interval."""
    match found.verdict:
        case Verdict.HIGHER | Verdict.LOWER:
            return str(found.verdict.value)
        case Verdict.EQUIVALENT:
            return f"equivalent within a factor of {found.margin:.6g}"
        case Verdict.INCONCLUSIVE:
            return NO_DIFFERENCE
    return "one seed: no interval" if found.seeds else "not comparable"


def disagreements(quantities: Iterable[QuantityComparison]) -> list[str]:
    """Where the paired test comes out differently, with quantity and condition named."""
    return [
        f"{by.quantity.label}, {condition}: {disagreement(found)}"
        for by in quantities
        for condition, found in by.comparisons.items()
        if found.disagreement
    ]


def disagreement(found: Comparison) -> str:
    """One sentence where the paired test comes out differently from Welch's; empty where both agree."""
    p, q = found.welch.decisive, found.paired.decisive
    sentences: Mapping[Disagreement | None, str] = {
        None: "",
        Disagreement.CONSTANT: "Every seed differs by the same amount, so that the seed-paired test is undefined.",
        Disagreement.ONLY_PAIRED: (
            f"The seed-paired test finds a difference (p = {q:.2g}) where Welch’s test does not (p = {p:.2g})."
        ),
        Disagreement.ONLY_WELCH: (
            f"Welch’s test finds a difference (p = {p:.2g}) that the seed-paired test does not confirm (p = {q:.2g})."
        ),
    }
    return sentences[found.disagreement]

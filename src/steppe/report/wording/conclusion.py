"""A study in short paragraphs: did curvature fall, did accuracy change, what did it cost, on how many runs."""

from collections.abc import Mapping, Sequence

from steppe.analysis.analysis import Analysis
from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.judgement.comparison import Comparison
from steppe.analysis.judgement.plan import Plan
from steppe.analysis.quantities import TR_H2, Quantity
from steppe.analysis.verdict import Ratio, Verdict
from steppe.core.checks import joined
from steppe.report.formats import percent
from steppe.report.wording.plans import CORRECTIONS, test
from steppe.report.wording.sizes import margin_size, mid_sentence, size, size_range
from steppe.report.wording.verdicts import direction


def conclusion(analysis: Analysis) -> str:
    """What a study came to, a paragraph between two blank lines for each quantity."""
    seeds, baseline = analysis.seeds, analysis.results.baseline
    others = [c for c in analysis.results.conditions if c != baseline and seeds[c]]
    if not any(seeds.values()) and sum(map(len, analysis.diverged.values())) == analysis.results.planned:
        return "Every run diverged, so there is nothing to conclude."
    if not any(seeds.values()):
        return "No run has finished yet, so there is nothing to conclude."
    if not seeds.get(baseline):
        return f"The baseline, {baseline}, has no finished run yet, so there is nothing to compare with."
    if not others:
        return f"Only the baseline, {baseline}, has finished runs, so there is nothing to compare it with."
    runs = sorted(len(seeds[c]) for c in (baseline, *others))
    paragraphs = (
        (
            _quantity("tr(H²) at the end of training (lower is flatter)", analysis.quantities[TR_H2]),
            _equal_loss(analysis.equal_loss.get(TR_H2, {})),
        ),
        (
            _quantity(analysis.judged.quantity.label, analysis.judged),
            _controls(analysis.controls.get(analysis.results.judged)),
        ),
        *((_declared(by),) for by in analysis.tested if by.quantity.name not in analysis.results.tested),
        (
            _cost(baseline, {c: analysis.cost[c] for c in others}),
            _foundation(runs, baseline, analysis.alpha, analysis.results.plan),
        ),
    )
    return "\n\n".join(" ".join(filter(None, sentences)) for sentences in paragraphs)


def _foundation(counts: Sequence[int], baseline: str, alpha: float, plan: Plan) -> str:
    """How many runs it rests on, given those of each condition in order."""
    if counts[-1] == 1:
        return f"This rests on one run per condition, compared with {baseline}: nothing could be tested."
    runs = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return (
        f"This rests on {runs} runs per condition, each condition compared with {baseline} by {test(plan)} with "
        f"{CORRECTIONS[plan.correction]} at the {percent(alpha)} level."
    )


def _quantity(subject: str, found: QuantityComparison) -> str:
    """What became of one quantity over all conditions, in a few sentences."""
    seen = {c: x for c, x in found.comparisons.items() if x.condition.count and x.baseline.count}
    if not seen:
        return f"{subject} could not be compared."
    by = {verdict: [c for c in seen if seen[c].verdict is verdict] for verdict in Verdict}
    constant = [c for c in by[Verdict.UNTESTABLE] if seen[c].welch.status == "no spread"]
    untested = len(found.comparisons) - len(seen) + len(by[Verdict.UNTESTABLE]) - len(constant)
    rest = _constant(found.quantity, constant, seen) + _untested(untested)
    parts = [
        f"significantly {verdict.value} {_under(by[verdict], len(seen))} ({_by(found.quantity, by[verdict], seen)})"
        for verdict in (Verdict.LOWER, Verdict.HIGHER)
        if by[verdict]
    ]
    if by[Verdict.EQUIVALENT]:
        names = by[Verdict.EQUIVALENT]
        margin = margin_size(found.quantity, seen[names[0]].margin)
        parts.append(f"equivalent within {margin} {_under(names, len(seen))}{_certain(names, seen)}")
    even = by[Verdict.INCONCLUSIVE]
    if even and not parts:
        where = _under(even, len(seen), several="any of the")
        return f"{subject}: no difference shown {where} ({_largest(found.quantity, even, seen)}).{rest}"
    if even:
        parts.append(f"not shown to differ {_under(even, len(seen))}")
    if not parts and constant:
        return f"{subject}:{rest}"
    if not parts:
        return f"{subject} could not be tested ({_largest(found.quantity, list(seen), seen)})."
    return f"{subject} was {joined(parts)}.{rest}"


def _declared(found: QuantityComparison) -> str:
    """What became of a quantity that is tested because a margin is declared for it."""
    way = found.quantity.direction
    return _quantity(f"{found.quantity.label}{f' ({way})' if way else ''}", found)


def _certain(names: Sequence[str], seen: Mapping[str, Comparison]) -> str:
    """Conditions that are equivalent though their difference is certain."""
    different = [c for c in names if seen[c].different]
    if not different:
        return ""
    ways = [f"{direction(seen[c].difference)} under {c}" for c in different]
    return f" (though significantly {joined(ways)})"


def _by(quantity: Quantity, names: Sequence[str], seen: Mapping[str, Comparison]) -> str:
    """How large the differences are: ``by 1.2 points``, or the range over several conditions."""
    ordered = sorted(names, key=lambda c: abs(seen[c].difference))
    least, most = seen[ordered[0]].difference, seen[ordered[-1]].difference
    sizes = size_range(quantity, least, most)
    return f"by {sizes}" if sizes == size(quantity, least) else f"by {sizes}, most under {ordered[-1]}"


def _largest(quantity: Quantity, names: Sequence[str], seen: Mapping[str, Comparison]) -> str:
    """The largest difference there is; its interval is in the table."""
    name = max(names, key=lambda c: abs(seen[c].difference))
    difference = seen[name].difference
    if difference == 0:
        return "identical"
    lead = "the largest observed: " if len(seen) > 1 else "observed: "
    return f"{lead}{direction(difference)} by {size(quantity, difference)} under {name}"


def _under(names: Sequence[str], total: int, *, several: str = "all") -> str:
    """Which conditions: by name where that is short."""
    if len(names) == total > 1:
        return f"under {'both' if total == 2 else f'{several} {total}'} other conditions"
    return f"under {joined(names)}" if len(names) <= 2 else f"under {len(names)} of {total} other conditions"


def _constant(quantity: Quantity, names: Sequence[str], seen: Mapping[str, Comparison]) -> str:
    """A sentence for conditions whose every run differs from the baseline's by one and the same amount."""
    if not names:
        return ""
    largest = max(names, key=lambda c: abs(seen[c].difference))
    where = f"Under {joined(names)}" if len(names) <= 2 else f"Under {len(names)} conditions"
    most = f"{direction(seen[largest].difference)} by {size(quantity, seen[largest].difference)}"
    most = most if len(names) == 1 else f"the largest difference: {most} under {largest}"
    return f" {where} every run differed from the baseline’s by the same amount ({most}), so a t-test is undefined."


def _untested(count: int) -> str:
    """A sentence for conditions that had values and no test."""
    return f" {count} condition{'s' if count > 1 else ''} could not be tested." if count else ""


def _equal_loss(ratios: Mapping[str, Ratio]) -> str:
    """tr(H²) at equal training loss."""
    known = {c: ratio for c, ratio in ratios.items() if ratio.verdict is not Verdict.UNTESTABLE}
    words = {Verdict.LOWER: "lower", Verdict.HIGHER: "higher", Verdict.EQUIVALENT: "equivalent"}
    parts = []
    for verdict, word in words.items():
        those = [
            f"{c} ({ratio.ratio:.3g} times the baseline's)" for c, ratio in known.items() if ratio.verdict is verdict
        ]
        parts += [f"{word} under {joined(those)}"] if those else []
    if not known:
        return ""
    if not parts:
        return "At equal training loss no difference in tr(H²) was shown."
    return f"At equal training loss tr(H²) was {joined(parts)}."


def _controls(found: QuantityComparison | None) -> str:
    """Accuracy, or the loss of a regression, against the controls."""
    comparisons = found.comparisons if found else {}
    judged = {c: x.verdict for c, x in comparisons.items() if x.verdict is not Verdict.UNTESTABLE}
    if not found or not judged:
        return ""
    parts, judged_by = [], mid_sentence(found.quantity.label)
    for verdict in (Verdict.HIGHER, Verdict.LOWER, Verdict.EQUIVALENT):
        those = [f"{c} (control: {found.references[c]})" for c, v in judged.items() if v is verdict]
        word = f"significantly {verdict.value}" if verdict.directed else verdict.value
        parts += [f"{word} under {joined(those)}"] if those else []
    if parts:
        return f"Against its control, {judged_by} was {joined(parts)}."
    if len(judged) == 1:
        return f"Against its control, no difference in {judged_by} was shown under {joined(judged)}."
    return f"Against controls, no difference in {judged_by} was shown under any of {len(judged)} conditions."


def _cost(baseline: str, cost: Mapping[str, Ratio]) -> str:
    """What training cost, as a multiple of the baseline's time, for the conditions where that is more than noise."""
    differ = {c: times.ratio for c, times in cost.items() if times.verdict.directed}
    if not differ:
        return ""
    low, high = (f"{x:.2f}" if x < 9.95 else f"{x:.1f}" for x in (min(differ.values()), max(differ.values())))
    where = "" if len(differ) == len(cost) else f" {_under(list(differ), len(cost))}"
    rest = "" if len(differ) == len(cost) else "; otherwise no difference in time exceeded the noise"
    return f"Training{where} took {low if low == high else f'{low} to {high}'} times as long as under {baseline}{rest}."

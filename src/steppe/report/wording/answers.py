"""A study in three lines: did it help, is it flatter, what did it cost; each with its effect and interval.

Where each condition is a task of its own, two lines: in what the tasks differ.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steppe.analysis.analysis import Analysis
from steppe.analysis.comparison import QuantityComparison, Role
from steppe.analysis.equal_loss import EqualLossRatio
from steppe.analysis.judgement.comparison import Comparison
from steppe.analysis.quantities import Quantity
from steppe.analysis.verdict import Ratio, Verdict
from steppe.core.checks import joined
from steppe.report.document import Answer
from steppe.report.formats import interval, number, percent, signed
from steppe.report.wording.sizes import mid_sentence

SEVERAL = 3
"""More conditions are counted and not named."""

OPPOSITES = {"better": "worse", "flatter": "sharper", "lower": "higher"}
"""What a condition is whose difference goes the other way."""

ROLES = {Role.PRIMARY: "the primary metric", Role.FAMILY: "declared", Role.EXPLORATORY: "exploratory"}
"""What a line says of its quantity's role."""

LITTLE = 1.25
"""A ratio of training times whose whole interval is below this is called little."""


def answers(analysis: Analysis) -> tuple[Answer, ...]:
    """The three lines; none where nothing can be compared yet."""
    baseline = analysis.results.baseline
    others = [c for c in analysis.results.conditions if c != baseline and analysis.seeds[c]]
    if not others or not analysis.seeds.get(baseline):
        return ()
    outcome, sharpness = analysis.outcome, analysis.sharpness
    level = f"{percent(analysis.confidence)} interval{', not corrected' if len(others) > 1 else ''}"
    controls = set(analysis.results.controls.values())
    asked = [c for c in others if c not in controls] or others
    same = [c for c in asked if _data(analysis, c) == _data(analysis, baseline)]
    if not same and any(_data(analysis, c) for c in asked):
        return tuple(_tasks(analysis, asked, level))
    asked = same or asked
    helped = _compared("Did it help?", outcome, _good(outcome.quantity), "better", level, among=asked)
    further = f"{_against_controls(analysis, outcome, 'better')}{_over_data(analysis, outcome)}"
    lines = [Answer(helped.question, f"{helped.text}{further}", helped.effect)]
    if any(by.condition.count for by in sharpness.comparisons.values()):
        flat = _compared("Is it flatter?", sharpness, _good(sharpness.quantity), "flatter", level, among=asked)
        further = f"{_reason(analysis, sharpness, asked)}{_against_controls(analysis, sharpness, 'flatter')}"
        further += _over_data(analysis, sharpness)
        lines.append(Answer(flat.question, f"{flat.text}{further}", flat.effect))
    lines.append(_cost({c: analysis.cost[c] for c in asked}, level))
    return tuple(lines)


def _data(analysis: Analysis, condition: str) -> dict[str, Any]:
    """The settings of a condition's data that vary between conditions."""
    return {k: v for k, v in analysis.results.settings.get(condition, {}).items() if k.startswith("data.")}


def _tasks(analysis: Analysis, asked: Sequence[str], level: str) -> Iterator[Answer]:
    """The lines where each condition is a task of its own, so that none of them can help."""
    outcome, sharpness = analysis.outcome, analysis.sharpness
    question = f"Do the tasks differ in {mid_sentence(outcome.quantity.label)}?"
    yield _compared(question, outcome, Verdict.LOWER, "lower", level, among=asked, verdict_first="Yes")
    if any(by.condition.count for by in sharpness.comparisons.values()):
        question, good = "Do they differ in flatness?", _good(sharpness.quantity)
        yield _compared(question, sharpness, good, "flatter", level, among=asked, verdict_first="Yes")


def _over_data(analysis: Analysis, found: QuantityComparison) -> str:
    """What Friedman's test adds where every treatment was trained on several data sets."""
    if not analysis.ranks or analysis.ranks.quantity.name != found.quantity.name:
        return ""
    ranked = analysis.ranks.comparison
    seen = "treatments do not all rank alike" if ranked.p <= analysis.alpha else "no difference in rank was shown"
    return f" Over {ranked.blocks} data sets {seen}."


def _compared(
    question: str,
    found: QuantityComparison,
    good: Verdict,
    word: str,
    level: str,
    *,
    among: Sequence[str] | None = None,
    verdict_first: str = "",
) -> Answer:
    """What became of one quantity under some conditions, or all, and the one that shows it best.

    `verdict_first` is what any difference is answered with, where neither end of the scale is asked for.
    """
    seen = {
        c: x
        for c, x in found.comparisons.items()
        if (among is None or c in among) and x.condition.count and x.baseline.count
    }
    bad = Verdict.LOWER if good is Verdict.HIGHER else Verdict.HIGHER
    by = {verdict: [c for c in seen if seen[c].verdict is verdict] for verdict in Verdict}
    if not seen or len(by[Verdict.UNTESTABLE]) == len(seen):
        return Answer(question, "Cannot tell: nothing could be tested.")
    both = by[good] + by[bad]
    ways = [
        f"{way} under {_named(by[which], len(seen))}"
        for which, way in ((good, word), (bad, OPPOSITES[word]))
        if by[which]
    ]
    if both and verdict_first:
        text, shown = f"{verdict_first}: {', '.join(ways)}.", both
    elif len(ways) == 2:
        text, shown = f"It depends: {', '.join(ways)}.", both
    elif by[good]:
        text, shown = f"Yes, under {_named(by[good], len(seen))}.", by[good]
    elif by[bad]:
        rest = by[Verdict.INCONCLUSIVE]
        ways += [f"no difference shown under {_named(rest)}"] if rest else []
        text, shown = f"No: {', '.join(ways)}.", by[bad]
    elif len(by[Verdict.EQUIVALENT]) == len(seen):
        text, shown = (
            f"No difference that matters, under {_named(by[Verdict.EQUIVALENT], len(seen))}.",
            by[Verdict.EQUIVALENT],
        )
    else:
        text, shown = "Cannot tell: no difference shown.", [c for c in seen if c not in by[Verdict.UNTESTABLE]]
    most = max(shown, key=lambda c: abs(seen[c].difference))
    way = found.quantity.direction
    label = f"{found.quantity.label}{f' ({way})' if way else ''}"
    role = f"; {ROLES[found.role]}" if found.role else ""
    level = level if found.plan.alternative == "two-sided" else f"two-sided {level}, of a one-sided test"
    return Answer(question, text, f"{label} under {most}: {effect(found.quantity, seen[most])} ({level}{role})")


def effect(quantity: Quantity, found: Comparison) -> str:
    """A difference with its interval: in points, or as a ratio.

    Examples
    --------
    >>> from steppe.analysis import judge
    >>> effect(Quantity("a", "A", "share"), judge([0.92, 0.93, 0.94], [0.90, 0.91, 0.92]))
    '+2.00 points [−0.27, +4.27]'
    """
    if quantity.log:
        ratio = found.ratio
        return f"× {number(ratio.ratio)} {interval(ratio.low, ratio.high)}".strip()
    if quantity.unit == "share":
        ends = interval(found.low, found.high, lambda x: signed(100 * x, decimals=2))
        return f"{signed(100 * found.difference, decimals=2)} points {ends}".strip()
    unit = f" {quantity.unit}" if quantity.unit else ""
    return f"{signed(found.difference)}{unit} {interval(found.low, found.high, signed)}".strip()


def _against_controls(analysis: Analysis, asked: QuantityComparison, word: str) -> str:
    """What controls add, such as plain training with as much compute."""
    found = analysis.controls.get(asked.quantity.name)
    judged = {c: by.verdict for c, by in found.comparisons.items()} if found else {}
    judged = {c: verdict for c, verdict in judged.items() if verdict is not Verdict.UNTESTABLE}
    if not judged:
        return ""
    good = _good(asked.quantity)
    bad = Verdict.LOWER if good is Verdict.HIGHER else Verdict.HIGHER
    words = {good: word, bad: OPPOSITES[word], Verdict.EQUIVALENT: "no difference that matters"}
    parts = [
        f"{way} under {_named([c for c, verdict in judged.items() if verdict is which])}"
        for which, way in words.items()
        if which in judged.values()
    ]
    open_ = [c for c, verdict in judged.items() if verdict is Verdict.INCONCLUSIVE]
    if parts and open_:
        parts.append(f"no difference shown under {_named(open_)}")
    return f" Against controls: {joined(parts) if parts else 'no difference shown'}."


def _reason(analysis: Analysis, found: QuantityComparison, asked: Sequence[str]) -> str:
    """What networks at equal training loss add: whether a difference is one of more or less training."""
    known = analysis.equal_loss.get(found.quantity.name, {})
    ratios: Mapping[str, EqualLossRatio] = {c: r for c, r in known.items() if c in asked}
    good = _good(found.quantity)
    words = {good: "flatter", Verdict.LOWER if good is Verdict.HIGHER else Verdict.HIGHER: "sharper"}
    judged = {c: by.verdict for c, by in found.comparisons.items() if c in ratios}
    sure = [c for c, verdict in judged.items() if verdict.directed]
    alike = [c for c in sure if ratios[c].verdict in (Verdict.INCONCLUSIVE, Verdict.EQUIVALENT)]
    turned = {
        c: words[ratios[c].verdict] for c in sure if ratios[c].verdict.directed and ratios[c].verdict != judged[c]
    }
    parts = [f"no difference under {_named(alike)}"] if alike else []
    parts += [f"{word} under {_named(those)}" for word in ("sharper", "flatter")
              if (those := [c for c, way in turned.items() if way == word])]  # fmt: skip
    flatter = [c for c, v in judged.items() if v is Verdict.INCONCLUSIVE and ratios[c].verdict is good]
    if parts:
        return f" But at equal training loss {joined(parts)}: training ended at other losses."
    if flatter:
        return f" At equal training loss it is, under {_named(flatter, len(ratios))}."
    same = len(sure) == len(ratios) and all(ratios[c].verdict is judged[c] for c in sure)
    return " So it is at equal training loss." if sure and same else ""


def _cost(ratios: Mapping[str, Ratio], level: str) -> Answer:
    """The time of training, of the condition that took longest; of those for which that is shown, if there are any."""
    question = "What did it cost?"
    known = {c: ratio for c, ratio in ratios.items() if math.isfinite(ratio.ratio)}
    if not known:
        return Answer(question, "Unknown: times were not measured on one machine.")
    worse = [c for c, ratio in known.items() if ratio.verdict is Verdict.HIGHER]
    most = max(worse or known, key=lambda c: known[c].ratio)
    if worse:
        text = f"Time, under {_named(worse, len(known))}."
    elif not any(math.isfinite(ratio.high) for ratio in known.values()):
        text = "Cannot tell: nothing could be tested."
    elif all(ratio.high <= LITTLE for ratio in known.values()):
        text = "Little or no time: no difference was shown."
    else:
        text = "Cannot tell: training times vary more than they differ."
    ends = interval(known[most].low, known[most].high)
    return Answer(question, text, f"Training time under {most}: × {number(known[most].ratio)} {ends}".strip()
                  + (f" ({level})" if ends else ""))  # fmt: skip


def _good(quantity: Quantity) -> Verdict:
    """Which direction is the better one."""
    return Verdict.LOWER if quantity.lower_is_better else Verdict.HIGHER


def _named(names: list[str], total: int = 0) -> str:
    """Conditions by name, or how many of all."""
    if len(names) == total > 1:
        return "both other conditions" if total == 2 else f"all {total} other conditions"
    return joined(names) if len(names) <= SEVERAL else f"{len(names)} conditions"

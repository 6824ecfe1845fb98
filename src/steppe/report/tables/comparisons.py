"""Conditions against what they are compared with: tests, and ratios at equal training loss."""

import math
from collections.abc import Mapping

from steppe.analysis.comparison import QuantityComparison, Role
from steppe.analysis.equal_loss import QUANTITIES as AT_EQUAL_LOSS
from steppe.analysis.equal_loss import EqualLossRatio
from steppe.analysis.judgement.comparison import Comparison
from steppe.analysis.judgement.plan import PLAN, Plan
from steppe.analysis.quantities import Quantity
from steppe.analysis.statistics.effects import Effect
from steppe.analysis.verdict import Ratio, Verdict
from steppe.report.document import Cell, Row, Table
from steppe.report.formats import NOTHING, interval, number, p_value, percent, signed
from steppe.report.tables.base import ratio_cell, table
from steppe.report.wording.notes import late_margin
from steppe.report.wording.plans import COLUMNS, CORRECTIONS, ROLES, SHORT, equivalence_test, test, two_sided
from steppe.report.wording.sizes import margin_size, sentence_case
from steppe.report.wording.verdicts import ratio_verdict, verdict


def against_baseline(found: QuantityComparison, baseline: str) -> Table:
    """One quantity of every condition against the baseline."""
    quantity = found.quantity
    scale = (
        f"Tested on the logarithm, because it spans orders of magnitude; the ratio is one of geometric "
        f"means{f'; {quantity.direction}' if quantity.direction else ''}. "
        if quantity.log
        else "Differences are in percentage points. "
        if quantity.unit == "share"
        else f"{sentence_case(quantity.direction)}. "
        if quantity.direction
        else ""
    )
    best = (
        "Selected on the test set, and therefore optimistic under every condition. "
        if quantity.name == "best_test_accuracy"
        else ""
    )
    rows = {c: _row(quantity, c, comparison) for c, comparison in found.comparisons.items()}
    caption = f"{ROLES[found.role]}{best}{scale}{_tests(found)}"
    return _table(found, f"{quantity.label} against {baseline}", caption, rows)


def against_controls(found: QuantityComparison, times: Mapping[str, Ratio]) -> Table:
    """One quantity of each condition that has a control against that, beside the ratio of their training times."""
    rows = {}
    for c, comparison in found.comparisons.items():
        head, *rest = _row(found.quantity, c, comparison)
        rows[c] = (Cell(head.text, f"control {found.references[c]}{_time(times[c])}"), *rest)
    caption = (
        f"{ROLES[found.role]}Conditions that name a control besides the baseline, such as plain training with as much "
        f"compute. {_tests(found)} The correction is over these conditions."
    )
    return _table(found, f"{found.quantity.label} against controls", caption, rows)


def at_equal_loss(
    ratios: Mapping[str, Mapping[str, EqualLossRatio]], labels: Mapping[str, str], confidence: float
) -> Table:
    """What differs at equal training loss; no rows where nothing could be compared. `labels` are of other quantities
    than those that are always compared.
    """
    rows = [
        (Cell(c), *(_equal_loss_cell(by[c]) for by in ratios.values()), _epochs([by[c] for by in ratios.values()]))
        for c in next(iter(ratios.values()), ())
        if any(found.seeds for by in ratios.values() for found in by.values())
    ]
    negative = (
        "−λ_min is compared where λ_min is below zero by more than its residual in both runs. "
        if "bottom_eigenvalue" in ratios
        else ""
    )
    caption = (
        "Each quantity divided by that of the baseline run with the same seed at the same training loss, over the "
        "measured epochs whose loss the baseline also passes through: geometric means over epochs, then over seeds. "
        "The loss is without dropout, of the same network, on up to 2,048 training examples. tr(H²): lower is flatter. "
        f"{negative}In brackets: {percent(confidence)} confidence intervals over seeds. “Lower” and “higher” mean that "
        "the interval excludes 1, “equivalent” that it lies within a declared margin. These comparisons are not "
        "corrected for the number of conditions and are not among the tests declared in advance."
    )
    columns = (
        "Condition",
        *(AT_EQUAL_LOSS[name][0] if name in AT_EQUAL_LOSS else labels[name] for name in ratios),
        "Epochs compared",
    )
    return table("Comparison at equal training loss", caption, columns, rows)


def _table(found: QuantityComparison, title: str, caption: str, rows: Mapping[str, Row]) -> Table:
    """Rows in the order of conditions."""
    quantity = found.quantity
    unit = "points" if quantity.unit == "share" else quantity.unit
    change = "Ratio" if quantity.log else f"Difference ({unit})" if unit else "Difference"
    columns = ("Condition", "Verdict", change, *_test_columns(found.plan))
    numeric = (False, False, *([True] * (len(columns) - 2)))
    return Table(title, caption, columns, tuple(rows[c] for c in found.summaries if c in rows), numeric)


def _test_columns(plan: Plan) -> tuple[str, ...]:
    """The columns of a comparison after its difference."""
    short = SHORT[plan.correction]
    declared = () if plan.is_welch else (COLUMNS[plan.test, plan.paired], f"Corrected p ({short})")
    return (*declared, "Welch p", f"{short} p", "Paired p", f"Paired {short} p", f"TOST {short} p", "Hedges’ g", "d_z")


def _tests(found: QuantityComparison) -> str:
    """Which intervals and tests a table shows, and whether equivalence is among them."""
    level = f"In brackets: {percent(found.confidence)} confidence intervals, not corrected{two_sided(found.plan)}."
    late = f" {late_margin(found.quantity, found.late_margin)}" if found.late_margin else ""
    plan, correction = found.plan, CORRECTIONS[found.plan.correction]
    over = "" if found.role in (None, Role.EXPLORATORY) else f" over {found.together} declared comparisons"
    by = "Welch’s test" if plan == PLAN else test(plan)
    if math.isnan(found.margin):
        return (
            f"{level} The verdict follows {by} after {correction}{over}. No margin is declared, so nothing is "
            f"called equivalent.{late}"
        )
    return (
        f"{level} The verdict follows {by} of a difference and {equivalence_test(plan)} of equivalence within the "
        f"declared margin, {margin_size(found.quantity, found.margin)}, each after {correction}{over}.{late}"
    )


def _row(quantity: Quantity, name: str, found: Comparison) -> Row:
    """A condition against what it is compared with."""
    settled = found.verdict.directed or found.verdict is Verdict.EQUIVALENT
    return (
        Cell(name),
        Cell(sentence_case(verdict(quantity, found)), strong=settled),
        _difference(quantity, found),
        *(() if found.plan.is_welch else (Cell(p_value(found.test.p)), Cell(p_value(found.test.corrected)))),
        *(Cell(p_value(p)) for p in (found.welch.p, found.welch.corrected, found.paired.p, found.paired.corrected)),
        Cell(p_value(found.equivalence.corrected)),
        _effect(found.hedges_g),
        Cell(_effect_size(found.d_z)),
    )


def _difference(quantity: Quantity, found: Comparison) -> Cell:
    """A difference in points, or the ratio that a difference of logarithms stands for."""
    if quantity.log:
        ratio = found.ratio
        known = math.isfinite(ratio.ratio)
        return Cell(f"× {number(ratio.ratio)}" if known else NOTHING, interval(ratio.low, ratio.high))
    show = (lambda x: signed(100 * x, decimals=2)) if quantity.unit == "share" else signed
    return Cell(show(found.difference), interval(found.low, found.high, show))


def _effect(effect: Effect) -> Cell:
    """A standardised difference."""
    return Cell(_effect_size(effect.value), interval(effect.low, effect.high, _effect_size))


def _effect_size(value: float) -> str:
    """Two decimals are enough for an effect size, and none for a large one."""
    return signed(value, decimals=2 if abs(value) < 9.995 else 0)


def _time(found: Ratio) -> str:
    """A ratio of training times beside a control's name; nothing where there is no interval."""
    cell = ratio_cell(found)
    return f", at {cell.text} its time {cell.detail}" if cell.detail else ""


def _equal_loss_cell(found: EqualLossRatio) -> Cell:
    """A ratio, its verdict in one word, and its interval."""
    if not found.seeds:
        return Cell(NOTHING, ratio_verdict(found))
    words = ratio_verdict(found) if found.verdict is Verdict.UNTESTABLE else found.verdict.value
    said = "" if found.verdict is Verdict.INCONCLUSIVE else words
    text = f"{said} {interval(found.low, found.high)}".strip()
    return Cell(f"× {number(found.ratio)}", text, strong=found.verdict.directed)


def _epochs(ratios: list[EqualLossRatio]) -> Cell:
    """How many epochs the comparisons of a row rest on."""
    counts = sorted({found.epochs for found in ratios})
    return Cell(f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")

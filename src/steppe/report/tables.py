"""Tables as data: one source of rows for the page, the Markdown summary and the terminal."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from steppe.analysis.analysis import Analysis
from steppe.analysis.comparison import LARGEST_LOG, Comparison, QuantityComparison, Ratio
from steppe.analysis.equal_loss import QUANTITIES as AT_EQUAL_LOSS
from steppe.analysis.equal_loss import EqualLossRatio
from steppe.analysis.quantities import QUANTITIES, Quantity
from steppe.analysis.results import PublishedTable
from steppe.analysis.tests import Effect
from steppe.analysis.verdict import Verdict
from steppe.report.formats import NOTHING, number, p_value, spread
from steppe.report.wording.sizes import margin_size, sentence_case
from steppe.report.wording.verdicts import ratio_verdict, verdict


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a second line in smaller type (an interval), and whether it stands out."""

    text: str
    detail: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table: title, what to know when reading it, column heads, and rows whose first cell is their head.

    `numeric` says which columns hold numbers (and stand to the right).
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]


TESTS = ("Welch p", "Holm p", "Paired p", "Paired Holm p", "TOST Holm p", "Hedges’ g", "d_z")
"""Columns of a comparison after its difference."""


def conditions(analysis: Analysis) -> Table:
    """Accuracy, tr(H²) and time of each condition."""
    metrics = ("test_accuracy", "best_test_accuracy", "average_flatness", "flatness", "train_seconds")
    rows = [
        (_head(c, analysis), Cell(str(len(analysis.seeds[c]))), *(_cell(m, c, analysis) for m in metrics))
        for c in analysis.results.conditions
    ]
    level = f"{100 * analysis.confidence:g} %"
    caption = (
        f"Mean ± standard deviation over seeds; below it the {level} confidence interval for the mean (Student’s t; "
        "for tr(H²), that of the geometric mean, from the logarithms). The best accuracy is the highest over "
        "measured epochs, selected on the test set: it is optimistic. tr(H²) is that of the loss on fixed "
        "training batches with dropout off, measured outside training time for every condition; lower is flatter. "
        "Training time leaves out compiling, measuring, and what the first call of a program takes longer."
    )
    heads = tuple(_headline(QUANTITIES[m]) for m in metrics)
    return _table("Results by condition", caption, ("Condition", "Runs", *heads), rows)


def verdicts(analysis: Analysis) -> tuple[Table, ...]:
    """Each tested quantity: every condition against the baseline."""
    return tuple(_verdicts(found, analysis) for found in analysis.tested if found.comparisons)


def controls(analysis: Analysis) -> tuple[Table, ...]:
    """Each condition that has a control against that."""
    return tuple(_controls(found, analysis) for found in analysis.controls.values())


def spectrum(analysis: Analysis) -> Table | None:
    """The ends of the spectrum where training ended, if the study tracks them."""
    metrics = ("top_eigenvalue", "bottom_eigenvalue", "spectral_range")
    if not any(analysis.quantities["spectral_range"].summaries[c].count for c in analysis.results.conditions):
        return None
    rows = [(_head(c, analysis), *(_cell(m, c, analysis) for m in metrics)) for c in analysis.results.conditions]
    caption = (
        "The largest and the smallest eigenvalue of the Hessian of the loss on fixed training examples, without "
        f"dropout, and their distance: mean ± standard deviation over seeds, and the {100 * analysis.confidence:g} % "
        "interval for the mean (of λ_max and the distance, for the geometric mean). Networks that end at different "
        "training losses are compared below at equal ones."
    )
    heads = tuple(QUANTITIES[m].label for m in metrics)
    return _table("The spectrum at the end of training", caption, ("Condition", *heads), rows)


def equal_loss(analysis: Analysis) -> Table | None:
    """What differs at equal training loss."""
    found = analysis.equal_loss
    if not found:
        return None
    rows = [
        (
            _head(c, analysis),
            *(_equal_loss_cell(by[c]) for by in found.values()),
            _epochs([by[c] for by in found.values()]),
        )
        for c in next(iter(found.values()))
    ]
    caption = (
        "Each quantity over that of the baseline run of the same seed at the same training loss, for the measured "
        "epochs whose loss the baseline passes through too: geometric means over epochs, then seeds. The loss is "
        "cross-entropy without dropout, of the very network and on up to 2,048 training examples. −λ_min where it is "
        "below zero by more than its residual, in both. In brackets "
        f"the {100 * analysis.confidence:g} % interval over seeds; lower or higher means that it leaves out 1, "
        "equivalent that it lies within a declared margin. Not corrected for the number of conditions, and not part of "
        "the tests declared in advance."
    )
    heads = tuple(AT_EQUAL_LOSS[name][0] for name in found)
    return _table("At equal training loss", caption, ("Condition", *heads, "Epochs compared"), rows)


def end_of_training(analysis: Analysis) -> tuple[Table, ...]:
    """The spectrum, and what differs at equal training loss: those of the two that there are."""
    return tuple(table for table in (spectrum(analysis), equal_loss(analysis)) if table)


def _epochs(found: list[EqualLossRatio]) -> Cell:
    """How many epochs the comparisons of a row rest on."""
    counts = sorted({by.epochs for by in found})
    return Cell(f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")


def _equal_loss_cell(found: EqualLossRatio) -> Cell:
    """A ratio, its verdict and its interval."""
    words = ratio_verdict(found)
    if not found.seeds:
        return Cell(NOTHING, words)
    interval = _interval(found.low, found.high, number)
    said = "" if found.verdict is Verdict.INCONCLUSIVE else words
    return Cell(f"× {number(found.ratio)}", f"{said} {interval}".strip(), strong=found.verdict.directed)


def cost(analysis: Analysis) -> Table:
    """The cost of each condition: time, and memory of a step."""
    metrics = ("train_seconds", "compile_seconds", "measure_seconds", "step_memory_mb")
    rows = [
        (_head(c, analysis), _times(analysis.cost[c]), *(_cell(m, c, analysis, interval=False) for m in metrics))
        for c in analysis.results.conditions
    ]
    caption = (
        "Mean ± standard deviation over seeds, per run. The ratio of times is the geometric mean over seeds of that "
        f"of two runs of one seed on one machine; below it the {100 * analysis.confidence:g} % interval, without which "
        "it means little, and which says that the times differ only where it leaves out 1. Training time leaves out "
        "compiling, measuring, and what the first call of a program takes longer. Compile time is that of the "
        "program, which conditions of one shape share: it was spent once. These numbers are as much the machine’s as "
        "the method’s."
    )
    heads = tuple(_headline(QUANTITIES[m]) for m in metrics)
    return _table("Cost", caption, ("Condition", "Time × baseline", *heads), rows)


def losses(analysis: Analysis) -> Table:
    """Losses and accuracy on the training set, at the end of training."""
    metrics = ("train_loss", "test_loss", "train_accuracy")
    rows = [(_head(c, analysis), *(_cell(m, c, analysis) for m in metrics)) for c in analysis.results.conditions]
    caption = f"Mean ± standard deviation over seeds, and the {100 * analysis.confidence:g} % interval for the mean."
    return _table(
        "Losses at the end of training", caption, ("Condition", *(_headline(QUANTITIES[m]) for m in metrics)), rows
    )


def published(table: PublishedTable) -> Table:
    """Somebody's published numbers, as they printed them."""
    rows = [tuple(Cell(value if isinstance(value, str) else number(value, 4)) for value in row) for row in table.rows]
    return _table(table.title, table.caveat, table.columns, rows)


def ours(analysis: Analysis) -> Table:
    """Our means in the form of the published tables (shares, not percent)."""
    metrics = ("test_accuracy", "best_test_accuracy", "average_flatness", "train_seconds")
    rows = [
        (Cell(c), *(Cell(number(analysis.quantities[m].summaries[c].mean, 4)) for m in metrics))
        for c in analysis.results.conditions
    ]
    heads = ("Condition", "Final acc", "Best acc", "Avg. tr(H²)", "Train time (s)")
    return _table("This study", "Means over seeds, from the tables above.", heads, rows)


def provenance(analysis: Analysis) -> Table:
    """Where the numbers came from."""
    rows = [(Cell(what), Cell(text)) for what, text in analysis.results.provenance.items()]
    return _table("Provenance", "", ("What", "Value"), rows, numeric=False)


def _controls(found: QuantityComparison, analysis: Analysis) -> Table:
    """One quantity against the controls."""
    rows = []
    for c in (c for c in analysis.results.conditions if c in found.comparisons):
        head, *rest = _verdict_row(found.quantity, c, found.comparisons[c])
        detail = f"control {analysis.results.controls[c]}{_time_beside(analysis.control_cost[c])}"
        rows.append((Cell(head.text, detail), *rest))
    caption = (
        "Conditions that name a control besides the baseline, such as plain training with as much compute. "
        f"{_tests(found, analysis)} Holm’s correction is over these conditions."
    )
    return _comparison_table(f"{found.quantity.label} against controls", caption, found.quantity, rows)


def _verdicts(found: QuantityComparison, analysis: Analysis) -> Table:
    """One tested quantity."""
    quantity = found.quantity
    rows = [_verdict_row(quantity, c, x) for c, x in found.comparisons.items()]
    scale = (
        f"Tested on the logarithm, because {quantity.label} spans orders of magnitude; the ratio is that of geometric "
        f"means; {quantity.direction}. "
        if quantity.log
        else "Differences in percentage points. "
    )
    best = (
        "Selected on the test set, so optimistic under every condition. "
        if quantity.name == "best_test_accuracy"
        else ""
    )
    title = f"{quantity.label} against {analysis.results.baseline}"
    return _comparison_table(title, f"{best}{scale}{_tests(found, analysis)}", quantity, rows)


def _tests(found: QuantityComparison, analysis: Analysis) -> str:
    """Which intervals and tests a table shows, and whether equivalence is among them."""
    level = f"In brackets: {100 * analysis.confidence:g} % intervals, not corrected."
    margins = {x.margin for x in found.comparisons.values() if not math.isnan(x.margin)}
    if not margins:
        return (
            f"{level} The verdict follows Welch’s test after Holm’s correction. No margin is declared, so nothing is "
            "called equivalent."
        )
    return (
        f"{level} The verdict follows Welch’s test of a difference and Welch’s TOST of equivalence within "
        f"{margin_size(found.quantity, margins.pop())}, the declared margin, each after Holm’s correction."
    )


def _comparison_table(title: str, caption: str, quantity: Quantity, rows: Iterable[tuple[Cell, ...]]) -> Table:
    """Conditions against what they are compared with."""
    unit = "points" if quantity.unit == "share" else quantity.unit
    change = "Ratio" if quantity.log else f"Difference ({unit})" if unit else "Difference"
    columns = ("Condition", "Verdict", change, *TESTS)
    return Table(title, caption, columns, tuple(rows), (False, False, *([True] * (len(columns) - 2))))


def _verdict_row(quantity: Quantity, name: str, found: Comparison) -> tuple[Cell, ...]:
    """A condition against what it is compared with."""
    settled = found.verdict.directed or found.verdict is Verdict.EQUIVALENT
    return (
        Cell(name),
        Cell(sentence_case(verdict(quantity, found)), strong=settled),
        _difference(quantity, found),
        *(Cell(p_value(p)) for p in (found.welch.p, found.welch.holm, found.paired.p, found.paired.holm)),
        Cell(p_value(found.equivalence.holm)),
        _effect(found.hedges_g),
        Cell(_plain(found.d_z)),
    )


def _difference(quantity: Quantity, found: Comparison) -> Cell:
    """A difference in points, or on a log scale the ratio it stands for."""
    if quantity.log:
        ends = (found.difference, found.low, found.high)
        ratio, low, high = (math.exp(min(max(x, -LARGEST_LOG), LARGEST_LOG)) for x in ends)
        return Cell(f"× {number(ratio)}" if math.isfinite(ratio) else NOTHING, _interval(low, high, number))
    show = _points if quantity.unit == "share" else _finer
    return Cell(show(found.difference), _interval(found.low, found.high, show))


def _points(difference: float) -> str:
    """A signed difference of shares in percentage points."""
    return _signed(f"{100 * difference:.2f}") if math.isfinite(difference) else NOTHING


def _finer(difference: float) -> str:
    """A signed difference to three digits."""
    return _signed(f"{difference:.3g}") if math.isfinite(difference) else NOTHING


def _effect(effect: Effect) -> Cell:
    """A standardised difference."""
    return Cell(_plain(effect.value), _interval(effect.low, effect.high, _plain))


def _plain(value: float) -> str:
    """A signed number to two digits, enough for an effect size."""
    if not math.isfinite(value):
        return NOTHING
    return _signed(f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}")


def _cell(name: str, condition: str, analysis: Analysis, *, interval: bool = True) -> Cell:
    """A condition's mean ± sd, and its interval; without spread there is no interval worth the name."""
    found = analysis.quantities[name]
    s, share = found.summaries[condition], found.quantity.unit == "share"
    text = spread(100 * s.mean, 100 * s.sd, least=2, most=2) if share else spread(s.mean, s.sd)
    if not interval or s.count < 2:
        return Cell(text)
    if s.sd == 0:
        return Cell(text, "no spread")
    if share:
        return Cell(text, _interval(100 * s.low, 100 * s.high, "{:.2f}".format))
    if found.quantity.log:
        logs = found.scaled[condition]
        low, high = (math.exp(x) if abs(x) < LARGEST_LOG else math.nan for x in (logs.low, logs.high))
        return Cell(text, _interval(low, high, number))
    return Cell(text, _interval(s.low, s.high, number))


def _head(condition: str, analysis: Analysis) -> Cell:
    """A condition's name, the baseline marked."""
    return Cell(condition, "baseline" if condition == analysis.results.baseline else "")


def _headline(quantity: Quantity) -> str:
    """A quantity's name with its unit."""
    unit = "%" if quantity.unit == "share" else quantity.unit or quantity.direction
    return f"{quantity.label} ({unit})" if unit else quantity.label


def _times(times: Ratio) -> Cell:
    """A ratio of training times, and its interval."""
    text = f"{number(times.ratio)} ×" if math.isfinite(times.ratio) else NOTHING
    return Cell(text, _interval(times.low, times.high, number))


def _time_beside(times: Ratio) -> str:
    """The same in words beside a control's name; nothing where there is no interval."""
    cell = _times(times)
    return f", at {cell.text} its time {cell.detail}" if cell.detail else ""


def _table(
    title: str, caption: str, columns: tuple[str, ...], rows: Iterable[tuple[Cell, ...]], *, numeric: bool = True
) -> Table:
    """A table whose columns are all numeric but the first."""
    return Table(title, caption, columns, tuple(rows), (False, *([numeric] * (len(columns) - 1))))


def _interval(low: float, high: float, show: Callable[[float], str]) -> str:
    """``[low, high]``, or nothing where it is unknown."""
    return f"[{show(low)}, {show(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def _signed(text: str) -> str:
    """A number's text with a true minus or a plus in front, and neither before a zero."""
    sign = "" if not text.strip("-0.") else "−" if text.startswith("-") else "+"
    return sign + text.removeprefix("-")

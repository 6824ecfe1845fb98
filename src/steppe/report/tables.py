"""Tables as data: one source of rows for the page, the Markdown summary and the terminal."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from steppe.analysis.equal_loss import QUANTITIES, Matched
from steppe.analysis.metrics import METRICS, TESTED, Metric
from steppe.analysis.results import PublishedTable, Results
from steppe.analysis.statistics import Comparison, Effect
from steppe.analysis.study import Analysis
from steppe.analysis.times import Times
from steppe.analysis.wording import verdict
from steppe.report.formats import NOTHING, number, p_value, spread


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


TESTS = ("Welch p", "Holm p", "Paired p", "Paired Holm p", "Hedges’ g", "d_z")
"""Columns of a comparison after its difference."""


def conditions(results: Results, analysis: Analysis) -> Table:
    """What each condition came to: accuracy, flatness, time."""
    metrics = ("test_accuracy", "best_test_accuracy", "average_flatness", "flatness", "train_seconds")
    rows = [
        (_head(c, results), Cell(str(len(analysis.seeds[c]))), *(_cell(m, c, analysis) for m in metrics))
        for c in results.conditions
    ]
    level = f"{100 * analysis.confidence:g} %"
    caption = (
        f"Mean ± standard deviation over seeds; below it the {level} confidence interval for the mean (Student’s t; "
        "for flatness, that of the geometric mean, from the logarithms). The best accuracy is the highest over "
        "measured epochs, selected on the test set: it is optimistic. Flatness is tr(H²) of the loss, on fixed "
        "training batches with dropout off, measured outside training time for every condition; lower is flatter. "
        "Training time leaves out compiling, measuring, and what the first call of a program takes longer."
    )
    heads = tuple(_headline(METRICS[m]) for m in metrics)
    return _table("What each condition came to", caption, ("Condition", "Runs", *heads), rows)


def verdicts(results: Results, analysis: Analysis) -> tuple[Table, ...]:
    """Each tested metric: every condition against the baseline."""
    return tuple(_verdicts(m, results, analysis) for m in TESTED if analysis.comparisons[m])


def rivals(results: Results, analysis: Analysis) -> tuple[Table, ...]:
    """Each condition that has a rival against that."""
    return tuple(_rivals(m, results, analysis) for m in analysis.rivals)


def spectrum(results: Results, analysis: Analysis) -> Table | None:
    """The ends of the spectrum where training ended, if the study tracks them."""
    metrics = ("top_eigenvalue", "bottom_eigenvalue", "spectral_range")
    if not any(analysis.summaries["spectral_range"][c].count for c in results.conditions):
        return None
    rows = [(_head(c, results), *(_cell(m, c, analysis) for m in metrics)) for c in results.conditions]
    caption = (
        "The largest and the smallest eigenvalue of the Hessian of the loss on fixed training examples, without "
        f"dropout, and their distance: mean ± standard deviation over seeds, and the {100 * analysis.confidence:g} % "
        "interval for the mean (of λ_max and the distance, for the geometric mean). Networks that end at different "
        "training losses are compared below at equal ones."
    )
    heads = tuple(METRICS[m].label for m in metrics)
    return _table("The spectrum at the end of training", caption, ("Condition", *heads), rows)


def matched(results: Results, analysis: Analysis) -> Table | None:
    """What differs at equal training loss."""
    held = analysis.matched
    if not held:
        return None
    rows = [
        (
            _head(c, results),
            *(_matched_cell(found[c]) for found in held.values()),
            _epochs([f[c] for f in held.values()]),
        )
        for c in next(iter(held.values()))
    ]
    caption = (
        "Each quantity over that of the baseline run of the same seed at the same training loss, for the measured "
        "epochs whose loss the baseline passes through too: geometric means over epochs, then seeds. The loss is "
        "cross-entropy without dropout, of the very network and on up to 2,048 training examples. −λ_min where it is "
        "below zero by more than its residual, in both. In brackets "
        f"the {100 * analysis.confidence:g} % interval over seeds; lower or higher means that it leaves out 1. Not "
        "corrected for the number of conditions, and not part of the tests declared in advance."
    )
    heads = tuple(QUANTITIES[quantity][0] for quantity in held)
    return _table("At equal training loss", caption, ("Condition", *heads, "Epochs compared"), rows)


def at_the_end(results: Results, analysis: Analysis) -> tuple[Table, ...]:
    """The spectrum, and what differs at equal training loss: those of the two that there are."""
    return tuple(table for table in (spectrum(results, analysis), matched(results, analysis)) if table)


def _epochs(found: list[Matched]) -> Cell:
    """How many epochs the comparisons of a row rest on."""
    counts = sorted({m.epochs for m in found})
    return Cell(f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")


def _matched_cell(found: Matched) -> Cell:
    """A ratio, its verdict and its interval."""
    strong = found.verdict in ("lower", "higher")
    if not found.seeds:
        return Cell(NOTHING, found.verdict)
    interval = _interval(found.low, found.high, number)
    words = found.verdict if strong or not interval else ""
    return Cell(f"× {number(found.ratio)}", f"{words} {interval}".strip(), strong=strong)


def cost(results: Results, analysis: Analysis) -> Table:
    """What each condition took: time, and memory of a step."""
    metrics = ("train_seconds", "compile_seconds", "measure_seconds", "step_memory_mb")
    rows = [
        (_head(c, results), _times(analysis.cost[c]), *(_cell(m, c, analysis, interval=False) for m in metrics))
        for c in results.conditions
    ]
    caption = (
        "Mean ± standard deviation over seeds, per run. The ratio of times is the geometric mean over seeds of that "
        f"of two runs of one seed on one machine; below it the {100 * analysis.confidence:g} % interval, without which "
        "it means little, and which says that the times differ only where it leaves out 1. Training time leaves out "
        "compiling, measuring, and what the first call of a program takes longer. Compile time is that of the "
        "program, which conditions of one shape share: it was spent once. These numbers are as much the machine’s as "
        "the method’s."
    )
    heads = tuple(_headline(METRICS[m]) for m in metrics)
    return _table("What it cost", caption, ("Condition", "Time × baseline", *heads), rows)


def losses(results: Results, analysis: Analysis) -> Table:
    """Losses and accuracy on the training set, at the end of training."""
    metrics = ("train_loss", "test_loss", "train_accuracy")
    rows = [(_head(c, results), *(_cell(m, c, analysis) for m in metrics)) for c in results.conditions]
    caption = f"Mean ± standard deviation over seeds, and the {100 * analysis.confidence:g} % interval for the mean."
    return _table("Losses", caption, ("Condition", *(_headline(METRICS[m]) for m in metrics)), rows)


def published(table: PublishedTable) -> Table:
    """Somebody's published numbers, as they printed them."""
    rows = [tuple(Cell(value if isinstance(value, str) else number(value, 4)) for value in row) for row in table.rows]
    return _table(table.title, table.caveat, table.columns, rows)


def ours(results: Results, analysis: Analysis) -> Table:
    """Our means in the form of the published tables (shares, not percent)."""
    metrics = ("test_accuracy", "best_test_accuracy", "average_flatness", "train_seconds")
    rows = [(Cell(c), *(Cell(number(analysis.summaries[m][c].mean, 4)) for m in metrics)) for c in results.conditions]
    heads = ("Condition", "Final acc", "Best acc", "Avg. flatness", "Train time (s)")
    return _table("This study", "Means over seeds, from the tables above.", heads, rows)


def provenance(results: Results) -> Table:
    """Where the numbers came from."""
    rows = [(Cell(what), Cell(text)) for what, text in results.provenance.items()]
    return _table("Where it all came from", "", ("What", "Value"), rows, numeric=False)


def _rivals(metric: str, results: Results, analysis: Analysis) -> Table:
    """One metric against the rivals."""
    found = analysis.rivals[metric]
    rows = []
    for c in (c for c in results.conditions if c in found):
        head, *rest = _verdict_row(metric, c, verdict(metric, found[c], alpha=analysis.alpha), found[c])
        rival = results.rivals[c]
        rows.append((Cell(head.text, f"rival {rival}{_at_its_time(analysis.rival_cost[c])}"), *rest))
    change = "Difference (points)" if METRICS[metric].unit == "share" else f"Difference ({METRICS[metric].unit})"
    columns = ("Condition", "Verdict", change, *TESTS)
    caption = (
        "Conditions that name a rival besides the baseline, such as plain training with as much compute. In brackets: "
        f"{100 * analysis.confidence:g} % intervals, not corrected. The verdict follows Welch’s test after Holm’s "
        "correction over these conditions."
    )
    numeric = (False, False, *([True] * (len(columns) - 2)))
    return Table(f"{METRICS[metric].label} against rivals", caption, columns, tuple(rows), numeric)


def _verdicts(metric: str, results: Results, analysis: Analysis) -> Table:
    """One tested metric."""
    logs = METRICS[metric].log
    change = "Ratio" if logs else "Difference"
    columns = ("Condition", "Verdict", change, *TESTS)
    found = analysis.comparisons[metric]
    rows = [_verdict_row(metric, c, analysis.verdicts[metric][c], found[c]) for c in results.conditions if c in found]
    scale = (
        "Tested on the logarithm, because flatness spans orders of magnitude; the ratio is that of geometric means. "
        if logs
        else "Differences in percentage points. "
    )
    best = "Selected on the test set, so optimistic under every condition. " if metric == "best_test_accuracy" else ""
    caption = (
        f"{best}{scale}In brackets: {100 * analysis.confidence:g} % intervals, not corrected. "
        "The verdict follows Welch’s test after Holm’s correction."
    )
    numeric = (False, False, *([True] * (len(columns) - 2)))
    title = f"{METRICS[metric].label} against {results.baseline}"
    return Table(title, caption, columns, tuple(rows), numeric)


def _verdict_row(metric: str, name: str, words: str, found: Comparison) -> tuple[Cell, ...]:
    """A condition against the baseline."""
    return (
        Cell(name),
        Cell(words[0].upper() + words[1:], strong=words.startswith("significantly")),
        _difference(metric, found),
        *(Cell(p_value(p)) for p in (found.welch.p, found.welch.holm, found.paired.p, found.paired.holm)),
        _effect(found.hedges_g),
        Cell(_plain(found.d_z)),
    )


def _difference(metric: str, found: Comparison) -> Cell:
    """A difference in points, or on a log scale the ratio it stands for."""
    if METRICS[metric].log:
        ratio, low, high = (math.exp(min(max(x, -700.0), 700.0)) for x in (found.difference, found.low, found.high))
        return Cell(f"× {number(ratio)}" if math.isfinite(ratio) else NOTHING, _interval(low, high, number))
    show = _points if METRICS[metric].unit == "share" else _finer
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


def _cell(metric: str, condition: str, analysis: Analysis, *, interval: bool = True) -> Cell:
    """A condition's mean ± sd, and its interval; without spread there is no interval worth the name."""
    s = analysis.summaries[metric][condition]
    share = METRICS[metric].unit == "share"
    text = spread(100 * s.mean, 100 * s.sd, least=2, most=2) if share else spread(s.mean, s.sd)
    if not interval or s.count < 2:
        return Cell(text)
    if s.sd == 0:
        return Cell(text, "no spread")
    if share:
        return Cell(text, _interval(100 * s.low, 100 * s.high, "{:.2f}".format))
    if METRICS[metric].log:
        logs = analysis.log_summaries[metric][condition]
        low, high = (math.exp(x) if abs(x) < 700 else math.nan for x in (logs.low, logs.high))
        return Cell(text, _interval(low, high, number))
    return Cell(text, _interval(s.low, s.high, number))


def _head(condition: str, results: Results) -> Cell:
    """A condition's name, the baseline marked."""
    return Cell(condition, "baseline" if condition == results.baseline else "")


def _headline(metric: Metric) -> str:
    """A metric's name with its unit."""
    return f"{metric.label} ({'%' if metric.unit == 'share' else metric.unit})"


def _times(times: Times) -> Cell:
    """A ratio of training times, and its interval."""
    text = f"{number(times.ratio)} ×" if math.isfinite(times.ratio) else NOTHING
    return Cell(text, _interval(times.low, times.high, number))


def _at_its_time(times: Times) -> str:
    """The same in words beside a rival's name; nothing where there is no interval."""
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

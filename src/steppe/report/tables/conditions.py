"""What was measured of each condition: mean, spread and interval."""

from collections.abc import Mapping, Sequence

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.verdict import Ratio
from steppe.report.document import Cell, Table
from steppe.report.formats import percent
from steppe.report.tables.base import (
    condition_cell,
    heading,
    ratio_cell,
    summary_cell,
    summary_rows,
    table,
)

Quantities = Sequence[QuantityComparison]

_BEST = "The best accuracy is the highest over measured epochs, selected on the test set: it is optimistic. "
_SELECTED = (
    "The best validation epoch is that of the highest validation accuracy, so that test data select nothing there. "
)


def outcomes(quantities: Quantities, runs: Mapping[str, int], baseline: str) -> Table:
    """Accuracy, tr(H²) and time of each condition."""
    names = {by.quantity.name for by in quantities}
    selected, best = "selected_test_accuracy" in names, "best_test_accuracy" in names
    caption = (
        f"Mean ± standard deviation over seeds; below it the {percent(quantities[0].confidence)} confidence interval "
        "for the mean (Student’s t; for tr(H²), that of the geometric mean, from the logarithms). "
        f"{_BEST if best else ''}{_SELECTED if selected else ''}"
        "tr(H²) is that of the loss on "
        "fixed training batches with dropout off, measured outside training time for every condition; lower is "
        "flatter. Training time excludes compilation, measurement, and the extra time of a program’s first call."
    )
    rows = [(row[0], Cell(str(runs[c])), *row[1:]) for c, row in summary_rows(quantities, baseline).items()]
    columns = ("Condition", "Runs", *(heading(by.quantity) for by in quantities))
    return table("Results by condition", caption, columns, rows)


def losses(quantities: Quantities, baseline: str) -> Table:
    """Losses and accuracy on the training set, at the end of training."""
    confidence = percent(quantities[0].confidence)
    caption = f"Mean ± standard deviation over seeds, and the {confidence} confidence interval for the mean."
    columns = ("Condition", *(heading(by.quantity) for by in quantities))
    return table("Losses at the end of training", caption, columns, summary_rows(quantities, baseline).values())


def spectrum(quantities: Quantities, baseline: str) -> Table:
    """The ends of the spectrum where training ended; no rows where the study does not track them."""
    tracked = any(summary.count for by in quantities for summary in by.summaries.values())
    caption = (
        "The largest and the smallest eigenvalue of the Hessian of the loss on fixed training examples, without "
        "dropout, and the difference between them: mean ± standard deviation over seeds, and the "
        f"{percent(quantities[0].confidence)} confidence interval for the mean (for the geometric mean of λ_max and of "
        "the difference). Networks that end at different training losses are compared below at equal ones."
    )
    columns = ("Condition", *(by.quantity.label for by in quantities))
    rows = summary_rows(quantities, baseline).values() if tracked else ()
    return table("Hessian spectrum at the end of training", caption, columns, rows)


def cost(quantities: Quantities, times: Mapping[str, Ratio], baseline: str) -> Table:
    """The cost of each condition: time, and memory of a step."""
    rows = [
        (
            condition_cell(c, baseline),
            ratio_cell(ratio),
            *(summary_cell(by, c, with_interval=False) for by in quantities),
        )
        for c, ratio in times.items()
    ]
    caption = (
        "Mean ± standard deviation over seeds, per run. The ratio of times is the geometric mean over seeds of the "
        "ratio of two runs with the same seed on the same machine; below it is the "
        f"{percent(quantities[0].confidence)} confidence interval. The times differ by more than noise only where that "
        "interval excludes 1. Training time excludes compilation, measurement, and the extra time of a program’s first "
        "call. Conditions of one shape share one compiled program, so its compile time was spent once. These numbers "
        "depend on the machine as much as on the method."
    )
    columns = ("Condition", "Time × baseline", *(heading(by.quantity) for by in quantities))
    return table("Cost", caption, columns, rows)

"""Cells and rows that several tables share."""

from collections.abc import Iterable, Mapping, Sequence

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.quantities import Quantity
from steppe.analysis.verdict import Ratio
from steppe.report.document import Cell, Row, Table
from steppe.report.formats import NOTHING, interval, number, spread


def table(title: str, caption: str, columns: Sequence[str], rows: Iterable[Row], *, numeric: bool = True) -> Table:
    """A table whose columns are all numeric but the first, or none."""
    return Table(title, caption, tuple(columns), tuple(rows), (False, *([numeric] * (len(columns) - 1))))


def facts_table(title: str, facts: Mapping[str, str]) -> Table:
    """What is known, one fact a row."""
    rows = ((Cell(what), Cell(text)) for what, text in facts.items())
    return table(title, "", ("What", "Value"), rows, numeric=False)


def summary_rows(quantities: Sequence[QuantityComparison], baseline: str) -> dict[str, Row]:
    """Condition -> its name, and its mean of each quantity with an interval."""
    conditions = quantities[0].summaries
    return {c: (condition_cell(c, baseline), *(summary_cell(by, c) for by in quantities)) for c in conditions}


def condition_cell(condition: str, baseline: str) -> Cell:
    """A condition's name, the baseline marked."""
    return Cell(condition, "baseline" if condition == baseline else "")


def summary_cell(found: QuantityComparison, condition: str, *, with_interval: bool = True) -> Cell:
    """A condition's mean ± sd, and its interval; without spread there is no interval worth the name."""
    mean, sd = found.summaries[condition].mean, found.summaries[condition].sd
    share = found.quantity.unit == "share"
    text = spread(100 * mean, 100 * sd, least=2, most=2) if share else spread(mean, sd)
    if not with_interval or found.summaries[condition].count < 2:
        return Cell(text)
    if sd == 0:
        return Cell(text, "no spread")
    _, low, high = found.center(condition)
    if share:
        return Cell(text, interval(100 * low, 100 * high, "{:.2f}".format))
    return Cell(text, interval(low, high))


def ratio_cell(found: Ratio) -> Cell:
    """A ratio, and its interval."""
    return Cell(f"{number(found.ratio)} ×" if found.seeds else NOTHING, interval(found.low, found.high))


def heading(quantity: Quantity) -> str:
    """A quantity's name with its unit."""
    unit = "%" if quantity.unit == "share" else quantity.unit or quantity.direction
    return f"{quantity.label} ({unit})" if unit else quantity.label

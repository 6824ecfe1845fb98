"""Published numbers, and ours in the same form."""

from collections.abc import Sequence

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.results import PublishedTable
from steppe.report.document import Cell, Table
from steppe.report.formats import number
from steppe.report.tables.base import table


def published(found: PublishedTable) -> Table:
    """Somebody's published numbers, as they printed them."""
    rows = [tuple(Cell(value if isinstance(value, str) else number(value, 4)) for value in row) for row in found.rows]
    return table(found.title, found.caveat, found.columns, rows)


def this_study(quantities: Sequence[QuantityComparison]) -> Table:
    """Our means in the form of published tables (shares, not percent)."""
    rows = [(Cell(c), *(Cell(number(by.summaries[c].mean, 4)) for by in quantities)) for c in quantities[0].summaries]
    columns = ("Condition", *(by.quantity.label + (" (s)" if by.quantity.unit == "s" else "") for by in quantities))
    return table("This study", "Means over seeds, from the tables above.", columns, rows)

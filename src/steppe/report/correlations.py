"""Measures against outcomes, as a section: one table an outcome."""

from steppe.analysis.correlation.pairs import Correlation, Tau
from steppe.analysis.correlation.studies import Correlations
from steppe.core.checks import joined
from steppe.report.document import Block, Cell, Document, Paragraph, Row, Section, Sentences, Table
from steppe.report.formats import NOTHING, interval, percent, signed
from steppe.report.tables.base import table

TITLE = "Correlation of measures with outcomes"


def section(found: Correlations) -> Section:
    """All of it."""
    blocks: tuple[Block, ...] = (
        Paragraph(about(found)),
        Sentences(tuple(paradoxes(found)), warning=True),
        *(outcome_table(found, outcome) for outcome in found.outcomes),
    )
    return Section(TITLE, blocks, brief=True)


def document(found: Correlations) -> Document:
    """A report of correlations alone."""
    return Document("correlations", TITLE, sections=(section(found),))


def about(found: Correlations) -> str:
    """What the numbers are, and how far to trust them."""
    factors = joined(found.factors) if found.factors else "nothing"
    alike = (
        f"“Matched”: over pairs whose {found.matched} differs by at most {found.tolerance:g}. " if found.matched else ""
    )
    return (
        f"Kendall’s τ over {found.networks} networks of {joined(found.studies)}: 1 where the larger measure always "
        "goes with the larger outcome, −1 where always with the smaller, 0 where neither. In brackets: "
        f"{percent(found.confidence)} intervals, for which whole conditions are drawn anew. “Within”: over pairs of "
        f"one condition. {alike}“Granulated”: over networks that differ in one setting alone (Jiang 2020); here vary "
        f"{factors}. “Information”: what the measure says of the outcome beyond any two settings, from 0 to 1. "
        "Exploratory: these correlations were not declared in advance, and none says what causes what."
    )


def paradoxes(found: Correlations) -> list[str]:
    """Where the correlation within conditions is the opposite of that overall."""
    return [
        f"{measure} and {outcome}: Simpson’s paradox. Over all networks τ is {signed(c.overall.value, decimals=2)}, "
        f"and within conditions {signed(c.within.value, decimals=2)}."
        for (measure, outcome), c in found.found.items()
        if c.is_paradoxical
    ]


def outcome_table(found: Correlations, outcome: str) -> Table:
    """One outcome: one row a measure."""
    rows = [_row(m, found.found[m, outcome]) for m in found.measures if (m, outcome) in found.found]
    columns = ("Measure", "Overall τ", "Within τ", "Matched τ", "Granulated τ", "Information", "Networks")
    return table(f"Measures against {outcome}", "", columns, rows)


def _row(measure: str, c: Correlation) -> Row:
    share = NOTHING if c.information != c.information else f"{c.information:.2f}"
    ends = (Cell(signed(c.granulated, decimals=2)), Cell(share), Cell(f"{c.networks}"))
    return (Cell(measure), *(_tau(tau) for tau in (c.overall, c.within, c.matched)), *ends)


def _tau(tau: Tau) -> Cell:
    """A correlation; it stands out where its interval leaves out 0."""
    certain = tau.low > 0 or tau.high < 0
    return Cell(signed(tau.value, decimals=2), interval(tau.low, tau.high, lambda x: signed(x, decimals=2)), certain)

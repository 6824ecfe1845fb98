"""Measures against outcomes, as a section: a figure of all, and the tables of Jiang and Andriushchenko."""

import math
from dataclasses import replace
from functools import partial

from steppe.analysis.correlation.pairs import Correlation, Tau
from steppe.analysis.correlation.studies import Correlations
from steppe.report.document import Block, Cell, Document, Gallery, Paragraph, Row, Section, Sentences, Table
from steppe.report.figures import correlations as figures
from steppe.report.formats import NOTHING, interval, signed
from steppe.report.tables.base import table
from steppe.report.wording.correlations import about, column, paradoxes
from steppe.report.wording.sizes import mid_sentence

FEW = 3
"""More outcomes have their tables folded."""

TITLE = "Correlation of measures with outcomes"


def section(found: Correlations) -> Section:
    """All of it."""
    tables = [one for outcome in found.outcomes for one in _shown(found, outcome)]
    blocks: tuple[Block, ...] = (
        Paragraph(about(found)),
        Sentences(tuple(paradoxes(found)), warning=True),
        Gallery(partial(figures.matrix, found)),
        *tables,
    )
    return Section(TITLE, blocks, brief=True)


def document(found: Correlations) -> Document:
    """A report of correlations alone."""
    return Document("correlations", TITLE, sections=(section(found),))


def _shown(found: Correlations, outcome: str) -> tuple[Table, ...]:
    """The tables of one outcome; of many, all but those of a declared one are shown on request."""
    tables = outcome_tables(found, outcome)
    if len(found.outcomes) <= FEW or (found.plan and found.plan.outcome == outcome):
        return tables
    return tuple(replace(one, folded=True) for one in tables)


def outcome_tables(found: Correlations, outcome: str) -> tuple[Table, ...]:
    """One outcome: τ over three sets of pairs, τ setting by setting, and information."""
    rows = {m: found.found[m, outcome] for m in found.measures if (m, outcome) in found.found}
    axes = list(dict.fromkeys(name for c in rows.values() for name in c.axes))
    fewer = {m: c.networks for m, c in rows.items() if c.networks != found.networks}
    caption = "".join(f"{column(m)}: {count} networks. " for m, count in fewer.items()).strip()
    columns = ("Measure", "Overall τ", "Within τ", "Matched τ")
    words = mid_sentence(column(outcome))
    tables = [table(f"Measures against {words}", caption, columns, [_row(m, c) for m, c in rows.items()])]
    if axes:
        heads = ("Measure", *(column(name.rpartition(".")[2]) for name in axes), "Mean")
        granulated = [_granulated(m, c, axes) for m, c in rows.items()]
        tables.append(table(f"Granulated τ with {words}, setting by setting", "", heads, granulated))
        heads = ("Measure", "None known", "One known", "Two known")
        tables.append(table(f"Information about {words} beyond settings", "", heads, map(_known, rows, rows.values())))
    return tuple(tables)


def _row(measure: str, c: Correlation) -> Row:
    return (Cell(column(measure)), *(_tau(tau) for tau in (c.overall, c.within, c.matched)))


def _granulated(measure: str, c: Correlation, axes: list[str]) -> Row:
    nothing = float("nan")
    values = (*(c.axes.get(name, nothing) for name in axes), c.granulated)
    return (Cell(column(measure)), *(Cell(signed(value, decimals=2)) for value in values))


def _known(measure: str, c: Correlation) -> Row:
    return (Cell(column(measure)), *(Cell(NOTHING if math.isnan(k) else f"{k:.3f}") for k in c.informations))


def _tau(tau: Tau) -> Cell:
    """A correlation; it stands out where its interval leaves out 0."""
    certain = tau.low > 0 or tau.high < 0
    return Cell(signed(tau.value, decimals=2), interval(tau.low, tau.high, lambda x: signed(x, decimals=2)), certain)

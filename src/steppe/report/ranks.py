"""Ranks of treatments over data sets, as a section: Friedman's test, the critical-difference diagram, and the means."""

from functools import partial

from steppe.analysis.comparison import Ranks
from steppe.report.document import Cell, Gallery, Paragraph, Section
from steppe.report.figures import ranks as figures
from steppe.report.formats import number, p_value, percent
from steppe.report.tables.base import heading, table
from steppe.report.wording.sizes import mid_sentence


def section(found: Ranks) -> Section:
    """All of it."""
    scale = 100.0 if found.quantity.unit == "share" else 1.0
    columns = ("Treatment", "Average rank", "p against the first", *found.data)
    rows = [
        (
            Cell(treatment),
            Cell(f"{found.comparison.ranks[i]:.2f}"),
            Cell(p_value(found.against[i]) if i else "–"),
            *(Cell(number(scale * means[i])) for means in found.means),
        )
        for i, treatment in enumerate(found.treatments)
    ]
    caption = "p by ranks, with Holm’s correction over the other treatments (Demšar 2006). Means over seeds."
    return Section(
        "Ranks over data sets",
        (
            Paragraph(about(found)),
            Gallery(partial(figures.pictures, found)),
            table(f"{heading(found.quantity)} on each data set", caption, columns, rows),
        ),
        brief=True,
    )


def about(found: Ranks) -> str:
    """Friedman's test in words."""
    blocks, level = found.comparison.blocks, 1 - found.confidence
    seen = "the treatments do not all rank alike" if found.comparison.p <= level else "no difference in rank was shown"
    few = " With so few data sets only the largest differences in rank can be shown." if blocks < 10 else ""
    way = f" ({found.quantity.direction})" if found.quantity.direction else ""
    form = ", exact" if found.comparison.exact else " in Iman and Davenport’s form"
    return (
        f"Each data set is one fact, whatever the number of seeds: {len(found.treatments)} treatments are ranked on "
        f"each of {blocks} by {mid_sentence(found.quantity.label)}{way}, 1 the {found.best}. Friedman’s test{form}: "
        f"p = {p_value(found.comparison.p)}, so {seen} at the {percent(round(level, 12))} level.{few}"
    )

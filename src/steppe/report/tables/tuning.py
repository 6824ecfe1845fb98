"""How settings were chosen on the validation part."""

import math

from steppe.analysis.quantities import QUANTITIES
from steppe.analysis.results import TunedCondition, Tuning
from steppe.report.document import Cell, Row, Table
from steppe.report.formats import NOTHING, number
from steppe.report.tables.base import table


def tuning(found: Tuning) -> Table:
    """Each condition's chosen settings with their ranges, and what the trials came to."""
    objective = QUANTITIES[found.objective].label.removeprefix("Final ").capitalize()
    columns = ("Condition", "Setting", "Chosen", "Range", "Trials", objective, "As written")
    caption = (
        "The chosen value of each setting, and the range in which it was looked for; the trials, with those that "
        "diverged or were ended early; the objective of the chosen trial, and of the settings as they were "
        "written, where these lay within the ranges and did not diverge."
    )
    rows = [row for each in found.conditions for row in _rows(each, share=QUANTITIES[found.objective].unit == "share")]
    made = table("Tuning", caption, columns, rows)
    return Table(made.title, made.caption, made.columns, made.rows, (False, False, True, False, True, True, True))


def _rows(found: TunedCondition, *, share: bool) -> list[Row]:
    """A row for each setting, the first with what is said of all."""
    rows: list[Row] = []
    for path, value in found.chosen.items():
        first = not rows
        counts = [
            f"{count} {word}" for count, word in ((found.diverged, "diverged"), (found.pruned, "pruned")) if count
        ]
        rows.append(
            (
                Cell(found.name),
                Cell(path),
                Cell(number(value) if isinstance(value, float) else str(value)),
                Cell(found.ranges[path]),
                Cell(", ".join([str(found.trials), *counts])) if first else Cell(""),
                Cell(_score(found.score, share)) if first else Cell(""),
                Cell(_score(found.first, share)) if first else Cell(""),
            )
        )
    return rows


def _score(value: float, share: bool) -> str:
    if math.isnan(value):
        return NOTHING
    return f"{100 * value:.2f} %" if share else number(value)

"""Measures in the terminal."""

import math
from collections.abc import Sequence

import polars
from rich.console import Console
from rich.text import Text

from steppe.analysis.measurements import in_order
from steppe.measures.memory import Plan
from steppe.networks.measurement import MeasurementResult
from steppe.report.document import Cell, Table
from steppe.report.formats import NOTHING, number, spread
from steppe.report.pages.measures import number_of, value_cell
from steppe.report.terminal.document import drawn as rich_table

MOST_COLUMNS = 4
"""Networks one by one; more are told by condition."""

COLUMN = 26
"""Characters that a column takes: a table has as many networks as the terminal has room for."""


def show(found: MeasurementResult, console: Console) -> None:
    """What was measured, in the terminal: each value, or the means of many networks' conditions."""
    rows = found.rows
    names = rows["run"].unique(maintain_order=True).to_list()
    by = {(row["run"], row["quantity"]): row for row in rows.to_dicts()}
    quantities = list(in_order(rows))
    if len(names) == 1:
        lines: list[tuple[Cell, ...]] = [
            (Cell(q), number_of(by[names[0], q]), Cell(by[names[0], q]["note"])) for q in quantities
        ]
        tables = [Table(names[0], "", ("Quantity", "Value ± sem", "Note"), tuple(lines), (False, True, False))]
    elif len(names) <= MOST_COLUMNS:
        known = {row["quantity"]: row["note"] for row in rows.filter("converged").to_dicts()}
        tables = []
        room = max(console.width // COLUMN - 1, 1)
        for some in (names[at : at + room] for at in range(0, len(names), room)):
            lines = [(Cell(q), *(value_cell(by.get((name, q)), known) for name in some)) for q in quantities]
            columns = ("Quantity", *some)
            tables.append(Table("Value ± sem", "", columns, tuple(lines), (False, *(True for _ in some))))
    else:
        tables = [_means(rows, quantities)]
    for drawn in map(rich_table, tables):
        drawn.columns[0].min_width, drawn.columns[0].no_wrap = None, True  # names are what one copies
        console.print(drawn)
    for note in found.notes:
        console.print(Text(f"! {note}", style="yellow"))


def planned(plan: Plan) -> str:
    """What a measurement will take, in one line."""
    show = lambda count: f"{number(count / 1e6)} MB" if count < 1e9 else f"{number(count / 1e9)} GB"  # noqa: E731
    return (
        f"{plan.parameters:,} parameters, {plan.examples:,} examples; planned peak of memory {show(plan.peak)}: data "
        f"{show(plan.data)}, products with the Hessian {show(plan.products)} (by analysis of the compiled program), "
        f"vectors {show(plan.vectors)} (by formula)."
    )


def _means(rows: polars.DataFrame, quantities: Sequence[str]) -> Table:
    """Mean ± standard deviation over the runs of each condition."""
    conditions = rows["condition"].unique(maintain_order=True).to_list()
    found = rows.group_by("condition", "quantity").agg(
        polars.col("value").mean().alias("mean"),
        polars.col("value").std().alias("sd"),
        (~polars.col("converged")).sum(),
    )
    by = {(condition, quantity): rest for condition, quantity, *rest in found.rows()}

    def cell(condition: str, quantity: str) -> Cell:
        if (condition, quantity) not in by:
            return Cell(NOTHING)
        mean, sd, bounds = by[condition, quantity]
        sd = math.nan if sd is None else sd
        return Cell(spread(mean, sd), f"{bounds} only bounds" if bounds else "")

    lines = tuple((Cell(q), *(cell(c, q) for c in conditions)) for q in quantities)
    return Table("Mean ± sd over runs", "", ("Quantity", *conditions), lines, (False, *(True for _ in conditions)))

"""Measures in the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars
from rich.console import Console
from rich.text import Text

from steppe.analysis.measurements import Mean, NetworkMeasurements, condition_means, network_measurements
from steppe.measures.memory import Plan
from steppe.report.document import Cell, Table
from steppe.report.formats import NOTHING, number, spread
from steppe.report.measures import number_cell, value_cell
from steppe.report.tables.base import table
from steppe.report.terminal.document import drawn as rich_table

MOST_COLUMNS = 4
"""Networks one by one; more are told by condition."""

COLUMN = 26
"""Characters that a column takes: a table has as many networks as the terminal has room for."""


def show(rows: polars.DataFrame, notes: Sequence[str], console: Console) -> None:
    """What was measured, in the terminal: each value, or the means of many networks' conditions."""
    found = network_measurements(rows)
    for drawn in map(rich_table, _tables(found, max(console.width // COLUMN - 1, 1))):
        drawn.columns[0].min_width, drawn.columns[0].no_wrap = None, True  # names are what one copies
        console.print(drawn)
    for note in notes:
        console.print(Text(f"! {note}", style="yellow"))


def _tables(found: NetworkMeasurements, most: int) -> Iterator[Table]:
    """One network with its notes; a few, at most so many in a table; or the means of conditions."""
    names = found.networks
    if len(names) == 1:
        known = {name: found.values[names[0], name] for name in found.measures}
        rows = [(Cell(name), number_cell(row), Cell(row["note"])) for name, row in known.items()]
        yield Table(names[0], "", ("Quantity", "Value ± sem", "Note"), tuple(rows), (False, True, False))
    elif len(names) <= MOST_COLUMNS:
        for some in (kind[at : at + most] for kind in found.kinds for at in range(0, len(kind), most)):
            yield _side_by_side(found, some)
    else:
        yield _means(condition_means(found.rows), found.measures)


def _side_by_side(found: NetworkMeasurements, names: Sequence[str]) -> Table:
    """Some networks, or some pairs, and what was asked of any of them."""
    value = lambda name, quantity: value_cell(found.values.get((name, quantity)), found.remarks)  # noqa: E731
    rows = [(Cell(q), *(value(name, q) for name in names)) for q in found.asked(names)]
    return table("Value ± sem", "", ("Quantity", *names), rows)


def planned(plan: Plan) -> str:
    """What a measurement will take, in one line."""
    show = lambda count: f"{number(count / 1e6)} MB" if count < 1e9 else f"{number(count / 1e9)} GB"  # noqa: E731
    return (
        f"{plan.parameters:,} parameters, {plan.examples:,} examples; estimated peak memory {show(plan.peak)}: data "
        f"{show(plan.data)}, products with the Hessian {show(plan.products)} (by analysis of the compiled program), "
        f"vectors {show(plan.vectors)} (by formula)."
    )


def _means(means: Mapping[tuple[str, str], Mean], quantities: Iterable[str]) -> Table:
    """Mean ± standard deviation over the runs of each condition."""
    conditions = list(dict.fromkeys(condition for condition, _ in means))

    def cell(found: Mean | None) -> Cell:
        if found is None:
            return Cell(NOTHING)
        return Cell(spread(found.mean, found.sd), f"{found.bounds} only bounds" if found.bounds else "")

    rows = [(Cell(q), *(cell(means.get((c, q))) for c in conditions)) for q in quantities]
    return table("Mean ± sd over runs", "", ("Quantity", *conditions), rows)

"""Measures of trained networks: a section of a study's report, a page of its own, and tables in the terminal."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import polars
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from steppe.outcomes.statistics import Comparison
from steppe.report.drawing import STYLE, WIDTH, Look, Picture, label_of, log_axis, looks, picture
from steppe.report.environment import ENVIRONMENT
from steppe.report.formats import NOTHING, number, p_value, spread
from steppe.report.tables import Cell, Table
from steppe.report.text import to_rich
from steppe.sharpness import MEASURES
from steppe.sharpness.memory import Plan
from steppe.study import measures as stored
from steppe.study.compared import Compared, Density, about, densities, in_order, latest
from steppe.study.measuring import Measured
from steppe.study.wording import joined

FAMILIES = {
    "of_fit": "Fit",
    "of_curvature": "Curvature of the loss",
    "of_moves": "How the loss rises when the weights move",
    "of_outputs": "Norms, effective numbers of parameters, and the noise that accuracy bears",
}
"""The headings of measures, by the module that holds them."""

MOST_COLUMNS = 4
"""Networks side by side in a terminal; more are told by condition."""

TESTS = (
    "Mean ± standard deviation over runs, their number in brackets. Below it the comparison with {baseline} by Welch’s "
    "test with Holm’s correction over the conditions of one row: a ratio (×) where logarithms are compared, otherwise "
    "a difference. These tests were not declared in advance, and with so many rows some differences are chance."
)


@dataclass(frozen=True)
class Section:
    """What a page shows of measures: sentences, tables, pictures, and how it was all measured."""

    about: str
    notes: tuple[str, ...]
    caption: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    measures: Table


def of_study(found: Compared) -> Section:
    """The section of a study's report: quantities × conditions."""
    heads = ("", *(f"{c} ({found.counts[c]})" for c in found.conditions))
    rows = {
        q: (Cell(q, found.remarks.get(q, "")), *(_compared(found, q, c) for c in found.conditions))
        for q in found.quantities
    }
    return Section(
        about=found.about,
        notes=found.notes,
        caption=TESTS.format(baseline=found.baseline),
        tables=tuple(_by_family(found.quantities, heads, rows)),
        pictures=tuple(_densities(found.densities)),
        measures=_asked(found.rows),
    )


def of_folder(folder: Path) -> Section:
    """The page of a folder that holds nothing but measures: quantities × networks."""
    rows = latest(stored.read(folder))
    runs = rows["run"].unique(maintain_order=True).to_list()
    quantities = in_order(rows)
    by = {(row["run"], row["quantity"]): row for row in rows.to_dicts()}
    cells = {q: (Cell(q), *(_value(by.get((run, q))) for run in runs)) for q in quantities}
    return Section(
        about=about(rows),
        notes=(),
        caption="Each value ± its standard error, where there is one and it is known.",
        tables=tuple(_by_family(quantities, ("", *runs), cells)),
        pictures=tuple(_densities(densities(rows, "run", runs, folder))),
        measures=_asked(rows),
    )


def page(folder: Path) -> str:
    """Its HTML. The same numbers give the same bytes."""
    rows = stored.read(folder)
    facts = {
        "Parameters": joined(rows["source"].unique(maintain_order=True)),
        "Loss": joined(rows["network"].unique(maintain_order=True)),
        "Software": joined(
            f"Steppe {s}, JAX {j}" for s, j in rows.select("steppe_version", "jax_version").unique().rows()
        ),
    }
    origin = Table("Where it all came from", "", ("What", "Value"), _cells(facts), (False, False))
    return ENVIRONMENT.get_template("measures.html.j2").render(section=of_folder(folder), provenance=origin)


def show(found: Measured, console: Console) -> None:
    """What was measured, in the terminal: each value, or the means of many networks' conditions."""
    rows = found.rows
    names = rows["run"].unique(maintain_order=True).to_list()
    by = {(row["run"], row["quantity"]): row for row in rows.to_dicts()}
    quantities = list(in_order(rows))
    if len(names) == 1:
        lines = [(Cell(q), _number(by[names[0], q]), Cell(by[names[0], q]["note"])) for q in quantities]
        table = Table(names[0], "", ("Quantity", "Value ± sem", "Note"), tuple(lines), (False, True, False))
    elif len(names) <= MOST_COLUMNS:
        lines = [(Cell(q), *(_value(by.get((name, q)), note=False) for name in names)) for q in quantities]
        table = Table("Value ± sem", "", ("Quantity", *names), tuple(lines), (False, *(True for _ in names)))
    else:
        table = _means(rows, quantities)
    drawn = to_rich(table)
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


def _by_family(
    quantities: Mapping[str, str], heads: tuple[str, ...], rows: Mapping[str, tuple[Cell, ...]]
) -> Iterator[Table]:
    """One table for each family of measures."""
    for family, title in FAMILIES.items():
        chosen = tuple(rows[q] for q, measure in quantities.items() if _family(measure) == family)
        if chosen:
            yield Table(title, "", heads, chosen, (False, *(True for _ in heads[1:])))


def _asked(rows: polars.DataFrame) -> Table:
    """Each measure: its question, its settings, and what it does not change under."""
    under = {"nodes": "nodes", "layers": "layers", "none": NOTHING}
    settings = dict(rows.select("measure", "settings").unique(maintain_order=True).rows())
    lines = []
    for name in [*MEASURES, *(name for name in settings if name not in MEASURES)]:
        if name in settings:
            known = MEASURES.get(name)
            shown = ", ".join(f"{k} {v}" for k, v in json.loads(settings[name]).items() if v is not None)
            facts = (known.question, shown or NOTHING, under[known.invariance]) if known else ("", shown, "")
            lines.append((Cell(name), *map(Cell, facts)))
    columns = ("Measure", "Question", "Settings", "Unchanged by rescaling")
    caption = (
        "Rescaling of a ReLU network that leaves its function as it is: of its hidden nodes one by one, which includes "
        "whole layers, or of whole layers alone."
    )
    return Table("What was measured, and how", caption, columns, tuple(lines), (False,) * 4)


def _cells(facts: Mapping[str, str]) -> tuple[tuple[Cell, ...], ...]:
    return tuple((Cell(what), Cell(text)) for what, text in facts.items())


def _number(row: Mapping) -> Cell:
    """A value with its standard error, where it has one."""
    exact = not row["sem"] > 0  # 0, or NaN
    return Cell(number(row["value"]) if exact else spread(row["value"], row["sem"]))


def _value(row: Mapping | None, *, note: bool = True) -> Cell:
    """The same with its note; for a terminal only where it is no converged number."""
    if row is None:
        return Cell(NOTHING)
    return Cell(_number(row).text, row["note"] if note or not row["converged"] else "")


def _family(measure: str) -> str:
    return MEASURES[measure].family if measure in MEASURES else next(iter(FAMILIES))


def _compared(found: Compared, quantity: str, condition: str) -> Cell:
    """A condition's mean and spread, and how it compares with the baseline."""
    summary, bounds = found.summaries[quantity][condition], found.open[quantity][condition]
    if not summary.count:
        return Cell(NOTHING)
    text = spread(summary.mean, summary.sd)
    if condition == found.baseline or bounds:
        return Cell(text, f"{bounds} of {summary.count} only bounds" if bounds else "baseline")
    comparison = found.comparisons[quantity].get(condition)
    if comparison is None:
        return Cell(text, "not tested: the baseline’s are bounds")
    words = found.verdicts[quantity][condition]
    if words.startswith("significantly"):
        way = "higher" if comparison.difference > 0 else "lower"
        p = p_value(comparison.welch.holm)
        p = p if p.startswith("<") else f"= {p}"
        return Cell(text, f"{way}, {_size(comparison, quantity in found.log)}, p {p}", strong=True)
    return Cell(text, words.partition(":")[0] if words.startswith("no significant") else words)


def _size(comparison: Comparison, log: bool) -> str:
    """A ratio of geometric means, or a difference."""
    if log:
        return f"× {number(math.exp(min(max(comparison.difference, -700.0), 700.0)), 2)}"
    return f"by {number(abs(comparison.difference), 2)}"


def _densities(found: Mapping[str, Density]) -> Iterator[Picture]:
    """The spectral density of each condition, one above the other on common axes."""
    if not found:
        return
    style, count = looks(list(found)), len(found)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.95 * count), layout="constrained")
        axes = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False).ravel()
    # a curve for a single eigenvalue is so high where the resolution is coarsest: what is lower is no eigenvalue
    floor = 0.3 * min(1 / (density.width * math.sqrt(2 * math.pi)) for density in found.values())
    for ax, (name, density) in zip(axes, found.items(), strict=True):
        look: Look = style[name]
        ax.fill_between(density.grid, floor, density.density.clip(floor), color=look.color, alpha=0.25, lw=0)
        ax.plot(density.grid, density.density.clip(floor), color=look.color, lw=1.1)
        ax.set_title(label_of(name), loc="right", y=0.72, pad=0, fontsize=9)
    peak = max(float(density.density.max()) for density in found.values())
    for ax in axes:
        log_axis(ax.yaxis, [floor, peak])
        ax.set_ylim(floor, 3 * peak)
    axes[-1].set_xlabel("Eigenvalue of the Hessian")
    figure.supylabel("Eigenvalues per unit", fontsize=10)
    widths = [density.width for density in found.values()]
    ends = "; ".join(f"{name} up to {number(_end(density, floor))}" for name, density in found.items())
    caption = (
        "Distribution of the Hessian’s eigenvalues, on one scale; the vertical axis is logarithmic, and the area under "
        "a curve is the number of eigenvalues. Each eigenvalue is drawn as a normal curve as wide as the resolution, "
        f"{number(min(widths), 2)} to {number(max(widths), 2)}: the width of the peak at zero is no more than that."
    )
    yield picture(figure, f"Spectral density: {ends}.", caption)


def _end(density: Density, floor: float) -> float:
    """The largest eigenvalue that is drawn."""
    return float(density.grid[density.density > floor].max(initial=0.0))

"""Measurements of trained networks: a section of a study's report, and a page of its own."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import polars

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.diagrams import Diagrams
from steppe.analysis.measurements import Measurements, NetworkMeasurements
from steppe.analysis.verdict import Verdict
from steppe.core.checks import joined
from steppe.extensions import is_function
from steppe.measures import MEASURES
from steppe.measures.words import in_words
from steppe.report.document import Caption, Cell, Document, Gallery, Paragraph, Picture, Section, Sentences, Table
from steppe.report.figures.diagrams import pictures
from steppe.report.formats import NOTHING, number, p_value, signed, spread
from steppe.report.tables.base import facts_table
from steppe.report.wording.measurements import about, network_remarks, notes
from steppe.report.wording.plans import CORRECTIONS, test
from steppe.report.wording.sizes import sentence_case
from steppe.report.wording.verdicts import verdict

TITLE = "Sharpness and curvature"

FAMILIES = {
    "fit": "Fit",
    "curvature": "Curvature of the loss",
    "perturbed": "Loss under perturbed weights",
    "parametric": "Norms, effective numbers of parameters, and noise tolerance",
    "outcome": "Behaviour of the network",
    "user": "User-defined measures",
}
"""The headings of measures, by their family; that of a user's own is not known without running their code."""

TESTS = (
    "Mean ± standard deviation over runs; their number is in brackets. Below it is the comparison with {baseline} by "
    "{test} with {correction} over the conditions of one row: a ratio (×) where logarithms are compared, a "
    "difference otherwise. "
)
EXPLORATORY = (
    "These tests are exploratory: they were not declared in advance. Among so many, some differences arise by chance."
)
SOME_DECLARED = (
    "{names} {were} declared in advance, and corrected over all that was declared, as in the tables above. All other "
    "tests are exploratory: among so many, some differences arise by chance."
)


def study_section(found: Measurements, baseline: str) -> Section:
    """The section of a study's report: quantities × conditions."""
    heads = ("", *(f"{c} ({found.counts[c]})" for c in found.conditions))
    rows = {
        name: (Cell(in_words(name), _detail(found, name)), *(_compared(by, c, baseline) for c in found.conditions))
        for name, by in found.quantities.items()
    }
    tables = tuple(_by_family(found.measures, heads, rows))
    return _section(found.rows, tuple(notes(found)), partial(pictures, found.diagrams), tables, _tests(found, baseline))


def _tests(found: Measurements, baseline: str) -> str:
    """How the numbers were compared."""
    plan = next(iter(found.quantities.values())).plan
    how = TESTS.format(baseline=baseline, test=test(plan), correction=CORRECTIONS[plan.correction])
    if not found.declared:
        return f"{how}{EXPLORATORY}"
    names = sentence_case(joined(found.quantities[name].quantity.label for name in found.declared))
    return f"{how}{SOME_DECLARED.format(names=names, were='were' if len(found.declared) > 1 else 'was')}"


def _detail(found: Measurements, name: str) -> str:
    """What stands below a quantity's name: which end is the flatter or better one, and what to know of all values."""
    return "; ".join(filter(None, (found.quantities[name].quantity.direction, found.remarks.get(name, ""))))


def networks_document(found: NetworkMeasurements, diagrams: Diagrams) -> Document:
    """The page of networks that were measured one by one: quantities × networks."""
    rows = found.rows
    versions = rows.select("steppe_version", "jax_version").unique(maintain_order=True).rows()
    facts = {
        "Parameters": joined(rows["source"].unique(maintain_order=True)),
        "Network": joined(rows["network"].unique(maintain_order=True)),
        "Software": joined(f"Steppe {steppe}, JAX {jax}" for steppe, jax in versions),
    }
    tables = tuple(drawn for kind in found.kinds for drawn in _networks(found, kind))
    caption = "Each value ± its standard error, where that is known."
    numbers = _section(rows, tuple(network_remarks(rows)), partial(pictures, diagrams), tables, caption)
    origin = Section("Provenance", (facts_table("Provenance", facts),), style="provenance")
    return Document("measures", TITLE, sections=(replace(numbers, title=""), origin))


def _networks(found: NetworkMeasurements, networks: Sequence[str]) -> Iterator[Table]:
    """What was asked of some networks, or of some pairs."""
    asked = found.asked(networks)
    cells = {
        name: (
            Cell(in_words(name), found.remarks.get(name, "")),
            *(value_cell(found.values.get((network, name)), found.remarks) for network in networks),
        )
        for name in asked
    }
    return _by_family(asked, ("", *networks), cells)


def _section(
    rows: polars.DataFrame,
    said: tuple[str, ...],
    draw: Callable[[], Sequence[Picture]],
    tables: tuple[Table, ...],
    caption: str,
) -> Section:
    """What was measured on which data, what to know first, the numbers, and how they were measured."""
    first = (Paragraph(about(rows)), Sentences(said, warning=True), Gallery(draw))
    return Section(TITLE, (*first, *tables, Caption(caption), _asked(rows)), style="measured")


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
    words = dict(rows.filter(polars.col("question") != "").select("measure", "question").unique().rows())
    lines = []
    for name in [*MEASURES, *(name for name in settings if name not in MEASURES)]:
        if name in settings:
            known = MEASURES.get(name)
            shown = ", ".join(f"{k} {v}" for k, v in json.loads(settings[name]).items() if v is not None)
            question = known.question if known else words.get(name, "")
            facts = (question or NOTHING, shown or NOTHING, under[known.invariance] if known else NOTHING)
            lines.append((Cell(name), *map(Cell, facts)))
    columns = ("Measure", "Question", "Settings", "Unchanged by rescaling")
    caption = (
        "The last column concerns rescalings that leave the function of a ReLU network unchanged: of its hidden nodes "
        "one by one, which includes whole layers, or of whole layers alone."
    )
    return Table("Measures and settings", caption, columns, tuple(lines), (False,) * 4, folded=True)


def number_cell(row: Mapping) -> Cell:
    """A value with its standard error, where it has one."""
    exact = not row["sem"] > 0  # 0, or NaN
    return Cell(number(row["value"]) if exact else spread(row["value"], row["sem"]))


def value_cell(row: Mapping | None, shared: Mapping[str, str] = {}) -> Cell:
    """The same with its note, where it is not what all share."""
    if row is None:
        return Cell(NOTHING)
    known = row["converged"] and row["note"] == shared.get(row["quantity"])
    return Cell(number_cell(row).text, "" if known else row["note"])


def _family(measure: str) -> str:
    if measure in MEASURES:
        return MEASURES[measure].family
    return "user" if is_function(measure) else next(iter(FAMILIES))


def _compared(found: QuantityComparison, condition: str, baseline: str) -> Cell:
    """A condition's mean and spread, and how it compares with the baseline."""
    summary, bounds = found.summaries[condition], found.bounds.get(condition, 0)
    if not summary.count:
        return Cell(NOTHING)
    text = spread(summary.mean, summary.sd)
    if condition == baseline or bounds:
        return Cell(text, f"{bounds} of {summary.count} only bounds" if bounds else "baseline")
    comparison = found.comparisons.get(condition)
    if comparison is None:
        return Cell(text, "the baseline was not measured")
    if comparison.verdict.directed:
        p = p_value(comparison.test.corrected)
        log = found.quantity.log
        change = f"× {number(comparison.ratio.ratio, 2)}" if log else signed(comparison.difference, digits=2)
        return Cell(text, f"{change}, p {p if '<' in p else f'= {p}'}", strong=True)
    return Cell(text, verdict(found.quantity, comparison), strong=comparison.verdict is Verdict.EQUIVALENT)

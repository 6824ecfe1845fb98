"""A study's report: the one list of its sections, each made of the part of the analysis that it shows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from steppe.analysis.analysis import Analysis
from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.correlation.studies import Correlations
from steppe.analysis.protocols.claims import ProtocolResult
from steppe.analysis.quantities import COST, LOSSES, OUTCOMES, PUBLISHED, SPECTRUM, TR_H2
from steppe.analysis.results import PublishedTable, Tuning
from steppe.analysis.verdict import Ratio
from steppe.report import correlations, measures, ranks
from steppe.report.document import (
    Beside,
    Block,
    Code,
    Document,
    Gallery,
    Link,
    Paragraph,
    Picture,
    Section,
    Sentences,
    Table,
)
from steppe.report.figures import correlations as figures_of_correlations
from steppe.report.figures import curves, forest, landscapes, outcomes, tracking
from steppe.report.figures.landscapes import View
from steppe.report.tables import comparisons, conditions, protocols
from steppe.report.tables.base import facts_table
from steppe.report.tables.published import published, this_study
from steppe.report.tables.tuning import tuning
from steppe.report.wording import correlations as correlation_wording
from steppe.report.wording import glossary
from steppe.report.wording.answers import answers
from steppe.report.wording.conclusion import conclusion
from steppe.report.wording.notes import notes, power
from steppe.report.wording.plans import too_few
from steppe.report.wording.tuning import budget, cautions
from steppe.report.wording.verdicts import disagreements


def document(analysis: Analysis, *, surfaces_page: str = "") -> Document:
    """The report of a study; `surfaces_page` names the page of its loss surfaces beside it, if there is one."""
    results, correlated = analysis.results, _declared(analysis)
    lines = (
        (correlation_wording.conclusion(correlated), correlation_wording.answers(correlated))
        if correlated
        else (conclusion(analysis), answers(analysis))
    )
    return Document(
        place=results.name,
        title=results.title,
        lead=lines[0],
        answers=lines[1],
        figure=Gallery(_opening(analysis)),
        notes=tuple(notes(analysis)),
        sections=_glossed(tuple(_sections(analysis, surfaces_page))),
    )


def _glossed(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """Sections with what their terms mean, before where the numbers came from."""
    return (*sections[:-1], glossary.section(sections), sections[-1])


def _declared(analysis: Analysis) -> Correlations | None:
    """The correlations by which the study is judged, where it declared some and has networks enough."""
    return analysis.correlations if analysis.correlations and analysis.correlations.declared else None


def _opening(analysis: Analysis) -> Callable[[], list[Picture]]:
    """What draws the first figure."""
    correlated = _declared(analysis)
    if correlated and correlated.plan:
        return partial(figures_of_correlations.forest, correlated, correlated.plan.outcome)
    return partial(forest.pictures, _headline(analysis), analysis.results.baseline)


def _headline(analysis: Analysis) -> tuple[QuantityComparison, ...]:
    """What the first figure shows: what tells whether it helped, and whether it is flatter."""
    return analysis.chosen(dict.fromkeys((analysis.outcome.quantity.name, analysis.sharpness.quantity.name)))


def _sections(analysis: Analysis, surfaces_page: str) -> Iterator[Section]:
    """All of them, in order; those that have nothing to show are left out when they are rendered."""
    results, baseline, chosen = analysis.results, analysis.results.baseline, analysis.chosen
    yield _about(results.about)
    if analysis.correlations and _declared(analysis):
        yield correlations.section(analysis.correlations)
    yield _outcomes(
        chosen(("test_loss", *OUTCOMES) if results.is_regression else OUTCOMES),
        {c: len(seeds) for c, seeds in analysis.seeds.items()},
        baseline,
    )
    if results.tuning:
        yield _tuning(results.tuning, results.conditions)
    yield _comparisons(analysis.tested, tuple(analysis.controls.values()), analysis.control_cost, baseline)
    if analysis.ranks:
        yield ranks.section(analysis.ranks)
    yield _protocols(analysis.protocols)
    yield Section(
        "Statistical power",
        (
            Paragraph(
                power(analysis.power, analysis.alpha, analysis.primary.quantity, over_data=analysis.ranks is not None)
            ),
            Sentences(tuple(too_few(analysis.tested, analysis.alpha)), warning=True),
        ),
        brief=True,
        style="prose",
    )
    yield Section(
        "Training curves",
        (Gallery(partial(curves.pictures, analysis.curves, analysis.trajectories, results)),),
    )
    yield Section("Curvature during training", (Gallery(partial(tracking.pictures, analysis.tracked)),))
    yield _table(conditions.spectrum(chosen(SPECTRUM), baseline))
    labels = {name: by.quantity.label for name, by in analysis.quantities.items()}
    yield _table(comparisons.at_equal_loss(analysis.equal_loss, labels, analysis.confidence))
    drawn = partial(outcomes.pictures, chosen((results.judged, TR_H2)), analysis.lambdas)
    yield Section(f"{'Test loss' if results.is_regression else 'Accuracy'} and tr(H²) by condition", (Gallery(drawn),))
    yield _table(conditions.losses(chosen(LOSSES), baseline))
    yield _cost(chosen(COST), analysis.cost, baseline)
    yield _surfaces(landscapes.study_view(results.surfaces, results.conditions, results.loss_unit), surfaces_page)
    if analysis.measurements:
        yield measures.study_section(analysis.measurements, baseline)
    if analysis.correlations and not _declared(analysis):
        yield correlations.section(analysis.correlations)
    yield _published(results.published, chosen(PUBLISHED))
    yield _provenance(results.provenance, results.spec_toml)


def _about(prose: str) -> Section:
    """What the study's author says of it, a paragraph between two blank lines."""
    parts = [" ".join(part.split()) for part in prose.split("\n\n") if part.strip()]
    return Section("", tuple(map(Paragraph, parts)), style="prose")


def _table(found: Table) -> Section:
    """A section that is one table."""
    return Section(found.title, (found,))


def _outcomes(quantities: Sequence[QuantityComparison], runs: Mapping[str, int], baseline: str) -> Section:
    found = conditions.outcomes(quantities, runs, baseline)
    return Section(found.title, (found,), brief=True)


def _tuning(found: Tuning, names: tuple[str, ...]) -> Section:
    """The budget of every condition, and what was chosen."""
    sentences = Sentences(tuple(cautions(found, names)), warning=True)
    return Section("Tuning", (Paragraph(budget(found)), sentences, tuning(found)))


def _comparisons(
    tested: Sequence[QuantityComparison],
    controls: Sequence[QuantityComparison],
    times: Mapping[str, Ratio],
    baseline: str,
) -> Section:
    """Every condition against the baseline, then against controls, and where two tests disagree."""
    blocks: list[Block] = [comparisons.against_baseline(by, baseline) for by in tested]
    blocks += [comparisons.against_controls(by, times) for by in controls]
    blocks.append(Sentences(tuple(disagreements(tested))))
    return Section("Comparisons", tuple(blocks), brief=True)


def _protocols(found: Sequence[ProtocolResult]) -> Section:
    """Others' claims, by their tests and by the study's own."""
    return Section("Claims of others, by their tests and by ours", tuple(map(protocols.claims, found)), brief=True)


def _cost(quantities: Sequence[QuantityComparison], times: Mapping[str, Ratio], baseline: str) -> Section:
    """Time and memory; the first of the quantities is the training time."""
    drawn = Gallery(partial(outcomes.cost, quantities[0], times, baseline))
    return Section("Cost", (drawn, conditions.cost(quantities, times, baseline)))


def _surfaces(view: View | None, page: str) -> Section:
    """The training loss around networks, and the way to the page on which it can be rotated."""
    blocks: list[Block] = [Gallery(partial(landscapes.pictures, [view] if view else []))]
    if page:
        blocks.append(
            Link(
                page,
                "Interactive surfaces",
                ": the same surfaces on a page of their own, to rotate and to read values from.",
            )
        )
    return Section("Loss surfaces", tuple(blocks))


def _published(tables: Sequence[PublishedTable], ours: Sequence[QuantityComparison]) -> Section:
    """What others published, beside our means."""
    if not tables:
        return Section("Published numbers", ())
    words = (
        "These numbers were published by others, from their code and machines. They stand beside ours for orientation; "
        "no setting was chosen to come near them."
    )
    return Section("Published numbers", (Paragraph(words), Beside((*map(published, tables), this_study(ours)))))


def _provenance(facts: Mapping[str, str], spec: str) -> Section:
    """Where the numbers came from, and what was asked for."""
    blocks = (facts_table("Provenance", facts), Code("Specification", spec))
    return Section("Provenance", blocks, style="provenance")

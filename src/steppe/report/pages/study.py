"""The report as one self-contained HTML page: no script, nothing loaded from anywhere, text escaped."""

from steppe.analysis.analysis import Analysis
from steppe.report import tables
from steppe.report.figures import curves, landscapes, tracking
from steppe.report.pages import measures
from steppe.report.pages.environment import ENVIRONMENT
from steppe.report.text import paragraphs
from steppe.report.wording.conclusion import conclusion
from steppe.report.wording.notes import notes, power
from steppe.report.wording.verdicts import disagreements


def html(analysis: Analysis, *, turnable: str = "") -> str:
    """The whole report; `turnable` names the page of surfaces beside it. The same results give the same bytes."""
    results = analysis.results
    view = landscapes.of_study(results)
    return ENVIRONMENT.get_template("report.html.j2").render(
        results=results,
        conclusion=conclusion(analysis),
        notes=notes(analysis),
        power=power(analysis),
        disagreements=disagreements(analysis.tested),
        about=paragraphs(results.about),
        conditions=tables.conditions(analysis),
        verdicts=tables.verdicts(analysis),
        controls=tables.controls(analysis),
        end_of_training=tables.end_of_training(analysis),
        cost=tables.cost(analysis),
        losses=tables.losses(analysis),
        published=[tables.published(table) for table in results.published],
        ours=tables.ours(analysis),
        provenance=tables.provenance(analysis),
        curves=curves.curves(analysis),
        tracked=tracking.pictures(analysis),
        outcomes=curves.outcomes(analysis),
        costs=curves.cost(analysis),
        surfaces=landscapes.pictures([view] if view else []),
        turnable=turnable,
        measured=measures.of_study(analysis.measurements, results.baseline) if analysis.measurements else None,
    )

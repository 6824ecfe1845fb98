"""The report as one self-contained HTML page: no script, nothing loaded from anywhere, text escaped."""

from steppe.analysis.measures import Compared
from steppe.analysis.results import Results
from steppe.analysis.study import Analysis
from steppe.report import tables
from steppe.report.figures import curves, landscapes, tracking
from steppe.report.pages import measures
from steppe.report.pages.environment import ENVIRONMENT
from steppe.report.text import paragraphs


def html(results: Results, analysis: Analysis, compared: Compared | None = None, *, turnable: str = "") -> str:
    """The whole report; `turnable` names the page of surfaces beside it. The same results give the same bytes.

    `compared` is what measures of the study's networks say, if there are any.
    """
    view = landscapes.of_study(results)
    return ENVIRONMENT.get_template("report.html.j2").render(
        results=results,
        analysis=analysis,
        about=paragraphs(results.about),
        conditions=tables.conditions(results, analysis),
        verdicts=tables.verdicts(results, analysis),
        rivals=tables.rivals(results, analysis),
        at_the_end=tables.at_the_end(results, analysis),
        cost=tables.cost(results, analysis),
        losses=tables.losses(results, analysis),
        published=[tables.published(table) for table in results.published],
        ours=tables.ours(results, analysis),
        provenance=tables.provenance(results),
        curves=curves.curves(results, analysis),
        tracked=tracking.pictures(results, analysis),
        outcomes=curves.outcomes(results, analysis),
        costs=curves.cost(results, analysis),
        surfaces=landscapes.pictures([view] if view else []),
        turnable=turnable,
        measured=measures.of_study(compared) if compared else None,
    )

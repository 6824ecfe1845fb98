"""The report as one self-contained HTML page: no script, nothing loaded from anywhere, text escaped."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from steppe.report import figures, landscapes, tables
from steppe.report.text import paragraphs
from steppe.study.analysis import Analysis
from steppe.study.results import Results


def html(results: Results, analysis: Analysis) -> str:
    """The whole report. The same results give the same bytes."""
    environment = Environment(
        loader=PackageLoader("steppe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        analysis=analysis,
        about=paragraphs(results.about),
        conditions=tables.conditions(results, analysis),
        verdicts=tables.verdicts(results, analysis),
        matched=tables.matched(results, analysis) if analysis.matched else None,
        cost=tables.cost(results, analysis),
        losses=tables.losses(results, analysis),
        published=[tables.published(table) for table in results.published],
        ours=tables.ours(results, analysis),
        provenance=tables.provenance(results),
        curves=figures.curves(results, analysis),
        outcomes=figures.outcomes(results, analysis),
        costs=figures.cost(results, analysis),
        surfaces=landscapes.surfaces(results),
    )

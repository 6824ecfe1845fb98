"""``steppe correlate``: which measures go with which outcomes."""

from pathlib import Path
from typing import Annotated

import typer


def correlate(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of studies.")],
    measure: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A measure; all of flatness unless given. Repeatable.")
    ] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="An outcome; all on test data unless given. Repeatable.")
    ] = None,
    matched: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What matched pairs are alike in; the training accuracy.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far apart matched pairs may be in it.")] = 0.01,
) -> None:
    """Print how measures of networks go with their outcomes, over the finished runs of one or several studies."""
    from steppe import report, study
    from steppe.analysis.correlation.studies import correlations

    results = [study.gathered(study.Store.read(directory)) for directory in directories]
    found = correlations(results, measures=measure or (), outcomes=outcome or (), matched=matched, tolerance=tolerance)
    report.show_correlations(found)

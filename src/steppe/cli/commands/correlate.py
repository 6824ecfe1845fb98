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
    max_train_loss: Annotated[
        float | None, typer.Option(metavar="LOSS", help="Leave out networks whose training loss is above this.")
    ] = None,
) -> None:
    """Print how measures of networks go with their outcomes, over the finished runs of one or several studies."""
    from steppe import report, study
    from steppe.analysis.correlation.studies import correlations
    from steppe.core import checks

    if len({directory.resolve() for directory in directories}) < len(directories):
        checks.fail("correlate", "DIR", "different folders", "one of them twice", "Name each study once.")
    results = [study.gathered(study.Store.read(directory)) for directory in directories]
    found = correlations(
        results,
        measures=measure or (),
        outcomes=outcome or (),
        matched=matched,
        tolerance=tolerance,
        max_train_loss=max_train_loss,
        plan=results[0].correlation if len(results) == 1 else None,
    )
    report.show_correlations(found)

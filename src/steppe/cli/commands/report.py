"""``steppe report``: write reports again."""

from pathlib import Path
from typing import Annotated

import typer


def report(directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of studies.")]) -> None:
    """Rewrite the reports of studies from the results on disk."""
    from steppe import study
    from steppe.report import write

    for directory in directories:
        write(study.gathered(study.Store.read(directory)), directory)
        typer.echo(directory / "report.html")

"""``steppe show``: a study in the terminal."""

from pathlib import Path
from typing import Annotated

import typer


def show(directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")]) -> None:
    """Print a study's tables."""
    from steppe import report, study

    report.show(study.gathered(study.Store.read(directory)))

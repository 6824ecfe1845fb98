"""``steppe show``: a study in the terminal, or its tables for a paper."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(Enum):
    """How tables are written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")],
    form: Annotated[
        Format, typer.Option("--format", help="Tables alone, to paste, unless for the terminal.")
    ] = Format.TERMINAL,
) -> None:
    """Print a study's tables."""
    from steppe import report, study

    results = study.gathered(study.Store.read(directory))
    if form is Format.TERMINAL:
        report.show(results)
    else:
        typer.echo(report.tables_of(results, form.value), nl=False)

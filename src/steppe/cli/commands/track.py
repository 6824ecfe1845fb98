"""``steppe track``: send studies to a tracking server."""

from pathlib import Path
from typing import Annotated

import typer


def track(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of studies.")],
    mlflow: Annotated[str, typer.Option(metavar="URI", help="Server of MLflow, such as http://localhost:5000.")],
) -> None:
    """Send what is finished of studies to MLflow; what is there already is not sent again."""
    from steppe.tracking.mlflow import send

    for directory in directories:
        found = send(directory, mlflow)
        typer.echo(f"{directory}: {found.sent} sent, {found.there} there already.")

"""``steppe watch``: a page that shows a study while it runs."""

from pathlib import Path
from typing import Annotated

import typer

from steppe.core import process


def watch(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a study, which any machine may write.")
    ],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any.", show_default="8765, or any")
    ] = None,
) -> None:
    """Show a study in the browser while it runs: runs that are done, curves, and the report when it is ready."""
    from steppe import study
    from steppe.watch.server import LivePage

    study.Store.read(directory)  # one sentence where there is no study
    process.promise("The page is closed; the study is not touched.")
    with LivePage(directory, port) as page:
        typer.echo(f"Watching {directory} at {page.url} (this machine only). Press Ctrl-C to close.")
        process.flush()
        page.wait()
    typer.echo("The study is finished and no page is open: closed.")

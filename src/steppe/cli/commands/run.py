"""``steppe run``: run or resume a study."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steppe.cli import completion
from steppe.cli.machines import on_machines
from steppe.cli.options import parsed
from steppe.core import extras, process

if TYPE_CHECKING:
    from steppe.engines.engines import Place


@on_machines
def run(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="NAME|SPEC.toml",
            help="Name of a shipped study (see `steppe list studies`), or a TOML file.",
            autocompletion=completion.studies,
        ),
    ],
    *,
    place: "Place",
    out: Annotated[Path | None, typer.Option(help="The study's folder.", show_default="out/NAME")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs per condition. A larger number later extends the study.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.epochs=2.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints within a run.")] = 30.0,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Send runs as they finish, and the report, to this server of MLflow."),
    ] = None,
    watched: Annotated[bool, typer.Option("--watch", help="Show the study in the browser meanwhile.")] = False,
) -> None:
    """Run or resume a study, and write its report."""
    from steppe import report, study
    from steppe.study.execution.distributed import Distributed
    from steppe.study.progress import Bar

    overrides = dict(parsed(change) for change in changes or [])
    if seeds is not None:
        overrides["seeds"] = seeds
    if mlflow:
        extras.require("--mlflow", "mlflow")
    chosen = study.load(spec, overrides)
    directory = out or Path("out") / chosen.name
    engine = place.engine()
    executor = Distributed(engine, checkpoint_seconds) if engine else None
    if executor and place.dry_run:
        typer.echo(executor.preview(chosen, directory), nl=False)
        return
    process.promise(
        f"What is finished is in {directory}; run the same command again to continue.", directory / "study.toml"
    )
    with _sending(directory, mlflow), _page(directory) if watched else contextlib.nullcontext():
        with Bar(Console(stderr=True)) as bar:
            results = study.run(
                chosen, directory, watcher=bar, checkpoint_seconds=checkpoint_seconds, executor=executor
            )
        study.Store.read(directory)  # fails where the folder was removed meanwhile: the report would make it anew
        report.write(results, directory)
    report.show(results)
    typer.echo(f"\nReport: {directory / 'report.html'}")
    if executor and executor.lost:
        process.say(f"{len(executor.lost)} of {results.planned} runs are not there.{process.promised()}")
        raise typer.Exit(1)
    if len(results.runs) and (results.runs["status"] == "diverged").all():
        process.say("Every run diverged, so there are no results. Use a smaller train.learning_rate.")
        raise typer.Exit(1)


def _sending(directory: Path, uri: str | None) -> contextlib.AbstractContextManager[object]:
    """Sends the study to MLflow meanwhile and at last; the study ends well, whatever the server says."""
    if not uri:
        return contextlib.nullcontext()
    from steppe.tracking.mlflow import Sender

    return Sender(directory, uri, process.say)


@contextlib.contextmanager
def _page(directory: Path) -> Iterator[None]:
    """A page that shows the study meanwhile; one that is open gets the report before it is closed."""
    from steppe.watch.server import LivePage

    with LivePage(directory) as page:
        process.say(f"Watch the study at {page.url} (this machine only).")
        yield
        page.deliver()

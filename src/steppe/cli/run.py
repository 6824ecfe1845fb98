"""``steppe run``: run or resume a study."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steppe.cli import completion
from steppe.cli.settings import parsed
from steppe.core import process


def run(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="NAME|SPEC.toml",
            help="Name of a shipped study (see `steppe list studies`), or a TOML file.",
            autocompletion=completion.studies,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The study's folder.", show_default="out/NAME")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs per condition. A larger number later extends the study.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.epochs=2.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints within a run.")] = 30.0,
) -> None:
    """Run or resume a study, and write its report."""
    from steppe import report, study
    from steppe.study.progress import Bar

    overrides = dict(parsed(change) for change in changes or [])
    if seeds is not None:
        overrides["seeds"] = seeds
    chosen = study.load(spec, overrides)
    directory = out or Path("out") / chosen.name
    process.promise(
        f"What is finished is in {directory}; run the same command again to continue.", directory / "study.toml"
    )
    with Bar(Console(stderr=True)) as bar:
        results = study.run(chosen, directory, watcher=bar, checkpoint_seconds=checkpoint_seconds)
    study.Store.read(directory)  # fails where the folder was removed meanwhile: the report would make it anew
    report.write(results, directory)
    report.show(results)
    typer.echo(f"\nReport: {directory / 'report.html'}")
    if len(results.runs) and (results.runs["status"] == "diverged").all():
        process.say("Every run diverged, so there are no results. Use a smaller train.learning_rate.")
        raise typer.Exit(1)

"""``steppe landscape``: the loss around trained networks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steppe.core import process


def landscape(
    targets: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs: DIR/runs/<condition>-s<seed>.")
    ],
    *,
    along: Annotated[
        str,
        typer.Option(
            metavar="random|eigenvectors|between",
            help="Filter-normalised random directions, the Hessian's top eigenvectors, or the line between two runs.",
        ),
    ] = "random",
    points: Annotated[int, typer.Option(help="Points on the line; odd.")] = 51,
    grid: Annotated[int, typer.Option(help="Points along each side of the plane; odd, or 0 for no plane.")] = 25,
    radius: Annotated[float, typer.Option(help="How far to look, in units of the directions.")] = 1.0,
    examples: Annotated[int, typer.Option(help="Take loss and accuracy on at most so many examples.")] = 1024,
    split: Annotated[str, typer.Option(metavar="train|test", help="Of the training or the test data.")] = "train",
    seed: Annotated[int, typer.Option(help="Of the random directions and the choice of examples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A folder for it.", show_default="one in DIR/landscapes")] = None,
) -> None:
    """Draw the loss and accuracy around trained networks, or from one to another: landscape.npz and landscape.html."""
    from steppe import report, study
    from steppe.networks import exploration, landscapes
    from steppe.study.progress import Bar

    settings = landscapes.Settings(along, points, grid, radius, examples, split, seed)
    question = landscapes.read_question(targets, settings)
    directory = out or question.folder
    process.promise(f"What is computed is in {directory}; the same command goes on from there.", directory)
    with Bar(Console(stderr=True)) as bar:
        found = exploration.explore(question, directory, bar)
    page = report.write_landscape(found, directory)
    report.show_landscape(found)
    typer.echo(f"\nLandscape: {page}")
    infinite = study.infinite(found.lines["loss"], found.grids["loss"])
    if infinite:
        process.say(f"{infinite}, and left out of the figures. Take a smaller --radius in another --out.")
        raise typer.Exit(1)

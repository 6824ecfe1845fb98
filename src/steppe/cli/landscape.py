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
    points: Annotated[int, typer.Option(help="Number of points on the line (odd).")] = 51,
    grid: Annotated[int, typer.Option(help="Number of points along a side of the plane (odd; 0 for no plane).")] = 25,
    radius: Annotated[float, typer.Option(help="Distance to explore, in units of the directions.")] = 1.0,
    examples: Annotated[int, typer.Option(help="Evaluate loss and accuracy on at most this many examples.")] = 1024,
    split: Annotated[str, typer.Option(metavar="train|test", help="Use the training or the test data.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the random directions and of the choice of examples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Output folder.", show_default="one in DIR/landscapes")] = None,
) -> None:
    """Draw the loss and accuracy around trained networks, or between two of them: landscape.npz and landscape.html."""
    from steppe import report, study
    from steppe.networks import exploration, landscapes
    from steppe.study.progress import Bar

    settings = landscapes.Settings(along, points, grid, radius, examples, split, seed)
    question = landscapes.read_question(targets, settings)
    directory = out or question.folder
    process.promise(f"What is computed is in {directory}; run the same command again to continue.", directory)
    with Bar(Console(stderr=True)) as bar:
        found = exploration.explore(question, directory, bar)
    page = report.write_landscape(found, directory)
    report.show_landscape(found)
    typer.echo(f"\nLandscape: {page}")
    infinite = study.infinite(found.lines["loss"], found.grids["loss"])
    if infinite:
        process.say(f"{infinite}, and left out of the figures. Use a smaller --radius and another --out.")
        raise typer.Exit(1)

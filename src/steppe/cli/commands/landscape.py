"""``steppe landscape``: the loss around trained networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steppe.cli.machines import on_machines
from steppe.cli.options import Criterion, Data, IgnoreLabel, Label, Network
from steppe.cli.options import settings as settings_of
from steppe.core import process
from steppe.core.checks import one_of

if TYPE_CHECKING:
    from steppe.engines.engines import Place


@on_machines
def landscape(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET",
            help="Folders of finished runs, DIR/runs/<condition>-s<seed>, or checkpoints of your own, with --network "
            "and --data.",
        ),
    ],
    *,
    place: "Place",
    along: Annotated[
        str,
        typer.Option(
            metavar="random|eigenvectors|between",
            help="Filter-normalised random directions, top eigenvectors of the Hessian, or the line between two.",
        ),
    ] = "random",
    points: Annotated[int, typer.Option(help="Number of points on the line (odd).")] = 51,
    grid: Annotated[int, typer.Option(help="Number of points along a side of the plane (odd; 0 for no plane).")] = 25,
    radius: Annotated[float, typer.Option(help="Distance to explore, in units of the directions.")] = 1.0,
    examples: Annotated[int, typer.Option(help="Evaluate loss and accuracy on at most this many examples.")] = 1024,
    split: Annotated[str, typer.Option(metavar="train|validation|test", help="Part of the data to use.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the random directions and of the choice of examples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Output folder.", show_default="one in DIR/landscapes")] = None,
    network: Network = None,
    data: Data = None,
    label: Label = None,
    criterion: Criterion = "cross_entropy",
    ignore_label: IgnoreLabel = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="network.KEY=VALUE", help="Set a setting of --network.")
    ] = None,
) -> None:
    """Draw the loss and accuracy around trained networks, or between two of them: landscape.npz and landscape.html."""
    from steppe import report, study
    from steppe.networks import distributed, exploration, landscapes
    from steppe.networks.settings import UserNetwork
    from steppe.study.execution.distributed import say_lost
    from steppe.study.progress import Bar

    settings = landscapes.Settings(along, points, grid, radius, examples, split, seed)
    chosen = settings_of(changes or [], "landscape", "network.width=8")
    for name in chosen:
        one_of("landscape", "--set", name, ["network"])
    user = UserNetwork(
        network=network,
        settings=chosen.get("network", {}),
        data=data,
        label=label,
        criterion=criterion,
        ignore=ignore_label,
    )
    engine = place.engine()
    question = landscapes.read_question(targets, settings, user)
    directory = out or question.folder
    if engine and place.dry_run:
        typer.echo(engine.preview(directory, len(targets)), nl=False)
        return
    process.promise(f"What is computed is in {directory}; run the same command again to continue.", directory)
    with Bar(Console(stderr=True)) as bar:
        lost = distributed.explore(question, targets, user, directory, engine, bar) if engine else []
        say_lost(lost, bar)
        if lost:
            raise typer.Exit(1)
        found = exploration.explore(question, directory, bar)
    page = report.write_landscape(found, directory)
    report.show_landscape(found)
    typer.echo(f"\nLandscape: {page}")
    infinite = study.infinite(found.lines["loss"], found.grids["loss"])
    if infinite:
        process.say(f"{infinite}, and left out of the figures. Use a smaller --radius and another --out.")
        raise typer.Exit(1)

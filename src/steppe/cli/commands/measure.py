"""``steppe measure``: measure trained networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steppe.cli.machines import on_machines
from steppe.cli.options import Criterion, Data, IgnoreLabel, Label, Network
from steppe.cli.options import settings as settings_of
from steppe.core import process
from steppe.core.checks import fail

if TYPE_CHECKING:
    from steppe.engines.engines import Place


@on_machines
def measure(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET",
            help="Runs (DIR/runs/<condition>-s<seed>), a study's folder, or checkpoints of your own: .safetensors, "
            ".npz, .eqx, .pt, .pth, .bin or an Orbax folder, with --network, --apply or --loss, and --data.",
        ),
    ],
    *,
    place: "Place",
    measures: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Measures to take: see `steppe list measures`, or MODULE:FUNCTION."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Take only the cheap measures.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Take all measures.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.KEY=VALUE", help="Set a setting of a measure, or of --network."),
    ] = None,
    examples: Annotated[int, typer.Option(help="Measure on at most this many examples.")] = 1024,
    split: Annotated[
        str, typer.Option(metavar="train|augmented|validation|test", help="Part of the data to use.")
    ] = "train",
    batch_size: Annotated[int, typer.Option(help="Number of examples in a batch.")] = 128,
    probes: Annotated[int | None, typer.Option(help="Number of random vectors for traces.", show_default="32")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random vectors and of the choice of examples.")] = 0,
    dtype: Annotated[str, typer.Option(metavar="float32|float64", help="Precision of the computation.")] = "float32",
    out: Annotated[
        Path | None, typer.Option(help="Output folder for the numbers.", show_default="the study's, or out/NAME")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Loss of your own parameters, loss(params, batch). The current folder is searched for MODULE last.",
        ),
    ] = None,
    apply: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Outputs of your own network, apply(params, x)."),
    ] = None,
    network: Network = None,
    criterion: Criterion = "cross_entropy",
    data: Data = None,
    label: Label = None,
    ignore_label: IgnoreLabel = None,
    initial: Annotated[Path | None, typer.Option(help="Your parameters before training.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Arrays to keep fixed, such as 'encoder/*'.")
    ] = None,
    perturb_statistics: Annotated[
        bool, typer.Option("--perturb-statistics", help="Treat statistics, such as those of BatchNorm, as parameters.")
    ] = False,
) -> None:
    """Measure the sharpness and curvature of trained networks: measurements.parquet, and a section in the report."""
    from steppe import report, study
    from steppe.measures import select
    from steppe.networks import distributed, measurement
    from steppe.networks.settings import Settings, UserNetwork
    from steppe.study.execution.distributed import say_lost
    from steppe.study.progress import Bar

    if sum((measures is not None, quick, every)) > 1:
        fail("measure", "--measures, --quick and --all", "given one at a time", "several", "Pass one of them at most.")
    names = measures.split(",") if measures is not None else "quick" if quick else "all" if every else "standard"
    chosen = tuple(select(names))
    if criterion == "next_token" and measures is None:
        chosen = tuple(select([*chosen, "perplexity"]))
    options = settings_of(changes or [], "measure", "sam_sharpness.rho=0.1")
    user = UserNetwork(
        loss=loss,
        apply=apply,
        network=network,
        settings=options.pop("network", {}),
        criterion=criterion,
        data=data,
        label=label,
        initial=initial,
        exclude=tuple(exclude or ()),
        perturb_statistics=perturb_statistics,
        ignore=ignore_label,
    )
    settings = Settings(chosen, options, probes, examples, split, batch_size, seed, dtype)
    engine = place.engine()
    with Bar(Console(stderr=True)) as bar:
        networks = measurement.read_targets(targets, user, settings, out)
        process.promise("What is measured is kept; run the same command again to continue.")
        if engine and place.dry_run:
            typer.echo(engine.preview(out or Path("out"), engine.parts(len(networks))), nl=False)
            return
        if engine:
            say_lost(distributed.measure(networks, settings, engine, bar), bar)
        announce = lambda plan: bar.say(report.planned(plan))  # noqa: E731
        found = measurement.measure(networks, settings, watcher=bar, announce=announce)
    report.show_measures(found)
    for folder in found.folders:
        if (folder / "study.toml").is_file():
            page = report.write(study.gathered(study.Store.read(folder)), folder)[2]
        else:
            page = report.write_measures(folder)
        typer.echo(f"\nNumbers: {folder / 'measurements.parquet'}\nReport: {page}")
    if len(found.infinite):
        names = ", ".join(found.infinite["quantity"].unique(maintain_order=True))
        count = f"{len(found.infinite)} of {len(found.rows)} numbers"
        process.say(f"{count} are not finite, and none of these counts as converged: {names}.")
        raise typer.Exit(1)

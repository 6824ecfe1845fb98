"""``steppe measure``: measure trained networks."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from steppe.cli.settings import parsed
from steppe.core import process
from steppe.core.checks import fail


def measure(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET",
            help="Runs (DIR/runs/<condition>-s<seed>), a study's folder, or parameters of your own: "
            ".safetensors, .npz, or an Orbax checkpoint, with --loss or --apply and --data.",
        ),
    ],
    *,
    measures: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Which ones: see `steppe list measures`, or MODULE:FUNCTION."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the cheap ones.")] = False,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="A measure's setting.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Measure on at most so many examples.")] = 1024,
    split: Annotated[str, typer.Option(metavar="train|test", help="Of the training or the test data.")] = "train",
    batch_size: Annotated[int, typer.Option(help="Examples looked at together.")] = 128,
    probes: Annotated[int | None, typer.Option(help="Random vectors for traces.", show_default="32")] = None,
    seed: Annotated[int, typer.Option(help="Of random vectors and the choice of examples.")] = 0,
    dtype: Annotated[str, typer.Option(metavar="float32|float64", help="In which to compute.")] = "float32",
    out: Annotated[
        Path | None, typer.Option(help="A folder for the numbers.", show_default="the study's, or out/NAME")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="loss(params, batch) for your own parameters; the current folder is searched for MODULE last.",
        ),
    ] = None,
    apply: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="Or apply(params, x): outputs, for more measures.")
    ] = None,
    criterion: Annotated[
        str, typer.Option(metavar="cross_entropy|squared_error", help="The loss of --apply's outputs.")
    ] = "cross_entropy",
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE|MODULE:FUNCTION", help="A .npz, .csv or .parquet file, or a function of nothing."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column of a table that holds the targets.")] = None,
    ignore_label: Annotated[
        int | None, typer.Option(metavar="LABEL", help="The label of what does not count, such as -100.")
    ] = None,
    initial: Annotated[Path | None, typer.Option(help="Your parameters before training.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Arrays that stay fixed: 'encoder/*'.")
    ] = None,
    perturb_statistics: Annotated[
        bool, typer.Option("--perturb-statistics", help="Count statistics, such as BatchNorm's, as parameters.")
    ] = False,
) -> None:
    """Measure the sharpness and curvature of trained networks: measurements.parquet, and a section in the report."""
    from steppe import report, study
    from steppe.measures import select
    from steppe.networks import measurement
    from steppe.networks.settings import Settings
    from steppe.networks.user import UserNetwork
    from steppe.study.progress import Bar

    if sum((measures is not None, quick, every)) > 1:
        fail("measure", "--measures, --quick, --all", "one of them", "several")
    names = measures.split(",") if measures is not None else "quick" if quick else "all" if every else "standard"
    chosen = tuple(select(names))
    options: dict[str, dict[str, Any]] = {}
    for change in changes or []:
        key, value = parsed(change, "measure", "sam_sharpness.rho=0.1")
        module, colon, rest = key.rpartition(":")  # a user's own is module:function, whose module may have dots
        name, _, setting = rest.partition(".")
        options.setdefault(module + colon + name, {})[setting] = None if value == "none" else value
    patterns = tuple(exclude or ())
    user = UserNetwork(loss, apply, criterion, data, label, initial, patterns, perturb_statistics, ignore_label)
    settings = Settings(chosen, options, probes, examples, split, batch_size, seed, dtype)
    with Bar(Console(stderr=True)) as bar:
        networks = measurement.read_targets(targets, user, settings, out)
        process.promise("What is measured is kept; the same command goes on from there.")
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

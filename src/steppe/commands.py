"""The command line: ``steppe run``, ``report``, ``show``, ``measure``, ``landscape``, ``list``."""

import importlib.metadata
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from steppe import process
from steppe.checks import InputError, fail, nearest, shown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"steppe {importlib.metadata.version('steppe')}")
        raise typer.Exit


@app.callback()
def steppe(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Train neural networks towards flat minima, measure how flat they are, and find out whether it helped."""


@app.command()
def run(
    spec: Annotated[
        str, typer.Argument(metavar="NAME|SPEC.toml", help="A study that ships (see `steppe list`), or a TOML file.")
    ],
    out: Annotated[Path | None, typer.Option(help="The study's folder.", show_default="out/NAME")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs per condition; more seeds later extend a study.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.epochs=2.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints within a run.")] = 30.0,
) -> None:
    """Run a study, or go on with it, and write its report."""
    from steppe import report, study
    from steppe.study.progress import Bar

    overrides = dict(parsed(change) for change in changes or [])
    if seeds is not None:
        overrides["seeds"] = seeds
    chosen = study.load(spec, overrides)
    directory = out or Path("out") / chosen.name
    process.promise(
        f"What is finished is in {directory}; the same command goes on from there.", directory / "study.toml"
    )
    with Bar(Console(stderr=True)) as bar:
        results = study.run(chosen, directory, watcher=bar, checkpoint_seconds=checkpoint_seconds)
    study.Store.read(directory)  # fails where the folder was removed meanwhile: the report would make it anew
    report.write(results, directory)
    report.show(results)
    typer.echo(f"\nReport: {directory / 'report.html'}")
    if len(results.runs) and (results.runs["status"] == "diverged").all():
        process.say("Every run diverged: there are no results. Take a smaller train.learning_rate.")
        raise typer.Exit(1)


@app.command(name="report")
def report_(directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of studies.")]) -> None:
    """Write the reports of studies again, from what is on disk."""
    from steppe import report, study

    for directory in directories:
        report.write(study.gathered(study.Store.read(directory)), directory)
        typer.echo(directory / "report.html")


@app.command()
def show(directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a study.")]) -> None:
    """Print a study's tables."""
    from steppe import report, study

    report.show(study.gathered(study.Store.read(directory)))


@app.command()
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
        str | None, typer.Option(metavar="NAME,NAME", help="Which ones; see `steppe list measures`.")
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
    """Measure the sharpness and curvature of trained networks: measures.parquet, and a section in the report."""
    from steppe import report, sharpness, study
    from steppe.study.progress import Bar
    from steppe.trained import measuring
    from steppe.trained.measures import Settings
    from steppe.trained.own import Own

    if sum((measures is not None, quick, every)) > 1:
        fail("measure", "--measures, --quick, --all", "one of them", "several")
    names = measures.split(",") if measures is not None else "quick" if quick else "all" if every else "standard"
    chosen = tuple(sharpness.selected(names))
    options: dict[str, dict[str, Any]] = {}
    for change in changes or []:
        key, value = parsed(change, "measure", "sam_sharpness.rho=0.1")
        options.setdefault(key.partition(".")[0], {})[key.partition(".")[2]] = None if value == "none" else value
    own = Own(loss, apply, criterion, data, label, initial, tuple(exclude or ()), perturb_statistics, ignore_label)
    settings = Settings(chosen, options, probes, examples, split, batch_size, seed, dtype)
    with Bar(Console(stderr=True)) as bar:
        asked = measuring.asked(targets, own, settings, out)
        process.promise("What is measured is kept; the same command goes on from there.")
        announce = lambda plan: bar.say(report.planned(plan))  # noqa: E731
        found = measuring.measured(asked, settings, watcher=bar, announce=announce)
    report.show_measures(found)
    for folder in found.folders:
        if (folder / "study.toml").is_file():
            page = report.write(study.gathered(study.Store.read(folder)), folder)[2]
        else:
            page = report.write_measures(folder)
        typer.echo(f"\nNumbers: {folder / 'measures.parquet'}\nReport: {page}")
    if len(found.infinite):
        names = ", ".join(found.infinite["quantity"].unique(maintain_order=True))
        count = f"{len(found.infinite)} of {len(found.rows)} numbers"
        process.say(f"{count} are not finite, and none of these counts as converged: {names}.")
        raise typer.Exit(1)


@app.command()
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
    from steppe.study.progress import Bar
    from steppe.trained import exploring, landscapes

    settings = landscapes.Settings(along, points, grid, radius, examples, split, seed)
    question = landscapes.asked(targets, settings)
    directory = out or question.folder
    process.promise(f"What is computed is in {directory}; the same command goes on from there.", directory)
    with Bar(Console(stderr=True)) as bar:
        found = exploring.explored(question, directory, bar)
    page = report.write_landscape(found, directory)
    report.show_landscape(found)
    typer.echo(f"\nLandscape: {page}")
    infinite = study.infinite(found.lines["loss"], found.grids["loss"])
    if infinite:
        process.say(f"{infinite}, and left out of the figures. Take a smaller --radius in another --out.")
        raise typer.Exit(1)


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="studies|datasets|models|methods|transforms|losses|measures")] = "all",
) -> None:
    """List what a study can name, and what can be measured."""
    kinds: dict[str, Callable[[], dict[str, str]]] = {
        "studies": _studies,
        "datasets": lambda: _functions("steppe.data", "DATASETS"),
        "models": lambda: _functions("steppe.models", "MODELS"),
        "methods": lambda: _functions("steppe.methods", "METHODS"),
        "transforms": lambda: _functions("steppe.data", "AUGMENTATIONS"),
        "losses": lambda: _functions("steppe.losses", "LOSSES"),
        "measures": _measures,
    }
    if kind not in (*kinds, "all"):
        fail("list", "KIND", f"one of {', '.join(kinds)}", shown(kind), nearest(kind, kinds))
    for title, entries in kinds.items():
        if kind in (title, "all"):
            if kind == "all":
                typer.secho(title, bold=True)
            known = entries()
            width = max(map(len, known), default=0)
            for name, line in known.items():
                typer.echo(f"  {name:{width}}  {line}")


def _studies() -> dict[str, str]:
    from steppe import study

    return {name: tomllib.loads(text)["title"] for name, text in study.shipped().items()}


def _measures() -> dict[str, str]:
    """Measures, with cost and invariance."""
    from steppe import sharpness

    under = {"nodes": "unchanged by rescaling nodes", "layers": "unchanged by rescaling layers", "none": ""}
    return {
        name: f"{m.question} [{'; '.join(filter(None, (f'cost {m.cost}', under[m.invariance])))}]"
        for name, m in sharpness.MEASURES.items()
    }


def _functions(module: str, registry: str) -> dict[str, str]:
    """Names in a registry, each with the first line of its docstring."""
    import importlib

    functions = getattr(importlib.import_module(module), registry)
    return {name: (function.__doc__ or "").strip().partition("\n")[0] for name, function in functions.items()}


def parsed(change: str, command: str = "run", example: str = "train.epochs=2") -> tuple[str, Any]:
    """``train.epochs=2`` as a dotted path and a TOML value; what is not TOML is a string.

    Examples
    --------
    >>> parsed("train.epochs=2"), parsed("train.optimizer=sgd"), parsed("model.hidden=[8]")
    (('train.epochs', 2), ('train.optimizer', 'sgd'), ('model.hidden', [8]))
    """
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        fail(command, "--set", f"KEY=VALUE, such as {example}", shown(change))
    try:
        return path.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), text.strip()


def _short(message: str, word: int = 60, most: int = 400) -> str:
    """A message of the parser on one line, in which what a user typed is not too long to read."""
    message = " ".join(part if len(part) <= word else f"{part[: word - 3]}..." for part in message.split())
    return message if len(message) <= most else f"{message[:most]}..."


def invoke(arguments: Sequence[str]) -> int:
    """Run the command that some words say; the status with which it ends.

    The parser's own ``main`` is passed by: it swallows KeyboardInterrupt and errors of output.

    Raises
    ------
    OSError, KeyboardInterrupt : see `cli.main`, which says what happened.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("steppe", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except InputError as error:
        process.say(str(error))
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):  # otherwise a mistake in the command's words, found by the parser
            raise
        message = _short(error.format_message())
        process.say(f"{message}{'' if message.endswith(('.', '?')) else '.'} Try 'steppe --help'.")
        return 2
    return 0

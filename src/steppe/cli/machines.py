"""The options of commands that may compute elsewhere: on which machines, and how many workers."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from steppe.engines.engines import Place

PANEL = "Where it is computed"


def on_machines(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `_place` in the stead of its argument `place`, which they make.

    The parser reads a function's signature, and has no way by which several commands share some options.
    """
    options = inspect.signature(_place).parameters
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "place"]

    def parsed(**given: Any) -> None:
        place = _place(**{name: given.pop(name) for name in options})
        command(**given, place=place)

    parsed.__doc__ = command.__doc__
    parsed.__signature__ = inspect.Signature([*own, *options.values()])  # type: ignore[attr-defined]
    parsed.__annotations__ = {p.name: p.annotation for p in (*own, *options.values())}
    return parsed


def _place(
    *,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="processes|ray|slurm",
            help="Compute on several processes of this machine, or on a cluster. The folder keeps all results.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of workers at once.", show_default="one a GPU or core", rich_help_panel=PANEL),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a cluster of Ray, HOST:PORT or auto.",
            show_default="a cluster of this machine",
            rich_help_panel=PANEL,
        ),
    ] = None,
    cpus_per_run: Annotated[
        float | None, typer.Option(help="Cores, and threads, of each worker on a cluster.", rich_help_panel=PANEL)
    ] = None,
    gpus_per_run: Annotated[
        float | None, typer.Option(help="GPUs of each worker on a cluster.", rich_help_panel=PANEL)
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", metavar="KEY=VALUE", help="Option of sbatch, such as partition=gpu.", rich_help_panel=PANEL
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what --on would submit, and end.", rich_help_panel=PANEL)
    ] = False,
) -> "Place":
    from steppe.engines.engines import Place

    return Place(on, workers, address, cpus_per_run, gpus_per_run, slurm or (), dry_run)

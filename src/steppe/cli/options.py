"""Options that several commands share: what a user says of a network of their own."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from steppe.cli.settings import parsed
from steppe.core.checks import fail, shown

Network = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Makes your network, a module of Flax NNX, Equinox or PyTorch, from (shape, classes), or from nothing if "
        "its first argument has a default. Settings: --set network.KEY=VALUE.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(metavar="FILE|MODULE:FUNCTION", help="A .npz, .csv or .parquet file, or a function to call."),
]
Label = Annotated[str | None, typer.Option(help="Column of a table that holds the targets.")]
IgnoreLabel = Annotated[int | None, typer.Option(metavar="LABEL", help="Label that does not count, such as -100.")]


def settings(changes: Sequence[str], command: str, example: str) -> dict[str, dict[str, Any]]:
    """What ``--set NAME.KEY=VALUE`` says, name by name; ``none`` is None.

    Raises
    ------
    InputError
        No path of two steps; see `parsed`.

    Examples
    --------
    >>> settings(["network.width=8", "mine:entropy.base=3.0"], "measure", "network.width=8")
    {'network': {'width': 8}, 'mine:entropy': {'base': 3.0}}
    """
    found: dict[str, dict[str, Any]] = {}
    for change in changes:
        key, value = parsed(change, command, example)
        module, colon, rest = key.rpartition(":")  # a user's own is module:function, whose module may have dots
        name, dot, setting = rest.partition(".")
        if not dot:
            fail(command, "--set", f"NAME.KEY=VALUE, such as {example}", shown(change))
        found.setdefault(module + colon + name, {})[setting] = None if value == "none" else value
    return found

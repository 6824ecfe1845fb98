"""Options that several commands share: settings as ``train.epochs=2``, and a network of a user's own."""

import tomllib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from steppe.core.checks import fail, shown

Network = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Makes your network, a module of Flax NNX, Equinox or PyTorch, from (shape, classes), or from nothing if "
        "its first argument has a default. Settings: --set network.KEY=VALUE.",
    ),
]
Criterion = Annotated[
    str,
    typer.Option(
        metavar="cross_entropy|squared_error|gaussian|next_token|MODULE:FUNCTION",
        help="Loss of the outputs of your network; your own is criterion(outputs, targets), the mean over the batch.",
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


def parsed(change: str, command: str = "run", example: str = "train.epochs=2") -> tuple[str, Any]:
    """``train.epochs=2`` as a dotted path and a TOML value; what is not TOML is a string.

    Raises
    ------
    InputError
        No path, or a list or table in brackets that is not TOML's: shells take away quotes that are not quoted.

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
    except (ValueError, RecursionError):  # no TOML, a number of thousands of digits, or brackets within brackets
        text = text.strip()
    if text[:1] + text[-1:] in ("[]", "{}"):
        todo = """Put the whole between single quotes, and texts in it between double ones: 'names=["loss"]'."""
        fail(command, "--set", "KEY=VALUE, a list or table as TOML writes it", shown(change), todo)
    return path.strip(), text

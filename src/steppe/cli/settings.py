"""Settings as words of a command: ``train.epochs=2``."""

import tomllib
from typing import Any

from steppe.core.checks import fail, shown


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

"""What makes two specifications different."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted paths at which two nested tables differ, each with both values (None where there is none).

    Examples
    --------
    >>> list(differences({"train": {"epochs": 4}}, {"train": {"epochs": 5}}))
    [('train.epochs', 4, 5)]
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}".removeprefix("."))
    elif a != b:
        yield path, a, b

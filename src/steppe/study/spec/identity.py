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


def _asked_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings after, without measures that only these name, and without the code of such measures.

    What a finished run is asked besides changes nothing of it.
    """
    names, more = (each.get("measure", {}).get("names", []) for each in (before, after))
    added = [entry for entry in more if entry not in names]
    if not added or any(entry not in more for entry in names):
        return after
    code = {str(entry.get("name") if isinstance(entry, Mapping) else entry).rpartition(":")[0] for entry in added}
    known = before.get("source", {})
    source = {module: mark for module, mark in after.get("source", {}).items() if module in known or module not in code}
    kept = {key: value for key, value in after.items() if key != "source"} | ({"source": source} if source else {})
    return kept | {"measure": {**after["measure"], "names": names}}


STUDY_WIDE = ("grid", "conditions", "baseline")
"""What says which conditions there are and which is compared with which; no single run depends on it."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The differences between the settings of two runs; measures that are only asked besides are none.

    Settings of a user's function that only one of them writes out are its defaults: the digest of its source says
    whether those are the same.
    """
    before, after = ({k: v for k, v in each.items() if k not in STUDY_WIDE} for each in (before, after))
    after = _asked_alike(before, after)
    return differences(_completed(before, after), _completed(after, before))


def varied_settings(identities: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Condition -> dotted path -> value, of the settings in which some conditions differ.

    Examples
    --------
    >>> varied_settings({"a": {"train": {"epochs": 4, "lr": 1}}, "b": {"train": {"epochs": 5, "lr": 1}}})
    {'a': {'train.epochs': 4}, 'b': {'train.epochs': 5}}
    """
    first = next(iter(identities.values()), {})
    found: dict[str, dict[str, Any]] = {name: {} for name in identities}
    paths: dict[str, Any] = {}
    for identity in identities.values():
        for path, here, _ in differences(first, identity):
            if path.partition(".")[0] not in (*STUDY_WIDE, "name"):
                paths.setdefault(path, here)
    for name, identity in identities.items():
        others = {path: there for path, _, there in differences(first, identity)}
        found[name] = {path: others.get(path, here) for path, here in paths.items()}
    return found


def _completed(table: Any, other: Any) -> Any:
    """A table where tables of a user's function have the settings that only the other writes out."""
    if isinstance(table, Mapping) and isinstance(other, Mapping):
        name = table.get("name")
        filled = dict(table)
        if isinstance(name, str) and ":" in name and name == other.get("name"):
            filled = {**other, **table}
        return {key: _completed(value, other.get(key)) for key, value in filled.items()}
    if isinstance(table, list) and isinstance(other, list) and len(table) == len(other):
        return [_completed(one, another) for one, another in zip(table, other, strict=True)]
    return table

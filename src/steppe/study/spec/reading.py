"""Specifications from TOML: studies that ship, files, and text."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from steppe.core import checks
from steppe.data import DATASETS
from steppe.study.spec import limits
from steppe.study.spec.conditions import replace, resolve
from steppe.study.spec.tables import Spec

PATHS = ("file", "test_file"), ("folder", "path")
"""Settings of data that name files, whoever made the data set; and those of data sets that ship."""


def shipped() -> dict[str, str]:
    """The studies that come with Steppe: name -> TOML."""
    folder = resources.files("steppe.study") / "catalogue"
    files = {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}
    return {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}


def load(source: str, overrides: Mapping[str, Any] | None = None) -> Spec:
    """The study of that name or file, with dotted overrides (``{"train.epochs": 2}``), checked and resolved.

    Raises
    ------
    InputError : no such study or file, not TOML, an unknown key, a value of the wrong type or out of range.

    Examples
    --------
    >>> load("fa-breast-cancer", {"train.epochs": 2}).train.epochs
    2
    """
    known = shipped()
    if source in known:
        return _asked(parse(known[source], overrides, origin=source))
    if source.endswith(".toml"):
        return _asked(read(Path(source), overrides))
    hint = checks.nearest(source, known)
    checks.fail("study", "name", "a study that ships, or a TOML file", checks.shown(source), hint)


def _asked(spec: Spec) -> Spec:
    """A study that somebody asks for: not one of trials, which look at a part of the data alone.

    Raises
    ------
    InputError : it is one.
    """
    for name, value in (("measure.parts", spec.measure.parts), ("train.bounds", spec.train.bounds)):
        if value is not None:
            checks.fail("study", name, "left out: Steppe writes it, for trials of a tuned study", checks.shown(value))
    return spec


def read(path: Path, overrides: Mapping[str, Any] | None = None, *, run_code: bool = True) -> Spec:
    """A specification from a TOML file; see `load`."""
    what, got = "the name of a study or a TOML file", checks.shown(str(path))
    try:
        if not path.is_file():
            todo = f"It is {'a folder' if path.is_dir() else 'no regular file'}." if path.exists() else ""
            checks.fail("study", "spec", what, got, todo or "There is no such file.")
        if path.stat().st_size > limits.FILE_BYTES:
            checks.fail("study", "spec", f"a TOML file of at most {limits.FILE_BYTES:,} bytes", got, "It is larger.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        checks.fail("study", "spec", "a TOML file in UTF-8", got)
    except OSError as error:
        checks.fail("study", "spec", what, got, f"It cannot be read: {error.strerror or type(error).__name__}.")
    return parse(text, overrides, origin=str(path), folder=path.parent, run_code=run_code)


def parse(
    text: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    origin: str = "spec",
    folder: Path = Path(),
    run_code: bool = True,
) -> Spec:
    """A specification from TOML text; see `load`. A relative path of data is looked for beside the TOML file first."""
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        checks.fail("study", origin, f"nested at most {limits.DEPTH} deep", "a file nested deeper")
    except ValueError as error:  # also of integers with thousands of digits
        got = " ".join(str(error).split())[:200]
        checks.fail("study", origin, "valid TOML", got, "Correct the file at that line.")
    grid = raw.get("grid")
    varied = grid if isinstance(grid, dict) and "grid" not in (overrides or {}) else ()
    for path, value in (overrides or {}).items():
        if path.count(".") > limits.DEPTH:
            checks.fail("study", checks.shown(path), f"a path of at most {limits.DEPTH} dots", "a longer one")
        if path.partition(".")[0] == "source":
            checks.fail("study", checks.shown(path), "left out: digests of your code, which Steppe writes",
                        checks.shown(value), "Edit the code itself.")  # fmt: skip
        if path in varied:
            got = f"a value, {checks.shown(value)}"
            checks.fail("study", path, f"set through grid.{path}, the list that it varies over", got)
        raw = replace(raw, path, value)
    return resolve(_with_paths(raw, folder), folder, run_code=run_code)


def _with_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings, with whole paths of the data that lie beside the TOML file, also where conditions name them."""
    table, grid, columns = (raw.get(name) for name in ("data", "grid", "conditions"))
    if not isinstance(table, dict):
        return raw
    name, found = table.get("name"), raw | {"data": _data_with_paths(table, folder)}
    if isinstance(grid, dict):
        varied = {path: values for path, values in grid.items() if isinstance(values, list)}
        found["grid"] = grid | {
            path: [_changes_with_paths({path: value}, folder, name)[path] for value in values]
            for path, values in varied.items()
        }
    if isinstance(columns, list):
        found["conditions"] = [
            _changes_with_paths(changes, folder, name) if isinstance(changes, dict) else changes for changes in columns
        ]
    return found


def _changes_with_paths(changes: dict[str, Any], folder: Path, name: Any) -> dict[str, Any]:
    """What a condition changes, with whole paths of its data; `name` is that of the study's data set."""
    found = dict(changes)
    for path, value in changes.items():
        first, _, key = path.partition(".")
        if path == "data" and isinstance(value, dict):
            found[path] = _data_with_paths(value, folder)
        elif first == "data" and key != "name":
            found[path] = _data_with_paths({"name": changes.get("data.name", name), key: value}, folder)[key]
    return found


def _data_with_paths(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A table of data with whole paths of what lies in a folder."""
    any_, ships = PATHS
    known = any_ + ships * (table.get("name") in tuple(DATASETS))
    texts = {key: table[key] for key in known if isinstance(table.get(key), str)}
    return table | {key: str((folder / text).resolve()) for key, text in texts.items() if _is_there(folder / text)}


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False

"""Where a study lives on disk: what is written is whole, what was finished is never lost or mixed.

```
DIR/study.toml                    the frozen specification
DIR/data.json                     the fingerprint of the data it runs on
DIR/runs/<condition>-s<seed>/     parameters.npz, history.json, run.json: there when the run is finished, or not at all
DIR/checkpoints/                  unfinished runs
DIR/surfaces.npz                  loss surfaces
DIR/summary.md, report.html, results.parquet      written by the report
```
"""

import contextlib
import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from steppe import checks
from steppe.study import spec as specs
from steppe.study.results import Surfaces
from steppe.study.spec import Spec
from steppe.typing import Params

RUN_FILES = ("parameters.npz", "history.json", "run.json")


class Store:
    """The folder of one study."""

    def __init__(self, directory: Path, spec: Spec):
        self.directory = directory
        self.spec = spec

    @classmethod
    def read(cls, directory: Path | str) -> "Store":
        """The store of a study that has begun.

        Raises
        ------
        InputError : a folder without a study, or whose study.toml cannot be read.
        """
        directory = Path(directory)
        frozen = directory / "study.toml"
        if not frozen.is_file():
            checks.fail("study", "DIR", "the folder of a study", checks.shown(str(directory)), "It has no study.toml.")
        return cls(directory, specs.parse(frozen.read_text(encoding="utf-8"), origin=str(frozen)))

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path | str, spec: Spec, data: Mapping[str, str]) -> Iterator["Store"]:
        """The store to run a study in, held by this process alone; made if it is not there.

        `data` says what it runs on: ``{"about": …, "fingerprint": …}``.

        Raises
        ------
        InputError : the folder holds another study, other files, or the same study on other data; another process
            runs in it; the folder cannot be made.
        OSError : the disk is full.
        """
        directory, frozen = Path(directory), spec.toml()
        _check_folder(directory, spec, data["fingerprint"])
        try:
            (directory / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            checks.fail("study", str(directory), "a folder that can be written", f"an error: {error.strerror}")
        with _held(directory):
            store = cls(directory, spec)
            write_text(directory / "study.toml", frozen)
            write_text(directory / "data.json", json.dumps(dict(data), indent=1) + "\n")
            yield store

    def run_folder(self, condition: str, seed: int) -> Path:
        """Where a finished run lies."""
        return self.directory / "runs" / f"{condition}-s{seed}"

    def checkpoint_folder(self, condition: str, seed: int) -> Path:
        """Where a run that has not finished keeps its checkpoints."""
        return self.directory / "checkpoints" / f"{condition}-s{seed}"

    def has(self, condition: str, seed: int) -> bool:
        """Whether a run is finished."""
        return (self.run_folder(condition, seed) / "run.json").is_file()

    def save(
        self, condition: str, seed: int, params: Params, history: list[dict[str, Any]], run: dict[str, Any]
    ) -> None:
        """Put a finished run on disk, whole: it appears under its name only when every byte is written."""
        folder = self.run_folder(condition, seed)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with (partial / "parameters.npz").open("wb") as file:
            np.savez(file, **flattened(params))
            _flush(file)
        for name, content in (("history.json", history), ("run.json", run)):
            write_text(partial / name, json.dumps(content, indent=1) + "\n")
        partial.rename(folder)
        _sync_folder(folder.parent)
        shutil.rmtree(self.checkpoint_folder(condition, seed), ignore_errors=True)

    def load(self, condition: str, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A finished run's record and history.

        Raises
        ------
        InputError : a file of it is damaged.
        """
        folder = self.run_folder(condition, seed)
        try:
            return json.loads((folder / "run.json").read_text()), json.loads((folder / "history.json").read_text())
        except (OSError, ValueError) as error:
            checks.fail(
                "study", "run", "undamaged", f"{folder}: {error}", "Delete that folder and run the study again."
            )

    def params(self, condition: str, seed: int) -> Params:
        """A finished run's parameters, as NumPy arrays."""
        folder = self.run_folder(condition, seed)
        try:
            with np.load(folder / "parameters.npz", allow_pickle=False) as arrays:
                return unflattened({name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            checks.fail(
                "study", "run", "undamaged", f"{folder}: {error}", "Delete that folder and run the study again."
            )

    def save_surfaces(self, surfaces: Surfaces) -> None:
        """Put loss surfaces on disk."""
        path = self.directory / "surfaces.npz"
        partial = path.with_name(".surfaces.partial.npz")
        with partial.open("wb") as file:
            np.savez(
                file,
                **{**surfaces.__dict__, "conditions": np.array(surfaces.conditions), "about": np.array(surfaces.about)},
            )
            _flush(file)
        partial.replace(path)

    def surfaces(self) -> Surfaces | None:
        """The loss surfaces, if they were computed and can be read."""
        path = self.directory / "surfaces.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fields = {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None
        return Surfaces(**{**fields, "conditions": tuple(fields["conditions"].tolist()), "about": str(fields["about"])})


def _check_folder(directory: Path, spec: Spec, fingerprint: str) -> None:
    """Refuse a folder that holds anything but this very study, before touching it."""
    frozen = directory / "study.toml"
    if frozen.is_file():
        before = Store.read(directory).spec.identity()
        difference = first_difference(before, spec.identity())
        if difference:
            path, old, new = difference
            checks.fail(
                "study",
                str(directory),
                f"a folder of this study, with {path} = {new!r}",
                f"one with {path} = {old!r}",
                "Choose another --out, or repeat with the settings of its study.toml.",
            )
        recorded = directory / "data.json"
        if recorded.is_file() and json.loads(recorded.read_text())["fingerprint"] != fingerprint:
            checks.fail("study", "data", f"what the runs in {directory} were trained on", "data that has changed since",
                        "Restore the data, or choose another --out.")  # fmt: skip
    elif directory.is_dir() and not _is_ours(directory):
        checks.fail(
            "study",
            str(directory),
            "an empty folder or a study's",
            "a folder with other files",
            "Choose another --out.",
        )


def _is_ours(directory: Path) -> bool:
    """Whether a folder without a study is empty, or holds only what a study killed at its very start leaves."""
    begun = {".lock", "runs", ".study.toml.partial"}
    return {path.name for path in directory.iterdir()} <= begun and not list((directory / "runs").glob("*"))


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first dotted path at which two nested tables differ, with both values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            found = first_difference(a.get(key), b.get(key), f"{path}.{key}".removeprefix("."))
            if found:
                return found
        return None
    return None if a == b else (path, a, b)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other processes from running the same study; the system lets go if this one dies."""
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            checks.fail("study", str(directory), "free", "a folder that another process runs in", "Wait for it to end.")
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        _flush(file)
    partial.replace(path)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flattened(params: Params) -> dict[str, np.ndarray]:
    """Nested dictionaries of arrays as ``{"layers/0/kernel": array}``."""
    paths = jax.tree.leaves_with_path(params)
    return {"/".join(str(step.key) for step in path): np.asarray(leaf) for path, leaf in paths}


def unflattened(arrays: Mapping[str, np.ndarray]) -> Params:
    """The inverse of `flattened`; steps that are numbers become ints, as Flax has them."""
    tree: dict[Any, Any] = {}
    for path, leaf in arrays.items():
        *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        inner = tree
        for step in parents:
            inner = inner.setdefault(step, {})
        inner[last] = leaf
    return tree

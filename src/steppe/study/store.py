"""Where a study lives on disk: what is written is whole, what was finished is never lost or mixed.

```
DIR/study.toml                    the frozen specification
DIR/data.json                     the fingerprint of the data it runs on
DIR/runs/<condition>-s<seed>/     parameters.npz, history.json, run.json: there when the run is finished, or not at all
DIR/checkpoints/                  unfinished runs and surfaces
DIR/surfaces.npz                  loss surfaces
DIR/landscapes/<name>/            landscape.npz, landscape.html: written by `steppe landscape`
DIR/measures.parquet, densities.npz      written by `steppe measure`
DIR/summary.md, report.html, results.parquet      written by the report, as is
DIR/landscape.html                the surfaces to turn, where there are any
```
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from steppe import checks
from steppe.study import files
from steppe.study import spec as specs
from steppe.study.results import Surfaces
from steppe.study.spec import Spec
from steppe.typing import Params


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
        if not (directory / "study.toml").is_file():
            checks.fail("study", "DIR", "the folder of a study", checks.shown(str(directory)), "It has no study.toml.")
        return cls(directory, specs.read(directory / "study.toml"))

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path | str, spec: Spec, data: Mapping[str, str]) -> Iterator["Store"]:
        """The store to run a study in, held by this process alone; made if it is not there.

        A study that has more seeds already keeps them.

        `data` says what it runs on: ``{"about": …, "fingerprint": …}``.

        Raises
        ------
        InputError : the folder holds another study, other files, or the same study on other data; another process
            runs in it; the folder cannot be made.
        OSError : the disk is full.
        """
        directory = Path(directory)
        _check_folder(directory, spec, data["fingerprint"])
        try:
            (directory / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            checks.fail("study", str(directory), "a folder that can be written", f"an error: {error.strerror}")
        with _held(directory):
            before = _check_folder(directory, spec, data["fingerprint"])  # again: it is ours alone only now
            store = cls(directory, spec.model_copy(update={"seeds": max(spec.seeds, before.seeds if before else 1)}))
            store.sweep()
            files.write(directory / "study.toml", store.spec.toml())
            files.write(directory / "data.json", json.dumps(dict(data), indent=1) + "\n")
            yield store

    def sweep(self) -> None:
        """Remove what a killed process left half written, and checkpoints of runs that are finished."""
        for folder in (self.directory, self.directory / "runs"):
            for path in folder.glob(".*.partial*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in (self.directory / "checkpoints").glob("*"):
            if (self.directory / "runs" / folder.name / "run.json").is_file():
                shutil.rmtree(folder)

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
        files.write(partial / "parameters.npz", lambda file: np.savez(file, **flattened(params)))
        files.write(partial / "history.json", json.dumps(history, indent=1) + "\n")
        files.write(partial / "run.json", json.dumps(run, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)  # somebody removed its run.json: it does not count as finished
        partial.rename(folder)
        files.sync(folder.parent)
        shutil.rmtree(self.checkpoint_folder(condition, seed), ignore_errors=True)

    def load(self, condition: str, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A finished run's record and history.

        Raises
        ------
        InputError : a file of it is damaged.
        """
        folder = self.run_folder(condition, seed)
        try:
            run, history = (json.loads((folder / name).read_text()) for name in ("run.json", "history.json"))
            if run["condition"] != condition or not all("epoch" in epoch for epoch in history):
                raise ValueError("not what was written there")
            return run, history
        except (OSError, ValueError, KeyError, TypeError) as error:
            _damaged(folder, error)

    def data(self) -> dict[str, str]:
        """What the study runs on: about, and fingerprint.

        Raises
        ------
        InputError : data.json is damaged.
        """
        path = self.directory / "data.json"
        try:
            return dict(json.loads(path.read_text())) if path.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            checks.fail(
                "study", str(path), "undamaged", str(error), "Delete it, if you know that the data are the same."
            )

    def params(self, condition: str, seed: int) -> Params:
        """A finished run's parameters, as NumPy arrays."""
        folder = self.run_folder(condition, seed)
        try:
            return unflattened(files.arrays(folder / "parameters.npz"))
        except files.DAMAGED as error:
            _damaged(folder, error)

    def save_surfaces(self, surfaces: Surfaces) -> None:
        """Put loss surfaces on disk."""
        names, about = np.array(surfaces.conditions), np.array(surfaces.about)
        arrays = {**surfaces.__dict__, "conditions": names, "about": about}
        files.write(self.directory / "surfaces.npz", lambda file: np.savez(file, **arrays))

    def surfaces(self) -> Surfaces | None:
        """The loss surfaces, if they were computed and can be read."""
        path = self.directory / "surfaces.npz"
        if not path.is_file():
            return None
        try:
            fields = files.arrays(path)
        except files.DAMAGED:
            return None
        return Surfaces(**{**fields, "conditions": tuple(fields["conditions"].tolist()), "about": str(fields["about"])})


def _damaged(folder: Path, error: Exception) -> NoReturn:
    checks.fail("study", "run", "undamaged", f"{folder}: {error}", "Delete that folder and run the study again.")


def _check_folder(directory: Path, spec: Spec, fingerprint: str) -> Spec | None:
    """The specification that a folder holds, if any; a folder that holds anything but this very study is refused."""
    if (directory / "study.toml").is_file():
        store = Store.read(directory)
        difference = next(specs.differences(store.spec.identity(), spec.identity()), None)
        if difference:
            path, old, new = difference
            checks.fail(
                "study",
                str(directory),
                f"a folder of this study, with {path} = {new!r}",
                f"one with {path} = {old!r}",
                "Choose another --out, or repeat with the settings of its study.toml.",
            )
        if store.data().get("fingerprint", fingerprint) != fingerprint:
            checks.fail("study", "data", f"what the runs in {directory} were trained on", "data that has changed since",
                        "Restore the data, or choose another --out.")  # fmt: skip
        return store.spec
    if directory.is_dir() and not _is_ours(directory):
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


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other processes from running the same study; the system lets go if this one dies."""
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            checks.fail("study", str(directory), "free", "a folder that another process runs in", "Wait for it to end.")
        yield


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

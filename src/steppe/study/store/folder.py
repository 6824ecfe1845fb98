"""The folder of one study, held by one process or read by many."""

import contextlib
import errno
import functools
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars

from steppe.analysis.results import Surfaces
from steppe.core import checks
from steppe.core.types import Params
from steppe.models import Variables
from steppe.storage import files
from steppe.storage.checkpoint import Checkpoint
from steppe.study import records
from steppe.study import spec as specs
from steppe.study.datasets import DataRecord
from steppe.study.history import ROWS as ROWS_OF_A_RUN
from steppe.study.history import written
from steppe.study.records import RunRecord
from steppe.study.spec.identity import changes
from steppe.study.spec.tables import Spec
from steppe.study.store import continuation, migration
from steppe.study.store.names import (
    ADDED,
    BESIDE,
    FRESH,
    OF_A_RUN,
    OF_A_STUDY,
    OLD_ROWS,
    ROWS,
    SUMS,
    node,
    remove,
    remove_run,
)

NO_ROWS = polars.DataFrame(schema=ROWS_OF_A_RUN)

AGAIN = "`steppe run` recreates it."


class ForeignRun(files.DamagedFile):
    """A run is whole, but another one, or of other settings or data than the study's."""


class Store:
    """The folder of one study.

    Attributes
    ----------
    directory : Path
        the folder.
    spec : Spec
        what its study.toml says.
    """

    def __init__(self, directory: Path, spec: Spec):
        self.directory = directory
        self.spec = spec
        self._data = DataRecord()
        self._held: dict[Path, tuple[int, int] | None] = {}

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
        path = directory / "study.toml"
        try:
            store = cls(directory, specs.read(path, run_code=False))
        except checks.InputError as error:
            if not files.is_altered(path):
                raise
            why = f"a file that was changed since ({str(error).rstrip('.')})"
            raise files.DamagedFile(path, why, "Put the specification that was run in its place.") from None
        with contextlib.suppress(files.DamagedFile):
            store._data = store.data()
        return store

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, directory: Path | str, spec: Spec, data: DataRecord, say: Callable[[str], None] = lambda text: None
    ) -> Iterator["Store"]:
        """The store to run a study in, held by this process alone; made if it is not there.

        A study that has more seeds already keeps them. A study.toml that somebody wrote or changed is kept as it is.

        Parameters
        ----------
        directory : Path or str
            the study's folder.
        spec : Spec
            what is to be run.
        data : DataRecord
            what it runs on.
        say : callable
            is told, in a sentence, what was found damaged.

        Raises
        ------
        InputError : the folder holds another study, other files, or the same study on other data; another process
            runs in it; the folder cannot be made, or leads elsewhere.
        OSError : the disk is full.
        """
        directory = Path(directory)
        _begun(directory, spec, data, lambda text: None)
        new = not directory.exists()
        files.make(files.begin(directory, "study") / "runs", directory)
        with files.lock(directory / ".lock", "study", directory, "runs in"):
            before = _begun(directory, spec, data, say)  # again: it is ours alone only now
            spec = continuation.with_choice(before, continuation.with_baseline(before, spec, say)) if before else spec
            store = cls(directory, spec.model_copy(update={"seeds": max(spec.seeds, before.seeds if before else 1)}))
            store._data = data
            store._held = {path: node(path) for path in (directory, directory / "runs")}
            store.sweep()
            if before:
                continuation.tell_conditions(directory, before, spec, say)
            if before and not continuation.is_frozen(directory / "study.toml", before):
                store.spec = continuation.kept(directory, before, spec, say)
            else:
                files.write_checked(directory / "study.toml", store.spec.toml())
            files.write_checked(directory / "data.json", json.dumps(data.table(), indent=1) + "\n")
            try:
                yield store
            except checks.InputError:
                if new and store._is_unused():
                    shutil.rmtree(directory, ignore_errors=True)
                raise

    def _is_unused(self) -> bool:
        """Whether the folder holds what `open` put there, tasks that nobody began, and nothing else."""
        if node(self.directory) != self._held[self.directory]:
            return False
        begun = [*(self.directory / "runs").iterdir(), *self.directory.glob("tasks/*/*.log"),
                 *self.directory.glob("tasks/*/log.txt")]  # fmt: skip
        return not begun and {path.name for path in self.directory.iterdir()} <= FRESH

    def choose(self, chosen: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what tuning chose, condition by condition: all that is run from now on has these settings.

        Raises
        ------
        InputError : the study's folder is gone, or its study.toml is not Steppe's to write.
        OSError : the disk is full.
        """
        self.check()
        path = self.directory / "study.toml"
        if self.changed():
            checks.fail("study", str(path), "what Steppe wrote, for tuning writes its choice into it",
                        "a file that was changed since", "Restore it, or choose another --out.")  # fmt: skip
        self.spec = self.spec.model_copy(update={"chosen": {name: dict(values) for name, values in chosen.items()}})
        for known in ("_columns", "_identities"):
            self.__dict__.pop(known, None)
        files.write_checked(path, self.spec.toml())

    def check(self) -> None:
        """Fail where the folder that this process holds is no longer the one of that name.

        Raises
        ------
        InputError : it was removed, moved or replaced since; nothing is written there any more.
        """
        for path, held in self._held.items():
            if node(path) != held or not (self.directory / "study.toml").is_file():
                got = f"{path} removed, moved or replaced" if node(path) != held else "its study.toml removed"
                checks.fail("study", str(self.directory), "left in place while a study runs in it", got,
                            "Nothing more was written. Runs that are still there count as finished.")  # fmt: skip

    def sweep(self) -> None:
        """Remove what a killed process left half written, and checkpoints of runs that are finished."""
        files.sweep(self.directory, OF_A_STUDY)
        names = "|".join(re.escape(name) for name in self._columns)
        left = re.compile(rf"\.(?:{names})-s\d+(?:\.[0-9a-f]{{8}})?\.partial")
        for path in (self.directory / "runs").iterdir():
            if left.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                remove_run(path)
        folder = self.directory / "checkpoints"
        run = re.compile(rf"({names})-s(\d+)")
        for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            found = run.fullmatch(path.name)
            if found and (self.run_folder(found[1], int(found[2])) / "run.json").is_file():
                remove(path)

    @functools.cached_property
    def _columns(self) -> dict[str, Spec]:
        """Each condition's settings."""
        return {column.name: column.spec for column in specs.conditions(self.spec, run_code=False)}

    @functools.cached_property
    def _identities(self) -> dict[str, dict[str, Any]]:
        """What each condition's results depend on, as it comes back from JSON."""
        return {name: records.plain(spec.identity()) for name, spec in self._columns.items()}

    def run_folder(self, condition: str, seed: int) -> Path:
        """Where a finished run lies."""
        return self.directory / "runs" / records.run_name(condition, seed)

    def checkpoints(self, name: str, *, make: bool = False) -> Path:
        """Where what has not finished keeps its checkpoints; the folder is made if that is asked for.

        Raises
        ------
        InputError : the study's folder is gone (see `check`), or that of checkpoints leads elsewhere.
        """
        self.check()
        folder = self.directory / "checkpoints" / name
        files.make(folder if make else folder.parent, self.directory)
        return folder

    def checkpoint(self, condition: str, seed: int) -> Checkpoint:
        """What is known of an unfinished run; another specification or other data begin it anew."""
        place = functools.partial(self.checkpoints, self.run_folder(condition, seed).name, make=True)
        return Checkpoint(place, [self._columns[condition].identity(), self.fingerprint(condition)])

    def forget(self, name: str) -> None:
        """Remove checkpoints that are no longer needed."""
        shutil.rmtree(self.directory / "checkpoints" / name, ignore_errors=True)

    def has(self, condition: str, seed: int) -> bool:
        """Whether anything of a run is there, whole or damaged."""
        folder = self.run_folder(condition, seed)
        return (
            any((folder / name).is_file() for name in (*OF_A_RUN, OLD_ROWS)) or folder.is_symlink() or folder.is_file()
        )

    def withdrawn(self) -> dict[str, int]:
        """Conditions that the study no longer has -> how many of their runs are still there."""
        folders = [path.parent.name for path in sorted((self.directory / "runs").glob("*/run.json"))]
        names = [name for name, mark, seed in (folder.rpartition("-s") for folder in folders) if seed.isdigit()]
        return {name: names.count(name) for name in names if name not in self._columns}

    def is_whole(self, condition: str, seed: int) -> bool:
        """Whether a finished run is there, undamaged and of this study."""
        try:
            return self.has(condition, seed) and bool(self.load(condition, seed))
        except files.DamagedFile:
            return False

    def save(self, condition: str, seed: int, network: Variables, rows: polars.DataFrame, run: RunRecord) -> None:
        """Put a finished run on disk, whole: it appears under its name only when every byte is written.

        What somebody else put into its folder stays there. A whole run that is another one is set aside.

        Raises
        ------
        InputError : the study's folder is gone, see `check`.
        OSError : the disk is full.
        """
        self.check()
        folder = self.run_folder(condition, seed)
        chosen = (self.spec.chosen or {}).get(condition)
        record = {
            **run,
            "data": self.fingerprint(condition),
            "settings": self._columns[condition].identity(),
            "equivalence": dict(self.spec.equivalence),  # the margins that stand before the result is known
            **({"chosen": chosen} if chosen else {}),
            **({"analysis": self.spec.analysis.model_dump(exclude_none=True)} if self.spec.analysis else {}),
        }
        contents: dict[str, files.Content] = {
            "parameters.npz": files.array_content(records.arrays_of(network)),
            ROWS: written(rows),
            "run.json": json.dumps(record, indent=1, default=str) + "\n",
        }
        while not self._put(condition, seed, contents):
            self.check()
        self.forget(folder.name)

    def _put(self, condition: str, seed: int, contents: Mapping[str, files.Content]) -> bool:
        """Write a run's files, and give them its name; False where what was half written was swept away meanwhile.

        That does a process that begins to run the study while workers of an earlier one still train.
        """
        folder = self.run_folder(condition, seed)
        partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
        partial.mkdir()
        try:
            for name, content in contents.items():
                files.write(partial / name, content)
            files.write(partial / SUMS, files.listed([(files.digest(partial / name), name) for name in contents]))
            self._make_way(condition, seed, partial)
            partial.rename(folder)
        except OSError as error:
            if error.errno == errno.ENOENT and not partial.is_dir() and folder.parent.is_dir():
                return False
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_run(partial)  # another process has finished the same run: it stays
        files.sync(folder.parent)
        return True

    def load(self, condition: str, seed: int) -> tuple[RunRecord, polars.DataFrame]:
        """A finished run's record, and its rows of the long table (see `study.history`); all its files are checked.

        Raises
        ------
        Damaged : one of them is not what was written there, or another run's.
        Foreign : it is whole, but another run, or of other settings or data.
        """
        folder = self.run_folder(condition, seed)
        sums = folder / SUMS
        read = functools.partial(files.read, sums=sums, todo=AGAIN)
        run = read(folder / "run.json", records.record)
        if "settings" in run and not sums.is_file():
            raise files.DamagedFile(sums, "nothing: it is missing", AGAIN)
        if (folder / OLD_ROWS).is_file() and not os.path.lexists(folder / ROWS):
            rows = read(folder / OLD_ROWS, lambda stream: migration.rows(stream, run))
        else:
            rows = read(folder / ROWS, lambda stream: records.rows(stream, run["epochs"]))
        read(folder / "parameters.npz", (lambda stream: None) if sums.is_file() else records.variables)
        self._check_origin(folder / "run.json", condition, seed, run)
        return run, rows

    def add(self, condition: str, seed: int, rows: polars.DataFrame) -> None:
        """Keep what a finished run was asked besides, after its earlier additions.

        Raises
        ------
        InputError : the study's folder is gone, see `check`.
        OSError : the disk is full.
        """
        self.check()
        with contextlib.suppress(files.DamagedFile):  # what it held is asked again
            rows = polars.concat([self.additions(condition, seed), rows])
        folder = self.run_folder(condition, seed)
        files.sweep(folder, (ADDED,))
        content = written(rows, {"parameters": files.digest(folder / "parameters.npz")})
        files.write_checked(folder / ADDED, content)

    def additions(self, condition: str, seed: int) -> polars.DataFrame:
        """What a finished run was asked besides; no rows where that is nothing, or was another network.

        Raises
        ------
        Damaged : it is not what was written there.
        """
        path = self.run_folder(condition, seed) / ADDED
        if not os.path.lexists(path):
            return NO_ROWS
        files.require_sums(path, AGAIN)
        rows, parameters = files.read(path, records.additions, todo=AGAIN)
        return rows if parameters == files.digest(path.with_name("parameters.npz")) else rows.clear()

    def _make_way(self, condition: str, seed: int, partial: Path) -> None:
        """Clear a run's place of what is not this run, whole; files of somebody else move into the new folder."""
        folder = self.run_folder(condition, seed)
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.is_dir():
            try:
                self.load(condition, seed)
            except ForeignRun:  # whole: it may be the only one
                folder.rename(folder.with_name(f"{folder.name}.set-aside-{secrets.token_hex(4)}"))
            except files.DamagedFile:
                files.sweep(folder, OF_A_RUN)
                for path in folder.iterdir():
                    remove(path) if path.name in (*OF_A_RUN, *BESIDE) else path.rename(partial / path.name)

    def _check_origin(self, path: Path, condition: str, seed: int, run: RunRecord) -> None:
        """Fail where a record is another run's, or has other settings or data; those of older versions lack these."""
        if (run["condition"], run["seed"]) != (condition, seed):
            got = f"the record of {records.run_name(run['condition'], run['seed'])}"
            raise ForeignRun(path, got, "Was it copied or renamed? Move it away, or back.")
        if "settings" not in run:
            return
        todo = "Restore study.toml or the data, or move that run away."
        asked = self._identities[condition]
        if any(changes(run["settings"], asked)):  # an older version knew fewer settings
            try:
                found = records.plain(specs.resolve(run["settings"], run_code=False).identity())
            except checks.InputError:
                found = run["settings"]
            for name, old, new in changes(found, asked):
                raise ForeignRun(
                    path, f"a run with {name} = {checks.shown(old)} where the study has {checks.shown(new)}", todo
                )
        if self.fingerprint(condition) not in (None, run.get("data")):
            raise ForeignRun(path, "a run on other data", todo)

    def changed(self) -> bool:
        """Whether study.toml has a checksum, and is not what was written there."""
        return bool(files.is_altered(self.directory / "study.toml"))

    def fingerprint(self, condition: str) -> str | None:
        """That of the data that a condition runs on, if it is known."""
        return self._data.fingerprint(condition)

    def data(self) -> DataRecord:
        """What the study runs on; nothing where there is no such file.

        Raises
        ------
        Damaged : data.json is not what was written there.
        """
        path = self.directory / "data.json"
        return files.read(path, records.data, todo=AGAIN) if os.path.lexists(path) else DataRecord()

    def params(self, condition: str, seed: int) -> Params:
        """A finished run's parameters, see `network`."""
        return self.network(condition, seed).params

    def network(self, condition: str, seed: int) -> Variables:
        """A finished run's parameters and state, as NumPy arrays.

        Raises
        ------
        Damaged : they are not what was written there.
        """
        folder = self.run_folder(condition, seed)
        return files.read(folder / "parameters.npz", records.variables, sums=folder / SUMS, todo=AGAIN)

    def save_surfaces(self, surfaces: Surfaces) -> None:
        """Put loss surfaces on disk."""
        self.check()
        texts = {name: np.array(getattr(surfaces, name)) for name in ("conditions", "about")}
        arrays = {**surfaces.__dict__, **texts, "data": np.array(self._data.mark)}
        files.write_checked(self.directory / "surfaces.npz", files.array_content(arrays))

    def surfaces(self) -> Surfaces | None:
        """The loss surfaces, if they were computed.

        Raises
        ------
        Damaged : they are not what was written there, or of another study.
        """
        path = self.directory / "surfaces.npz"
        if not os.path.lexists(path):
            return None
        found, data = files.read(path, records.surfaces_and_data, todo=AGAIN)
        if data is not None:  # an older version wrote neither this nor a checksum
            files.require_sums(path, AGAIN)
        known = self._data.mark in (None, data) or data is None
        if not known or not set(found.conditions) <= set(self._columns):
            raise files.DamagedFile(path, "surfaces of another study", AGAIN)
        return found


def _begun(directory: Path, spec: Spec, data: DataRecord, say: Callable[[str], None]) -> Spec | None:
    """The specification that a folder holds, if any; a folder that holds anything but this very study is refused."""
    if not (directory / "study.toml").is_file():
        continuation.check_unused(directory)
        return None
    store = Store.read(directory)
    continuation.check_specification(directory, store.spec, spec)
    try:
        before = store.data()
    except files.DamagedFile as error:
        say(f"{error.path} is damaged ({error.why}): it is written again.")
    else:
        names = [column.name for column in specs.conditions(spec, run_code=False) if column.name in store._columns]
        continuation.check_data(directory, before, data, names)
    return store.spec

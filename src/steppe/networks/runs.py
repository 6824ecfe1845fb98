"""Trained networks of finished runs, read back from the folders of their studies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.data import Dataset
from steppe.landscape.points import alike
from steppe.models import Network
from steppe.networks.network import NetworkOnData
from steppe.study.datasets import Datasets
from steppe.study.records import RunRecord
from steppe.study.spec.conditions import conditions
from steppe.study.spec.tables import Spec
from steppe.study.store import Store


@dataclass(frozen=True, eq=False, kw_only=True)
class FinishedRun(NetworkOnData):
    """A finished run: its network and what it was trained on.

    Attributes
    ----------
    folder : of the run, DIR/runs/<condition>-s<seed>, resolved; its name, or the study's before it where two runs of
        one call would share it, is what the network is called.
    study : the study's folder, DIR, as seen from here.
    spec : of its condition.
    record : what ``run.json`` says.
    """

    folder: Path
    study: Path
    spec: Spec
    record: RunRecord


def finished_runs(command: str, folders: Sequence[Path | str]) -> list[FinishedRun]:
    """The networks of finished runs, in their order; `command` is named in errors.

    Raises
    ------
    InputError : a folder that is not a run's, or was given twice; a run that diverged, is damaged, or does not fit
        its study any more; data that cannot be had or have changed since.
    """
    return list(read_runs(command, folders))


def read_runs(command: str, folders: Sequence[Path | str]) -> Iterator[FinishedRun]:
    """As `finished_runs`, one after another: what is not kept by who asks is not kept in memory."""
    for folder in folders:
        if not (Path(folder) / "run.json").is_file():
            _not_a_run(command, Path(folder))
    paths = [Path(folder).resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            checks.fail(command, "TARGET", "different runs", f"{path.name} twice")
    reader, short = _Reader(command), [path.name for path in paths]
    for path in paths:
        yield reader.read(path, path.name if short.count(path.name) == 1 else _long_name(path))


class _Reader:
    """Reads runs, each data set and each model once."""

    def __init__(self, command: str):
        self.command = command
        self.datasets = Datasets()
        self.models: dict[tuple[str, str], Network] = {}

    def read(self, path: Path, name: str) -> FinishedRun:
        store = Store.read(path.parent.parent)
        condition, _, seed = path.name.rpartition("-s")
        columns = {column.name: column.spec for column in conditions(store.spec, run_code=False)}
        known = condition in columns and seed.isdigit()
        if not known or path != store.run_folder(condition, int(seed)).resolve():
            self.fail("TARGET", f"a run of the study in {store.directory}", f"{path.name}", "Was it moved or renamed?")
        record, _ = store.load(condition, int(seed))  # fails where a file of it is damaged
        if record["status"] != "finished":
            self.fail("TARGET", "a run that finished", f"{path.name}, which diverged")
        spec = columns[condition]
        dataset = self.datasets.of(spec)
        if store.data().fingerprint(condition) not in (None, dataset.fingerprint):
            self.fail("data", f"what {path.name} was trained on", "data that has changed since", "Restore the data.")
        model, (params, state) = self.model(spec, dataset), store.network(condition, int(seed))
        expected = jax.eval_shape(model.init, jax.random.key(0))
        alike(self.command, f"parameters.npz of {path.name}", params, expected.params)
        _same_shapes(self.command, path.name, state, expected.state)
        study = _from_here(store.directory)
        return FinishedRun(
            name=name,
            source=f"{store.directory.name}/runs/{path.name}",
            home=study,
            model=model,
            dataset=dataset,
            params=params,
            state=state,
            criterion=dataset.criterion,
            folder=path,
            study=study,
            spec=spec,
            record=record,
        )

    def model(self, spec: Spec, dataset: Dataset) -> Network:
        """The network of a condition, built once."""
        key = dataset.fingerprint, repr(spec.model)
        if key not in self.models:
            self.models[key] = spec.build_model(dataset)
        return self.models[key]

    def fail(self, name: str, what: str, got: str, todo: str = "") -> NoReturn:
        checks.fail(self.command, name, what, got, todo)


def _same_shapes(command: str, name: str, state: Any, expected: Any) -> None:
    """Fail where a run's state is not the network's."""
    given, wanted = (jax.tree.map(jnp.shape, part) for part in (state, expected))
    if given != wanted:
        checks.fail(command, f"parameters.npz of {name}", "with the state of its network", "with another state")


def _from_here(path: Path) -> Path:
    """A path relative to the working directory, if it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _long_name(path: Path) -> str:
    return f"{path.parent.parent.name}: {path.name}"


def _not_a_run(command: str, folder: Path) -> NoReturn:
    """Say what a folder lacks, and where runs may be."""
    siblings = [path.name for path in folder.parent.glob("*") if (path / "run.json").is_file()]
    if (folder / "study.toml").is_file():
        todo = f"It is a study: its runs are in {folder / 'runs'}."
    elif folder.is_dir():
        todo = "It has no run.json."
    else:
        todo = checks.close_to(folder.name, siblings) or "There is no such folder."
    what = "the folder of a finished run of a study, such as DIR/runs/lam=0-s0"
    checks.fail(command, "TARGET", what, checks.shown(str(folder)), todo)

"""What is measured: the networks of finished runs, or a user's own parameters, each with its data and where rows go."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, entry, losses
from steppe.core.batches import Batches, gather
from steppe.core.types import Apply, Criterion, Loss, Params
from steppe.data import transforms
from steppe.data.dataset import fingerprint
from steppe.models.base import Variables, joint
from steppe.networks.network import check_split
from steppe.networks.runs import FinishedRun, read_runs
from steppe.networks.settings import Settings
from steppe.storage import files
from steppe.study import spec as specs
from steppe.study.spec import parts
from steppe.study.store import Store
from steppe.study.surfaces import chosen
from steppe.study.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Target:
    """A network to be measured.

    Attributes
    ----------
    run, condition, seed : who it is; a user's own has a name, the condition of that name, and no seed.
    source : the file or folder of its parameters.
    network : what makes outputs, or a loss, of its parameters.
    folder : where its rows go.
    params, batches : in the dtype that is asked for.
    loss, apply, criterion : one of the first two, see `measures.measure`.
    dataset, split : what the data are called.
    batch_size : examples in a batch.
    initial : gives the parameters before training, if they are known.
    remark : what to know of all its numbers: which of its arrays are no parameters.
    epoch : how many epochs it was trained, if that is known.
    parts : gives other parts of the data by their names, None for one that is not there.
    data : a digest of all parts.
    variables : gives the network as a function of parameters and statistics together, and both.
    """

    run: str
    condition: str
    seed: int | None
    source: str
    network: str
    folder: Path
    params: Params = field(repr=False)
    batches: Batches = field(repr=False)
    dataset: str
    split: str
    batch_size: int
    loss: Loss | None = None
    apply: Apply | None = None
    criterion: Criterion = losses.cross_entropy
    initial: Callable[[], Params] | None = None
    remark: str = ""
    epoch: int | None = None
    parts: Callable[[str], Batches | None] = lambda name: None
    data: str = ""
    variables: Callable[[], tuple[Apply, Params]] | None = None


def as_dtype(name: str, tree: Any, dtype: str) -> Any:
    """Floating leaves in a dtype, others as they are, on the device.

    Raises
    ------
    InputError : leaves that JAX cannot hold as they are, see `arrays.exact`.
    """
    return jax.tree.map(jnp.asarray, arrays.exact_tree("measure", name, tree, dtype=dtype))


def identity(target: Target, settings: Settings) -> list[Any]:
    """All that a target's numbers depend on but the measures: parameters, data, the program of its loss."""
    whole: Loss = losses.of(cast(Apply, target.apply), target.criterion) if target.loss is None else target.loss
    function = entry.loss_and_batches("measure", whole, target.params, target.batches)[0]
    program: Any = function.apply if isinstance(function, losses.NetworkLoss) and target.loss is None else function
    values = jax.tree.map(_plain, (target.params, target.batches.stacks, program.consts))
    criterion = getattr(target.criterion, "__name__", repr(target.criterion))
    return [target.run, program.digest, criterion, fingerprint(values), settings.dtype, settings.seed]


def _plain(leaf: Any) -> np.ndarray:
    keys = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def run_folders(target: Path) -> tuple[list[Path], list[str]]:
    """The runs that a path stands for, and sentences on what is left out: a run's folder, a study's, or its runs'.

    Raises
    ------
    InputError : a study without a finished run.
    """
    if (target / "run.json").is_file():
        return [target], []
    study = target.resolve().parent if target.name == "runs" and target.is_dir() else target
    store = Store.read(study)
    seeds = range(store.spec.seeds)
    columns = specs.conditions(store.spec, run_code=False)
    names = [(c.name, seed) for c in columns for seed in seeds if store.has(c.name, seed)]
    whole: list[Path] = []
    diverged: list[Path] = []
    damaged: list[files.DamagedFile] = []
    for name in names:
        try:
            status = store.load(*name)[0]["status"]
        except files.DamagedFile as error:
            damaged.append(error)
        else:
            (whole if status == "finished" else diverged).append(store.run_folder(*name))
    if not whole and damaged:
        raise damaged[0]
    if not whole:
        checks.fail("measure", "TARGET", "a study with finished runs", f"{target}, which has none",
                    "All runs that ended diverged." if diverged else "Run it first.")  # fmt: skip
    notes = [f"Runs that diverged are left out: {', '.join(folder.name for folder in diverged)}."] if diverged else []
    notes += [f"A damaged file is left out: {error.path} ({error.why}). {error.todo}" for error in damaged]
    return whole, notes


def is_of_a_study(target: Path) -> bool:
    """Whether a path is a run's folder, a study's, or its runs'."""
    there = ("run.json", "study.toml")
    return any((target / name).is_file() for name in there) or (
        target.name == "runs" and (target.resolve().parent / "study.toml").is_file()
    )


def _augmented(network: FinishedRun, batches: Batches, seed: int) -> Batches:
    """Training examples as one draw of the transforms of a run's condition makes them, those that attack included."""
    spec, loss = network.spec, losses.of(network.model.at(network.state), network.criterion)
    made = [parts.transform(table, spec.source, classes=network.dataset.classes) for table in spec.augment]
    change = jax.jit(lambda key, batch: transforms.chain(*made)(key, batch, lambda some: loss(network.params, some)))
    keys = jax.random.split(jax.random.key(seed), sum(count for count, _ in batches.shapes))
    return gather("measure", [change(key, batch) for key, batch in zip(keys, batches.members(), strict=True)])


class Runs:
    """The networks of finished runs, read one after another; their data once."""

    def __init__(self, folders: Sequence[Path], settings: Settings, out: Path | None):
        self.folders, self.settings, self.out = folders, settings, out
        self.notes: list[str] = []
        self.batches: dict[tuple[str, str], Batches] = {}
        self.starts: dict[str, Callable[[jax.Array], Params]] = {}

    def __len__(self) -> int:
        return len(self.folders)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The places of every two seeds of a condition."""
        whose = [(folder.resolve().parent, folder.name.rpartition("-s")[0]) for folder in self.folders]
        return [(i, j) for i, j in itertools.combinations(range(len(whose)), 2) if whose[i] == whose[j]]

    def __iter__(self) -> Iterator[Target]:
        """Read each.

        Raises
        ------
        InputError : what is no run, or cannot be measured; see `finished_runs`.
        """
        for network in read_runs("measure", self.folders):
            yield self._target(network)

    def _target(self, network: FinishedRun) -> Target:
        settings, record = self.settings, network.record
        batches = self._batches(network, settings.split)
        params = as_dtype("params", network.params, settings.dtype)
        return Target(
            run=network.name if self.out else network.folder.name,
            condition=record["condition"],
            seed=record["seed"],
            epoch=record["epochs"],
            source=str(network.study / "runs" / network.folder.name),
            network=", ".join(f"{k} {v}" if k != "name" else str(v) for k, v in network.spec.model.items()),
            folder=self.out or network.study,
            params=params,
            batches=batches,
            dataset=network.dataset.name,
            split=settings.split,
            batch_size=min(settings.batch_size, batches.examples),
            apply=network.model.at(as_dtype("state", network.state, settings.dtype)),
            variables=lambda: joint(network.model, Variables(params, as_dtype("state", network.state, settings.dtype))),
            criterion=network.criterion,
            initial=lambda: self._initial(network),
            parts=lambda split: self._batches(network, split) if getattr(network.dataset, split, None) else None,
            data=network.dataset.fingerprint,
        )

    def _batches(self, network: FinishedRun, split: str) -> Batches:
        if split == "augmented":
            return _augmented(network, self._batches(network, "train"), self.settings.seed)
        known, settings = (network.dataset.fingerprint, split), self.settings
        if known not in self.batches:
            check_split("measure", [network], split)
            drawn = chosen(network.dataset, split, settings.examples, settings.seed, size=settings.batch_size)
            self.batches[known] = as_dtype("data", drawn, settings.dtype)
        return self.batches[known]

    def _initial(self, network: FinishedRun) -> Params:
        """The parameters that a run began with: its seed gives them."""
        key = repr((network.dataset.fingerprint, network.spec.model))
        if key not in self.starts:
            self.starts[key] = jax.jit(Recipe(network.spec, network.dataset, network.model).initial)
        with jax.enable_x64(False):  # as it was trained
            params = self.starts[key](jnp.uint32(network.record["seed"])).params
        return as_dtype("params", params, self.settings.dtype)

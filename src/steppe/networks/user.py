"""A user's own parameters as targets: which of them are measured, and which stay fixed."""

import fnmatch
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, entry, losses, names
from steppe.core import batches as many
from steppe.core.batches import Batches
from steppe.core.checks import joined
from steppe.core.partition import Partition, Restriction, listed, partition
from steppe.core.types import Batch, Params
from steppe.data.dataset import Dataset, as_it_is, fingerprint
from steppe.networks import checkpoints, loading, modules
from steppe.networks.network import NetworkOnData
from steppe.networks.settings import Settings, UserNetwork
from steppe.networks.targets import Target, as_dtype


class Contents(NamedTuple):
    """What a file of parameters comes to: what is measured, the function of it, and what a reader must know."""

    params: Params
    function: Any
    remark: str


class Files:
    """Targets from files of parameters, read one after another; their data and functions once."""

    def __init__(self, paths: Sequence[Path], user: UserNetwork, settings: Settings, out: Path):
        """Take the user's functions and data in.

        Raises
        ------
        InputError : what cannot be used, see `UserNetwork`, `loading` and `modules`.
        """
        for path in paths:
            loading.check_kind("measure", path)
        if settings.split != "train":
            checks.fail("measure", "--split", "left out for data of your own", checks.shown(settings.split))
        self.paths, self.user, self.settings, self.out = paths, user.checked("measure"), settings, out
        self.remarks: dict[str, list[str]] = {}
        self.targets: Any = None  # all that a file holds, in its order, so that errors name its rows
        self.option, self.text = user.function
        self.function = loading.function("measure", self.option, self.text)
        classes = user.loss is None and user.criterion == "cross_entropy"
        found = loading.examples("measure", cast(str, user.data), user.label, classes=classes)
        parts = [user.with_targets("measure", part) for part in (found if isinstance(found, list) else [found])]
        self.batches = self._batches(parts if isinstance(found, list) else parts[0])
        self.criterion = losses.cross_entropy if user.loss else user.scoring("measure", self.batches.first)
        if user.network is not None:
            self.network, self.blueprint = modules.build("measure", user.network, user.settings, parts[0])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The places of every two files."""
        return list(itertools.combinations(range(len(self.paths)), 2))

    @property
    def notes(self) -> list[str]:
        """Sentences on what stays fixed, and what is perturbed as asked."""
        return [f"{joined(targets)}: {text}" for text, targets in self.remarks.items() if text]

    def _batches(self, found: Batch | list[Batch]) -> Batches:
        settings = self.settings
        if isinstance(found, list):  # somebody chose these batches
            return many.gather("measure", arrays.exact_batches("measure", "data", found, dtype=settings.dtype))
        if self.user.loss is None:
            self.targets = checks.inputs_and_targets("measure", found)[1]
        count = checks.batch_size("measure", found)
        rows = np.random.default_rng(settings.seed).permutation(count)[: settings.examples]
        drawn = jax.tree.map(lambda leaf: leaf[rows], found)
        drawn = arrays.exact_batches("measure", "data", drawn, dtype=settings.dtype)[0]
        return many.gather("measure", many.in_batches(jax.tree.map(jnp.asarray, drawn), settings.batch_size))

    def __iter__(self) -> Iterator[Target]:
        """Read each.

        Raises
        ------
        InputError : a file that cannot be read; patterns that match nothing; parameters that the function does not
            take; arrays that are not the network's.
        """
        names = [path.name for path in self.paths]
        for path in self.paths:
            name = path.name if names.count(path.name) == 1 else str(path)
            yield self._target(name, path)

    def _target(self, name: str, path: Path) -> Target:
        params, function, remark = self._contents(name, path)
        self._note(name, remark)
        self._try(function, params)
        before = self.user.initial
        return Target(
            run=name,
            condition=name,
            seed=None,
            source=str(path),
            network=self.text,
            folder=self.out,
            params=params,
            batches=self.batches,
            dataset=cast(str, self.user.data),
            split="given",
            batch_size=max(size for _, size in self.batches.shapes),
            loss=function if self.user.loss else None,
            apply=None if self.user.loss else function,
            criterion=self.criterion,
            initial=None if before is None else lambda: self._contents(f"--initial {before.name}", before).params,
            remark=remark,
        )

    def _contents(self, name: str, path: Path) -> Contents:
        """What a file holds, and the function of it."""
        everything = loading.parameters("measure", path)
        if self.user.network is None:
            found = self._partition(name, self._converted(name, everything), by_name=True)
            function, remark = self.function, found.remark
        else:
            filled = checkpoints.fill("measure", self.blueprint, everything, name)
            params, state = (self._converted(name, part) for part in filled.variables)
            found, function = self._partition(name, params, by_name=False), self.network.at(state)
            remark = " ".join(filter(None, (_of_state(state), found.remark, filled.note)))
        if jax.tree.leaves(found.fixed):
            function = Restriction(function, found.fixed)
        return Contents(found.params, function, remark)

    def _converted(self, name: str, tree: Any) -> Any:
        return as_dtype(f"the array of {name} at ", tree, self.settings.dtype)

    def _partition(self, name: str, everything: Params, *, by_name: bool) -> Partition:
        """Parameters, and what stays fixed: what `exclude` names, and, by its name, what is no parameter."""
        called = names.names(everything)
        for pattern in self.user.exclude:
            if not fnmatch.filter(called, pattern):
                checks.fail("measure", "--exclude", f"a pattern that matches an array of {name}",
                            checks.shown(pattern), checks.nearest(pattern, called[:20]))  # fmt: skip
        found = partition(
            everything,
            perturb_statistics=self.user.perturb_statistics,
            excluded=[any(fnmatch.fnmatchcase(n, pattern) for pattern in self.user.exclude) for n in called],
            ask="--perturb-statistics",
            by_name=by_name,
        )
        if not jax.tree.leaves(found.params):
            checks.fail("measure", "TARGET", "a file with floating-point arrays to measure", f"{name}, which has none")
        return found

    def _note(self, name: str, remark: str) -> None:
        known = self.remarks.setdefault(remark, [])
        known += [name] if name not in known else []

    def _try(self, function: Any, params: Params) -> None:
        """Trace the user's function on these parameters and data."""
        if self.user.loss is None:
            scored = losses.of(function, self.criterion)
            _try_outputs("measure", self.user, scored, params, self.batches.first, self.targets)
        else:
            trace = lambda p, batch: jax.eval_shape(function, p, batch)  # noqa: E731
            loading.called("measure", trace, self.option, self.text, params, self.batches.first)


def _try_outputs(
    command: str, user: UserNetwork, loss: losses.NetworkLoss, params: Params, batch: Batch, targets: Any
) -> None:
    """Trace the function that makes outputs, and the criterion; check all targets, unless they are None."""
    option, text = user.function
    x, y = checks.inputs_and_targets(command, batch)
    outputs = loading.called(command, lambda p, x: jax.eval_shape(loss.apply, p, x), option, text, params, x)
    score = lambda f, y: jax.eval_shape(loss.criterion, f, y)  # noqa: E731
    if losses.is_builtin(loss.criterion):
        loading.called(command, score, option, "its criterion", outputs, y)
    else:
        value = loading.called(command, score, "--criterion", user.criterion, outputs, y)
        checks.one_scalar(command, "--criterion", value)
    if targets is not None:
        losses.check_targets(command, loss.criterion, outputs.shape[-1], targets)


def read_networks(paths: Sequence[Path], user: UserNetwork, split: str) -> list[NetworkOnData]:
    """The networks of a user's checkpoints, for landscapes.

    Raises
    ------
    InputError : a file that cannot be read, or was given twice; arrays that are not the network's; data that are no
        single batch of classes, or of another part than what is given.
    """
    command = "landscape"
    if user.network is None:
        checks.fail(command, "--network", "given for checkpoints of your own, as module:function", "nothing")
    user.checked(command)
    if split != "train":
        checks.fail(command, "--split", "left out for data of your own", checks.shown(split))
    for path in paths:
        loading.check_kind(command, path)
        if list(paths).count(path) > 1:
            checks.fail(command, "TARGET", "different files", f"{path} twice")
    data = cast(str, user.data)
    found = loading.examples(command, data, user.label, classes=user.criterion == "cross_entropy")
    if isinstance(found, list):
        checks.fail(command, "--data", "one batch of all examples", f"{data}, which gives a list of {len(found)}")
    batch = arrays.exact_batches(command, "data", user.with_targets(command, found), dtype="float32")[0]
    network, blueprint = modules.build(command, user.network, user.settings, batch)
    x, y = checks.inputs_and_targets(command, batch)
    digest = fingerprint(jax.tree.map(np.asarray, {"x": x, "y": y}))
    dataset = Dataset(data, {"x": x, "y": y}, {}, as_it_is, (), 0, data, digest)
    criterion = user.scoring(command, dataset.train)
    names, few = [path.name for path in paths], jax.tree.map(lambda leaf: leaf[:2], dataset.train)
    networks = []
    for path in paths:
        filled = checkpoints.fill(command, blueprint, loading.parameters(command, path), path.name)
        params, state = arrays.exact_tree(command, f"the array of {path} at ", filled.variables, dtype="float32")
        loss = losses.of(network.at(state), criterion)
        _try_outputs(command, user, loss, params, few, y)
        # `__call__` is a function with the criterion inside, unlike a `NetworkLoss`
        program: Any = entry.loss_and_batches(command, loss.__call__, params, few, quiet=True)[0]
        networks.append(
            NetworkOnData(
                name=path.name if names.count(path.name) == 1 else str(path),
                source=str(path),
                home=Path("out") / paths[0].stem,
                model=network,
                dataset=dataset,
                params=params,
                state=state,
                criterion=criterion,
                program=program.digest,
            )
        )
    return networks


def _of_state(state: Any) -> str:
    """A sentence on what the network says is state."""
    called = names.names(state)
    return f"{len(called)} arrays are state of the network and stay as they are: {listed(called)}." if called else ""

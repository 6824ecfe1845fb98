"""A user's own parameters as targets: which of them are measured, and which stay fixed."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, losses, names
from steppe.core import batches as many
from steppe.core.batches import Batches
from steppe.core.checks import joined
from steppe.core.partition import Partition, Restriction, listed, partition
from steppe.core.types import Batch, Criterion, Params
from steppe.networks import checkpoints, loading, modules
from steppe.networks.settings import Settings
from steppe.networks.targets import Target, as_dtype

CRITERIA = {"cross_entropy": losses.cross_entropy, "squared_error": losses.squared_error}

FUNCTIONS = ("loss", "apply", "network")
"""What may say what is made of parameters."""


class Contents(NamedTuple):
    """What a file of parameters comes to: what is measured, the function of it, and what a reader must know."""

    params: Params
    function: Any
    remark: str


@dataclass(frozen=True)
class UserNetwork:
    """What a user says of parameters of their own.

    Attributes
    ----------
    loss, apply, network : ``module:function``, one of the three; the last returns a network, see `modules.build`.
    criterion : "cross_entropy" or "squared_error", with `apply` and `network`.
    ignore : the label of what does not count, with cross-entropy.
    data, label : see `loading.examples`.
    initial : a file of the parameters before training, like the others.
    exclude : patterns for the names of arrays that stay fixed.
    perturb_statistics : whether statistics of normalisation, told by their names, are perturbed as parameters are.
    settings : of the function that `network` names.
    """

    loss: str | None = None
    apply: str | None = None
    criterion: str = "cross_entropy"
    data: str | None = None
    label: str | None = None
    initial: Path | None = None
    exclude: tuple[str, ...] = ()
    perturb_statistics: bool = False
    ignore: int | None = None
    network: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def checked(self) -> "UserNetwork":
        """Itself, if it says enough.

        Raises
        ------
        InputError : otherwise.
        """
        given = [name for name in FUNCTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            what = "given for parameters of your own, one of them, as module:function"
            got = checks.joined(f"--{name}" for name in given) if given else "none"
            checks.fail("measure", "--loss, --apply or --network", what, got)
        if self.data is None:
            what = "given for parameters of your own: a .npz, .csv or .parquet file, or module:function"
            checks.fail("measure", "--data", what, "nothing")
        checks.one_of("measure", "--criterion", self.criterion, CRITERIA)
        if self.ignore is not None and (self.loss is not None or self.criterion != "cross_entropy"):
            what = "left out, but for --apply or --network with the criterion cross_entropy"
            checks.fail("measure", "--ignore-label", what, self.ignore, "A loss of your own knows what counts.")
        if self.perturb_statistics and self.network is not None:
            what = "left out for --network, which says itself what is state"
            checks.fail("measure", "--perturb-statistics", what, "both")
        if self.settings and self.network is None:
            what = "left out without --network: they are settings of its function"
            checks.fail("measure", "--set network.KEY", what, checks.joined(self.settings))
        return self

    @property
    def function(self) -> tuple[str, str]:
        """The option that says what makes outputs, or a loss, of parameters; and its value."""
        name = next(name for name in FUNCTIONS if getattr(self, name) is not None)
        return f"--{name}", getattr(self, name)

    @property
    def scoring(self) -> Criterion:
        """The criterion, with the label that does not count."""
        return losses.ignoring("measure", CRITERIA[self.criterion], self.ignore)

    @property
    def is_given(self) -> bool:
        """Whether anything at all is said."""
        return self != UserNetwork()


class Files:
    """Targets from files of parameters, read one after another; their data and functions once."""

    def __init__(self, paths: Sequence[Path], user: UserNetwork, settings: Settings, out: Path):
        """Take the user's functions and data in.

        Raises
        ------
        InputError : what cannot be used, see `UserNetwork`, `loading` and `modules`.
        """
        for path in paths:
            loading.check_kind(path)
        if settings.split != "train":
            checks.fail("measure", "--split", "left out for data of your own", checks.shown(settings.split))
        self.paths, self.user, self.settings, self.out = paths, user.checked(), settings, out
        self.remarks: dict[str, list[str]] = {}
        self.targets: Any = None  # all that a file holds, in its order, so that errors name its rows
        self.option, self.text = user.function
        classes = user.loss is None and user.criterion == "cross_entropy"
        found = loading.examples(cast(str, user.data), user.label, classes=classes)
        self.batches = self._batches(found)
        if user.network is None:
            self.function = loading.function(self.option, self.text)
        else:
            some = found[0] if isinstance(found, list) else found
            self.network, self.blueprint = modules.build(user.network, user.settings, some)

    def __len__(self) -> int:
        return len(self.paths)

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
            criterion=self.user.scoring,
            initial=None if before is None else lambda: self._contents(f"--initial {before.name}", before).params,
            remark=remark,
        )

    def _contents(self, name: str, path: Path) -> Contents:
        """What a file holds, and the function of it."""
        everything = loading.parameters(path)
        if self.user.network is None:
            found = self._partition(name, self._converted(name, everything), by_name=True)
            function, remark = self.function, found.remark
        else:
            filled = checkpoints.fill(self.blueprint, everything, name)
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
        batch, option = self.batches.first, self.option
        if self.user.loss is None:
            x, y = checks.inputs_and_targets("measure", batch)
            outputs = loading.called(lambda p, x: jax.eval_shape(function, p, x), option, self.text, params, x)
            criterion = self.user.scoring
            loading.called(lambda f, y: jax.eval_shape(criterion, f, y), option, "its criterion", outputs, y)
            if self.targets is not None:
                losses.check_targets("measure", criterion, outputs.shape[-1], self.targets)
        else:
            loading.called(lambda p, batch: jax.eval_shape(function, p, batch), option, self.text, params, batch)


def _of_state(state: Any) -> str:
    """A sentence on what the network says is state."""
    called = names.names(state)
    return f"{len(called)} arrays are state of the network and stay as they are: {listed(called)}." if called else ""

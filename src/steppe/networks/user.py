"""A user's own parameters as targets: which of them are measured, and which stay fixed."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, losses, names
from steppe.core import batches as many
from steppe.core.batches import Batches
from steppe.core.checks import joined
from steppe.core.partition import Partition, Restriction, partition
from steppe.core.types import Batch, Criterion, Params
from steppe.networks import loading
from steppe.networks.settings import Settings
from steppe.networks.targets import Target, as_dtype

CRITERIA = {"cross_entropy": losses.cross_entropy, "squared_error": losses.squared_error}


@dataclass(frozen=True)
class UserNetwork:
    """What a user says of parameters of their own.

    Attributes
    ----------
    loss, apply : ``module:function``, one of the two.
    criterion : "cross_entropy" or "squared_error", with `apply`.
    ignore : the label of what does not count, with cross-entropy.
    data, label : see `loading.examples`.
    initial : a file of the parameters before training, like the others.
    exclude : patterns for the names of arrays that stay fixed.
    perturb_statistics : whether statistics of normalisation, told by their names, are perturbed as parameters are.
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

    def checked(self) -> "UserNetwork":
        """Itself, if it says enough.

        Raises
        ------
        InputError : otherwise.
        """
        if (self.loss is None) == (self.apply is None):
            what = "given for parameters of your own, one of the two, as module:function"
            checks.fail("measure", "--loss or --apply", what, "neither" if self.loss is None else "both")
        if self.data is None:
            what = "given for parameters of your own: a .npz, .csv or .parquet file, or module:function"
            checks.fail("measure", "--data", what, "nothing")
        checks.one_of("measure", "--criterion", self.criterion, CRITERIA)
        if self.ignore is not None and (self.apply is None or self.criterion != "cross_entropy"):
            what = "left out, but for --apply with the criterion cross_entropy"
            checks.fail("measure", "--ignore-label", what, self.ignore, "A loss of your own knows what counts.")
        return self

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
        InputError : what cannot be used, see `UserNetwork` and `loading`.
        """
        for path in paths:
            loading.check_kind(path)
        if settings.split != "train":
            checks.fail("measure", "--split", "left out for data of your own", checks.shown(settings.split))
        self.paths, self.user, self.settings, self.out = paths, user.checked(), settings, out
        self.remarks: dict[str, list[str]] = {}
        self.targets: Any = None  # all that a file holds, in its order, so that errors name its rows
        self.option, self.text = ("--loss", user.loss) if user.loss else ("--apply", cast(str, user.apply))
        self.function = loading.function(self.option, self.text)
        classes = user.apply is not None and user.criterion == "cross_entropy"
        self.batches = self._batches(loading.examples(cast(str, user.data), user.label, classes=classes))

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
        if self.user.apply:
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
            take.
        """
        names = [path.name for path in self.paths]
        for path in self.paths:
            name = path.name if names.count(path.name) == 1 else str(path)
            yield self._target(name, path)

    def _target(self, name: str, path: Path) -> Target:
        everything = as_dtype(f"the array of {name} at ", loading.parameters(path), self.settings.dtype)
        params, fixed, _, remark = self._partition(name, everything)
        function = Restriction(self.function, fixed) if jax.tree.leaves(fixed) else self.function
        self._note(name, remark)
        self._try(function, params)
        initial = None
        if self.user.initial is not None:
            before = as_dtype("the array of --initial at ", loading.parameters(self.user.initial), self.settings.dtype)
            initial = lambda: self._partition(self.user.initial.name, before).params  # noqa: E731
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
            apply=function if self.user.apply else None,
            criterion=self.user.scoring,
            initial=initial,
            remark=remark,
        )

    def _partition(self, name: str, everything: Params) -> Partition:
        """Parameters, and what stays fixed: whole numbers, statistics, and what `exclude` names."""
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
        )
        if not jax.tree.leaves(found.params):
            checks.fail("measure", "TARGET", "a file with floating-point arrays to measure", f"{name}, which has none")
        return found

    def _note(self, name: str, remark: str) -> None:
        known = self.remarks.setdefault(remark, [])
        known += [name] if name not in known else []

    def _try(self, function: Any, params: Params) -> None:
        """Trace the user's function on these parameters and data."""
        batch = self.batches.first
        if self.user.apply:
            x, y = checks.inputs_and_targets("measure", batch)
            outputs = loading.called(lambda p, x: jax.eval_shape(function, p, x), "--apply", self.text, params, x)
            criterion = self.user.scoring
            loading.called(lambda f, y: jax.eval_shape(criterion, f, y), "--apply", "its criterion", outputs, y)
            if self.targets is not None:
                losses.check_targets("measure", criterion, outputs.shape[-1], self.targets)
        else:
            loading.called(lambda p, batch: jax.eval_shape(function, p, batch), "--loss", self.text, params, batch)

"""A data set: arrays in the smallest exact form, and the function that unfolds a batch of them."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from steppe.core import arrays, checks, losses, programs
from steppe.core.predictions import RealOutputs
from steppe.core.types import Batch, Criterion

CHUNK = 2**24
"""Numbers that are looked at together: arrays may be mapped from files and larger than the memory."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth to compare by: use the fingerprint
class Dataset:
    """Examples to train and to test on.

    Attributes
    ----------
    name : what it is called.
    train, test : ``{"x": …, "y": (N,) int32}``, compact NumPy arrays (bytes of images, padded sparse rows); anything
        may be nested under "x" whose leaves share the leading axis.
    decode : a compact batch -> ``{"x": (B, *shape) float32, "y": (B,) int32}``; pure, so that it runs compiled.
    shape : of one decoded example.
    classes : the number of classes, at least 2; 0 where targets are real numbers, y (N,) or (N, K) float32.
    about : one line: where it came from, and what was done to it.
    fingerprint : SHA-256 of all arrays.
    validation : examples as `train` has them, for tuning and stopping; None where there are none.
    clean : the training examples with the labels that they came with, where others were drawn at random.
    spread : of real targets, whether a network says a standard deviation of each besides its mean.
    """

    name: str
    train: Batch = field(repr=False)
    test: Batch = field(repr=False)
    decode: Callable[[Batch], Batch] = field(repr=False)
    shape: tuple[int, ...]
    classes: int
    about: str
    fingerprint: str
    validation: Batch | None = field(default=None, repr=False)
    clean: Batch | None = field(default=None, repr=False)
    spread: bool = field(default=False, repr=False)

    @property
    def outputs(self) -> int:
        """What a network for these data is made for: the number of classes, or of real outputs."""
        if self.classes:
            return self.classes
        targets = self.train["y"].shape[1] if self.train["y"].ndim > 1 else 1
        return RealOutputs(2 * targets if self.spread else targets)

    @property
    def criterion(self) -> Criterion:
        """The loss that is measured, whatever is trained on: cross-entropy, or squared error of real targets, or where
        their spread is predicted, too, the likelihood of normal distributions.
        """
        if self.classes:
            return losses.cross_entropy
        return losses.gaussian_negative_log_likelihood if self.spread else losses.squared_error


def dataset(
    name: str,
    train: tuple[Any, np.ndarray],
    test: tuple[Any, np.ndarray],
    *,
    decode: Callable[[Batch], Batch],
    shape: tuple[int, ...],
    classes: int,
    about: str,
    validation: tuple[Any, np.ndarray] | None = None,
) -> Dataset:
    """A Dataset from ``(x, labels)`` pairs, checked.

    Parameters
    ----------
    name : what it is called, here and in messages.
    train, test : arrays x, (N, …), nested or not, and labels (N,). N may differ between the parts.
    decode, shape, classes, about : see `Dataset`.
    validation : a pair as `train` is, where there are examples to validate on.

    See Also
    --------
    from_arrays : of arrays that need no decoding; it finds out shape and classes.

    Raises
    ------
    InputError : parts that are no pairs; no examples; x and labels of different lengths; labels that are not whole
        numbers from 0 to classes − 1, or targets that are no real numbers; NaN or infinity among the features; a decode
        that fails, or parts that do not
        decode to examples of that shape.

    Examples
    --------
    >>> part = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
    >>> dataset("mine", part, part, decode=as_it_is, shape=(3,), classes=2, about="three rows")
    Dataset(name='mine', shape=(3,), classes=2, about='three rows', fingerprint='...')
    """
    where = f"data {name}"
    batches: dict[str, Batch] = {}
    given = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    for part, pair in given.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            checks.fail(where, part, "a pair of examples and labels, (x, y)", checks.returned(pair))
        x, y = (jax.tree.map(lambda leaf: arrays.numbers(where, part, leaf), one) for one in pair)  # noqa: B023
        if classes:
            _check_labels(name, part, y, classes)
        else:
            _check_targets(name, part, y, batches["train"]["y"].shape[1:] if batches else y.shape[1:])
        for leaf in jax.tree.leaves(x):
            if np.shape(leaf)[:1] != y.shape[:1]:
                got = f"a part of {len(leaf)}" if np.ndim(leaf) else "a part with a single number"
                checks.fail(where, part, f"{len(y)} examples, one for each label", got)
            check_finite(name, part, leaf)
        batches[part] = {"x": x, "y": y.astype(np.int32 if classes else np.float32)}
        must = functools.partial(_check_decoded, where, part, tuple(shape), len(y))
        programs.check(programs.Label(where, "decode"), decode, (batches[part],), must)
    parts, rest = (batches["train"], batches["test"]), batches.get("validation")
    return Dataset(name, *parts, decode, shape, classes, about, fingerprint(batches), rest)


def checked(given: Dataset) -> Dataset:
    """A Dataset that a user's function made, with the checks of `dataset`, and the fingerprint of its arrays.

    Raises
    ------
    InputError : a field of another kind; see `dataset`.
    """
    kinds: dict[str, tuple[Any, str]] = {
        "name": (str, "text"),
        "decode": (Callable, "a function"),
        "shape": (tuple, "a tuple"),
        "classes": (int, "a whole number"),
        "about": (str, "text"),
    }
    for attribute, (kind, what) in kinds.items():
        value = getattr(given, attribute)
        if not isinstance(value, kind):
            todo = "Make one by steppe.data.dataset."
            checks.fail("data", f"{attribute} of a Dataset", what, checks.returned(value), todo)
    parts = [given.train, given.test] + ([] if given.validation is None else [given.validation])
    for part in parts:
        if not isinstance(part, Mapping) or set(part) != {"x", "y"}:
            checks.fail(f"data {given.name}", "train and test", "dicts of x and y", checks.returned(part))
    train, test, *rest = ((part["x"], part["y"]) for part in parts)
    facts: Any = {name: getattr(given, name) for name in ("decode", "shape", "classes", "about")}
    found = dataset(given.name, train, test, **facts, validation=rest[0] if rest else None)
    return found if given.clean is None else replace(found, clean={**found.train, "y": _labels(given)})


def _labels(given: Dataset) -> np.ndarray:
    """The labels that the training examples came with."""
    labels = np.asarray(given.clean["y"] if isinstance(given.clean, Mapping) and "y" in given.clean else [])
    if labels.shape != np.shape(given.train["y"]) or labels.dtype.kind not in "iu":
        what = "None, or the training examples with other integer labels"
        checks.fail(f"data {given.name}", "clean", what, checks.returned(given.clean))
    _check_labels(given.name, "clean", labels, given.classes)
    return labels.astype(np.int32)


def _check_decoded(where: str, part: str, shape: tuple[int, ...], count: int, batch: Any) -> Any:
    """Fail for what is no batch of float32 examples of that shape."""
    if not isinstance(batch, Mapping) or not {"x", "y"} <= set(batch):
        checks.fail(where, "decode", 'a function whose value is a batch, {"x": …, "y": …}', checks.returned(batch))
    x = batch["x"]
    if getattr(x, "shape", None) != (count, *shape) or x.dtype != np.float32:
        got = f"a part that decodes to {checks.returned(x)}"
        checks.fail(where, part, f"float32 examples of shape {shape}", got)
    return x


def _check_labels(name: str, part: str, labels: np.ndarray, classes: int) -> None:
    where = f"data {name}"
    if np.ndim(labels) != 1 or not np.issubdtype(np.asarray(labels).dtype, np.integer):
        got = f"a {np.asarray(labels).dtype} array of shape {np.shape(labels)}"
        checks.fail(where, f"labels of {part}", "whole numbers, one for each example", got)
    if len(labels) == 0:
        checks.fail(where, part, "at least one example", "an empty part")
    if classes < 2:
        checks.fail(where, "labels", "of at least two classes", f"a single class, {labels[0]}")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = int(outside[0])
        checks.fail(where, "labels", f"from 0 to {classes - 1}", f"a label {labels[row]} in row {row} of {part}")


def _check_targets(name: str, part: str, targets: np.ndarray, shape: tuple[int, ...]) -> None:
    where = f"data {name}"
    if targets.ndim not in (1, 2) or targets.dtype.kind not in "fiu" or (targets.ndim == 2 and not targets.shape[1]):
        checks.fail(where, f"targets of {part}", "real numbers, (N,) or (N, K)", checks.returned(targets))
    if len(targets) == 0:
        checks.fail(where, part, "at least one example", "an empty part")
    if targets.shape[1:] != shape:
        got = f"an array of shape {targets.shape}"
        checks.fail(where, f"targets of {part}", f"of shape (N, {', '.join(map(str, shape))}) as those of train", got)
    broken = np.argwhere(~(np.abs(targets) <= np.finfo(np.float32).max))
    if len(broken):
        row, *rest = broken[0].tolist()
        checks.fail(where, "targets", "finite numbers", f"a value {targets[row, *rest]} in row {row} of {part}",
                    "Fill or drop missing values first.")  # fmt: skip


def check_finite(
    name: str, part: str, leaf: np.ndarray, columns: Sequence[str] = (), *, kind: str = "features"
) -> None:
    """Fail at the first value that is NaN, infinite or beyond float32, naming its row (from 0) and column.

    `kind` says what the values are.
    """
    if not np.issubdtype(leaf.dtype, np.floating):
        return
    each = max(1, CHUNK // max(leaf[:1].size, 1))
    for begin in range(0, len(leaf), each):
        some = leaf[begin : begin + each]
        good = np.abs(some) <= np.finfo(np.float32).max  # false for NaN as well
        if not good.all():
            row, *rest = np.argwhere(~good)[0].tolist()
            feature = repr(columns[rest[0]]) if columns else ", ".join(map(str, rest))
            place = f"row {begin + row} of {part}" + (f", feature {feature}" if rest else "")
            checks.fail(f"data {name}", kind, "finite numbers", f"a value {some[row, *rest]} in {place}",
                        "Fill or drop missing values first.")  # fmt: skip


def fingerprint(batches: Any) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(batches):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype.str} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def as_it_is(batch: Batch) -> Batch:
    """Decode data that are stored as they are used."""
    return batch


def listed(kinds: Iterable[Any]) -> str:
    """Names in a row: ten of them where there are more."""
    names = [str(kind) for kind in kinds]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def subset(name: str, setting: str, count: int | None, size: int) -> np.ndarray | slice:
    """Rows of a subset: all, or so many drawn by a fixed shuffle, so that sorted data keep all classes."""
    if count is None:
        return slice(None)
    checks.whole(f"data {name}", setting, count)
    if count > size:
        checks.fail(f"data {name}", setting, f"at most {size}, the examples there are", count)
    return shuffled(size)[:count]


def shuffled(examples: int, seed: int = 0) -> np.ndarray:
    """The order from which some examples of a data set are chosen: the same for a seed, whoever asks."""
    return np.random.default_rng(seed).permutation(examples)

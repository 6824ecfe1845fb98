"""A data set from arrays as a user has them: two parts, each of examples and their labels."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks
from steppe.core.types import Batch
from steppe.data.dataset import Dataset, as_it_is, check_finite, dataset, listed

FORM = 'of the form ((x, y), (x_test, y_test)), or {"train": {"x": …, "y": …}, "test": {"x": …, "y": …}}'

WHOLE = 2**53
"""Up to here floats tell whole numbers apart."""


def from_arrays(name: str, parts: Any, *, about: str = "", real: bool = False) -> Dataset:
    """A data set of arrays that fit into memory.

    Parameters
    ----------
    name : str
        What it is called, here and in messages.
    parts : pair or dict
        ``((x, y), (x_test, y_test))``, or a dict of "train" and "test"; each part may be a dict of "x" and "y". Arrays
        are of NumPy, JAX or any library that NumPy understands. Examples x, (N, …), are numbers; they go to the network
        as float32, as they are: scale them first. Labels y, (N,), are whole numbers or text, numbered in sorted order.
    about : str
        One line: where the data came from.
    real : bool
        Whether y, (N,) or (N, K), are real numbers to be predicted, and no labels.

    Returns
    -------
    Dataset
        Bytes of images stay bytes until a batch of them is used, and arrays that are mapped from files, as
        ``numpy.load(path, mmap_mode="r")`` gives them, stay mapped if they are float32 or small whole numbers.

    Raises
    ------
    InputError
        Another form; what is no number, not finite, or lost in float32; labels that are no classes, or stand in the
        test part alone; parts whose examples have different shapes.

    Examples
    --------
    >>> x, y = np.eye(4), np.array(["cat", "dog", "dog", "cat"])
    >>> from_arrays("pets", ((x, y), (x[:2], y[:2])))
    Dataset(name='pets', shape=(4,), classes=2, about='arrays, classes cat, dog', fingerprint='...')
    """
    train, test = _pair(name, "parts", parts, ("train", "test"))
    (x, labels), (x_test, labels_test) = (
        _examples(name, part, _pair(name, part, pair, ("x", "y")), real)
        for part, pair in (("train", train), ("test", test))
    )
    if x.shape[1:] != x_test.shape[1:]:
        got = f"some of shape {x_test.shape[1:]}"
        checks.fail(f"data {name}", "x of test", f"examples of shape {x.shape[1:]}, as those of train", got)
    if x.dtype != x_test.dtype:
        x, x_test = x.astype(np.float32), x_test.astype(np.float32)
    decode = as_it_is if x.dtype == np.float32 else as_floats
    if real:
        return dataset(name, (x, labels), (x_test, labels_test), decode=decode, shape=x.shape[1:], classes=0,
                       about=about or "arrays, real targets")  # fmt: skip
    kinds = np.unique(labels)
    unknown = np.flatnonzero(~np.isin(labels_test, kinds))
    if len(unknown):
        got = f"a label {labels_test[unknown[0]].item()!r} in row {unknown[0]}, which is not"
        checks.fail(f"data {name}", "y of test", "labels that the training part has", got)
    return dataset(
        name,
        (x, np.searchsorted(kinds, labels)),
        (x_test, np.searchsorted(kinds, labels_test)),
        decode=decode,
        shape=x.shape[1:],
        classes=len(kinds),
        about=about or f"arrays, classes {listed(kinds)}",
    )


def as_floats(batch: Batch) -> Batch:
    """Decode whole numbers that are kept small."""
    return {**batch, "x": batch["x"].astype(jnp.float32)}


def _pair(name: str, what: str, pair: Any, keys: tuple[str, str]) -> tuple[Any, Any]:
    """Two things from a pair or from a dict with these keys."""
    if isinstance(pair, Mapping):
        if set(pair) != set(keys):
            got = f"a dict with {', '.join(map(checks.shown, pair)) or 'nothing in it'}"
            checks.fail(f"data {name}", what, FORM, got)
        return pair[keys[0]], pair[keys[1]]
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        checks.fail(f"data {name}", what, FORM, checks.returned(pair))
    return pair[0], pair[1]


def _examples(name: str, part: str, pair: tuple[Any, Any], real: bool) -> tuple[np.ndarray, np.ndarray]:
    """The examples of a part as float32 or small whole numbers, and its labels or real targets."""
    where = f"data {name}"
    x, read = arrays.numbers(where, f"x of {part}", pair[0]), arrays.numbers if real else _labels
    labels = read(where, f"y of {part}", pair[1])
    if not labels.ndim:
        checks.fail(where, f"y of {part}", "real numbers, (N,) or (N, K)", checks.returned(labels))
    if x.dtype.kind == "c" or not x.ndim:
        checks.fail(where, f"x of {part}", "real numbers, (N, …)", checks.returned(x))
    if len(x) != len(labels):
        checks.fail(where, part, "as many labels as examples", f"{len(labels)} for {len(x)}")
    if not len(x):
        checks.fail(where, part, "at least one example", "an empty part")
    if x[0].size == 0:
        checks.fail(where, f"x of {part}", "examples with features", checks.returned(x))
    if x.ndim == 1:
        x = x[:, None]
    if x.dtype.kind == "b" or (x.dtype.kind in "iu" and x.dtype.itemsize <= 2):
        return x, labels
    check_finite(name, part, x)
    if x.dtype.itemsize > 2 and x.dtype != np.float32:
        arrays.check_resolved(where, f"x of {part}", x, np.float32)
    return x.astype(np.float32, copy=False), labels


def _labels(where: str, what: str, labels: Any) -> np.ndarray:
    """Labels as whole numbers or text, one for each example."""
    try:
        array = np.asarray(labels)
    except Exception:  # a ragged list, or another library's array that cannot leave its device
        array = np.empty((), object)
    needed = "whole numbers or text, (N,): a class for each example"
    if array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(label, str) for label in array):
        array = array.astype(str)  # a column of pandas
    if array.ndim != 1:
        last = "Drop the last axis: y[:, 0]." if array.ndim == 2 and array.shape[1] == 1 else ""
        hot = "Give the classes themselves: y.argmax(axis=1)." if array.ndim == 2 and array.shape[1] > 1 else ""
        checks.fail(where, what, needed, checks.returned(array) if array.ndim else checks.returned(labels), last or hot)
    if array.dtype.kind == "f":
        broken = np.flatnonzero((array != np.floor(array)) | (np.abs(array) > WHOLE))  # NaN differs from itself
        if len(broken):
            checks.fail(where, what, needed, f"a value {array[broken[0]].item()!r} in row {broken[0]}")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iubU":
        checks.fail(where, what, needed, checks.returned(array))
    return array

"""New tasks made of the old one's examples, of the same form and with the same labels."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from steppe.core import arrays, checks
from steppe.core.types import Batch

Task = Literal["permute", "rotate"]

TASKS = get_args(Task)


def new_task(x: Any, y: Any, task: Task = "permute", *, seed: int = 0) -> Batch:
    """The same examples, changed in a fixed way, as a task that a network can learn beside the old one.

    Labels stay. A network of one head could not keep an old task whose inputs now had other labels, however flat its
    minimum is; so no task of permuted labels is offered.

    Parameters
    ----------
    x : array, or sparse rows
        (N, ...): images, tables, whole numbers that stand for words, or ``{"index": (N, L), "value": (N, L)}``.
    y : array
        (N,) labels.
    task : {"permute", "rotate"}
        What changes, by one permutation that all examples share: of images the places of their pixels, of tables the
        places of their columns, of whole numbers and sparse rows which word each number stands for, where 0, padding,
        stays. Or images turned by a quarter.
    seed : int
        Of the permutation.

    Returns
    -------
    dict
        ``{"x": …, "y": …}`` of the shapes and dtypes given.

    Raises
    ------
    InputError
        An unknown task; inputs of another form, or that are no square images and are to be turned.

    Notes
    -----
    Permuted inputs: Goodfellow et al. 2014, Kirkpatrick et al. 2017. An axis of length 1 or 3, the last one or the
    first after the examples', holds the colours of images; it stays.

    Examples
    --------
    >>> import numpy as np
    >>> new_task(np.array([[1.0, 2.0, 3.0]]), [0])["x"].tolist()
    [[3.0, 1.0, 2.0]]
    >>> new_task(np.arange(4).reshape(1, 2, 2, 1), [0], "rotate")["x"][0, :, :, 0].tolist()
    [[1, 3], [0, 2]]
    """
    checks.one_of("new_task", "task", task, TASKS)
    random = np.random.default_rng(checks.whole("new_task", "seed", seed, least=0))
    change: Callable[[Any, np.random.Generator], Any] = _rotated if task == "rotate" else _permuted
    return {"x": change(x, random), "y": np.asarray(y)}


def _permuted(x: Any, random: np.random.Generator) -> Any:
    """Inputs whose features have changed places."""
    if isinstance(x, Mapping):
        if set(x) != {"index", "value"}:
            what = "one array, or sparse rows of index and value"
            checks.fail(
                "new_task", "x", what, f"a dict of {checks.joined(map(str, x))}", "Give examples of a new task."
            )
        return {"index": _renamed(np.asarray(x["index"]), random, least=0), "value": np.asarray(x["value"])}
    found = arrays.numbers("new_task", "x", x)
    if found.ndim < 2:
        checks.fail("new_task", "x", "of shape (N, ...)", checks.returned(found))
    if found.dtype.kind in "iu" and found.ndim == 2 and found.dtype != np.uint8:
        return _renamed(found, random, least=1)
    axes = _pixels(found) if found.ndim == 4 else tuple(range(1, found.ndim))
    moved = np.moveaxis(found, axes, range(1, 1 + len(axes)))
    flat = moved.reshape(len(found), -1, *moved.shape[1 + len(axes) :])
    other = flat[:, _order(random, flat.shape[1])].reshape(moved.shape)
    return np.moveaxis(other, range(1, 1 + len(axes)), axes)


def _renamed(codes: np.ndarray, random: np.random.Generator, *, least: int) -> np.ndarray:
    """Whole numbers, each in the place of another one; those below `least` stay."""
    known = np.unique(codes[codes >= least])
    others = known[_order(random, len(known))]
    found = codes.copy()
    inside = codes >= least
    found[inside] = others[np.searchsorted(known, codes[inside])]
    return found


def _order(random: np.random.Generator, count: int) -> np.ndarray:
    """A random order, another one than that which there is."""
    found = random.permutation(count)
    while count > 1 and np.array_equal(found, np.arange(count)):
        found = random.permutation(count)
    return found


def _rotated(x: Any, random: np.random.Generator) -> np.ndarray:
    """Square images turned by a quarter, against the clock."""
    found = None if isinstance(x, Mapping) else arrays.numbers("new_task", "x", x)
    axes = _pixels(found) if found is not None and found.ndim == 4 else (1, 2)
    if found is None or found.ndim < 3 or found.shape[axes[0]] != found.shape[axes[1]]:
        what = "square images, (N, H, H), (N, H, H, C) or (N, C, H, H)"
        checks.fail("new_task", "x", what, checks.returned(x), "Permute them: task = 'permute'.")
    return np.ascontiguousarray(np.rot90(found, axes=axes))


def _pixels(images: np.ndarray) -> tuple[int, int]:
    """The axes of rows and columns."""
    first = images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3)
    return (2, 3) if first else (1, 2)

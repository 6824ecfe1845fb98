"""Which axes of a weight are its outputs: a filter is the weights of one output, and frameworks differ in its place."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from steppe.core import checks, names
from steppe.core.types import Params

FilterAxis = int | Params | Callable[[Params], Any] | None
"""The axis of the outputs: of all arrays, a pytree of axes that is a prefix of the parameters (None: as known), or a
function from the parameters to one."""

EQUINOX: dict[str, int | tuple[()]] = {
    "Linear": 0, "Conv": 0, "ConvTranspose": 0, "GRUCell": 0, "LSTMCell": 0, "Embedding": -1,
    "LayerNorm": (), "RMSNorm": (),
}  # fmt: skip
"""Equinox's layers, and where their weights have the outputs, () for nowhere."""

FLAX = ("kernel", "embedding")
"""What Flax calls arrays whose last axis is their outputs."""

HEADS = ("query", "key", "value")
"""Flax's kernels (inputs, heads, outputs of a head)."""

BIAS = re.compile(r"(.*_)?bias.*")
WEIGHT = re.compile(r"(.*_)?weight(_.*)?")
EMBEDDING = re.compile(r".*emb.*|wte|wpe", re.IGNORECASE)
TODO = "Say filter_axis=0 for weights stored (out, in), -1 for (in, out), or a pytree of axes."


def filter_axes(function: str, params: Params, filter_axis: FilterAxis = None) -> list[tuple[int, ...]]:
    """The axes of each array's outputs, () for arrays without filters: of one axis, and biases.

    An axis that nobody names is known for Equinox's layers, for Flax's names (``kernel``, ``embedding``) and for
    PyTorch's (``fc.weight``); otherwise the last one, unless a bias beside the array says otherwise. PyTorch's weights
    have outputs first, but for layers such as Hugging Face's ``Conv1D`` and transposed convolutions, (in, out, …):
    their biases tell them, and a square one is like the others of its name.

    Raises
    ------
    InputError
        An axis that an array does not have; an array called ``weight`` of which nothing tells the outputs, or one whose
        bias has another length than its outputs: then it must be named.

    Examples
    --------
    >>> filter_axes("example", {"fc.weight": np.ones((2, 3)), "kernel": np.ones((3, 3, 1, 4)), "bias": np.ones(4)})
    [(), (0,), (3,)]
    """
    leaves, called, homes = jax.tree.leaves(params), names.names(params), _homes(params)
    asked, known = _asked(function, params, filter_axis), _by_equinox(params)
    second = _second(leaves, called, homes)
    found: list[tuple[int, ...]] = []
    for index, leaf in enumerate(leaves):
        *_, last = homes[index]
        if np.ndim(leaf) < 2 or _is_bias(last, leaf):
            found.append(())
            continue
        given = asked[index] if asked[index] is not None else known[index]
        if given == ():
            found.append(())
        elif given is not None:
            found.append((_checked(function, called[index], leaf, given),))
        else:
            biases = _biases(index, leaves, homes)
            found.append(_told(function, called[index], np.shape(leaf), homes[index], biases, second))
    return found


def _second(leaves: list[Any], called: list[str], homes: list[tuple[str, ...]]) -> set[str]:
    """The names of PyTorch's layers whose biases say that the second axis is that of the outputs, and not the first."""
    found = set()
    for index, (leaf, name, (*above, last)) in enumerate(zip(leaves, called, homes, strict=True)):
        if np.ndim(leaf) > 1 and _is_pytorch(name, above, last):
            lengths = {bias[0] for bias in _biases(index, leaves, homes) if len(bias) == 1}
            found |= {above[-1]} if [n in lengths for n in np.shape(leaf)[:2]] == [False, True] else set()
    return found


def _is_pytorch(name: str, above: list[str], last: str) -> bool:
    """Whether an array is a weight of a layer of PyTorch, by its name, and no embedding."""
    return bool(WEIGHT.fullmatch(last)) and "." in name and not EMBEDDING.fullmatch(above[-1] if above else "")


def _told(
    function: str, name: str, shape: tuple[int, ...], home: tuple[str, ...], beside: set[tuple[int, ...]],
    second: set[str],
) -> tuple[int, ...]:  # fmt: skip
    """The axes of an array's outputs by its name, which its bias must not contradict."""
    *above, last = home
    count = len(shape)
    wide = max((len(bias) for bias in beside if bias == shape[-len(bias) :]), default=0)
    if last == "kernel" and 1 < wide < count:
        return tuple(range(count - wide, count))
    if last == "kernel" and count == 3 and above[-1:] and above[-1] in HEADS:
        return (1, 2)
    biases = {math.prod(bias) for bias in beside if math.prod(bias) == max(bias)}
    fits = [axis for axis in range(count) if shape[axis] in biases]
    guess: int | None = count - 1
    if WEIGHT.fullmatch(last):
        pytorch = int(above[-1] in second and 1 in fits) if _is_pytorch(name, above, last) else None
        other = count - 1 if "." in name else fits[0] if len(fits) == 1 else None
        guess = other if pytorch is None else pytorch
    if guess is None or (fits and guess not in fits and last not in FLAX):
        lengths = f", beside a bias of {' or '.join(map(str, sorted(biases)))}" if biases else ""
        checks.fail(function, "filter_axis", "given", f"None, for {name!r} of shape {shape}{lengths}", TODO)
    return (guess,)


def _homes(params: Params) -> list[tuple[str, ...]]:
    """The steps to each array as words, those within a name such as ``fc.weight``, too."""
    return [tuple(re.split(r"[./]", "/".join(map(_word, path)))) for path in names.paths(params)]


def _word(step: Any) -> str:
    return jax.tree_util.keystr((step,), simple=True)


def _biases(index: int, leaves: list[Any], homes: list[tuple[str, ...]]) -> set[tuple[int, ...]]:
    """The shapes of the biases beside an array, ``b1`` of ``w1``; in a list every vector counts."""
    *home, last = homes[index]
    number, listed = re.sub(r"\D", "", last), last.isdigit()
    return {
        np.shape(leaf)
        for leaf, (*other, word) in zip(leaves, homes, strict=True)
        if other == home
        and np.ndim(leaf) > 0
        and (
            word.isdigit() and _is_vector(leaf)
            if listed
            else _is_bias(word, leaf) and re.sub(r"\D", "", word) == number
        )
    }


def _is_vector(leaf: Any) -> bool:
    return np.ndim(leaf) > 0 and np.size(leaf) == max(np.shape(leaf))


def _is_bias(word: str, leaf: Any) -> bool:
    return bool(BIAS.fullmatch(word)) or (bool(re.fullmatch(r"b\d*", word)) and _is_vector(leaf))


def _asked(function: str, params: Params, filter_axis: FilterAxis) -> list[Any]:
    """What was asked for each array, None where nothing was."""
    if callable(filter_axis) and jax.tree_util.all_leaves([filter_axis]):
        filter_axis = filter_axis(params)
    nothing = lambda x: x is None  # noqa: E731
    try:
        spread = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda _: axis, part), filter_axis, params, is_leaf=nothing
        )
    except ValueError as error:
        checks.fail(function, "filter_axis", "a prefix of the parameters' pytree", f"another structure ({error})")
    return jax.tree.leaves(spread, is_leaf=nothing)


def _by_equinox(params: Params) -> list[int | tuple[()] | None]:
    """Of each array the axis of the outputs where a layer of Equinox holds it."""
    found: list[int | tuple[()] | None] = []
    for part in jax.tree.leaves(params, is_leaf=lambda part: _equinox(part) is not None):
        layer = _equinox(part)
        found += [EQUINOX[layer] if layer else None] * len(jax.tree.leaves(part))
    return found


def _equinox(part: Any) -> str | None:
    """The name of Equinox's layer that this is."""
    kinds = type(part).__mro__
    return next((k.__name__ for k in kinds if k.__module__.startswith("equinox.nn") and k.__name__ in EQUINOX), None)


def _checked(function: str, name: str, leaf: Any, axis: Any) -> int:
    """An axis of an array, counted from the first."""
    count = np.ndim(leaf)
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -count <= axis < count:
        what = f"an axis of {name!r}, which has shape {np.shape(leaf)}"
        checks.fail(function, "filter_axis", what, checks.shown(axis))
    return int(axis) % count

"""What the arrays of a network, and the layers that hold them, are called: one way for every part that names them."""

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey, keystr

from steppe.core import checks
from steppe.core.types import Params

Path = tuple[Any, ...]
"""Steps from the root of a pytree to a leaf, as JAX gives them."""

BOXES = ("Variable", "VariableState", "AxisMetadata")
"""Flax's classes around one array, whose own step is no part of a name."""

WHOLE = "params"
"""The name of an array that is the whole pytree."""


def names(tree: Params) -> list[str]:
    """The name of each array: the steps of its path, ``layers/0/kernel``. No two are the same.

    A variable of Flax NNX is called what it is called in its module: the step into it is left out.

    Parameters
    ----------
    tree : Params
        Any pytree.

    Returns
    -------
    list[str]
        Names in the order of the leaves. Where two would be the same, as of ``{"a/b": x, "a": {"b": y}}``, both are
        written as Python would index them.

    Examples
    --------
    >>> names({"layers": [{"kernel": 1.0, "bias": 2.0}]})
    ['layers/0/bias', 'layers/0/kernel']
    >>> names(1.0)
    ['params']
    """
    return _unique(paths(tree))


def layers(tree: Params) -> list[str]:
    """The name of the layer of each array: what arrays share that lie side by side, a kernel and its bias.

    That is an array's path up to its last step; a name such as ``fc.weight`` in a dictionary counts as the steps that
    it is made of. An array at the root is a layer of its own.

    Parameters
    ----------
    tree : Params
        Any pytree.

    Returns
    -------
    list[str]
        Names in the order of the leaves, the same for arrays of one layer and for no others.

    Examples
    --------
    >>> layers({"in": {"kernel": 1.0, "bias": 2.0}, "scale": 3.0})
    ['in', 'in', 'scale']
    >>> layers({"fc1.weight": 1.0, "fc1.bias": 2.0, "fc2.weight": 3.0})
    ['fc1', 'fc1', 'fc2']
    """
    return _unique([_layer(path) for path in paths(tree)])


def last_steps(tree: Params) -> list[str]:
    """What each array is called within its layer, ``kernel``; see `layers`.

    Examples
    --------
    >>> last_steps({"in": {"kernel": 1.0}, "fc1.weight": 2.0})
    ['weight', 'kernel']
    """
    return [re.split(r"[./]", _written(path))[-1] for path in paths(tree)]


def match(known: list[str], patterns: str | Sequence[str]) -> list[bool]:
    """Which names some globs choose.

    ``*`` stands for anything, steps included, ``?`` for one character. Steps may be written with dots or slashes
    whatever the names have, and a pattern that names a module or a layer chooses all that is in it.

    Parameters
    ----------
    known : list[str]
        Names of arrays, see `names`.
    patterns : str or sequence of str
        One glob, or several: what any of them chooses.

    Returns
    -------
    list[bool]
        One for each name.

    Raises
    ------
    InputError
        A pattern that chooses nothing, with names that are near; no pattern.

    Examples
    --------
    >>> known = ["blocks/0/attn/q/kernel", "blocks/0/mlp/kernel", "head/kernel"]
    >>> match(known, "blocks.*.attn.*"), match(known, ["head", "*.mlp"])
    ([True, False, False], [False, True, True])
    """
    several = [patterns] if isinstance(patterns, str) else list(patterns)
    if not several:
        checks.fail("where", "pattern", "a glob of the parameters' names", "none")
    dotted = [name.replace("/", ".") for name in known]
    chosen = [False] * len(known)
    for pattern in several:
        glob = pattern.replace("/", ".").rstrip(".")
        fits = [any(fnmatch.fnmatchcase(name, form) for form in (glob, f"{glob}.*")) for name in dotted]
        if not any(fits):
            checks.fail("where", "pattern", "a glob that matches the name of a parameter", checks.shown(pattern),
                        _near(pattern, known))  # fmt: skip
        chosen = [a or b for a, b in zip(chosen, fits, strict=True)]
    return chosen


def _near(pattern: str, known: list[str]) -> str:
    """A few names that are like a pattern that matches none, or the first ones."""
    like = difflib.get_close_matches(re.sub(r"[*?.]+", "/", pattern), known, n=3, cutoff=0.3)
    listed = ", ".join(like or known[:6]) + ("" if like or len(known) <= 6 else f" and {len(known) - 6} more")
    return f"{'Near are' if like else 'There are'}: {listed}."


def paths(tree: Params) -> list[Path]:
    """The path of each leaf, without the steps into Flax's variables."""
    return [path for path, _ in _walked(tree)]


def variables(tree: Params) -> list[tuple[str, ...]]:
    """For each array the names of the classes of the Flax variable that holds it, the nearest first; () for none."""
    return [tuple(kind.__name__ for kind in type(box).__mro__) if _is_box(box) else () for _, box in _walked(tree)]


def _walked(tree: Params) -> Iterator[tuple[Path, Any]]:
    """The path of each leaf, and what holds it: a variable of Flax, or itself."""
    for path, part in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_box)[0]:
        inside = jax.tree_util.tree_flatten_with_path(part)[0] if _is_box(part) else [((), part)]
        for inner, _ in inside:
            yield (*path, *(inner[1:] if inner[:1] == (GetAttrKey("value"),) else inner)), part


def _is_box(part: Any) -> bool:
    kinds = type(part).__mro__
    return any(kind.__module__.partition(".")[0] == "flax" and kind.__name__ in BOXES for kind in kinds)


def _layer(path: Path) -> Path:
    """The steps to the layer of an array."""
    inside = re.fullmatch(r"(.+)[./][^./]+", str(getattr(path[-1], "key", ""))) if path else None
    if inside:
        return (*path[:-1], DictKey(inside[1]))
    return path[:-1] or path


def _written(path: Path) -> str:
    return keystr(path, simple=True, separator="/")


def _unique(found: list[Path]) -> list[str]:
    """A name for each path, the same for equal paths only."""
    short = {path: _written(path) or WHOLE for path in found}
    shared = Counter(short.values())
    chosen = {path: name if shared[name] == 1 else keystr(path) for path, name in short.items()}
    if len(set(chosen.values())) < len(chosen):  # a key that is written as Python would index another
        chosen = {path: keystr(path) for path in chosen}
    return [chosen[path] for path in found]

"""How large settings may be, and what names: what is beyond would fail only after hours, or fill the machine."""

import math
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import AfterValidator, Field

from steppe.core import checks

WHOLE = 2**31 - 1
"""Of any whole number: JAX counts in 32 bits."""

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Of any number but 0: what float32 does not make zero or infinite."""

MOST = {
    "seeds": 10_000,  # runs of each condition; each is a folder
    "epochs": 1_000_000,  # each is a row of every run's history, which is rewritten at every checkpoint
    "trials": 1_000,  # of each condition, each a run
    "trial_seeds": 100,
    "probes": 1_000_000,  # the error falls as 1/sqrt(probes): more are below float32's rounding
    "samples": 10_000,  # of one step's direction, one gradient each
    "pairs": 10_000,
    "shards": 10_000,
    "batches": 1_000_000,
    "points": 10_001,  # of a line; more than a figure can show
    "grid_points": 1_001,  # along each side of a plane, so a million points
    "steps": 10_000,  # of an inner loop within one step of training
    "padding": 10_000,  # pixels
    "hidden": 1_000_000,  # units of one layer
    "widths": 100_000,
    "width": 100_000,
    "channels": 100_000,
    "embedding": 100_000,
    "blocks": 1_000,  # of one stage; each is traced
    "convolutions": 1_000,
    "depth": 1_000,
    "heads": 10_000,
    "head_width": 100_000,
    "kernel": 1_001,
    "patch": 10_000,
    "vocabulary": 10_000_000,
    "tokens": 1_000_000,  # of each text
    "split_seed": 2**32 - 1,  # what NumPy takes
    "examples": 100_000_000,
    "test_examples": 100_000_000,
}
"""Of single settings, by name."""

LENGTH = 100
"""Of a list that a setting takes, such as the widths of hidden layers."""

CONDITIONS = 1_000
"""Columns of a study: each is checked, traced, and shown in every table."""

DEPTH = 16
"""Tables and lists inside one another."""

NAME_BYTES = 200
"""Of a name: file systems allow 255, and files add their endings."""

FILE_BYTES = 10_000_000
"""Of a specification; the largest that ships has 5,000."""


def bounded(kind: type, name: str) -> Any:
    """`int` or `float` within what a setting of that name can be; other types as they are."""
    if kind is int:  # what is too small is for the function to say
        return Annotated[int, Field(ge=-WHOLE, le=MOST.get(name, WHOLE))]
    return Annotated[float, AfterValidator(_in_float32)] if kind is float else kind


def _in_float32(value: float) -> float:
    """A number that is computed with in float32 and becomes neither infinite nor zero there."""
    if value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(f"0 or of a size from {SMALLEST:.2g} to {LARGEST:.2g}, the numbers of float32")
    return value


Real = Annotated[float, AfterValidator(_in_float32)]


def check_tree(raw: Mapping[str, Any]) -> None:
    """Check all text and the depth of nested tables and lists.

    Raises
    ------
    InputError : text with control characters, or none that UTF-8 can write; too deep.
    """
    for path, value in _inside(raw):
        if len(path) > DEPTH:
            checks.fail("study", path[0], f"nested at most {DEPTH} deep", "one nested deeper")
        for text in (path[-1], value):
            if isinstance(text, str) and not _writable(text):
                where = ".".join(step for step in path if _writable(step)) or "a key"
                checks.fail("study", where, "text without control characters", checks.shown(text))


def _inside(raw: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value inside nested tables and lists, with its path; as deep as `DEPTH` allows, and one deeper."""
    left: list[tuple[tuple[str, ...], Any]] = [((), raw)]
    while left:
        path, value = left.pop()
        if path:
            yield path, value
        if isinstance(value, Mapping):
            left += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            left += [((*path, str(place)), inner) for place, inner in enumerate(value)]


def _writable(text: str) -> bool:
    """Whether pages, figures and terminals show a text as it is: no control codes, surrogates or non-characters."""
    return not any(
        (unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t") or ord(c) & 0xFFFE == 0xFFFE for c in text
    )


def check_name(where: str, name: str, todo: str = "") -> None:
    """Check a name that files are called by, and figures and tables show.

    Raises
    ------
    InputError : a name that some file system or terminal does not take.
    """
    got = checks.shown(name)
    if not name or set(name) & set("/\\"):
        checks.fail("study", where, "a name without slashes", got, todo)
    if not name.isprintable() or name != " ".join(name.split()):
        checks.fail("study", where, "printable, with single blanks between its words", got, todo)
    if name.startswith(".") or name.endswith("."):
        checks.fail("study", where, "a name that neither begins nor ends with a dot", got, todo)
    if len(os.fsencode(name)) > NAME_BYTES:
        checks.fail("study", where, f"a name of at most {NAME_BYTES} bytes", f"{len(os.fsencode(name))}", todo)
    if PureWindowsPath(name).is_reserved():
        checks.fail("study", where, "a name that Windows does not reserve", got, todo)


def check_distinct(names: list[str]) -> None:
    """Check that names of conditions are distinct on every file system, some of which ignore case or Unicode's forms.

    Raises
    ------
    InputError : two that are the same there.
    """
    known: dict[str, str] = {}
    for name in names:
        same = unicodedata.normalize("NFKC", name).casefold()
        if same in known:
            got = f"{checks.shown(known[same])} and {checks.shown(name)}"
            checks.fail("study", "conditions", "distinct, in more than capitals and Unicode's forms", got)
        known[same] = name


def check_conditions(grid: Mapping[str, list[Any]], written: int) -> None:
    """Check how many conditions there are, before the first is made.

    Raises
    ------
    InputError : too many.
    """
    count = (math.prod(map(len, grid.values())) if grid else 0) + written
    if count > CONDITIONS:
        checks.fail("study", "grid", f"of at most {CONDITIONS} conditions in all", f"{count}", "Vary fewer things.")


def check_odd(where: str, points: int) -> None:
    """Check that a row of points has one in its middle.

    Raises
    ------
    InputError : an even number.
    """
    if points % 2 == 0:
        checks.fail("study", where, "odd, so that the network itself is one of the points", points)


def machine_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_work(progress: Any, steps: int) -> None:
    """Check that a run, given by the shapes of its arrays and its number of steps, is not beyond any machine.

    Raises
    ------
    InputError : arrays larger than the memory of this machine; more steps than JAX can count.
    """
    if steps > WHOLE:
        checks.fail("study", "train.epochs", f"of at most {WHOLE} steps in all", f"{steps} steps")
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(progress))
    if needed > machine_bytes():
        got = f"{machine_bytes() / 1e9:.1f} GB"
        what = f"enough for training, at least {needed / 1e9:.1f} GB"
        checks.fail("study", "memory", what, got, "Take a smaller network.")

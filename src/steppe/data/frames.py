"""Tables in memory, whatever they were read from: numeric columns, and one of labels."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np

from steppe.core import arrays, checks
from steppe.data.dataset import listed

if TYPE_CHECKING:
    import polars

WHOLE = 2**53
"""Up to here floats tell whole numbers apart."""

LESS = "Subtract the first one from all."
"""What to do where floats would merge whole numbers."""

LONGEST = 1000
"""Characters in the name of a class: NumPy stores all names as wide as the longest."""

Contents: TypeAlias = tuple[np.ndarray, np.ndarray, list[str]]
"""Features (N, …), labels (N,), and the columns' names: none for one array of features."""


class Origin(NamedTuple):
    """Where a table is from, for messages.

    Attributes
    ----------
    data : the data set, "file" or "hub".
    whole : what it was read from, such as a path.
    name : its name alone.
    """

    data: str
    whole: str
    name: str

    @property
    def where(self) -> str:
        """What messages begin with."""
        return f"data {self.data}"


def from_frame(origin: Origin, frame: "polars.DataFrame", label: str) -> Contents:
    """Numeric columns as features, and one of labels, checked; see `as_classes`."""
    import polars

    if label not in frame.columns:
        checks.fail(
            origin.where,
            "label",
            f"a column of {origin.name}",
            checks.shown(label),
            nearest(label, frame.columns),
        )
    if frame.height == 0:
        checks.fail(origin.where, origin.whole, "a file with examples", "a file without any")
    for column in frame.iter_columns():  # looking each of a million up by its name takes hours
        if column.null_count():
            gaps = np.flatnonzero(column.is_null().to_numpy())
            checks.fail(origin.where, f"column {column.name!r}", "without missing values",
                        f"a gap in row {gaps[0]} of {origin.name}", "Fill or drop missing values first.")  # fmt: skip
    features = frame.drop(label)
    words = [name for name, dtype in features.schema.items() if not (dtype.is_numeric() or dtype == polars.Boolean)]
    if words:
        got = f"a column of {features.schema[words[0]]}, {words[0]!r}" + _first_word(features[words[0]])
        others = f" So are {listed(map(repr, words[1:]))}." if words[1:] else ""
        checks.fail(origin.where, "features", "numeric columns", got, f"Encode or drop it first.{others}")
    if not features.columns:
        checks.fail(origin.where, origin.whole, "a table with features", f"a table of {label!r} alone")
    for column in features.iter_columns():
        if column.dtype.is_integer() and any(abs(cast(int, end)) > WHOLE for end in (column.min(), column.max())):
            whole = np.array(column.to_list(), dtype=object)  # columns may be of 128 bits
            arrays.check_resolved(origin.where, f"column {column.name!r}", whole, np.float64, todo=LESS)
    x = features.cast(polars.Float64).to_numpy()
    return x, label_values(origin, frame[label]), features.columns


def label_values(origin: Origin, labels: "polars.Series") -> np.ndarray:
    """A column of labels as an array: strings, whole numbers, or numbers."""
    import polars

    what = f"label {labels.name!r}"
    if labels.dtype == polars.String or isinstance(labels.dtype, (polars.Categorical, polars.Enum)):
        words = labels.cast(polars.String)
        longest = words.str.len_chars().arg_max() or 0
        if len(words[longest]) > LONGEST:
            got = f"{len(words[longest])} in row {longest} of {origin.name}"
            checks.fail(origin.where, what, f"names of classes, of at most {LONGEST} characters", got)
        odd = words.str.contains("\0", literal=True).arg_max() or 0
        if "\0" in words[odd]:  # which NumPy would drop at the end of a name
            checks.fail(origin.where, what, "names of classes", f"one with a NUL in row {odd} of {origin.name}")
        return np.array(words.to_list(), dtype=str)
    if not (labels.dtype.is_numeric() or labels.dtype == polars.Boolean):
        checks.fail(
            origin.where,
            what,
            "whole numbers or strings: a class for each example",
            f"a column of {labels.dtype}",
        )
    if isinstance(labels.dtype, polars.Decimal) or labels.dtype in (polars.Int128, polars.UInt128):
        exact = labels.to_list()
        fits = all(number == int(number) and abs(number) < 2**63 for number in exact)
        return np.array([int(number) if fits else float(number) for number in exact])
    return labels.to_numpy()


def _first_word(column: "polars.Series") -> str:
    """Where a column of strings first holds something that is no number: often the sign for a missing value."""
    import polars

    if column.dtype != polars.String:
        return ""
    numbers = column.cast(polars.Float64, strict=False).fill_null(float("nan")).to_numpy()
    row = int(np.isnan(numbers).argmax())
    return f" ({column[row]!r} in row {row})"


def as_classes(origin: Origin, labels: np.ndarray, name: str) -> np.ndarray:
    """Labels as strings or whole numbers."""
    what = "whole numbers or strings: a class for each example"
    if labels.ndim != 1:
        checks.fail(origin.where, f"label {name!r}", what, f"a shape of {labels.shape}")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)
        broken = np.flatnonzero(labels != np.floor(labels))  # NaN differs from itself
        broken = np.union1d(broken, np.flatnonzero(np.abs(labels) > WHOLE))
        if len(broken):
            got = f"a value {labels[broken[0]]} in row {broken[0]} of {origin.name}"
            large = "Floats beyond 2**53 do not tell classes apart: number them from 0."
            todo = large if np.abs(labels[broken[0]]) > WHOLE and np.isfinite(labels[broken[0]]) else ""
            checks.fail(origin.where, f"label {name!r}", what, got, todo)
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        checks.fail(origin.where, f"label {name!r}", what, f"a dtype of {labels.dtype}")
    return labels.astype(labels.dtype.newbyteorder("="), copy=False)


def nearest(word: str, known: Iterable[str]) -> str:
    """`checks.nearest`, among the ten most alike, so that no message lists a thousand."""
    return checks.nearest(word, difflib.get_close_matches(str(word), list(known), n=10, cutoff=0.0))

"""A user's own data: CSV, Parquet or npz with a column of labels."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, cast

import numpy as np

from steppe.core import arrays, checks
from steppe.data.archives import check_fits, kind_of, npz
from steppe.data.dataset import Dataset, check_finite
from steppe.data.sources import first_line, read_parquet
from steppe.data.tabular import split_table, table

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


def file(
    *,
    file: str,
    label: str,
    test_file: str | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    standardize: bool = True,
) -> Dataset:
    """Your own table or arrays, with classes to predict.

    Parameters
    ----------
    file : path of a CSV or Parquet table, all columns but the label numeric; or of an npz with an array of labels (N,)
        and one other array of features (N, …), or several of shape (N,).
    label : the column, or array, that holds the classes: whole numbers or strings, numbered in sorted order.
    test_file : another file, with the same columns in the same order, to test on. Without one the file is split.
    test_fraction, split_seed : of the split, stratified by class.
    standardize : subtract the training part's mean of each feature and divide by its standard deviation.

    Raises
    ------
    InputError : a file that is not there, damaged, or of another kind; columns that are missing, not numeric, or have
        missing values; labels that are not classes, or stand in the test part alone. Rows are counted from 0.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "flowers.csv"
    >>> lines = ["petal,kind"] + ["1.5,rose", "2.5,tulip"] * 5
    >>> _ = path.write_text(chr(10).join(lines))
    >>> print(file(file=str(path), label="kind").about)
    flowers.csv, label 'kind', classes rose, tulip; stratified split, 8 to train and 2 to test (seed 0); ...
    """
    x, labels, columns = features_and_labels("file", file, label)
    kinds = np.unique(labels)
    if len(kinds) < 2:
        checks.fail("data file", f"label {label!r}", "of at least two classes", f"a single class, {kinds[0]}")
    about = f"{Path(file).name}, label {label!r}, classes {_listed(kinds)}"
    if test_file is None:
        pair = x, np.searchsorted(kinds, labels)
        return split_table("file", pair, about, test_fraction, standardize, split_seed, names=kinds.tolist())
    x_test, labels_test, columns_test = features_and_labels("test_file", test_file, label)
    _check_columns(columns, columns_test)
    if x_test.shape[1:] != x.shape[1:]:
        checks.fail("data file", "test_file", f"examples of shape {x.shape[1:]}", f"a shape of {x_test.shape[1:]}")
    unknown = sorted(set(labels_test.tolist()) - set(kinds.tolist()), key=str)
    if unknown:
        got = f"a label {unknown[0]!r}, which is not"
        checks.fail("data file", f"label {label!r} of test_file", "among those of the training file", got)
    parts = (x, np.searchsorted(kinds, labels)), (x_test, np.searchsorted(kinds, labels_test))
    return table("file", *parts, len(kinds), f"{about}; tested on {Path(test_file).name}", standardize)


def _listed(kinds: Iterable[Any]) -> str:
    """Names in a row: ten of them where there are more."""
    names = [str(kind) for kind in kinds]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _nearest(word: str, known: Iterable[str]) -> str:
    """`checks.nearest`, among the ten most alike, so that no message lists a thousand."""
    return checks.nearest(word, difflib.get_close_matches(str(word), list(known), n=10, cutoff=0.0))


def _check_columns(train: list[str], test: list[str]) -> None:
    """Features must mean the same, by position, in both files."""
    odd = [name for name in train if name not in test] + [name for name in test if name not in train]
    if train != test:
        got = f"a file that differs in {_listed(map(repr, odd))}" if odd else "a file with the columns in another order"
        checks.fail("data file", "test_file", "a file with the columns of the training file", got)


def features_and_labels(setting: str, name: str, label: str, *, classes: bool = True) -> Contents:
    """What a file holds, checked: finite features, and labels that are classes, unless any number will do."""
    readers = {".csv": _from_csv, ".parquet": _from_parquet, ".npz": _from_npz}
    if not isinstance(name, (str, Path)):
        checks.fail("data file", setting, "a path", name)
    path = Path(name)
    if path.suffix.lower() not in readers:
        checks.fail("data file", setting, "a .csv, .parquet or .npz file", checks.shown(str(path)))
    if not path.is_file():
        if os.path.lexists(path):
            checks.fail("data file", setting, "a file", f"{kind_of(path)}, {checks.shown(str(path))}")
        if not path.parent.is_dir():
            checks.fail(
                "data file",
                setting,
                "a file that exists",
                checks.shown(str(path)),
                f"There is no folder {path.parent}.",
            )
        names = sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in readers and p.is_file())
        checks.fail("data file", setting, "a file that exists", checks.shown(str(path)), _nearest(path.name, names))
    x, labels, columns = readers[path.suffix.lower()](path, label)
    if len(labels) == 0:
        checks.fail("data file", str(path), "a file with examples", "a file without any")
    if x.size == 0:
        checks.fail("data file", str(path), "a file with features", f"a file of {label!r} alone")
    check_finite("file", path.name, x, columns)
    if not classes and labels.dtype.kind == "f":
        check_finite("file", path.name, labels)
        return x, labels, columns
    return x, _classes(labels, label, path), columns


def _classes(labels: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Labels as strings or whole numbers."""
    what = "whole numbers or strings: a class for each example"
    if labels.ndim != 1:
        checks.fail("data file", f"label {name!r}", what, f"a shape of {labels.shape}")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)
        broken = np.flatnonzero(labels != np.floor(labels))  # NaN differs from itself
        broken = np.union1d(broken, np.flatnonzero(np.abs(labels) > WHOLE))
        if len(broken):
            got = f"a value {labels[broken[0]]} in row {broken[0]} of {path.name}"
            large = "Floats beyond 2**53 do not tell classes apart: number them from 0."
            todo = large if np.abs(labels[broken[0]]) > WHOLE and np.isfinite(labels[broken[0]]) else ""
            checks.fail("data file", f"label {name!r}", what, got, todo)
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        checks.fail("data file", f"label {name!r}", what, f"a dtype of {labels.dtype}")
    return labels.astype(labels.dtype.newbyteorder("="), copy=False)


def _from_csv(path: Path, label: str) -> Contents:
    """Commas between values, the first line names columns; a column's type is read off all of its rows."""
    import polars

    check_fits("data file", path, path.stat().st_size)
    _check_text(path)
    try:
        frame = polars.read_csv(path, infer_schema_length=None, glob=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        _damaged(path, "table", error)
    names = set(frame.columns)
    for name in frame.columns:
        twice = name.partition("_duplicated_")[0]  # polars so names the second of two columns
        if twice != name and twice in names:
            checks.fail("data file", str(path), "a table whose columns differ in name", f"a second column {twice!r}")
    return _from_frame(path, frame, label)


def _check_text(path: Path) -> None:
    """Fail where a table is no text of this kind: UTF-16, binary, lines that end as they did on old Macs."""
    with path.open("rb") as stream:
        for at, part in enumerate(iter(lambda: stream.read(2**20), b"")):
            if b"\0" in part:
                got = f"a NUL at byte {at * 2**20 + part.index(0)}"
                checks.fail("data file", str(path), "a table of text in UTF-8", got, "Save it as UTF-8, not as UTF-16.")
            if not at and b"\r" in part and b"\n" not in part and len(part) < 2**20:
                checks.fail("data file", str(path), "a table whose lines end in a newline", "one with carriage returns")


def _from_parquet(path: Path, label: str) -> Contents:
    import polars

    arrow = read_parquet("file", path)
    for field in arrow.schema:
        if "decimal256" in str(field.type):  # which polars does not read
            got = f"a column of {field.type}, {field.name!r}"
            checks.fail("data file", str(path), "a table without decimals of 256 bits", got, "Cast it to double.")
    try:
        return _from_frame(path, polars.DataFrame(polars.from_arrow(arrow)), label)
    except checks.InputError:
        raise
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, ValueError, TypeError) as error:
        _damaged(path, "table", error)


def _from_frame(path: Path, frame: "polars.DataFrame", label: str) -> Contents:
    import polars

    if label not in frame.columns:
        checks.fail(
            "data file", "label", f"a column of {path.name}", checks.shown(label), _nearest(label, frame.columns)
        )
    if frame.height == 0:
        checks.fail("data file", str(path), "a file with examples", "a file without any")
    for column in frame.iter_columns():  # looking each of a million up by its name takes hours
        if column.null_count():
            gaps = np.flatnonzero(column.is_null().to_numpy())
            checks.fail("data file", f"column {column.name!r}", "without missing values",
                        f"a gap in row {gaps[0]} of {path.name}", "Fill or drop missing values first.")  # fmt: skip
    features = frame.drop(label)
    words = [name for name, dtype in features.schema.items() if not (dtype.is_numeric() or dtype == polars.Boolean)]
    if words:
        got = f"a column of {features.schema[words[0]]}, {words[0]!r}" + _first_word(features[words[0]])
        others = f" So are {_listed(map(repr, words[1:]))}." if words[1:] else ""
        checks.fail("data file", "features", "numeric columns", got, f"Encode or drop it first.{others}")
    if not features.columns:
        checks.fail("data file", str(path), "a table with features", f"a table of {label!r} alone")
    for column in features.iter_columns():
        if column.dtype.is_integer() and any(abs(cast(int, end)) > WHOLE for end in (column.min(), column.max())):
            whole = np.array(column.to_list(), dtype=object)  # columns may be of 128 bits
            arrays.check_resolved("data file", f"column {column.name!r}", whole, np.float64, todo=LESS)
    x = features.cast(polars.Float64).to_numpy()
    return x, _label_values(path, frame[label]), features.columns


def _label_values(path: Path, labels: "polars.Series") -> np.ndarray:
    """A column of labels as an array: strings, whole numbers, or numbers."""
    import polars

    what = f"label {labels.name!r}"
    if labels.dtype == polars.String or isinstance(labels.dtype, (polars.Categorical, polars.Enum)):
        words = labels.cast(polars.String)
        longest = words.str.len_chars().arg_max() or 0
        if len(words[longest]) > LONGEST:
            got = f"{len(words[longest])} in row {longest} of {path.name}"
            checks.fail("data file", what, f"names of classes, of at most {LONGEST} characters", got)
        odd = words.str.contains("\0", literal=True).arg_max() or 0
        if "\0" in words[odd]:  # which NumPy would drop at the end of a name
            checks.fail("data file", what, "names of classes", f"one with a NUL in row {odd} of {path.name}")
        return np.array(words.to_list(), dtype=str)
    if not (labels.dtype.is_numeric() or labels.dtype == polars.Boolean):
        checks.fail(
            "data file", what, "whole numbers or strings: a class for each example", f"a column of {labels.dtype}"
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


def _from_npz(path: Path, label: str) -> Contents:
    try:
        found = npz("data file", path)
    except checks.InputError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways
        _damaged(path, "npz archive without pickled objects", error)
    if label not in found:
        checks.fail("data file", "label", f"an array of {path.name}", checks.shown(label), _nearest(label, found))
    labels = found.pop(label)
    for name, array in found.items():
        if array.dtype.kind not in "fiub" or array.shape[:1] != labels.shape[:1] or not array.ndim:
            got = f"a {array.dtype} array of shape {array.shape}"
            checks.fail("data file", f"array {name!r}", f"numbers, as many as labels: {labels.shape}", got)
        if array.dtype.kind in "iu":
            arrays.check_resolved("data file", f"array {name!r}", array, np.float64, todo=LESS)
    if len(found) == 1:
        x = next(iter(found.values())).astype(np.float64)
        return (x[:, None] if x.ndim == 1 else x), labels, list(found) if x.ndim == 1 else []
    if not found or any(array.ndim != 1 for array in found.values()):
        what = "one array of features beside the labels, or columns of shape (N,)"
        checks.fail("data file", str(path), what, f"a choice of {_listed(found) or 'none'}")
    return np.stack([array.astype(np.float64) for array in found.values()], axis=1), labels, list(found)


def _damaged(path: Path, kind: str, error: Exception) -> NoReturn:
    checks.fail("data file", str(path), f"a readable {kind}", f"a damaged file ({first_line(error)})")

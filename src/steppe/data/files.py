"""A user's own data: CSV, Parquet or npz with a column of labels."""

import os
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from steppe.core import arrays, checks
from steppe.data.archives import check_fits, kind_of, mapped, npz
from steppe.data.arrays import as_floats
from steppe.data.dataset import Dataset, check_finite, dataset, listed
from steppe.data.frames import LESS, Contents, Origin, as_classes, from_frame, nearest
from steppe.data.sources import first_line, read_parquet
from steppe.data.tabular import split_table, standardizing, table


def file(
    *,
    file: str,
    label: str,
    test_file: str | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    standardize: bool = True,
    targets: Literal["classes", "real"] | None = None,
) -> Dataset:
    """Your own table or arrays, with classes or real numbers to predict.

    Parameters
    ----------
    file : path of a CSV or Parquet table, all columns but the label numeric; or of an npz with an array of labels (N,)
        and one other array of features (N, …), or several of shape (N,); or of an npy with an array of features, which
        is mapped and not read, so that it may be larger than the memory.
    label : the column, or array, that holds the classes: whole numbers or strings, numbered in sorted order. For an npy
        another npy in the same folder: file = "train/x.npy", label = "y.npy", test_file = "test/x.npy".
    test_file : another file, with the same columns in the same order, to test on. Without one the file is split.
    test_fraction, split_seed : of the split, stratified by class.
    standardize : subtract the training part's mean of each feature and divide by its standard deviation; of real
        targets, too, so that a squared error of 1 is that of their mean.
    targets : "real" where the label holds numbers to predict and no classes.

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
    checks.one_of("data file", "targets", targets, (None, "classes", "real"))
    if isinstance(file, str | Path) and Path(file).suffix.lower() == ".npy":
        if targets == "real":
            checks.fail("data file", "targets", "classes with an .npy file", "'real'", "Take an .npz file for them.")
        return _of_mapped(file, label, test_file, standardize)
    if targets == "real":
        return _regression(file, label, test_file, test_fraction, split_seed, standardize)
    x, labels, columns = features_and_labels("file", file, label)
    kinds = np.unique(labels)
    if len(kinds) < 2:
        checks.fail("data file", f"label {label!r}", "of at least two classes", f"a single class, {kinds[0]}")
    about = f"{Path(file).name}, label {label!r}, classes {listed(kinds)}"
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


def _regression(
    file: str, label: str, test_file: str | None, test_fraction: float, split_seed: int, standardize: bool
) -> Dataset:
    """A file with numbers to predict."""
    parts = [features_and_labels(setting, name, label, classes=False)
             for setting, name in (("file", file), ("test_file", test_file)) if name is not None]  # fmt: skip
    for _, targets, _ in parts:
        if targets.dtype.kind not in "fiub":
            checks.fail("data file", f"label {label!r}", "numbers to predict", f"{checks.returned(targets)}")
    about = f"{Path(file).name}, real target {label!r}"
    (x, y, columns), *rest = parts
    if not rest:
        return split_table("file", (x, y.astype(float)), about, test_fraction, standardize, split_seed, real=True)
    x_test, y_test, columns_test = rest[0]
    _check_columns(columns, columns_test)
    if x_test.shape[1:] != x.shape[1:]:
        checks.fail("data file", "test_file", f"examples of shape {x.shape[1:]}", f"a shape of {x_test.shape[1:]}")
    pair = (x, y.astype(float)), (x_test, y_test.astype(float))
    return table("file", *pair, 0, f"{about}; tested on {Path(str(test_file)).name}", standardize)


def _of_mapped(file: str, label: str, test_file: str | None, standardize: bool) -> Dataset:
    """Arrays of .npy files, mapped; standardised where a batch of them is decoded."""
    checks.one_of("data file", "standardize", standardize, (True, False))
    if test_file is None:
        todo = "Save the examples to test on in a file of their own."
        checks.fail("data file", "test_file", "given with an .npy file, which is not split", "none", todo)
    (x, labels), (x_test, labels_test) = (
        _mapped_part(setting, Path(name), label) for setting, name in (("file", file), ("test_file", test_file))
    )
    if (x_test.shape[1:], x_test.dtype) != (x.shape[1:], x.dtype):
        checks.fail("data file", "test_file", f"like {file}, {checks.returned(x)}", checks.returned(x_test))
    kinds = np.unique(labels)
    unknown = np.setdiff1d(labels_test, kinds)
    if len(unknown):
        got = f"a label {unknown[0].item()!r}, which is not"
        checks.fail("data file", f"label {label!r} of test_file", "among those of the training file", got)
    about = f"{Path(file).name}, mapped, label {label!r}, classes {listed(kinds)}; tested on {test_file}"
    parts = (x, np.searchsorted(kinds, labels)), (x_test, np.searchsorted(kinds, labels_test))
    decode = standardizing(x) if standardize else as_floats
    done = "; features standardised by the training part" if standardize else ""
    return dataset("file", *parts, decode=decode, shape=x.shape[1:], classes=len(kinds), about=about + done)


def _mapped_part(setting: str, path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of one file, and labels of another beside it, which are read."""
    if path.suffix.lower() != ".npy":
        checks.fail("data file", setting, "an .npy file, as file is", checks.shown(str(path)))
    if Path(label).suffix.lower() != ".npy":
        checks.fail("data file", "label", "the name of an .npy file in the same folder", checks.shown(label))
    found = []
    for one in (path, path.parent / label):
        if not one.is_file():
            checks.fail(
                "data file", setting, "a file that exists, with one of labels beside it", checks.shown(str(one))
            )
        try:
            found.append(mapped(one))
        except Exception as error:  # damaged ones fail in many ways
            _damaged(one, "npy array without pickled objects", error)
    x, labels = found
    small = x.dtype.kind == "b" or (x.dtype.kind in "iu" and x.dtype.itemsize <= 2)
    if not (small or x.dtype in (np.float32, np.float16)) or not x.dtype.isnative or not x.flags.c_contiguous:
        got = checks.returned(x) + ("" if x.flags.c_contiguous else " in the order of Fortran")
        what = "float32, float16, or whole numbers of 8 or 16 bits, in C's order, so that it need not be copied"
        checks.fail("data file", str(path), what, got, "Convert it: numpy.save(path, x.astype(numpy.float32)).")
    if x.ndim < 2:
        checks.fail("data file", str(path), "features (N, …)", checks.returned(x))
    return x, as_classes(_origin(path), np.array(labels), label)


def _origin(path: Path) -> Origin:
    return Origin("file", str(path), path.name)


def _check_columns(train: list[str], test: list[str]) -> None:
    """Features must mean the same, by position, in both files."""
    odd = [name for name in train if name not in test] + [name for name in test if name not in train]
    if train != test:
        got = f"a file that differs in {listed(map(repr, odd))}" if odd else "a file with the columns in another order"
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
        checks.fail("data file", setting, "a file that exists", checks.shown(str(path)), nearest(path.name, names))
    x, labels, columns = readers[path.suffix.lower()](path, label)
    if len(labels) == 0:
        checks.fail("data file", str(path), "a file with examples", "a file without any")
    if x.size == 0:
        checks.fail("data file", str(path), "a file with features", f"a file of {label!r} alone")
    check_finite("file", path.name, x, columns)
    if not classes and labels.dtype.kind == "f":
        check_finite("file", path.name, labels, kind="targets")
        return x, labels, columns
    return x, as_classes(_origin(path), labels, label), columns


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
    return from_frame(_origin(path), frame, label)


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
        return from_frame(_origin(path), polars.DataFrame(polars.from_arrow(arrow)), label)
    except checks.InputError:
        raise
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, ValueError, TypeError) as error:
        _damaged(path, "table", error)


def _from_npz(path: Path, label: str) -> Contents:
    try:
        found = npz("data file", path)
    except checks.InputError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways
        _damaged(path, "npz archive without pickled objects", error)
    if label not in found:
        checks.fail("data file", "label", f"an array of {path.name}", checks.shown(label), nearest(label, found))
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
        checks.fail("data file", str(path), what, f"a choice of {listed(found) or 'none'}")
    return np.stack([array.astype(np.float64) for array in found.values()], axis=1), labels, list(found)


def _damaged(path: Path, kind: str, error: Exception) -> NoReturn:
    checks.fail("data file", str(path), f"a readable {kind}", f"a damaged file ({first_line(error)})")

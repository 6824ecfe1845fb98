"""A user's own data: CSV, Parquet or npz with a column of labels."""

import zipfile
from pathlib import Path

import numpy as np

from steppe import checks
from steppe.data.dataset import Dataset
from steppe.data.tabular import split_table, table


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
    test_file : another file of the same kind to test on. Without one the file is split.
    test_fraction, split_seed : of the split, stratified by class.
    standardize : subtract the training part's mean of each feature and divide by its standard deviation.

    Raises
    ------
    InputError : a file that is not there, damaged, or of another kind; columns that are missing, not numeric, or have
        missing values; labels that are not classes, or stand in the test part alone.
    """
    path = Path(file)
    x, labels = _features_and_labels(path, label)
    kinds = np.unique(labels)
    about = f"{path.name}, label {label!r}, classes {_listed(kinds)}"
    if test_file is None:
        return split_table("file", x, np.searchsorted(kinds, labels), about, test_fraction, standardize, split_seed)
    x_test, labels_test = _features_and_labels(Path(test_file), label)
    unknown = sorted(set(labels_test.tolist()) - set(kinds.tolist()))
    if unknown:
        checks.fail("data file", "labels of the test file", "among those of the training file", checks.shown(unknown[0]))
    if x_test.shape[1:] != x.shape[1:]:
        checks.fail(
            "data file", "test_file", f"examples of shape {x.shape[1:]}", f"examples of shape {x_test.shape[1:]}"
        )
    parts = (x, np.searchsorted(kinds, labels)), (x_test, np.searchsorted(kinds, labels_test))
    return table("file", *parts, len(kinds), f"{about}; tested on {Path(test_file).name}", standardize)


def _listed(kinds: np.ndarray) -> str:
    shown = [str(kind) for kind in kinds[:10]]
    return ", ".join(shown) + (f" and {len(kinds) - 10} more" if len(kinds) > 10 else "")


def _features_and_labels(path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    readers = {".csv": _from_table, ".parquet": _from_table, ".npz": _from_npz}
    if path.suffix.lower() not in readers:
        checks.fail("data file", "file", "a .csv, .parquet or .npz file", checks.shown(str(path)))
    if not path.is_file():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        checks.fail("data file", "file", "a file that exists", checks.shown(str(path)), checks.nearest(path.name, names))
    x, labels = readers[path.suffix.lower()](path, label)
    if len(labels) == 0:
        checks.fail("data file", str(path), "a file with examples", "an empty one")
    return x, _classes(labels, label)


def _classes(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels as strings or whole numbers."""
    if labels.ndim != 1:
        checks.fail("data file", f"label {name!r}", "one class for each example", f"an array of shape {labels.shape}")
    if labels.dtype.kind == "f":
        broken = np.flatnonzero(labels != np.floor(labels))  # NaN differs from itself
        if len(broken):
            checks.fail("data file", f"label {name!r}", "whole numbers or strings",
                        f"a value {labels[broken[0]]} in row {broken[0]}")  # fmt: skip
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iubU":
        checks.fail("data file", f"label {name!r}", "whole numbers or strings", f"an array of dtype {labels.dtype}")
    return labels


def _from_table(path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    import polars

    try:
        frame = polars.read_csv(path) if path.suffix.lower() == ".csv" else polars.read_parquet(path)
    except (polars.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        _damaged(path, "table", error)
    if label not in frame.columns:
        checks.fail("data file", "label", f"a column of {path.name}", checks.shown(label), checks.nearest(label, frame.columns))
    features = frame.drop(label)
    words = [name for name, dtype in features.schema.items() if not (dtype.is_numeric() or dtype == polars.Boolean)]
    if words:
        checks.fail("data file", "features", "numeric columns", f"a column {words[0]!r} of {features.schema[words[0]]}",
                    "Encode or drop it first.")  # fmt: skip
    if not features.columns:
        checks.fail("data file", str(path), "a table with features", f"the label {label!r} alone")
    for name in frame.columns:
        gaps = np.flatnonzero(frame[name].is_null().to_numpy())
        if len(gaps):
            checks.fail("data file", f"column {name!r}", "without missing values", f"one missing in row {gaps[0]}",
                        "Fill or drop missing values first.")  # fmt: skip
    labels = frame[label]
    texts = labels.dtype in (polars.String, polars.Categorical)
    return features.to_numpy().astype(np.float64), np.array(labels.to_list(), dtype=str) if texts else labels.to_numpy()


def _from_npz(path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        _damaged(path, "npz archive without pickled objects", error)
    if label not in arrays:
        checks.fail("data file", "label", f"an array of {path.name}", checks.shown(label), checks.nearest(label, arrays))
    labels = arrays.pop(label)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.shape[:1] != labels.shape[:1]:
            what = f"numbers for {len(labels)} examples"
            checks.fail(
                "data file", f"array {name!r}", what, f"an array of dtype {array.dtype} and shape {array.shape}"
            )
    if len(arrays) == 1:
        return next(iter(arrays.values())).astype(np.float64), labels
    if not arrays or any(array.ndim != 1 for array in arrays.values()):
        what = "one array of features beside the labels, or columns of shape (N,)"
        checks.fail("data file", str(path), what, f"arrays {', '.join(arrays) or 'none'}")
    return np.stack([array.astype(np.float64) for array in arrays.values()], axis=1), labels


def _damaged(path: Path, kind: str, error: Exception) -> None:
    reason = str(error).strip().partition("\n")[0]
    checks.fail("data file", str(path), f"a readable {kind}", f"a damaged file ({reason})")

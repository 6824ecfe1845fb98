"""A user's files of data and of parameters, of odd dtypes, shapes and labels: whole, flipped, cut, or spliced.

A file that is accepted must hold what was written: features and labels equal to those that made it.
"""

import io
import math
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save

from fuzzing import Ending, Verdict, judged
from steppe.data.files import features_and_labels
from steppe.networks import loading

LARGE, SMALL = 1_000, 40

NUMBERS = ("f2", "f4", "f8", ">f8", "longdouble", "i1", "i4", "i8", ">i4", "u1", "u8", "?")
ODD = ("c16", "U3", "S2", "M8[s]", "m8[s]", "O", "V4")
ARROW = ("decimal128(10, 2)", "decimal256(50, 0)", "timestamp[us]", "duration[s]", "binary", "null", "list<int8>")
EXTREMES = (0, -1, 1, 255, -100, 2**24 + 1, 2**31, 2**53 + 1, 2**63 - 1, 10**30, 0.5, 1e-300, 1e19, 1e300)
LABELS = ("classes", "from one", "negative", "text", "empty text", "floats", "halves", "bools", "huge", "mixed", "nan")


def array(dtype: str, values: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An array of some dtype, its entries taken in turn from some values."""
    size = int(np.prod(shape))
    chosen = [values[i % len(values)] for i in range(size)]
    if dtype in ODD or dtype == "?":
        return np.array([i % 2 for i in range(size)]).astype(dtype).reshape(shape)
    if np.dtype(dtype).kind in "iu":
        bounds = np.iinfo(dtype)
        chosen = [min(max(int(value), bounds.min), bounds.max) for value in chosen]
    with np.errstate(all="ignore"):
        return np.array(chosen, dtype=dtype).reshape(shape)


def labels(kind: str, count: int) -> list[Any]:
    """Labels of one kind."""
    return {
        "classes": [i % 2 for i in range(count)],
        "from one": [1 + i % 2 for i in range(count)],
        "negative": [-100 * (i % 2) for i in range(count)],
        "text": ["ab"[i % 2] for i in range(count)],
        "empty text": ["" if i % 2 else "nul\0"[: 3 + i // 2 % 2] for i in range(count)],
        "floats": [float(i % 3) for i in range(count)],
        "halves": [i / 2 for i in range(count)],
        "bools": [i % 2 == 0 for i in range(count)],
        "huge": [10**30 * (i % 3) for i in range(count)],
        "mixed": [i if i % 2 else str(i) for i in range(count)],
        "nan": [float("nan") if i % 2 else 1.0 for i in range(count)],
    }[kind]


def packed(arrays: dict[str, np.ndarray], more: dict[str, bytes]) -> bytes:
    """An npz of arrays and other members."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")  # a second member of the same name is what is tried
        for name, content in more.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def table(columns: dict[str, np.ndarray], y: list[Any], kind: str | None) -> bytes:
    """A Parquet table; `kind` is an Arrow type of one more column."""
    made = {name: pyarrow.array(values.tolist()) for name, values in columns.items()}
    if kind is not None:
        made["odd"] = pyarrow.nulls(len(y)).cast(pyarrow.type_for_alias("null"))
        if kind.startswith("decimal"):
            bits, rest = kind[7:10], kind[11:-1].split(", ")
            dtype = getattr(pyarrow, f"decimal{bits}")(*map(int, rest))
            made["odd"] = pyarrow.array([1] * len(y)).cast(dtype)
        elif kind == "binary":
            made["odd"] = pyarrow.array([b"a"] * len(y))
        elif kind.startswith("list"):
            made["odd"] = pyarrow.array([[1]] * len(y))
        elif kind != "null":
            made["odd"] = pyarrow.array([1] * len(y)).cast(
                pyarrow.timestamp("us") if kind.startswith("time") else pyarrow.duration("s")
            )
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(made | {"kind": pyarrow.array(y)}), buffer)
    return buffer.getvalue()


@st.composite
def cases(draw):
    """(form, content, what was written or None where it was damaged)."""
    form = draw(st.sampled_from(["csv", "npz", "parquet", "safetensors", "parameters.npz"]))
    count, width = draw(st.integers(0, 6)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(NUMBERS + ODD if form.endswith("npz") else NUMBERS))
    y = labels(draw(st.sampled_from(LABELS)), count)
    values = draw(
        st.lists(st.one_of(st.sampled_from(EXTREMES), st.floats(width=32), st.integers(-9, 9)), min_size=1, max_size=5)
    )
    if np.dtype(dtype).kind in "iu" or dtype in ODD:
        values = [value if math.isfinite(value) else 0 for value in values]
    x = array(dtype, values, (count, width))
    try:
        content = _written(draw, form, x, y)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        form, content = "csv", b"a,kind\n1,x\n2,y\n"
        x, y = np.array([[1.0], [2.0]]), ["x", "y"]
    how = draw(st.sampled_from(["whole", "whole", "flipped", "cut", "spliced"]))
    if how == "whole":
        return form, content, (x, y)
    return form, damaged(draw, how, content), None


def _written(draw: Any, form: str, x: np.ndarray, y: list[Any]) -> bytes:
    columns = {f"c{i}": x[:, i] for i in range(x.shape[1])}
    if form == "csv":
        lines = [",".join([*columns, "kind"])]
        lines += [",".join(map(str, [*row.tolist(), label])) for row, label in zip(x, y, strict=True)]
        encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
        return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines).encode(encoding)
    if form == "parquet":
        return table(columns, y, draw(st.sampled_from([None, None, *ARROW])))
    if form == "safetensors":
        if x.dtype == np.longdouble:
            raise TypeError("safetensors knows no such floats")
        return save({"w": np.ascontiguousarray(x), "b": np.zeros(2, np.float32)})
    more = draw(st.sampled_from([{}, {}, {"readme.txt": b"hello"}, {"x.npy": b"\x93NUMPY\1\0"}, {"/etc/z": b""}]))
    return packed({"x": x} if form.startswith("param") else {"x": x, "kind": np.array(y)}, more)


def damaged(draw: Any, how: str, content: bytes) -> bytes:
    """Bytes flipped, cut, or spliced with others of the same file."""
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "cut":
        return content[:at]
    if how == "spliced":
        other = draw(st.integers(0, max(len(content) - 1, 0)))
        return content[:at] + content[other:]
    changed = bytearray(content)
    for place in draw(st.lists(st.integers(0, max(len(content) - 1, 0)), min_size=1, max_size=8)):
        if changed:
            changed[place] ^= draw(st.integers(1, 255))
    return bytes(changed)


CASES = cases()


def attempt(case: tuple[str, bytes, tuple[np.ndarray, list[Any]] | None]) -> Verdict:
    """Read a file, and compare what was read with what was written."""
    form, content, written = case
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (form if form == "parameters.npz" else f"a.{form}")
        path.write_bytes(content)

        def read() -> None:
            if form in ("safetensors", "parameters.npz"):
                found["arrays"] = loading.parameters("measure", path)
            else:
                found["table"] = features_and_labels("file", str(path), "kind")

        verdict = judged(read)
    if written is None or verdict.ending is not Ending.ACCEPTED:
        return verdict
    return _compared(form, written, found)


def _alike(a: Any, b: Any) -> bool:
    return a == b or str(a) == str(b) == "nan"


def _compared(form: str, written: tuple[np.ndarray, list[Any]], found: dict[str, Any]) -> Verdict:
    """Wrong where what was accepted is not what was written."""
    x, y = written
    if "arrays" in found:
        name = "w" if "w" in found["arrays"] else "x"
        read = found["arrays"][name]
        same = read.shape == x.shape and all(map(_alike, read.ravel().tolist(), x.ravel().tolist()))
        return Verdict(Ending.ACCEPTED if same else Ending.WRONG, f"{found['arrays'][name]!r} for {x!r}")
    features, classes, _ = found["table"]
    y = np.array(y).tolist() if form == "npz" else y  # NumPy, which wrote it, drops NULs at the end
    with np.errstate(all="ignore"):
        same = np.array_equal(features, x.astype(np.float64).reshape(features.shape))
    pairs = len(set(zip(map(str, y), classes.tolist(), strict=True)))
    same &= pairs == len(set(map(str, y))) == len(set(classes.tolist()))
    return Verdict(Ending.ACCEPTED if same else Ending.WRONG, f"{features!r}, {classes!r} for {x!r}, {y!r}")

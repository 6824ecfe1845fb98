"""A user's own parameters, data and functions, from files. Nothing that can run code is ever unpickled."""

import json
import logging
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe import extensions
from steppe.core import arrays as arrays_
from steppe.core import checks, programs
from steppe.core.types import Batch, Params
from steppe.data import archives
from steppe.data.dataset import check_finite
from steppe.data.files import features_and_labels
from steppe.data.sources import first_line
from steppe.networks import torch_files

KINDS = (".safetensors", ".npz")
TORCH = (".bin", ".ckpt", ".pt", ".pth")
"""Files of PyTorch, for its loader of weights alone."""

EQUINOX = ".eqx"
"""Files of Equinox: arrays one after another, without names."""

PARTS = ".index.json"
"""How the list of a checkpoint in several files ends."""

FILES = (*KINDS, *TORCH, EQUINOX)

PICKLED = {".joblib", ".npy", ".pickle", ".pkl"}


def parameters(command: str, path: Path) -> Params:
    """Arrays as a file has them: names to arrays, the nested tree of an Orbax or a PyTorch checkpoint, or a list.

    `command` is named in errors, here and below.

    Raises
    ------
    InputError : a file that is not there, damaged, pickled, or of another kind.
    MissingExtra : a file of PyTorch, which is not installed.
    """
    check_kind(command, path)
    if path.is_dir():
        return _from_orbax(command, path)
    if path.name.endswith(PARTS):
        return _from_parts(command, path)
    if path.suffix == EQUINOX:
        return _from_equinox(command, path)
    return _of_file(command, path)


def _of_file(command: str, path: Path) -> Params:
    """The arrays of one file whose arrays have names."""
    return torch_files.arrays(command, path) if path.suffix in TORCH else arrays(command, path, "TARGET")


def check_kind(command: str, path: Path) -> None:
    """Fail where a path is none that `parameters` reads."""
    what = "a run, a study, or parameters: .safetensors, .npz, .pt, .eqx, or the folder of an Orbax checkpoint"
    if path.is_dir():
        if not (path / "_METADATA").is_file():
            inside = sorted(str(p.parent) for depth in ("*", "*/*") for p in path.glob(f"{depth}/_METADATA"))
            inside = inside or sorted(str(p) for p in path.iterdir() if p.suffix in FILES)
            inside = [str(p) for p in path.glob(f"*{PARTS}")] or inside
            todo = f"It holds checkpoints: {', '.join(inside[-3:])}." if inside else "It is none of these."
            checks.fail(command, "TARGET", what, checks.shown(str(path)), todo)
        return
    if path.suffix in PICKLED:
        checks.fail(command, "TARGET", what, checks.shown(str(path)),
                    "Pickled files can run code and are never read: save the arrays as .safetensors.")  # fmt: skip
    if not path.is_file():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = checks.close_to(path.name, names)
        other = f"It is {archives.kind_of(path)}." if os.path.lexists(path) else "There is no such file."
        checks.fail(command, "TARGET", what, checks.shown(str(path)), hint or other)
    if path.suffix not in FILES and not path.name.endswith(PARTS):
        checks.fail(command, "TARGET", what, checks.shown(str(path)))


def arrays(command: str, path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors or .npz file by their names."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            _check_widths(command, path, name)
            archives.check_fits(command, path, path.stat().st_size)
            found = load_file(path)
        else:
            found = archives.npz(command, path)
    except checks.InputError:
        raise
    except Exception as error:  # each library has its own words for damage
        kind = "safetensors file" if path.suffix == ".safetensors" else "npz archive without pickled objects"
        why = first_line(error).removeprefix("Error while deserializing header: ").rstrip(".")
        checks.fail(command, name, f"a whole {kind}", f"{path}, a damaged file ({why})")
    if not found:
        checks.fail(command, name, "a file with arrays", f"{path}, which holds none")
    return dict(sorted(found.items()))


def _from_parts(command: str, path: Path) -> Params:
    """The arrays of a checkpoint in several files that lie beside their list, as Hugging Face writes it."""
    what = "the list of a checkpoint in several .safetensors or .bin files"
    try:
        listed = set(json.loads(path.read_text())["weight_map"].values())
        files = [path.parent / name for name in sorted(listed)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        checks.fail(command, "TARGET", what, f"{path}, which is none ({first_line(error)})")
    for file in files:
        if file.parent != path.parent or file.suffix not in (".safetensors", ".bin") or not file.is_file():
            checks.fail(command, "TARGET", what, f"{path}, which names {checks.shown(str(file))}",
                        "All of its files must lie beside it.")  # fmt: skip
    archives.check_fits(command, path, sum(file.stat().st_size for file in files))
    return {name: array for file in files for name, array in _of_file(command, file).items()}


def _check_widths(command: str, path: Path, option: str) -> None:
    """Fail where an array of a safetensors file is of floats that NumPy lacks, of eight bits or fewer."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  (it is no dictionary)
            dtype = file.get_slice(name).get_dtype()
            if re.match("F[468](?!4$)", dtype):  # such as F8_E4M3, and not F64
                what = "a file of arrays with at least 16 bits a number"
                checks.fail(command, option, what, f"{checks.shown(name)} of {dtype} in {path}",
                            "Save it as bfloat16 or float32.")  # fmt: skip


def _from_orbax(command: str, path: Path) -> Params:
    """The tree of a checkpoint, as NumPy arrays, whatever devices it was saved from."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it also raises
    try:
        with ocp.PyTreeCheckpointer() as reader:
            metadata = reader.metadata(path.absolute()).item_metadata
            if metadata is None:
                checks.fail(command, "TARGET", "a whole Orbax checkpoint", f"{path}, whose metadata are damaged")
            known = metadata.tree
            archives.check_fits(command, path, sum(map(_bytes, jax.tree.leaves(known))))
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), known)
            return reader.restore(path.absolute(), args=ocp.args.PyTreeRestore(restore_args=how))
    except checks.InputError:
        raise
    except Exception as error:
        checks.fail(command, "TARGET", "a whole Orbax checkpoint", f"{path}: {programs.line(error)}")


def _from_equinox(command: str, path: Path) -> Params:
    """The arrays of a file that ``eqx.tree_serialise_leaves`` has written, in its order."""
    what = "a whole file of eqx.tree_serialise_leaves, without pickled objects"
    try:
        found = archives.npy_row(command, path)
    except checks.InputError:
        raise
    except Exception as error:  # NumPy has many
        checks.fail(command, "TARGET", what, f"{path}, a damaged file ({first_line(error).rstrip('.')})")
    if not found:
        checks.fail(command, "TARGET", "a file with arrays", f"{path}, which holds none")
    if any(array.dtype.kind == "V" and array.dtype != "V2" for array in found):
        checks.fail(command, "TARGET", "a file of arrays with at least 16 bits a number", str(path))
    return [array.view(jnp.bfloat16) if array.dtype == "V2" else array for array in found]  # as NumPy's format has it


def _bytes(array: Any) -> int:
    """The size of an array of a checkpoint, as far as its metadata tell."""
    return math.prod(getattr(array, "shape", None) or ()) * np.dtype(getattr(array, "dtype", None) or "V8").itemsize


def examples(command: str, data: str, label: str | None, *, classes: bool) -> Batch | list[Batch]:
    """What ``--data`` names: the arrays of an .npz, a table's features and label, or what a function returns.

    `classes` says that labels must be classes.

    Raises
    ------
    InputError : a file that is not there, damaged or of another kind; a function that cannot be had, or fails; arrays
        that do not share their leading axis; values that are not finite.
    """
    path = Path(data)
    if extensions.is_function(data):
        batch = called(command, function(command, "--data", data), "--data", data)
        if not jax.tree.leaves(batch):
            what = "a function without arguments that returns a batch, a pytree of arrays, or a list of batches"
            checks.fail(command, "--data", what, f"{data}, which returned {checks.returned(batch)}")
        return (
            [_numbers(command, data, part) for part in batch]
            if isinstance(batch, list)
            else _numbers(command, data, batch)
        )
    if path.suffix == ".npz" and path.is_file() and label is None:
        found: Batch = arrays(command, path, "--data")
    else:
        found = _table(command, path, label, classes)
    found = _numbers(command, path.name, found)
    for name, array in found.items():
        check_finite(name, path.name, array, kind="targets" if name == "y" else "features")
    return found


def _numbers(command: str, source: str, batch: Batch) -> Batch:
    """A batch of arrays of numbers, with a leading axis of examples."""

    def one(at: Any, leaf: Any) -> Any:
        name = f"the data of {source}{jax.tree_util.keystr(at)}"
        return leaf if isinstance(leaf, jax.Array) else arrays_.numbers(command, name, leaf)

    batch = jax.tree.map_with_path(one, batch)
    checks.batch_size(command, batch)
    return batch


def _table(command: str, path: Path, label: str | None, classes: bool) -> Batch:
    """``{"x": features, "y": labels}`` of a table, or of arrays with a label among them."""
    if label is None and path.suffix.lower() in (".csv", ".parquet"):
        checks.fail(command, "--label", "given: the column of a table that holds the targets", "nothing")
    x, y, _ = features_and_labels("--data", str(path), label or "y", classes=classes)
    if y.dtype.kind == "U":
        y = np.searchsorted(np.unique(y), y)  # numbered in sorted order
    return {"x": x, "y": y}


def function(command: str, option: str, text: str) -> Callable[..., Any]:
    """The function that an option names as ``module:function``; see `extensions.function`."""
    return extensions.function(command, option, text)


def called(command: str, function: Callable[..., Any], option: str, text: str, *arguments: Any) -> Any:
    """What a user's function returns; where it fails, one sentence says how."""
    label = programs.Label(command, option)
    try:
        return programs.require_value(label, function(*arguments))
    except (checks.InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also sys.exit()
        programs.explain(error, label)
        got = f"{text}: {programs.line(error)}"
        what = "a function of the parameters and data that are given" if arguments else "a function without arguments"
        checks.fail(command, option, what, got)

"""PyTorch's checkpoints: their arrays, by its loader of weights alone, which executes nothing."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steppe.core import checks, extras
from steppe.core.types import Params
from steppe.data import archives

AGAIN = "Save the arrays alone: torch.save(model.state_dict(), path), or safetensors.torch.save_model(model, path)."


def arrays(command: str, path: Path) -> Params:
    """All arrays of a file, nested as they are saved; whatever else it holds is left out. `command` is named in errors.

    Raises
    ------
    MissingExtra
        PyTorch is not installed.
    InputError
        A damaged file; one of other objects than arrays, or of TorchScript; no arrays; more than fits into memory.
    """
    extras.require("A PyTorch checkpoint", "torch", only=("torch",))
    import torch

    archives.check_fits(command, path, _size(path))
    what = "a PyTorch checkpoint of arrays alone, as torch.save(model.state_dict(), path) writes it"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own, about formats of files
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        object_ = re.search(r"GLOBAL ([\w.]+)", str(error))
        got = f"{path}, which holds {object_[1]}: loading that could run code" if object_ else f"{path}, a damaged file"
        checks.fail(command, "TARGET", what, got, AGAIN)
    except Exception as error:  # of many kinds
        got = "a program of TorchScript" if "TorchScript" in str(error) else "a damaged file"
        checks.fail(command, "TARGET", what, f"{path}, {got}", AGAIN)
    kept = _kept(command, found)
    if kept is None:
        checks.fail(command, "TARGET", what, f"{path}, which holds no arrays", AGAIN)
    return kept


def _size(path: Path) -> int:
    """Bytes once read: what the members of an archive say, which may be compressed; otherwise the file's own."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    return path.stat().st_size


def _kept(command: str, part: Any) -> Any:
    """A part with arrays of NumPy in the place of tensors and without everything else; None where nothing is left."""
    import torch

    if isinstance(part, torch.Tensor):
        return _array(command, part)
    if isinstance(part, np.ndarray):
        return part if part.dtype.kind in "biufc" else None
    if isinstance(part, (list, tuple)):
        part = dict(enumerate(part))
    if isinstance(part, Mapping):
        inner = {str(name): kept for name, value in part.items() if (kept := _kept(command, value)) is not None}
        return inner or None
    return None


def _array(command: str, tensor: Any) -> np.ndarray:
    """A tensor as an array; floats that NumPy lacks become float32, which holds their values."""
    import torch

    if tensor.is_quantized or tensor.layout is not torch.strided:
        kind = "quantised" if tensor.is_quantized else "sparse"
        checks.fail(command, "TARGET", "a checkpoint of dense tensors", f"one with a {kind} tensor")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: np.ndarray = tensor.detach().resolve_conj().resolve_neg().numpy()
    return array

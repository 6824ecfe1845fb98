"""Arrays written back into a PyTorch module."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from steppe.core import checks
from steppe.core.types import Params
from steppe.models.adapters.pytorch.modules import tensors
from steppe.models.base import State, Trained

FUNCTION = "into_torch"


def write(module: torch.nn.Module, params: Params, state: State, known: Trained) -> torch.nn.Module:
    """See `TrainedModule.into_torch`."""
    there = tensors(module)
    if there.keys() != {*known.params, *known.state}:
        changed = sorted(there.keys() ^ {*known.params, *known.state})
        checks.fail(FUNCTION, "module", "the one that was given to from_torch",
                    f"one that has changed since: {checks.joined(changed[:5])}")  # fmt: skip
    new: dict[str, np.ndarray] = {}
    for kind, given, expected in (("params", params, known.params), ("state", state, known.state)):
        _check_names(kind, given, expected)
        for name, value in given.items():
            if np.shape(value) != tuple(there[name].shape):
                shape = tuple(there[name].shape)
                checks.fail(FUNCTION, f"{kind}[{name!r}]", f"of shape {shape}", f"one of shape {np.shape(value)}")
            new[name] = _numbers(f"{kind}[{name!r}]", value)
    with torch.no_grad():  # only now that all of it fits
        for name, tensor in there.items():
            tensor.copy_(torch.from_numpy(new[name]))
    return module


def _check_names(kind: str, given: Any, expected: Any) -> None:
    """Fail for names that are missing or unknown, listed."""
    if not isinstance(given, dict):
        checks.fail(FUNCTION, kind, "a dictionary from PyTorch's names to arrays", checks.returned(given))
    wrong = {"missing": expected.keys() - given.keys(), "unknown": given.keys() - expected.keys()}
    if any(wrong.values()):
        listed = "; ".join(f"{verb}: {', '.join(sorted(map(str, names)))}" for verb, names in wrong.items() if names)
        checks.fail(FUNCTION, kind, f"the {len(expected)} arrays of the module by their names", listed)


def _numbers(name: str, value: Any) -> np.ndarray:
    if checks.is_traced(value):
        checks.fail(FUNCTION, name, "an array with a value", "one that JAX traces", "Call it outside of jit.")
    array = np.array(jnp.asarray(value))
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.bfloat16) else array

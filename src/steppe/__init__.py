"""Steppe: train neural networks towards flat minima, measure how flat they are, and find out whether it helped."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steppe import (
        analysis,
        curvature,
        data,
        landscape,
        measures,
        methods,
        models,
        outcomes,
        report,
        sharpness,
        study,
    )
    from steppe.core import losses
    from steppe.core.batches import in_batches
    from steppe.core.checks import InputError
    from steppe.core.types import Batch, Estimate, Loss, Moments, Params
    from steppe.methods.monitor import monitor
    from steppe.models.adapters.equinox import from_equinox
    from steppe.models.adapters.nnx import from_nnx
    from steppe.models.adapters.torch import from_torch

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Estimate",
    "InputError",
    "Loss",
    "Moments",
    "Params",
    "analysis",
    "curvature",
    "data",
    "from_equinox",
    "from_nnx",
    "from_torch",
    "in_batches",
    "landscape",
    "losses",
    "measures",
    "methods",
    "models",
    "monitor",
    "outcomes",
    "report",
    "sharpness",
    "study",
]

_HOMES = {
    "in_batches": "core.batches",
    "InputError": "core.checks",
    "monitor": "methods.monitor",
    "from_equinox": "models.adapters.equinox",
    "from_nnx": "models.adapters.nnx",
    "from_torch": "models.adapters.torch",
    **dict.fromkeys(("Batch", "Estimate", "Loss", "Moments", "Params"), "core.types"),
}
"""The module of each name that is no module itself."""

_EXTRAS = {"data": ("study",), "models": ("study",), "report": ("study", "report"), "study": ("study",)}
"""What the folders need to which some names lead."""

_NAMES = frozenset(__all__)
"""All public names, whatever is installed; ``from steppe import *`` asks for `__all__`."""


def _loadable(name: str) -> bool:
    """Whether the extras are there that a name needs."""
    needed = _EXTRAS.get(_HOMES.get(name, name).partition(".")[0], ())
    return not (needed and importlib.import_module("steppe.core.extras").missing(*needed))


__all__[:] = filter(_loadable, __all__)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the command hears Ctrl-C before JAX is there."""
    if name not in _NAMES:
        raise AttributeError(f"module 'steppe' has no attribute {name!r}")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"steppe.{_HOMES[name]}"), name)
    else:
        value = importlib.import_module("steppe.core.losses" if name == "losses" else f"steppe.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What an editor completes: the public names, loaded or not."""
    return sorted({*_NAMES, *(name for name in globals() if name.startswith("__"))})

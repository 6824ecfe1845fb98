"""Steppe: train neural networks towards flat minima, measure how flat they are, and find out whether it helped."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steppe import curvature, losses, methods, sharpness
    from steppe.batches import in_batches
    from steppe.checks import InputError
    from steppe.typing import Batch, Estimate, Loss, Moments, Params

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Estimate",
    "InputError",
    "Loss",
    "Moments",
    "Params",
    "curvature",
    "in_batches",
    "losses",
    "methods",
    "sharpness",
]

_HOMES = {
    "in_batches": "batches",
    "InputError": "checks",
    **dict.fromkeys(("Batch", "Estimate", "Loss", "Moments", "Params"), "typing"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the command hears Ctrl-C before JAX is there."""
    if name not in __all__:
        raise AttributeError(f"module 'steppe' has no attribute {name!r}")
    home = importlib.import_module(f"steppe.{_HOMES.get(name, name)}")
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names that are there, or will be when asked for."""
    return sorted({*globals(), *__all__})

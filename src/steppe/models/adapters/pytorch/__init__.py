"""PyTorch modules as networks: code that needs PyTorch and torchax.

When torchax is imported it registers a device with PyTorch, for the whole process and for good. PyTorch takes that
device for the machine's accelerator, so that `torch.compile`, pinned memory and `DataParallel` fail from then on. Here
nothing needs it but the name of a device for tensors inside a pass, which an unused one of PyTorch's lends. Whoever has
imported torchax before, for its device, keeps it.
"""

import importlib
import sys
import types

import torch


def _import_torchax() -> None:
    """Import torchax without its device."""
    registers = {"rename_privateuse1_backend": torch.utils, "_register_device_module": torch}
    kept = {name: getattr(place, name) for name, place in registers.items()}
    try:
        for name, place in registers.items():
            setattr(place, name, lambda *_: None)
        importlib.import_module("torchax")
    finally:
        for name, place in registers.items():
            setattr(place, name, kept[name])
    absent = types.ModuleType("privateuseone")
    vars(absent).update(vars(importlib.import_module("torchax.device_module")), is_available=lambda: False)
    torch._register_device_module("privateuseone", absent)
    device = property(lambda self: torch.device("privateuseone", 0))
    for name, kind in (("torchax.tensor", "Tensor"), ("torchax.view", "View")):
        setattr(getattr(importlib.import_module(name), kind), "device", device)  # noqa: B010 (read-only to mypy)


if "torchax" not in sys.modules:
    _import_torchax()

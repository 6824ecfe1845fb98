"""Steppe: train neural networks towards flat minima, measure how flat they are, and find out whether it helped."""

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

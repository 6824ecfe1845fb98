"""How flat is a trained network?"""

from steppe.sharpness.between import Barrier, Interpolation, barrier, interpolation
from steppe.sharpness.directions import across, filter_normalised, top_eigenvectors
from steppe.sharpness.landscape import grid, loss_and_accuracy, steps, surface

__all__ = [
    "Barrier",
    "Interpolation",
    "across",
    "barrier",
    "filter_normalised",
    "grid",
    "interpolation",
    "loss_and_accuracy",
    "steps",
    "surface",
    "top_eigenvectors",
]

"""What does the loss look like around a network, and from one network to another?"""

from steppe.landscape.directions import across, filter_normalised, top_eigenvectors
from steppe.landscape.interpolation import Barrier, Interpolation, barrier, barrier_resolution, interpolation
from steppe.landscape.surfaces import grid, loss_and_accuracy, loss_only, steps, surface

__all__ = [
    "Barrier",
    "Interpolation",
    "across",
    "barrier",
    "barrier_resolution",
    "filter_normalised",
    "grid",
    "interpolation",
    "loss_and_accuracy",
    "loss_only",
    "steps",
    "surface",
    "top_eigenvectors",
]

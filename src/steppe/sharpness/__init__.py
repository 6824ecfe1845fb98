"""How flat is a trained network?"""

from steppe.sharpness.between import Barrier, Interpolation, barrier, interpolation
from steppe.sharpness.directions import across, filter_normalised, top_eigenvectors
from steppe.sharpness.keskar import keskar_sharpness
from steppe.sharpness.landscape import grid, loss_and_accuracy, steps, surface
from steppe.sharpness.logits import logit_normalised
from steppe.sharpness.perturbation import average_sharpness, random_sharpness, sam_sharpness
from steppe.sharpness.worst_case import worst_sharpness

__all__ = [
    "Barrier",
    "Interpolation",
    "across",
    "average_sharpness",
    "barrier",
    "filter_normalised",
    "grid",
    "interpolation",
    "keskar_sharpness",
    "logit_normalised",
    "loss_and_accuracy",
    "random_sharpness",
    "sam_sharpness",
    "steps",
    "surface",
    "top_eigenvectors",
    "worst_sharpness",
]

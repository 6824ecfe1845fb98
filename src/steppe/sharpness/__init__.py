"""How flat is a trained network?"""

from steppe.sharpness.between import Barrier, Interpolation, barrier, barrier_resolution, interpolation
from steppe.sharpness.directions import across, filter_normalised, top_eigenvectors
from steppe.sharpness.fisher_rao import fisher_rao
from steppe.sharpness.gradient_norm import (
    GradientNormFlatness,
    NormalisedCurvature,
    gradient_norm_flatness,
    normalised_curvature,
)
from steppe.sharpness.information import InformationGap, soft_rank_gap, takeuchi
from steppe.sharpness.interpolating import InterpolatingInformation, interpolating_information
from steppe.sharpness.keskar import keskar_sharpness
from steppe.sharpness.landscape import grid, loss_and_accuracy, steps, surface
from steppe.sharpness.logits import logit_normalised
from steppe.sharpness.measures import MEASURES, Measure, Row, measure, selected
from steppe.sharpness.pac_bayes import PacBayes, pac_bayes
from steppe.sharpness.perturbation import average_sharpness, random_sharpness, sam_sharpness
from steppe.sharpness.relative_flatness import relative_flatness
from steppe.sharpness.tolerance import Tolerance, pac_bayes_alpha, pac_bayes_sigma
from steppe.sharpness.worst_case import worst_sharpness

__all__ = [
    "MEASURES",
    "Barrier",
    "GradientNormFlatness",
    "InformationGap",
    "InterpolatingInformation",
    "Interpolation",
    "Measure",
    "NormalisedCurvature",
    "PacBayes",
    "Row",
    "Tolerance",
    "across",
    "average_sharpness",
    "barrier",
    "barrier_resolution",
    "filter_normalised",
    "fisher_rao",
    "gradient_norm_flatness",
    "grid",
    "interpolating_information",
    "interpolation",
    "keskar_sharpness",
    "logit_normalised",
    "loss_and_accuracy",
    "measure",
    "normalised_curvature",
    "pac_bayes",
    "pac_bayes_alpha",
    "pac_bayes_sigma",
    "random_sharpness",
    "relative_flatness",
    "sam_sharpness",
    "selected",
    "soft_rank_gap",
    "steps",
    "surface",
    "takeuchi",
    "top_eigenvectors",
    "worst_sharpness",
]

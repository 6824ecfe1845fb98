"""How flat is a trained network?"""

from steppe.sharpness.parametric.fisher_rao import fisher_rao
from steppe.sharpness.parametric.information import InformationGap, soft_rank_gap, takeuchi
from steppe.sharpness.parametric.interpolating import InterpolatingInformation, interpolating_information
from steppe.sharpness.parametric.logits import logit_normalised
from steppe.sharpness.parametric.relative_flatness import relative_flatness
from steppe.sharpness.perturbed.average import average_sharpness, random_sharpness, sam_sharpness
from steppe.sharpness.perturbed.critical import CriticalSharpness, Crossing, critical_sharpness
from steppe.sharpness.perturbed.gradient_norm import (
    GradientNormFlatness,
    NormalisedCurvature,
    gradient_norm_flatness,
    normalised_curvature,
)
from steppe.sharpness.perturbed.keskar import keskar_sharpness
from steppe.sharpness.perturbed.pac_bayes import PacBayes, pac_bayes
from steppe.sharpness.perturbed.tolerance import Tolerance, pac_bayes_alpha, pac_bayes_sigma
from steppe.sharpness.perturbed.worst_case import worst_sharpness
from steppe.sharpness.preconditioned import PreconditionedSharpness, preconditioned_sharpness, preconditioner

__all__ = [
    "CriticalSharpness",
    "Crossing",
    "GradientNormFlatness",
    "InformationGap",
    "InterpolatingInformation",
    "NormalisedCurvature",
    "PacBayes",
    "PreconditionedSharpness",
    "Tolerance",
    "average_sharpness",
    "critical_sharpness",
    "fisher_rao",
    "gradient_norm_flatness",
    "interpolating_information",
    "keskar_sharpness",
    "logit_normalised",
    "normalised_curvature",
    "pac_bayes",
    "pac_bayes_alpha",
    "pac_bayes_sigma",
    "preconditioned_sharpness",
    "preconditioner",
    "random_sharpness",
    "relative_flatness",
    "sam_sharpness",
    "soft_rank_gap",
    "takeuchi",
    "worst_sharpness",
]

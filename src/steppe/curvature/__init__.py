"""What does the loss look like around a point? Operators, probes, and estimates with their standard errors."""

from steppe.curvature import closed_form
from steppe.curvature.bounds import SpectrumBounds, mirsky, wolkowicz_styan
from steppe.curvature.differences import first_order
from steppe.curvature.estimates import estimate, frobenius_squared, moments, trace
from steppe.curvature.hessians import fisher, ggn, hessian, per_layer
from steppe.curvature.layered import loss_moments
from steppe.curvature.layers import Layer, find_layers
from steppe.curvature.operators import Operator, rescaled

__all__ = [
    "Layer",
    "Operator",
    "SpectrumBounds",
    "closed_form",
    "estimate",
    "find_layers",
    "first_order",
    "fisher",
    "frobenius_squared",
    "ggn",
    "hessian",
    "loss_moments",
    "mirsky",
    "moments",
    "per_layer",
    "rescaled",
    "trace",
    "wolkowicz_styan",
]

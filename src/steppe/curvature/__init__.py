"""What does the loss look like around a point? Operators, probes, and estimates with their standard errors."""

from steppe.curvature.estimates import estimate, frobenius_squared, moments, trace
from steppe.curvature.layered import loss_moments
from steppe.curvature.layers import Layer, find_layers
from steppe.curvature.operators import Operator, hessian, rescaled

__all__ = [
    "Layer",
    "Operator",
    "estimate",
    "find_layers",
    "frobenius_squared",
    "hessian",
    "loss_moments",
    "moments",
    "rescaled",
    "trace",
]

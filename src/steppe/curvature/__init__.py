"""What does the loss look like around a point? Operators, probes, and estimates with their standard errors."""

from steppe.curvature import closed_form
from steppe.curvature.bounds import SpectrumBounds, mirsky, wolkowicz_styan
from steppe.curvature.density import (
    Density,
    Quadrature,
    quadrature,
    smoothed,
    soft_rank,
    spectral_density,
    trace_of_function,
)
from steppe.curvature.differences import first_order
from steppe.curvature.estimates import diagonal, estimate, frobenius_squared, moments, trace
from steppe.curvature.hessians import fisher, ggn, hessian, per_layer
from steppe.curvature.last import last_layer
from steppe.curvature.layered import loss_moments
from steppe.curvature.layers import Layer, find_layers
from steppe.curvature.operators import Operator, rescaled
from steppe.curvature.spectrum import Eigenpairs, SpectralRange, spectral_range, top_eigenpairs
from steppe.curvature.xtrace import xtrace

__all__ = [
    "Density",
    "Eigenpairs",
    "Layer",
    "Operator",
    "Quadrature",
    "SpectralRange",
    "SpectrumBounds",
    "closed_form",
    "diagonal",
    "estimate",
    "find_layers",
    "first_order",
    "fisher",
    "frobenius_squared",
    "ggn",
    "hessian",
    "last_layer",
    "loss_moments",
    "mirsky",
    "moments",
    "per_layer",
    "quadrature",
    "rescaled",
    "smoothed",
    "soft_rank",
    "spectral_density",
    "spectral_range",
    "top_eigenpairs",
    "trace",
    "trace_of_function",
    "wolkowicz_styan",
    "xtrace",
]

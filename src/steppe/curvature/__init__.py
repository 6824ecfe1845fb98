"""What does the loss look like around a point? Operators, probes, and estimates with their standard errors."""

from steppe.curvature import closed_form
from steppe.curvature.bounds import SpectrumBounds, mirsky, wolkowicz_styan
from steppe.curvature.estimators.differences import first_order
from steppe.curvature.estimators.estimates import diagonal, estimate, frobenius_squared, moments, trace
from steppe.curvature.estimators.loss_moments import loss_moments
from steppe.curvature.estimators.xtrace import xtrace
from steppe.curvature.hessians import fisher, ggn, hessian, per_layer
from steppe.curvature.layer_table import LayerCurvature, layer_table
from steppe.curvature.layers.detection import Layer, find_layers
from steppe.curvature.layers.last import last_layer
from steppe.curvature.operators import Operator, rescaled
from steppe.curvature.spectrum.density import (
    Density,
    Quadrature,
    quadrature,
    smoothed,
    soft_rank,
    spectral_density,
    trace_of_function,
)
from steppe.curvature.spectrum.eigenpairs import Eigenpairs, SpectralRange, spectral_range, top_eigenpairs

__all__ = [
    "Density",
    "Eigenpairs",
    "Layer",
    "LayerCurvature",
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
    "layer_table",
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

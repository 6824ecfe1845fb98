"""What does the loss look like around a point? Operators, probes, and estimates with their standard errors."""

from steppe.curvature.estimates import estimate, frobenius_squared, moments, trace
from steppe.curvature.operators import Operator, hessian, rescaled

__all__ = ["Operator", "estimate", "frobenius_squared", "hessian", "moments", "rescaled", "trace"]

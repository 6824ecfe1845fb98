"""The measures of Steppe, a file for each family."""

from steppe.measures.catalogue import curvature, fit, parametric, perturbed
from steppe.measures.catalogue.outcomes import calibration
from steppe.measures.registry import register

for _module in (fit, curvature, perturbed, parametric, calibration):
    register(vars(_module).values())

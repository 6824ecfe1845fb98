"""The measures of Steppe, a file for each family."""

from steppe.measures.catalogue import curvature, fit, outcomes, parametric, perturbed
from steppe.measures.registry import register

for _module in (fit, curvature, perturbed, parametric, outcomes):
    register(vars(_module).values())

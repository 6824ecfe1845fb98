"""The measures of Steppe, a file for each family."""

from steppe.measures.catalogue import curvature, fit, parametric, perturbed
from steppe.measures.catalogue.outcomes import agreement, calibration, compression, fairness, selective
from steppe.measures.registry import register

for _module in (fit, curvature, perturbed, parametric, calibration, selective, fairness, compression, agreement):
    register(vars(_module).values())

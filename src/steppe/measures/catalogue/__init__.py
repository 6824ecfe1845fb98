"""The measures of Steppe, a file for each family."""

from steppe.measures.catalogue import curvature, fit, parametric, perturbed
from steppe.measures.catalogue.outcomes import (
    adaptation,
    agreement,
    calibration,
    compression,
    fairness,
    regression,
    robustness,
    selective,
)
from steppe.measures.registry import register

OUTCOMES = (calibration, regression, selective, fairness, compression, adaptation, robustness, agreement)

for _module in (fit, curvature, perturbed, parametric, *OUTCOMES):
    register(vars(_module).values())

"""What a network's function does: whether its probabilities are right, and how many bits its weights need."""

from steppe.outcomes.calibration.binning import Reliability, calibration_error, reliability
from steppe.outcomes.calibration.scoring import brier_score, negative_log_likelihood
from steppe.outcomes.calibration.smooth import smooth_calibration_error
from steppe.outcomes.calibration.temperature import temperature
from steppe.outcomes.compression.precision import LayerPrecision, precision_table
from steppe.outcomes.forecasts import probabilities

__all__ = [
    "LayerPrecision",
    "Reliability",
    "brier_score",
    "calibration_error",
    "negative_log_likelihood",
    "precision_table",
    "probabilities",
    "reliability",
    "smooth_calibration_error",
    "temperature",
]

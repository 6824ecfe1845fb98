"""What a network's function does: whether its probabilities are right, and how many bits its weights need."""

from steppe.outcomes.calibration import expected_calibration_error
from steppe.outcomes.precision import LayerPrecision, precision_table

__all__ = ["LayerPrecision", "expected_calibration_error", "precision_table"]

"""What a network's function does: whether its probabilities are right."""

from steppe.outcomes.calibration import expected_calibration_error

__all__ = ["expected_calibration_error"]

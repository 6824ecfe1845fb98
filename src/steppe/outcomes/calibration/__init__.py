"""Calibration: whether probabilities are right."""

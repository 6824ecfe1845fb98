"""Regression: how far predictions of real numbers are off."""

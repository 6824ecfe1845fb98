"""Robustness: what is left of the accuracy when inputs change."""

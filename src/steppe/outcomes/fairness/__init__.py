"""Fairness: whether all classes are served alike."""

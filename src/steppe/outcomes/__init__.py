"""Outcomes: did it help? What the trained function does, and statistics over seeds."""

from steppe.outcomes import statistics

__all__ = ["statistics"]

"""What can be asked of a trained network, and one entry to all of it."""

from steppe.measures.run import MEASURES, Measure, Row, measure, selected

__all__ = [
    "MEASURES",
    "Measure",
    "Row",
    "measure",
    "selected",
]

"""What can be asked of a trained network, and one entry to all of it."""

from steppe.measures.registry import MEASURES, Measure
from steppe.measures.run import Row, measure, selected

__all__ = ["MEASURES", "Measure", "Row", "measure", "selected"]

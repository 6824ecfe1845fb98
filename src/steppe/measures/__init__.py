"""What can be asked of a trained network, and one entry to all of it."""

from steppe.measures import catalogue  # noqa: F401  (it fills the registry)
from steppe.measures.registry import MEASURES, Measure
from steppe.measures.run import Row, measure, select
from steppe.measures.subject import Quantity, Subject

__all__ = ["MEASURES", "Measure", "Quantity", "Row", "Subject", "measure", "select"]

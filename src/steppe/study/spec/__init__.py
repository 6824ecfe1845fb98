"""What is asked: a study as data, read and checked."""

from steppe.study.spec.conditions import Condition, conditions, resolve
from steppe.study.spec.identity import differences
from steppe.study.spec.reading import load, parse, read, shipped
from steppe.study.spec.tables import Spec

__all__ = ["Condition", "Spec", "conditions", "differences", "load", "parse", "read", "resolve", "shipped"]

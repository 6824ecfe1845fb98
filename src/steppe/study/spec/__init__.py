"""What is asked: a study as data, read and checked."""

from steppe.study.spec.spec import Condition, Spec, conditions, differences, load, parse, read, resolve, shipped

__all__ = ["Condition", "Spec", "conditions", "differences", "load", "parse", "read", "resolve", "shipped"]

"""What is the experiment? Specification → runs → store → results."""

from steppe.study.results import PublishedTable, Results, Surfaces
from steppe.study.runs import run
from steppe.study.spec import Spec, conditions, load, shipped
from steppe.study.store import Store
from steppe.study.table import gathered

__all__ = ["PublishedTable", "Results", "Spec", "Store", "Surfaces", "conditions", "gathered", "load", "run", "shipped"]

"""What is the experiment? Specification → runs → store → results."""

from steppe.core import extras, process

process.require_unix()  # before the modules that need `fcntl`
extras.require("steppe.study", "study")
# ruff: noqa: E402

from steppe.analysis.results import PublishedTable, Results, Surfaces, infinite
from steppe.study.execution.run import run
from steppe.study.spec.conditions import conditions
from steppe.study.spec.reading import load, shipped
from steppe.study.spec.tables import Spec
from steppe.study.store import Store
from steppe.study.table import gathered

__all__ = [
    "PublishedTable",
    "Results",
    "Spec",
    "Store",
    "Surfaces",
    "conditions",
    "gathered",
    "infinite",
    "load",
    "run",
    "shipped",
]

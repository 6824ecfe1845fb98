"""What is the experiment? Specification → runs → store → results."""

from steppe import process

process.require_unix()  # before the modules that need `fcntl`

from steppe.study.results import PublishedTable, Results, Surfaces, infinite  # noqa: E402
from steppe.study.runs import run  # noqa: E402
from steppe.study.spec import Spec, conditions, load, shipped  # noqa: E402
from steppe.study.store import Store  # noqa: E402
from steppe.study.table import gathered  # noqa: E402

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

"""What is asked of networks."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from steppe.core import checks
from steppe.measures import MEASURES, run
from steppe.measures.registry import Measure, lookup
from steppe.study.spec.limits import MOST, WHOLE

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """What is asked of networks.

    Attributes
    ----------
    measures : names, in the registry's order (see `chosen`).
    options : of single measures, ``{"sam_sharpness": {"rho": 0.1}}``.
    probes : random vectors for traces; None: as each measure has it.
    examples : at most so many examples, drawn without replacement.
    split : "train" or "test", of a study's data.
    batch_size : examples that are looked at together: bounds memory, and is the m of m-sharpness.
    seed : of the draw of examples, and of random vectors; the same for all networks.
    dtype : in which everything is computed, "float32" or "float64".
    """

    measures: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probes: int | None = None
    examples: int = 1024
    split: str = "train"
    batch_size: int = 128
    seed: int = 0
    dtype: str = "float32"

    def checked(self) -> "Settings":
        """These settings, if they can be used.

        Raises
        ------
        InputError : otherwise.
        """
        for name in ("examples", "batch_size"):
            checks.whole("measure", name, getattr(self, name))
        if self.probes is not None:
            checks.whole("measure", "probes", self.probes, most=MOST["probes"])
        checks.whole("measure", "seed", self.seed, least=0, most=2**32 - 1)
        checks.one_of("measure", "split", self.split, ("train", "test"))
        checks.one_of("measure", "dtype", self.dtype, DTYPES)
        run.select(self.measures)
        for name in self.options:
            if name not in self.measures:
                todo = "Measure it, too." if name in MEASURES else checks.close_to(name, MEASURES)
                checks.fail("measure", "--set", "of a measure that is taken", checks.shown(name), todo)
        for name in self.measures:
            for setting, value in self.of(name).items():
                if isinstance(value, int):
                    checks.whole(name, setting, int(value), least=-WHOLE, most=MOST.get(setting, WHOLE))
        return self

    def precision(self) -> contextlib.AbstractContextManager:
        """Within it, arrays can be of the dtype that is asked for."""
        within: contextlib.AbstractContextManager = jax.enable_x64(self.dtype == "float64")
        return within

    def of(self, measure: str | Measure) -> dict[str, Any]:
        """All settings of one measure."""
        known = lookup(measure)
        return run.resolve(known, self.options.get(known.name), self.probes)

"""The engines by name, and their options as the command takes them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steppe.core import checks
from steppe.engines.base import Engine
from steppe.engines.processes import Processes, memory
from steppe.engines.ray import Ray
from steppe.engines.slurm import Slurm

ENGINES: dict[str, Callable[..., Engine]] = {"processes": Processes, "ray": Ray, "slurm": Slurm}
"""What makes each engine of its settings; each knows those that its keyword arguments name."""

OPTIONS = {
    "workers": "--workers",
    "address": "--address",
    "cpus": "--cpus-per-run",
    "gpus": "--gpus-per-run",
    "options": "--slurm",
}
"""Settings of engines, and the options by which the command takes them."""

TAKEN = {
    "processes": ("workers",),
    "ray": ("workers", "address", "cpus", "gpus"),
    "slurm": ("workers", "cpus", "gpus", "options"),
}
"""Which settings each engine takes."""


@dataclass(frozen=True)
class Place:
    """Where a command is to compute.

    Attributes
    ----------
    on : str or None
        The name of an engine; None for this process.
    workers, address, cpus, gpus, slurm
        Its settings, as far as they are given.
    dry_run : bool
        Whether to show only what would be submitted.
    """

    on: str | None = None
    workers: int | None = None
    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    slurm: Sequence[str] = ()
    dry_run: bool = False

    def engine(self) -> Engine | None:
        """The engine; None for this process, which has nothing to show in a dry run.

        Raises
        ------
        InputError : no engine of that name; settings that it does not take, or out of range; no cluster there.
        MissingExtra : what it needs is not installed.
        """
        given: dict[str, Any] = {name: getattr(self, name) for name in ("workers", "address", "cpus", "gpus")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.slurm:
            given["options"] = dict(map(_pair, self.slurm))
        if self.on is None:
            if given or self.dry_run:
                named = checks.joined([*(OPTIONS[name] for name in given), *(["--dry-run"] if self.dry_run else [])])
                checks.fail("run", named, "given with --on", "without it", f"There are: {', '.join(ENGINES)}.")
            return None
        checks.one_of("run", "--on", self.on, ENGINES)
        os.environ |= memory()  # before JAX takes a GPU
        _check_settings(self.on, given)
        if self.on == "slurm":
            given["dry"] = self.dry_run
        return ENGINES[self.on](**given)


def _check_settings(on: str, given: Mapping[str, Any]) -> None:
    """Fail for settings that an engine does not take."""
    for name in given:
        if name not in TAKEN[on]:
            others = [engine for engine, taken in TAKEN.items() if name in taken]
            checks.fail(
                "run", OPTIONS[name], f"left out with --on {on}", "given", f"It is of --on {' and '.join(others)}."
            )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name.strip():
        checks.fail("slurm", "--slurm", "KEY=VALUE, such as partition=gpu", checks.shown(text))
    return name.strip(), value.strip()

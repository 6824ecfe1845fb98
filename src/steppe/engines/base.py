"""What carries work to machines: the one protocol of all engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

BLIND, REFUSED, FAILED = 3, 4, 5
"""Statuses of a worker: it does not see the task's folder, the task cannot be done, it failed."""


@dataclass(frozen=True)
class Task:
    """Work for one process, which writes its results to a folder that all machines see.

    Attributes
    ----------
    function : str
        ``module:function`` of Steppe, called with `units`, the arguments and a `watcher`.
    arguments : Mapping
        What JSON can hold.
    units : tuple of str
        The names of what it computes, one after another, each of which is there whole or not at all.
    """

    function: str
    arguments: Mapping[str, Any]
    units: tuple[str, ...]


class Job(NamedTuple):
    """A task on its way: its name, its folder, and the mark by which a worker knows that this is the folder."""

    name: str
    folder: Path
    mark: str


class Ending(NamedTuple):
    """How the process of a job ended.

    Attributes
    ----------
    status : int or None
        Its exit status; None where that is unknown.
    why : str
        What is known of it, in words; nothing where it ended well.
    """

    status: int | None
    why: str = ""


class Waits(NamedTuple):
    """What keeps jobs from being computed, where anything does.

    Attributes
    ----------
    brief : str
        It in a few words, for the progress of all.
    heed : tuple of str
        What somebody should hear, in sentences.
    """

    brief: str = ""
    heed: tuple[str, ...] = ()


class Engine(Protocol):
    """Carries jobs to machines, and says when they have ended. What a job did, its folder says."""

    name: str
    asked: int | None
    """How many workers the user asked for."""

    def parts(self, count: int) -> int:
        """Into how many tasks so many units of work are to be divided, at least."""
        ...

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """Of the jobs of an earlier process those that are still carried; they are watched from now on."""
        ...

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """Carry as many of these jobs as there is room for, and say which."""
        ...

    def ended(self) -> dict[str, Ending]:
        """The jobs that ended since this was last asked, by their names.

        Raises
        ------
        InputError : jobs wait for what never comes.
        """
        ...

    def waits(self) -> Waits:
        """What kept jobs from being computed when `ended` was last asked."""
        ...

    def stop(self) -> None:
        """End all jobs that are still carried, and all workers that wait for more."""
        ...

    def preview(self, folder: Path, count: int) -> str:
        """What would be given to the machines for so many tasks, as text."""
        ...

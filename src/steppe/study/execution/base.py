"""The seams behind which other machines can stand: where runs lie, and where they are trained."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from steppe.core.types import Params
from steppe.storage.checkpoint import Checkpoint
from steppe.study.progress import Watcher
from steppe.study.spec.tables import Spec


class Run(NamedTuple):
    """One condition and one seed of a study: the unit of work, which depends on no other."""

    condition: str
    seed: int

    @property
    def id(self) -> str:
        """Its name, that of its folder."""
        return f"{self.condition}-s{self.seed}"


class Storage(Protocol):
    """Where the runs of one study lie; `study.store.Store` keeps them in a folder.

    Several processes may use it at once: a finished run appears whole, and of two attempts at one run the first stays.
    """

    spec: Spec
    fingerprint: str | None

    def is_whole(self, condition: str, seed: int) -> bool:
        """Whether a finished run is there, undamaged and of this study."""
        ...

    def load(self, condition: str, seed: int) -> tuple[dict[str, Any], Any]:
        """A finished run's record and history; it fails where they are damaged or another run's."""
        ...

    def save(self, condition: str, seed: int, params: Params, history: Any, run: Mapping[str, Any]) -> None:
        """Keep a finished run, whole or not at all."""
        ...

    def checkpoint(self, condition: str, seed: int) -> Checkpoint:
        """What is known of an unfinished run, to be resumed."""
        ...


class Executor(Protocol):
    """Trains runs of a study, here or elsewhere."""

    def submit(self, store: Storage, runs: Sequence[Run], watcher: Watcher) -> list[str]:
        """Begin to train runs, whose results appear in the store; one id for each, by which the executor knows it."""
        ...

    def wait(self, ids: Sequence[str]) -> None:
        """Return when these have ended, finished or not."""
        ...

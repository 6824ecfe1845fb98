"""What landscapes are of: a network at its parameters, and the data that its loss is of."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppe.core import checks, losses
from steppe.core.types import Apply, Criterion, Params
from steppe.data import Dataset
from steppe.models import Network

SPLITS = ("train", "validation", "test")
"""The parts of a study's data."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkOnData:
    """A network with values, and data.

    Attributes
    ----------
    name : what it is called.
    source : where its parameters come from, for a reader.
    home : the folder beside which landscapes of it lie.
    model, dataset : shared by all networks of one kind, so that they compile once. A data set of a user's own has no
        test part, {}.
    params, state : NumPy arrays.
    criterion : makes the loss of the outputs.
    program : a digest of the program of the loss, for a network of a user's own; a run's study knows its code.
    """

    name: str
    source: str
    home: Path
    model: Network
    dataset: Dataset
    params: Params
    state: Any
    criterion: Criterion = losses.cross_entropy
    program: str = ""

    @property
    def classifies(self) -> bool:
        """Whether outputs are known to be of classes, so that there is an accuracy."""
        real = (losses.squared_error, losses.gaussian_negative_log_likelihood)
        return losses.is_builtin(self.criterion) and self.criterion not in real

    @property
    def label(self) -> str:
        """What a folder is called after it."""
        return Path(self.source).name

    @property
    def apply(self) -> Apply:
        """The network in evaluation mode, its state held."""
        return self.model.at(self.state)


def check_split(command: str, networks: Iterable[NetworkOnData], split: str) -> None:
    """Fail where the data of a network have no such part.

    Raises
    ------
    InputError : they have none.
    """
    for network in networks:
        if getattr(network.dataset, split) is None:
            todo = "Its study splits off no validation examples: [data] validation does."
            checks.fail(command, "--split", f"a part of the data of {network.name}", checks.shown(split), todo)

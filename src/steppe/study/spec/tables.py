"""The tables of a specification: what a study says, as frozen data."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

import jax
import pydantic
import tomli_w
from pydantic import Field

from steppe import data, models
from steppe.data import Dataset
from steppe.models import Network
from steppe.study.spec.limits import MOST, WHOLE, Real
from steppe.study.spec.settings import Table, build, find_function, split_name

Count = Annotated[int, Field(gt=0, le=WHOLE)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]


COMPANIONS: dict[str, tuple[str, Any]] = {"optimizer": ("momentum", 0.9), "learning_rate": ("schedule", "cosine")}
"""Settings of training that may be tables, and what stands beside them, with its default, where they are none."""


NETWORKS = 4
"""That are kept: each may hold the values that all seeds begin with."""

_networks: dict[Any, Network] = {}
"""The networks that were made last, by what made them: every shape of run, and whatever measures it, asks anew."""


class EarlyStopping(Table):
    """The convergence criterion: stop when the epoch's mean training loss has not fallen by more than
    `min_delta` for `patience` epochs in a row (line 18 of Algorithm 1; never looks at test data).
    """

    patience: Count
    min_delta: NonNegative = 0.0


class Train(Table):
    """How networks are trained.

    An optimiser is one of three names, with `momentum` for "sgd", or a table that names a function of Optax or a
    user's own and says all its settings; a learning rate is a number, with its `schedule`, or a table likewise.
    """

    optimizer: Literal["adam", "adamw", "sgd"] | dict[str, Any] = "adam"
    learning_rate: Positive | dict[str, Any]
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    schedule: Literal["constant", "cosine"] | None = None
    weight_decay: NonNegative = 0.0
    batch_size: Count
    epochs: Annotated[int, Field(gt=0, le=MOST["epochs"])]
    penalty_dropout: bool = False
    early_stopping: EarlyStopping | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _beside_no_table(cls, raw: Any) -> Any:
        """Defaults of what stands beside a name or a number, and beside no table."""
        if not isinstance(raw, Mapping):
            return raw
        filled = dict(raw)
        for setting, (companion, default) in COMPANIONS.items():
            if not isinstance(raw.get(setting), Mapping):
                filled.setdefault(companion, default)
            elif raw.get(companion) is not None:
                raise ValueError(f"without {companion} beside a table {setting}, which has settings of its own")
        return filled


class Average(Table):
    """Weights averaged over updates: what is tested, measured and kept is then the average.

    "ema": exponentially, with `decay` (0.99); "swa": evenly, over updates after the share `start` of training (0.75).
    """

    name: Literal["ema", "swa"]
    decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    start: Annotated[float, Field(ge=0, lt=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _settings_are_its_own(self) -> Self:
        if (self.start if self.name == "ema" else self.decay) is not None:
            raise ValueError('of its own settings: "ema" has decay, "swa" has start')
        return self


class Measure(Table):
    """How networks are measured, outside training time, the same for all conditions: after every `every`-th epoch and
    the last, tr(H²) on so many training batches, of `batch_size` or as in training, with so many probes each; at the
    end by the measures in `names`, too (see `questions`).
    """

    batches: Annotated[int, Field(gt=0, le=MOST["batches"])] = 8
    probes: Annotated[int, Field(gt=0, le=MOST["probes"])] = 5
    batch_size: Count | None = None
    every: Count = 1
    names: list[str | dict[str, Any]] = Field(default_factory=list)


class Track(Table):
    """Curvature tracked during training: tr H, tr(H²), λ_max and λ_min of the loss on the same training examples
    throughout, without dropout; of the epochs that are measured, after the first, every `every`-th, and the last. Where
    a batch is the whole data, an epoch is a step. Outside training time.
    """

    every: Count = 1
    examples: Count = 1024
    probes: Annotated[int, Field(gt=0, le=MOST["probes"])] = 8


class Landscape(Table):
    """Loss surfaces of the first seed's networks; every condition's."""

    radius: Positive = 1.0
    points: Annotated[int, Field(ge=3, le=MOST["points"])] = 41
    grid_points: Annotated[int, Field(ge=3, le=MOST["grid_points"])] = 21
    examples: Count = 1024


class PublishedNumber(Table):
    """Somebody's published numbers."""

    title: str
    caveat: str
    columns: list[str]
    rows: list[list[str | float]]

    @pydantic.model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a table whose rows have {len(self.columns)} cells, one for each column")
        return self


class Spec(Table):
    """A study: what varies (`grid`, `conditions`), over how many seeds, and everything that does not vary.

    A network is trained with `method`, methods after it in the chain (`then`), on a loss, with transforms of batches
    (`augment`, in this order), and perhaps an average of weights.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\z")]
    title: str = ""
    about: str = ""
    seeds: Annotated[int, Field(gt=0, le=MOST["seeds"])] = 3
    baseline: str = ""
    data: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "none"})
    then: list[dict[str, Any]] = Field(default_factory=list)
    loss: dict[str, Any] = Field(default_factory=lambda: {"name": "cross_entropy"})
    augment: list[dict[str, Any]] = Field(default_factory=list)
    average: Average | None = None
    train: Train
    measure: Measure = Measure()
    track: Track | None = None
    landscape: Landscape = Landscape()
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    conditions: list[dict[str, Any]] = Field(default_factory=list)
    published: list[PublishedNumber] = Field(default_factory=list)
    source: dict[str, str] = Field(default_factory=dict)
    equivalence: dict[str, Real] = Field(default_factory=dict)

    def toml(self) -> str:
        """The specification as TOML; reading it gives this specification again."""
        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=True)

    def identity(self) -> dict[str, Any]:
        """What results depend on: everything but words, margins and the number of seeds."""
        words = {"title", "about", "published", "seeds", "landscape", "equivalence"}
        found = self.model_dump(exclude=words, exclude_none=True)
        return found if self.source else {k: v for k, v in found.items() if k != "source"}

    def load_data(self) -> Dataset:
        """The data set.

        Raises
        ------
        InputError : see `data.load`, and `data.from_arrays` for what a user's function returns.
        """
        name, settings = split_name(self.data)
        if name in data.DATASETS:
            return data.load(name, **settings)
        found = build(data.DATASETS, self.data, self.source)
        return data.checked(found) if isinstance(found, Dataset) else data.from_arrays(name, found)

    def build_model(self, dataset: Dataset) -> Network:
        """The network, for a data set; it is made once.

        Raises
        ------
        InputError : see `models.build`.
        """
        name, _ = split_name(self.model)
        function = find_function("model", name, models.MODELS, self.source)
        words, wide = json.dumps(self.model, sort_keys=True), jax.config.read("jax_enable_x64")
        key = (function, words, dataset.shape, dataset.classes, wide)
        if key not in _networks:
            if len(_networks) >= NETWORKS:
                del _networks[next(iter(_networks))]
            _networks[key] = self._network(function, dataset)
        return _networks[key]

    def _network(self, function: Callable[..., Any], dataset: Dataset) -> Network:
        name, settings = split_name(self.model)
        if name in models.MODELS:
            return models.build(name, dataset.shape, dataset.classes, **settings)
        make = functools.partial(build, models.MODELS, self.model, self.source, dataset.shape, dataset.classes)
        match models.random_argument(function):
            case "rngs":
                return models.network_of(lambda rngs: make(rngs=rngs))
            case "key":
                return models.network_of(lambda key: make(key=key))
        return models.network_of(make())

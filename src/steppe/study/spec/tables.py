"""The tables of a specification: what a study says, as frozen data."""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import jax
import pydantic
import tomli_w
from pydantic import Field

from steppe import data, models
from steppe.data import Dataset
from steppe.models import Network
from steppe.study.spec.limits import MOST, WHOLE, Real
from steppe.study.spec.settings import Beside, Table, build, find_function, split_name

Count = Annotated[int, Field(gt=0, le=WHOLE)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]


COMPANIONS: dict[str, tuple[str, Any]] = {"optimizer": ("momentum", 0.9), "learning_rate": ("schedule", "cosine")}
"""Settings of training that may be tables, and what stands beside them, with its default, where they are none."""


GAUSSIAN = "gaussian_negative_log_likelihood"
"""The loss of networks that say a mean and a standard deviation of each real target."""

NETWORKS = 4
"""That are kept: each may hold the values that all seeds begin with."""

_networks: dict[Any, Network] = {}
"""The networks that were made last, by what made them: every shape of run, and whatever measures it, asks anew."""


class Preparation(Table):
    """Of every data set, beside its name and settings. Training examples that are split off, class by class, serve what
    looks at results before the end: tuning, early stopping, the choice of an epoch; the test part is not looked at.
    Labels that are drawn at random stay so; a measure with split = "clean" sees the labels that the examples came with.
    """

    validation: Any = None
    """A share of the training examples below 1, or a whole number of them."""
    validation_seed: int = Field(default=0, ge=0, le=MOST["split_seed"])
    """Of the draw."""
    random_labels: float | None = Field(default=None, ge=0, le=1)
    """The probability that a training example's label is drawn uniformly from all classes."""
    random_labels_seed: int = Field(default=0, ge=0, le=MOST["split_seed"])
    """Of the draw."""

    @pydantic.field_validator("validation")
    @classmethod
    def _is_share_or_number(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or (number and (0 < value < 1 or (isinstance(value, int) and value > 0))):
            return value
        raise ValueError("a share above 0 and below 1, or a whole number of examples")


class EarlyStopping(Table):
    """The convergence criterion: stop when the epoch's mean training loss (line 18 of Algorithm 1), or what `on` names,
    has not improved by more than `min_delta` for `patience` epochs in a row, or has reached `target`. It never looks at
    test data, and the network is that of the last epoch.
    """

    on: Literal["validation_loss", "validation_accuracy"] | None = None
    """What is looked at after each epoch; the epoch's mean training loss unless said otherwise."""
    patience: Count | None = None
    """Epochs in a row without an improvement after which training stops; any number unless said otherwise."""
    min_delta: NonNegative = 0.0
    """How much lower a loss, or higher an accuracy, must be to count as improved."""
    target: Real | None = None
    """A loss at or below which training stops, or an accuracy at or above which it does."""

    @pydantic.model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.patience is None and self.target is None:
            raise ValueError("a table that gives patience, target or both")
        return self


def split_preparation(table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A table of a data set without what `Preparation` says, and that; nothing of it where nothing is prepared."""
    own = {key: value for key, value in table.items() if key not in Preparation.model_fields}
    return own, {key: value for key, value in table.items() if key in Preparation.model_fields}


class Train(Table):
    """How networks are trained.

    An optimiser is one of three names, with `momentum` for "sgd", or a table that names a function of Optax or a
    user's own and says all its settings; a learning rate is a number, with its `schedule`, or a table likewise.
    """

    optimizer: Literal["adam", "adamw", "sgd"] | dict[str, Any] = "adam"
    """A name, or a table that names a function of Optax, or a user's own, with its settings."""
    learning_rate: Positive | dict[str, Any]
    """A number, or a table that names a schedule, whose numbers of updates may be shares such as "5%"."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of "sgd" as text; 0.9 unless said otherwise."""
    schedule: Literal["constant", "cosine"] | None = None
    """Of a learning rate that is a number; "cosine" unless said otherwise, over all of training."""
    weight_decay: NonNegative = 0.0
    """Times the weights, added to the gradient; decoupled for "adamw"."""
    clip_norm: Positive | None = None
    """The largest global norm of the gradient, after the methods, before weight decay and the optimiser."""
    batch_size: Count
    """Examples of an update."""
    accumulate: Count | None = None
    """Equal parts of an update's batch, one after another: the same update in the memory of a part."""
    epochs: Annotated[int, Field(gt=0, le=MOST["epochs"])]
    """Passes over the training data."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """In which networks compute during training; parameters, optimiser, loss and all that is measured are float32."""
    data_on: Literal["device", "host"] | None = None
    """Where the training data lie, by their size unless said otherwise; from the host they come in blocks of batches,
    and results are the same, bit for bit."""
    devices: Literal["all"] | Count | None = None
    """How many devices of the machine share every batch; one unless said otherwise. Results are those of one device up
    to the order of sums, and the batch must be a multiple of the number."""
    penalty_dropout: bool = False
    """Whether penalties see the network with dropout, as it is trained."""
    early_stopping: EarlyStopping | None = None
    """Stop when the training loss, or what validates, has stopped improving."""
    bounds: list[float] | None = None
    """Of the lowest validation loss after each epoch, beyond which a run ends; Steppe writes it, for pruned trials."""

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
    """Exponential, or even over the end of training."""
    decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of "ema"; 0.99 unless said otherwise."""
    start: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of "swa", as a share of training; 0.75 unless said otherwise."""

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
    """Training batches on which tr(H²) is measured."""
    probes: Annotated[int, Field(gt=0, le=MOST["probes"])] = 5
    """Random vectors on each of them."""
    batch_size: Count | None = None
    """Examples of such a batch; as in training unless said otherwise."""
    every: Count = 1
    """Epochs between two measurements."""
    parts: list[Literal["train", "validation", "test", "clean"]] | None = None
    """Parts of the data on which networks are measured, all unless said otherwise; Steppe writes it, for trials."""
    names: list[str | dict[str, Any]] = Field(default_factory=list)
    """Measures asked at the end: names, or tables of a name, settings, and `every` for epochs between answers."""
    pairs: list[str | dict[str, Any]] = Field(default_factory=list)
    """Measures of two networks, asked when the runs are there: names, or tables of a name, settings, and `partners`,
    "seeds" for every two seeds of a condition or "baseline" for each run and the baseline's of its seed."""


class Track(Table):
    """Curvature tracked during training: tr H, tr(H²), λ_max and λ_min of the loss on the same training examples
    throughout, without dropout; of the epochs that are measured, after the first, every `every`-th, and the last. Where
    a batch is the whole data, an epoch is a step. Outside training time.
    """

    every: Count = 1
    """Epochs between two looks; a multiple of measure.every."""
    examples: Count = 1024
    """Training examples that are looked at."""
    probes: Annotated[int, Field(gt=0, le=MOST["probes"])] = 8
    """Random vectors for traces."""
    preconditioned: bool | None = None
    """Whether λ_max is also that of the Hessian in the units of Adam's or RMSProp's steps, beside its own limit."""
    every_updates: Count | None = None
    """Updates between two whose critical sharpness is asked, within training time; none unless said otherwise."""


class CorrelationPlan(Table):
    """A rank correlation by which the study is judged: of measures of its networks with an outcome. Its intervals hold
    for all of the measures together; all other correlations are exploratory.
    """

    measures: Annotated[list[str], Field(min_length=1)]
    """Columns of the results that say how flat a network is."""
    outcome: str
    """The column that they are to go with; "generalisation_gap" is train minus test accuracy."""
    pairs: Literal["overall", "within", "matched"] = "overall"
    """Which pairs of networks count: all, those of one condition, or those alike in training accuracy."""
    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The largest |τ| that does not matter."""
    max_train_loss: Positive | None = None
    """Of the networks that count: those with a larger training loss are left out."""


class AnalysisPlan(Table):
    """What the study decides by, declared before its runs: everything else is marked as exploratory in its report. It
    is no part of a study's identity; a plan that was declared or changed after runs had finished is reported as such.
    """

    primary: str | None = None
    """The column of the results by which the study is judged; the test accuracy (of a regression, the test loss) unless
    said otherwise."""
    family: list[str] = Field(default_factory=list)
    """Further columns that are confirmed with it: p-values are corrected over all of their comparisons together."""
    test: Literal["t", "rank", "permutation"] = "t"
    """Of a difference: Welch's t-test, the rank-sum test or all relabellings; of pairs Student's, Wilcoxon's or all
    swaps."""
    paired: bool = False
    """Whether the runs of a seed are compared with each other."""
    alternative: Literal["two-sided", "greater", "less"] = "two-sided"
    """Which differences from the baseline are tested for."""
    correction: Literal["holm", "benjamini_hochberg", "benjamini_yekutieli"] = "holm"
    """Of p-values over the comparisons of a quantity, or of the family."""
    correlation: CorrelationPlan | None = None
    """What the study decides by where it asks which measures go with an outcome, and not which condition is better."""


class Landscape(Table):
    """Loss surfaces of the first seed's networks; every condition's."""

    radius: Positive = 1.0
    """How far to go, in units of a direction that is as long as the weights, filter by filter."""
    points: Annotated[int, Field(ge=3, le=MOST["points"])] = 41
    """Of a line; an odd number."""
    grid_points: Annotated[int, Field(ge=3, le=MOST["grid_points"])] = 21
    """Along each side of a plane; an odd number."""
    examples: Count = 1024
    """Training examples of the loss."""


class Tune(Table):
    """A budget of trials for every condition, to find its best settings on the validation part before its seeds run: a
    comparison is then one of methods at their best. The first trial has the settings as they are written, where these
    lie within the ranges; the next nine are drawn at random, the others by a tree-structured Parzen estimator. Trials
    have seeds of their own, which no run of the study has, and the test part is not looked at.
    """

    trials: Annotated[int, Field(gt=0, le=MOST["trials"])]
    """Of each condition that has a range."""
    objective: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    """What is best, after the last epoch; the mean over the seeds of a trial."""
    seeds: Annotated[int, Field(gt=0, le=MOST["trial_seeds"])] = 1
    """Runs of each trial."""
    seed: int = Field(default=0, ge=0, le=WHOLE)
    """Of the draws of trials."""
    parallel: Count = 1
    """Trials of a condition that are drawn together, so that they can run at the same time; the choice depends on it,
    and not on how many do."""
    prune: bool = False
    """Whether a trial ends early whose validation loss is worse than the median of the earlier ones at that epoch."""
    ranges: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys, each with `{low = …, high = …}`, perhaps `log = true`, or `{values = […]}`. A condition adds a range
    by `"tune.ranges.method.rho" = {…}`, and leaves one out by `"tune.ranges.train.weight_decay" = false`."""


class PublishedNumber(Table):
    """Somebody's published numbers."""

    title: str
    """What the table shows."""
    caveat: str
    """What to know before comparing with it."""
    columns: list[str]
    """Their heads."""
    rows: list[list[str | float]]
    """Texts and numbers, one for each column."""

    @pydantic.model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a table whose rows have {len(self.columns)} cells, one for each column")
        return self


class ProtocolTable(Table):
    """Somebody else's claims and tests, shown beside the study's own: every condition is tested against the baseline
    for each column, one-sided, and p-values are corrected over all of the table together.
    """

    title: str
    """Whose they are, and of what."""
    higher: list[str] = Field(default_factory=list)
    """Columns of the results that are claimed to be higher than the baseline's."""
    lower: list[str] = Field(default_factory=list)
    """Columns that are claimed to be lower."""
    test: Literal["t", "rank", "permutation"] = "t"
    """As in `[analysis]`."""
    paired: bool = False
    """Whether the runs of a seed are compared with each other."""
    correction: Literal["holm", "benjamini_hochberg", "benjamini_yekutieli"] = "holm"
    """Of p-values over all comparisons of the table."""
    pairs: Literal["seeds", "ordered"] = "seeds"
    """How numbers of two seeds are tested: one pseudo-value a seed, or every ordered pair as if it were independent."""

    @pydantic.model_validator(mode="after")
    def _claims_differ(self) -> Self:
        columns = [*self.higher, *self.lower]
        if not columns or len(set(columns)) < len(columns):
            raise ValueError("a table with columns in higher and lower, each of them once")
        return self


class Spec(Table):
    """A study: what varies (`grid`, `conditions`), over how many seeds, and everything that does not vary.

    A network is trained with `method`, methods after it in the chain (`then`), on a loss, with transforms of batches
    (`augment`, in this order), and perhaps an average of weights.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\z")]
    """Of the study; its folder is called so."""
    title: str = ""
    """In words."""
    about: str = ""
    """What it asks, in a paragraph."""
    seeds: Annotated[int, Field(gt=0, le=MOST["seeds"])] = 3
    """Runs of each condition."""
    baseline: str = ""
    """The condition that all others are compared with; the first unless said otherwise."""
    data: Annotated[dict[str, Any], Beside(Preparation)]
    """Names a data set."""
    model: dict[str, Any]
    """Names a network."""
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "none"})
    """Names a method."""
    then: list[dict[str, Any]] = Field(default_factory=list)
    """Names methods that follow it in the chain."""
    loss: dict[str, Any] = Field(default_factory=lambda: {"name": "cross_entropy"})
    """Names what is trained on."""
    augment: list[dict[str, Any]] = Field(default_factory=list)
    """Names transforms of training batches, in this order."""
    average: Average | None = None
    """An average of the weights."""
    train: Train
    """How networks are trained."""
    measure: Measure = Measure()
    """How they are measured."""
    track: Track | None = None
    """Follows curvature during training."""
    landscape: Landscape = Landscape()
    """Loss surfaces of the first seed."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Dotted keys, each with a list: every combination is a condition."""
    conditions: list[dict[str, Any]] = Field(default_factory=list)
    """Tables of a name, of dotted keys with their values, and perhaps of a `control` to compare with. They may change
    `data`, `model`, `method`, `then`, `loss`, `augment`, `average`, `train`.
    """
    published: list[PublishedNumber] = Field(default_factory=list)
    """Tables of others' numbers, shown beside the results."""
    protocols: list[ProtocolTable] = Field(default_factory=list)
    """Tables of others' claims with their tests, shown beside the study's own."""
    source: dict[str, str] = Field(default_factory=dict)
    """Digests of a user's code; Steppe writes it."""
    tune: Tune | None = None
    """Finds the settings of each condition on the validation part."""
    chosen: dict[str, dict[str, Any]] | None = None
    """What tuning chose, condition by condition; Steppe writes it."""
    analysis: AnalysisPlan | None = None
    """What the study decides by."""
    equivalence: dict[str, Real] = Field(default_factory=dict)
    """Columns of the results, each with the smallest difference that matters, a factor where ratios are compared."""

    @property
    def declares_baseline(self) -> bool:
        """Whether somebody chose the baseline, and it is not the first condition for want of a choice."""
        return "baseline" in self.model_fields_set

    def toml(self) -> str:
        """The specification as TOML; reading it gives this specification again."""
        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=True)

    def identity(self) -> dict[str, Any]:
        """What a run depends on: everything but words, the analysis, the number of seeds, what is asked of two runs,
        and where the data lie.

        What tuning chose is among the settings of a condition.
        """
        words = {
            "title", "about", "published", "protocols", "seeds", "landscape", "analysis", "equivalence", "tune",
            "chosen",
        }  # fmt: skip
        excluded: dict[str, Any] = dict.fromkeys(words, True) | {"train": {"data_on"}, "measure": {"pairs"}}
        found = self.model_dump(exclude=excluded, exclude_none=True)
        return found if self.source else {k: v for k, v in found.items() if k != "source"}

    @property
    def is_regression(self) -> bool:
        """Whether targets are real numbers, as the loss says."""
        return self.loss.get("name") in ("squared_error", GAUSSIAN)

    @property
    def spreads(self) -> bool:
        """Whether the network says a standard deviation of each real target, too."""
        return bool(self.loss.get("name") == GAUSSIAN)

    def load_data(self) -> Dataset:
        """The data set.

        Raises
        ------
        InputError : see `data.load`, and `data.from_arrays` for what a user's function returns.
        """
        own, preparation = split_preparation(self.data)
        name, settings = split_name(own)
        if name in data.DATASETS:
            return replace(data.load(name, **settings, **preparation), spread=self.spreads)
        made = build(data.DATASETS, own, self.source)
        found = (
            data.checked(made) if isinstance(made, Dataset) else data.from_arrays(name, made, real=self.is_regression)
        )
        return replace(data.prepared(found, **preparation), spread=self.spreads)

    def build_model(self, dataset: Dataset) -> Network:
        """The network, for a data set; it is made once.

        Raises
        ------
        InputError : see `models.build`.
        """
        name, _ = split_name(self.model)
        function = find_function("model", name, models.MODELS, self.source)
        words, wide = json.dumps(self.model, sort_keys=True), jax.config.read("jax_enable_x64")
        key = (function, words, dataset.shape, dataset.outputs, not dataset.classes, wide)
        if key not in _networks:
            if len(_networks) >= NETWORKS:
                del _networks[next(iter(_networks))]
            _networks[key] = self._network(function, dataset)
        return _networks[key]

    def _network(self, function: Callable[..., Any], dataset: Dataset) -> Network:
        name, settings = split_name(self.model)
        if name in models.MODELS:
            return models.build(name, dataset.shape, dataset.outputs, **settings)
        make = functools.partial(build, models.MODELS, self.model, self.source, dataset.shape, dataset.outputs)
        match models.random_argument(function):
            case "rngs":
                return models.network_of(lambda rngs: make(rngs=rngs))
            case "key":
                return models.network_of(lambda key: make(key=key))
        images = len(dataset.shape) == 3
        return models.network_of(make(), functools.partial(_inputs, dataset), make, channels_last=images)


def _inputs(dataset: Dataset) -> Any:
    """Inputs of two training examples."""
    return dataset.decode(jax.tree.map(lambda leaf: leaf[:2], dataset.train))["x"]

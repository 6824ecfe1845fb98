"""What is the experiment? A study as data, from a TOML file to fully resolved settings."""

import itertools
import tomllib
import typing
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import tomli_w
from pydantic import Field

from steppe import data, methods, models
from steppe.core import checks, losses
from steppe.data import Dataset
from steppe.models import Model
from steppe.study.spec import limits
from steppe.study.spec.limits import MOST, WHOLE, Real
from steppe.study.spec.settings import EXACT, Table, build, settings, split_name, validated, with_closed_forms

Count = Annotated[int, Field(gt=0, le=WHOLE)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]


class EarlyStopping(Table):
    """The convergence criterion: stop when the epoch's mean training loss has not fallen by more than
    `min_delta` for `patience` epochs in a row (line 18 of Algorithm 1; never looks at test data).
    """

    patience: Count
    min_delta: NonNegative = 0.0


class Train(Table):
    """How networks are trained."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: NonNegative = 0.0
    batch_size: Count
    epochs: Annotated[int, Field(gt=0, le=MOST["epochs"])]
    penalty_dropout: bool = False
    early_stopping: EarlyStopping | None = None


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
    the last, flatness on so many training batches, of `batch_size` or as in training, with so many probes each.
    """

    batches: Annotated[int, Field(gt=0, le=MOST["batches"])] = 8
    probes: Annotated[int, Field(gt=0, le=MOST["probes"])] = 5
    batch_size: Count | None = None
    every: Count = 1


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


class Published(Table):
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
    method: dict[str, Any]
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
    published: list[Published] = Field(default_factory=list)

    def toml(self) -> str:
        """The specification as TOML; reading it gives this specification again."""
        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=True)

    def identity(self) -> dict[str, Any]:
        """What results depend on: everything but words and the number of seeds."""
        return self.model_dump(exclude={"title", "about", "published", "seeds", "landscape"}, exclude_none=True)

    def load_data(self) -> Dataset:
        """The data set.

        Raises
        ------
        InputError : see `data.load`.
        """
        name, settings = split_name(self.data)
        return data.load(name, **settings)

    def build_model(self, dataset: Dataset) -> Model:
        """The network, for a data set.

        Raises
        ------
        InputError : see `models.build`.
        """
        name, settings = split_name(self.model)
        return models.build(name, dataset.shape, dataset.classes, **settings)


VARIED = ("method", "then", "loss", "augment", "average", "model", "train")
"""What a condition may change."""


class Condition(typing.NamedTuple):
    """One column of a study: its name, the study's settings with this condition's changes, and the name of the
    condition that it is compared with besides the baseline, if any.
    """

    name: str
    spec: Spec
    rival: str = ""

    @property
    def lam(self) -> float | None:
        """λ, for methods that have one."""
        lam = self.spec.method.get("lam")
        return None if lam is None else float(lam)


def shipped() -> dict[str, str]:
    """The studies that come with Steppe: name -> TOML."""
    folder = resources.files("steppe.study") / "catalogue"
    files = {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}
    return {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}


def load(source: str, overrides: Mapping[str, Any] | None = None) -> Spec:
    """The study of that name or file, with dotted overrides (``{"train.epochs": 2}``), checked and resolved.

    Raises
    ------
    InputError : no such study or file, not TOML, an unknown key, a value of the wrong type or out of range.

    Examples
    --------
    >>> load("fa-breast-cancer", {"train.epochs": 2}).train.epochs
    2
    """
    known = shipped()
    if source in known:
        return parse(known[source], overrides, origin=source)
    if source.endswith(".toml"):
        return read(Path(source), overrides)
    hint = checks.nearest(source, known)
    checks.fail("study", "name", "a study that ships, or a TOML file", checks.shown(source), hint)


def read(path: Path, overrides: Mapping[str, Any] | None = None) -> Spec:
    """A specification from a TOML file; see `load`."""
    what, got = "the name of a study or a TOML file", checks.shown(str(path))
    try:
        if not path.is_file():
            todo = f"It is {'a folder' if path.is_dir() else 'no regular file'}." if path.exists() else ""
            checks.fail("study", "spec", what, got, todo or "There is no such file.")
        if path.stat().st_size > limits.FILE_BYTES:
            checks.fail("study", "spec", f"a TOML file of at most {limits.FILE_BYTES:,} bytes", got, "It is larger.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        checks.fail("study", "spec", "a TOML file in UTF-8", got)
    except OSError as error:
        checks.fail("study", "spec", what, got, f"It cannot be read: {error.strerror or type(error).__name__}.")
    return parse(text, overrides, origin=str(path), folder=path.parent)


def parse(
    text: str, overrides: Mapping[str, Any] | None = None, *, origin: str = "spec", folder: Path = Path()
) -> Spec:
    """A specification from TOML text; see `load`. A relative ``data.file`` is looked for beside the TOML file first."""
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        checks.fail("study", origin, f"nested at most {limits.DEPTH} deep", "a file nested deeper")
    except ValueError as error:  # also of integers with thousands of digits
        got = " ".join(str(error).split())[:200]
        checks.fail("study", origin, "valid TOML", got, "Correct the file at that line.")
    grid = raw.get("grid")
    varied = grid if isinstance(grid, dict) and "grid" not in (overrides or {}) else ()
    for path, value in (overrides or {}).items():
        if path.count(".") > limits.DEPTH:
            checks.fail("study", checks.shown(path), f"a path of at most {limits.DEPTH} dots", "a longer one")
        if path in varied:
            got = f"a value, {checks.shown(value)}"
            checks.fail("study", path, f"set through grid.{path}, the list that it varies over", got)
        raw = replaced(raw, path, value)
    for key in ("file", "test_file"):
        table = raw.get("data")
        if isinstance(table, dict) and isinstance(table.get(key), str) and _is_there(folder / table[key]):
            raw = replaced(raw, f"data.{key}", str((folder / table[key]).resolve()))
    return resolve(raw)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def replaced(table: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested tables with the value at a dotted path set; keys of the grid are dotted paths themselves."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**table, head: value}
    inner = table.get(head, {})
    if not isinstance(inner, Mapping):
        checks.fail("study", path, "a setting inside a table", f"a path through {head!r}, which is not a table")
    changed = {**inner, rest.strip("\"'"): value} if head == "grid" else replaced(inner, rest, value)
    return {**table, head: changed}


def resolve(raw: Mapping[str, Any]) -> Spec:
    """A specification with every default written out, all conditions checked on the host before anything runs."""
    limits.check_tree(raw)
    spec = validated(Spec, raw, "")
    limits.check_name("name", spec.name)
    limits.check_conditions(spec.grid, len(spec.conditions))
    spec = _resolved_parts(spec)
    columns = conditions(spec)
    names = [column.name for column in columns]
    limits.check_distinct(names)
    if spec.baseline:
        checks.one_of("study", "baseline", spec.baseline, names)
    for column in columns:
        if column.rival:
            others = [name for name in names if name != column.name]
            if not others:
                checks.fail("study", f"rival of {column.name!r}", "another condition", repr(column.rival))
            checks.one_of("study", f"rival of {column.name!r}", column.rival, others)
    return spec.model_copy(update={"baseline": spec.baseline or names[0]})


def conditions(spec: Spec) -> list[Condition]:
    """The study's columns: the product of the grid's lists, then the conditions written out."""
    columns = []
    for values in itertools.product(*spec.grid.values()) if spec.grid else ():
        changes = dict(zip(spec.grid, values, strict=True))
        name = ",".join(f"{path.rpartition('.')[2]}={_shown(value)}" for path, value in changes.items())
        limits.check_name("a name that the grid makes", name, "Write [[conditions]] with names instead.")
        columns.append(_changed(spec, name, changes))
    for table in spec.conditions:
        changes = {path: value for path, value in table.items() if path not in ("name", "rival")}
        if not isinstance(table.get("name"), str):
            checks.fail("study", "conditions.name", "a name for each condition", table)
        limits.check_name("conditions.name", table["name"])
        if not isinstance(table.get("rival", ""), str):
            checks.fail("study", "conditions.rival", "the name of a condition", checks.shown(table["rival"]))
        columns.append(_changed(spec, table["name"], changes)._replace(rival=table.get("rival", "")))
    return columns or [Condition("all", spec)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("/", "_")


def _changed(spec: Spec, name: str, changes: Mapping[str, Any]) -> Condition:
    """The study with one condition's changes: dotted paths, or whole tables of a method, model or training."""
    raw = spec.model_dump(exclude_none=True)
    for path, value in changes.items():
        checks.one_of("study", f"{path} in condition {name!r}", path.partition(".")[0], VARIED)
        raw = replaced(raw, path, value)
    return Condition(name, _resolved_parts(validated(Spec, raw, f" in condition {name!r}")))


def _resolved_parts(spec: Spec) -> Spec:
    """Every part with its defaults, each checked against the function it names."""
    chain = [settings("method", spec.method, methods.METHODS)]
    chain += [settings(f"then.{place}", table, methods.METHODS) for place, table in enumerate(spec.then)]
    _check_chain(chain)
    parts = {
        "data": settings("data", spec.data, data.DATASETS),
        "model": settings("model", spec.model, models.MODELS),
        "method": chain[0],
        "then": chain[1:],
        "loss": settings("loss", spec.loss, losses.LOSSES),
        "augment": [
            settings(f"augment.{place}", table, data.AUGMENTATIONS) for place, table in enumerate(spec.augment)
        ],
    }
    build(losses.LOSSES, parts["loss"])
    for table in parts["augment"]:
        build(data.AUGMENTATIONS, table, classes=2)
    if spec.track and spec.track.every % spec.measure.every:
        checks.fail("study", "track.every", f"a multiple of measure.every, {spec.measure.every}", spec.track.every)
    if spec.train.early_stopping and spec.measure.every > 1:
        checks.fail("study", "measure.every", "1 with early stopping, which looks at each epoch", spec.measure.every)
    return spec.model_copy(update=parts)


def _check_chain(chain: list[dict[str, Any]]) -> None:
    """Ranges are a method's own to check, here, before anything runs; and so is the order."""
    for place, table in enumerate(chain):
        build(methods.METHODS, with_closed_forms(table, None))
        exact = [name for name in EXACT if table.get(name) == "closed_form"]
        others = {"matrix": "hessian", "adaptive": False, "microbatches": 1}
        for setting, value in others.items() if exact else ():
            if table.get(setting, value) != value:
                needed = f"{value!r} with {exact[0]} = 'closed_form', which is for the Hessian of the batch"
                checks.fail("study", f"method.{setting}", needed, repr(table[setting]))
        if place and table["name"] in methods.REPLACING:
            checks.fail("study", "then", "of methods that add to the gradient", f"{table['name']!r}, which replaces it",
                        "Make it the [method], and let the others follow.")  # fmt: skip


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted paths at which two nested tables differ, each with both values (None where there is none).

    Examples
    --------
    >>> list(differences({"train": {"epochs": 4}}, {"train": {"epochs": 5}}))
    [('train.epochs', 4, 5)]
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}".removeprefix("."))
    elif a != b:
        yield path, a, b

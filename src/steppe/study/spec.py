"""What is the experiment? A study as data, from a TOML file to fully resolved settings."""

import inspect
import itertools
import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import tomli_w
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from steppe import checks, data, methods, models
from steppe.data import Dataset
from steppe.models import Model

OWNED = {"key", "where", "curvature", "moments"}
"""Arguments of methods that a study sets itself, or that only code can give."""


NONE = "none"
"""How TOML, which has no null, writes a setting of None where that is not the default."""


class Table(pydantic.BaseModel):
    """A table of the TOML file: no unknown keys, no changes after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EarlyStopping(Table):
    """The convergence criterion: stop when the epoch's mean training loss has not fallen by more than
    `min_delta` for `patience` epochs in a row (line 18 of Algorithm 1; never looks at test data).
    """

    patience: PositiveInt
    min_delta: NonNegativeFloat = 0.0


class Train(Table):
    """How networks are trained."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: NonNegativeFloat = 0.0
    batch_size: PositiveInt
    epochs: PositiveInt
    penalty_dropout: bool = False
    early_stopping: EarlyStopping | None = None


class Measure(Table):
    """How flatness is measured, outside training time, the same for all conditions."""

    batches: PositiveInt = 8
    probes: PositiveInt = 5


class Track(Table):
    """Curvature tracked during training: tr H, tr(H²) and λ_max of the loss on the same training examples throughout,
    without dropout; after the first epoch and after every `every`-th. Where a batch is the whole data, an epoch is a
    step. Outside training time.
    """

    every: PositiveInt = 1
    examples: PositiveInt = 1024
    probes: PositiveInt = 8


class Landscape(Table):
    """Loss surfaces of the first seed's networks; every condition's."""

    radius: PositiveFloat = 1.0
    points: Annotated[int, Field(ge=3)] = 41
    grid_points: Annotated[int, Field(ge=3)] = 21
    examples: PositiveInt = 1024


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
    """A study: what varies (`grid`, `conditions`), over how many seeds, and everything that does not vary."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str = ""
    about: str = ""
    seeds: PositiveInt = 3
    baseline: str = ""
    data: dict[str, Any]
    model: dict[str, Any]
    method: dict[str, Any]
    train: Train
    measure: Measure = Measure()
    track: Track | None = None
    landscape: Landscape = Landscape()
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    conditions: list[dict[str, Any]] = []
    published: list[Published] = []

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


class Condition(typing.NamedTuple):
    """One column of a study: its name, and the study's settings with this condition's changes."""

    name: str
    spec: Spec

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
    path = Path(source)
    if source in known:
        return parse(known[source], overrides, origin=source)
    if path.suffix == ".toml" and path.is_file():
        return read(path, overrides)
    if path.suffix == ".toml":
        checks.fail(
            "study", "spec", "the name of a study or a TOML file", checks.shown(source), "There is no such file."
        )
    hint = checks.nearest(source, known)
    checks.fail("study", "name", "a study that ships, or a TOML file", checks.shown(source), hint)


def read(path: Path, overrides: Mapping[str, Any] | None = None) -> Spec:
    """A specification from a TOML file; see `load`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        checks.fail("study", "spec", "a TOML file in UTF-8", checks.shown(str(path)))
    return parse(text, overrides, origin=str(path), folder=path.parent)


def parse(
    text: str, overrides: Mapping[str, Any] | None = None, *, origin: str = "spec", folder: Path = Path()
) -> Spec:
    """A specification from TOML text; see `load`. A relative ``data.file`` is looked for beside the TOML file first."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        checks.fail("study", origin, "valid TOML", str(error), "Correct the file at that line.")
    grid = raw.get("grid")
    varied = grid if isinstance(grid, dict) and "grid" not in (overrides or {}) else ()
    for path, value in (overrides or {}).items():
        if path in varied:
            checks.fail("study", path, f"set through grid.{path}, the list that it varies over", f"a value, {value!r}")
        raw = replaced(raw, path, value)
    for key in ("file", "test_file"):
        table = raw.get("data")
        if isinstance(table, dict) and isinstance(table.get(key), str) and (folder / table[key]).is_file():
            raw = replaced(raw, f"data.{key}", str((folder / table[key]).resolve()))
    return resolve(raw)


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
    spec = _validated(Spec, raw, "")
    spec = _resolved_parts(spec)
    columns = conditions(spec)
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        checks.fail("study", "conditions", "distinct", names)
    if spec.baseline:
        checks.one_of("study", "baseline", spec.baseline, names)
    return spec.model_copy(update={"baseline": spec.baseline or names[0]})


def conditions(spec: Spec) -> list[Condition]:
    """The study's columns: the product of the grid's lists, then the conditions written out."""
    columns = []
    for values in itertools.product(*spec.grid.values()) if spec.grid else ():
        changes = dict(zip(spec.grid, values, strict=True))
        name = ",".join(f"{path.rpartition('.')[2]}={_shown(value)}" for path, value in changes.items())
        columns.append(_changed(spec, name, changes))
    for table in spec.conditions:
        changes = {path: value for path, value in table.items() if path != "name"}
        if not isinstance(table.get("name"), str) or not table["name"] or set(table["name"]) & set("/\\\0"):
            checks.fail("study", "conditions.name", "a name without slashes for each condition", table)
        columns.append(_changed(spec, table["name"], changes))
    return columns or [Condition("all", spec)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("/", "_")


def _changed(spec: Spec, name: str, changes: Mapping[str, Any]) -> Condition:
    """The study with one condition's changes: dotted paths, or whole tables of a method, model or training."""
    raw = spec.model_dump(exclude_none=True)
    for path, value in changes.items():
        checks.one_of("study", f"{path} in condition {name!r}", path.partition(".")[0], ("method", "model", "train"))
        raw = replaced(raw, path, value)
    return Condition(name, _resolved_parts(_validated(Spec, raw, f" in condition {name!r}")))


def _resolved_parts(spec: Spec) -> Spec:
    """Data, model and method settings with their defaults, each checked against the function it names."""
    parts = {
        "data": settings("data", spec.data, data.DATASETS),
        "model": settings("model", spec.model, models.MODELS),
        "method": settings("method", spec.method, methods.METHODS),
    }
    name, arguments = split_name(parts["method"])
    methods.METHODS[name](**arguments)  # ranges are the method's own to check, here, before anything runs
    return spec.model_copy(update=parts)


def split_name(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A part's name, and its settings as the function takes them."""
    return table["name"], {key: None if value == NONE else value for key, value in table.items() if key != "name"}


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


def settings(part: str, table: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """A table ``{name = …, setting = …}`` checked against the function it names, with its defaults filled in."""
    if "name" not in table:
        checks.fail(
            "study", f"{part}.name", f"given: one of {', '.join(functions)}", f"a [{part}] table without a name"
        )
    name = checks.one_of("study", f"{part}.name", table["name"], functions)
    schema = _schema(part, functions[name])
    _, given = split_name(table)
    read = _validated(schema, given, "", prefix=part).model_dump()
    absent = {key for key, value in read.items() if value is None and schema.model_fields[key].default is None}
    return {"name": name, **{key: NONE if v is None else v for key, v in read.items() if key not in absent}}


def _schema(part: str, function: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The keyword arguments of a function that TOML can express, as a pydantic model."""
    hints = typing.get_type_hints(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = _plain(hints[name])
        given_by_the_study = name in OWNED or (part == "model" and parameter.kind is not parameter.KEYWORD_ONLY)
        if annotation is not None and not given_by_the_study:
            fields[name] = (annotation, ... if parameter.default is parameter.empty else parameter.default)
    return pydantic.create_model(f"{part}_{function.__name__}", __base__=Table, **fields)


def _plain(annotation: Any) -> Any:
    """The part of an annotation that TOML can express; None if there is none."""
    if annotation in (int, float, str, bool) or typing.get_origin(annotation) in (Literal, tuple, list):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [m for m in typing.get_args(annotation) if _plain(m) is not None]
        optional = type(None) in typing.get_args(annotation)
        return typing.Union[(*members, *((type(None),) if optional else ()))] if members else None
    return None


def _validated(schema: type[pydantic.BaseModel], raw: Mapping[str, Any], where: str, prefix: str = "") -> Any:
    """`raw` read strictly: ints serve as floats and lists as tuples, nothing else is converted."""
    try:
        return schema.model_validate_json(json.dumps(raw, default=str), strict=True)
    except pydantic.ValidationError as errors:
        error = errors.errors()[0]
    place = [prefix] * bool(prefix) + [str(p) for p in error["loc"] if not _is_type_name(p)]
    path = ".".join(place)
    if error["type"] == "extra_forbidden":
        parent = _fields_at(schema, error["loc"][:-1])
        checks.fail("study", path, f"a setting that exists{where}", "an unknown key", checks.nearest(place[-1], parent))
    if error["type"] == "missing":
        checks.fail(
            "study", path, f"given{where}", "nothing", f"Add it to the [{place[0]}] table." if len(place) > 1 else ""
        )
    if error["type"] == "string_pattern_mismatch":
        checks.fail(
            "study", path, "letters, digits, '.', '_' and '-', as a folder's name", checks.shown(error["input"])
        )
    if error["type"] == "too_short":
        checks.fail("study", path, "a list with at least one value", error["input"])
    message = error["msg"].removeprefix("Input should ").removeprefix("be ").removeprefix("Value error, ")
    checks.fail("study", path, message + where, checks.shown(error["input"]))


def _is_type_name(part: Any) -> bool:
    """Whether a step of pydantic's error path names a member of a union, not a key."""
    return part in ("float", "int", "str", "bool") or str(part).startswith(("literal[", "tuple["))


def _fields_at(schema: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The names of settings at a path of nested tables."""
    for step in path:
        annotation = schema.model_fields[str(step)].annotation if str(step) in schema.model_fields else None
        tables = [m for m in (annotation, *typing.get_args(annotation)) if isinstance(m, type) and issubclass(m, Table)]
        if not tables:
            return []
        schema = tables[0]
    return list(schema.model_fields)

"""The conditions of a study, each with its settings written out and checked on the host before anything runs."""

import itertools
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steppe import data, extensions, methods, models
from steppe.core import checks, losses
from steppe.study.spec import limits, optimisers, parts, ranges
from steppe.study.spec.comparisons import check_declared, translate_rivals
from steppe.study.spec.parts import CHAIN
from steppe.study.spec.settings import EXACT, Source, modules, settings, validated
from steppe.study.spec.tables import COMPANIONS, Preparation, Spec, Train, split_preparation

VARIED = ("data", "method", "then", "loss", "augment", "average", "model", "train", "tune")
"""What a condition may change."""


DOTTED = ("grid", "ranges")
"""Tables whose keys are dotted paths themselves."""


class Condition(typing.NamedTuple):
    """One column of a study: its name, the study's settings with this condition's changes, and the name of the
    condition that it is compared with besides the baseline, if any: its control.
    """

    name: str
    spec: Spec
    control: str = ""

    @property
    def lam(self) -> float | None:
        """λ, for methods that have one."""
        lam = self.spec.method.get("lam")
        return None if lam is None else float(lam)


def resolve(raw: Mapping[str, Any], folder: Path = Path(), *, run_code: bool = True) -> Spec:
    """A specification with every default written out, all conditions checked on the host before anything runs."""
    limits.check_tree(raw)
    raw = translate_rivals(raw)
    if run_code:
        texts = sorted(modules(raw) | _varied_modules(raw))
        raw = {**raw, "source": dict(extensions.source("study", "a name", text, [folder]) for text in texts)}
    spec = validated(Spec, raw, "")
    check_declared(spec)
    limits.check_name("name", spec.name)
    if run_code:  # an older version took an even number, and what it left is read
        for name in ("points", "grid_points"):
            limits.check_odd(f"landscape.{name}", getattr(spec.landscape, name))
    limits.check_conditions(spec.grid, len(spec.conditions))
    spec = _resolved_parts(spec, run_code)
    columns = conditions(spec, run_code=run_code)
    names = [column.name for column in columns]
    limits.check_distinct(names)
    if spec.baseline:
        checks.one_of("study", "baseline", spec.baseline, names)
    if spec.tune and run_code:
        by_name = {column.name: column for column in columns}
        ranges.check({name: column.spec for name, column in by_name.items()},
                     lambda name, changes: with_settings(by_name[name], changes))  # fmt: skip
    for column in columns:
        if column.control:
            others = [name for name in names if name != column.name]
            if not others:
                checks.fail("study", f"control of {column.name!r}", "another condition", repr(column.control))
            checks.one_of("study", f"control of {column.name!r}", column.control, others)
    declared = spec.model_fields_set - (set() if spec.baseline else {"baseline"})
    return Spec.model_construct(declared, **{**dict(spec), "baseline": spec.baseline or names[0]})


def conditions(spec: Spec, *, run_code: bool = True) -> list[Condition]:
    """The study's columns: the product of the grid's lists, then the conditions written out.

    Without `run_code` settings of a user's functions stay as they are written: results are read without their code.
    """
    columns = []
    for values in itertools.product(*spec.grid.values()) if spec.grid else ():
        changes = dict(zip(spec.grid, values, strict=True))
        name = ",".join(f"{path.rpartition('.')[2]}={_shown(path, value)}" for path, value in changes.items())
        limits.check_name("a name that the grid makes", name, "Write [[conditions]] with names instead.")
        columns.append(_changed(spec, name, changes, run_code))
    for table in spec.conditions:
        changes = {path: value for path, value in table.items() if path not in ("name", "control")}
        if not isinstance(table.get("name"), str):
            checks.fail("study", "conditions.name", "a name for each condition", table)
        limits.check_name("conditions.name", table["name"])
        if not isinstance(table.get("control", ""), str):
            checks.fail("study", "conditions.control", "the name of a condition", checks.shown(table["control"]))
        columns.append(_changed(spec, table["name"], changes, run_code)._replace(control=table.get("control", "")))
    return columns or [_changed(spec, "all", {}, run_code) if spec.chosen else Condition("all", spec)]


def _shown(path: str, value: Any) -> str:
    """A value in a condition's name. Tables of other paths look as they do in folders of earlier versions."""
    if isinstance(value, Mapping) and path.partition(".")[0] == "train":
        settings_ = [f"{key}={_shown(path, inner)}" for key, inner in value.items() if key != "name"]
        return " ".join([str(value.get("name")), *settings_])
    return f"{value:g}" if isinstance(value, float) else str(value).replace("/", "_")


def _changed(spec: Spec, name: str, changes: Mapping[str, Any], run_code: bool) -> Condition:
    """The study with one condition's changes: dotted paths, or whole tables of a method, model or training."""
    raw = spec.model_dump(exclude_none=True)
    chosen = (raw.pop("chosen", None) or {}).get(name, {})
    for path, value in [*changes.items(), *chosen.items()]:
        checks.one_of("study", f"{path} in condition {name!r}", path.partition(".")[0], VARIED)
        if path.partition(".")[0] == "tune":
            ranges.check_path(path, value, name)
        raw = replace(raw, path, value)
        companion, _ = COMPANIONS.get(path.removeprefix("train."), ("", None))
        if companion and isinstance(value, Mapping) and f"train.{companion}" not in changes:
            raw["train"].pop(companion, None)  # of the text or number that the table replaces
    named = {
        text.rpartition(":")[0] for text in modules({k: v for k, v in raw.items() if k not in ("grid", "conditions")})
    }
    raw["source"] = {module: digest for module, digest in spec.source.items() if module in named}
    return Condition(name, _resolved_parts(validated(Spec, raw, f" in condition {name!r}"), run_code))


def with_settings(column: Condition, changes: Mapping[str, Any], *, run_code: bool = True) -> Condition:
    """A condition with other values at dotted paths, checked.

    Raises
    ------
    InputError
        A value that is out of range.
    """
    plain = column.spec.model_copy(update={"chosen": None, "grid": {}, "conditions": []})
    return _changed(plain, column.name, changes, run_code)._replace(control=column.control)


def _varied_modules(raw: Mapping[str, Any]) -> set[str]:
    """What a grid varies over, of the form ``module:function``."""
    grid = raw.get("grid")
    lists = (
        [v for k, v in grid.items() if k.endswith(".name") and isinstance(v, list)] if isinstance(grid, dict) else []
    )
    return {value for values in lists for value in values if extensions.is_function(value)}


def _resolved_parts(spec: Spec, run_code: bool) -> Spec:
    """Every part with its defaults, each checked against the function it names."""
    source = spec.source if run_code else None
    chain = [settings("method", spec.method, CHAIN, source)]
    chain += [settings(f"then.{place}", table, CHAIN, source) for place, table in enumerate(spec.then)]
    _check_chain(chain, source)
    found: dict[str, Any] = {
        "data": _resolved_data(spec.data, source),
        "model": settings("model", spec.model, models.MODELS, source),
        "method": chain[0],
        "then": chain[1:],
        "loss": settings("loss", spec.loss, losses.LOSSES, source),
        "augment": [
            settings(f"augment.{place}", table, data.TRANSFORMS, source) for place, table in enumerate(spec.augment)
        ],
        "train": _resolved_training(spec.train, source),
    }
    for table in _known(found["loss"], source):
        parts.criterion(table, source)
    for transform in found["augment"]:
        for known in _known(transform, source):
            parts.transform(known, source, classes=2)
    if spec.track and spec.track.every % spec.measure.every:
        checks.fail("study", "track.every", f"a multiple of measure.every, {spec.measure.every}", spec.track.every)
    if spec.train.early_stopping and spec.measure.every > 1:
        checks.fail("study", "measure.every", "1 with early stopping, which looks at each epoch", spec.measure.every)
    return spec.model_copy(update=found)


def _resolved_data(table: dict[str, Any], source: Source) -> dict[str, Any]:
    """A data set with its settings, and how it is prepared, if it is."""
    own, given = split_preparation(table)
    found = settings("data", own, data.DATASETS, source)
    for name in ("validation", "random_labels"):
        if f"{name}_seed" in given and given.get(name) is None:
            checks.fail("study", f"data.{name}_seed", f"left out without data.{name}", given[f"{name}_seed"])
    prepared = validated(Preparation, given, "", prefix="data").model_dump()
    asked = [name for name in prepared if given.get(name.removesuffix("_seed")) is not None]
    return found | {name: prepared[name] for name in asked}


def _resolved_training(train: Train, source: Source) -> Train:
    """Training with the settings of an optimiser and of a schedule that are tables."""
    if train.batch_size % (train.accumulate or 1):
        what = f"a divisor of train.batch_size, {train.batch_size}"
        checks.fail("study", "train.accumulate", what, train.accumulate)
    parts: dict[str, Any] = {}
    if isinstance(train.optimizer, dict):
        parts["optimizer"] = settings("train.optimizer", train.optimizer, optimisers.OPTIMISERS, source)
        for known in _known(parts["optimizer"], source):
            scheduled = train.schedule != "constant"
            optimisers.check_optimiser(known, train.weight_decay, source, scheduled=scheduled)
    if isinstance(train.learning_rate, dict):
        parts["learning_rate"] = settings("train.learning_rate", train.learning_rate, optimisers.SCHEDULES, source)
        for known in _known(parts["learning_rate"], source):
            optimisers.check_schedule(known, source)
    return train.model_copy(update=parts)


def _known(table: dict[str, Any], source: Source) -> list[dict[str, Any]]:
    """The table, unless it names code that is not to be run."""
    return [] if source is None and extensions.is_function(table["name"]) else [table]


def _check_chain(chain: list[dict[str, Any]], source: Source) -> None:
    """Ranges are a method's own to check, here, before anything runs; and so is the order."""
    for place, table in enumerate(chain):
        for known in _known(table, source):
            parts.check_method(known, source)
        exact = [name for name in EXACT if table.get(name) == "closed_form"]
        others = {"matrix": "hessian", "adaptive": False, "microbatches": 1}
        for setting, value in others.items() if exact else ():
            if table.get(setting, value) != value:
                needed = f"{value!r} with {exact[0]} = 'closed_form', which is for the Hessian of the batch"
                checks.fail("study", f"method.{setting}", needed, repr(table[setting]))
        method = methods.CATALOGUE.get(table["name"])
        if place and method and method.replaces:
            checks.fail("study", "then", "of methods that add to the gradient", f"{table['name']!r}, which replaces it",
                        "Make it the [method], and let the others follow.")  # fmt: skip


def replace(table: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested tables with the value at a dotted path set; keys in tables of `DOTTED` are dotted paths."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**table, head: value}
    inner = table.get(head, {})
    if not isinstance(inner, Mapping):
        checks.fail("study", path, "a setting inside a table", f"a path through {head!r}, which is not a table")
    changed = {**inner, rest.strip("\"'"): value} if head in DOTTED else replace(inner, rest, value)
    return {**table, head: changed}

"""The conditions of a study, each with its settings written out and checked on the host before anything runs."""

import itertools
import typing
from collections.abc import Mapping
from typing import Any

from steppe import data, methods, models
from steppe.core import checks, losses
from steppe.study.spec import limits
from steppe.study.spec.settings import EXACT, build, settings, validated, with_closed_forms
from steppe.study.spec.tables import Spec

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
    parts: dict[str, Any] = {
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

"""What tuning may change: a range for each key, condition by condition."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn, Self

import pydantic
from pydantic import Field

from steppe.core import checks
from steppe.extensions import is_function
from steppe.study.spec import limits
from steppe.study.spec.settings import Table, validated
from steppe.study.spec.tables import Spec, Tune

TUNED = ("method", "loss", "model", "average", "train")
"""Tables in which a key may have a range."""

PREFIX = "tune.ranges."


class Range(Table):
    """The values among which a setting is looked for: numbers from `low` to `high`, or a list of values."""

    low: limits.Real | None = None
    """The smallest."""
    high: limits.Real | None = None
    """The largest."""
    log: bool = False
    """Whether orders of magnitude are drawn alike."""
    values: Annotated[list[Any], Field(min_length=1, max_length=limits.LENGTH)] | None = None
    """All that there are."""
    whole: bool = False
    """Whether only whole numbers are meant; Steppe says so where the setting is one."""

    @pydantic.model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.values is None):
            raise ValueError("either low and high, or values")
        if self.values is not None and self.log:
            raise ValueError("values without log, which is of low and high")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError("a range whose low is below its high")
            if self.log and self.low <= 0:
                raise ValueError("a range above 0 with log = true")
        return self

    @property
    def ends(self) -> list[Any]:
        """The smallest and the largest value, or all where they are a list."""
        if self.values is not None:
            return self.values
        kind = int if self.whole else float
        return [kind(end) for end in (self.low, self.high) if end is not None]

    def holds(self, value: Any) -> bool:
        """Whether a value lies within."""
        if self.values is not None:
            return value in self.values
        return _is_number(value) and self.ends[0] <= value <= self.ends[1]


def ranges_of(spec: Spec) -> dict[str, Range]:
    """Dotted key -> its range, of a condition; in the order of the study's table, then of what the condition adds.

    Raises
    ------
    InputError
        What is no range.
    """
    if spec.tune is None:
        return {}
    given = {path: table for path, table in spec.tune.ranges.items() if table is not False}
    return {path: _read(path, table, setting(spec, path)) for path, table in given.items()}


def _read(path: str, table: Any, now: Any) -> Range:
    """One range; of whole numbers where the setting is one, and so are its ends."""
    found: Range = validated(Range, table, "", prefix=f"{PREFIX}{path}")
    whole = isinstance(now, int) and all(isinstance(table.get(end), int) for end in ("low", "high"))
    return found.model_copy(update={"whole": whole})


def setting(spec: Spec, path: str) -> Any:
    """The value of a condition at a dotted path; None where it has no such setting."""
    table: Any = spec.model_dump(exclude_none=True)
    for step in path.split("."):
        table = table.get(step) if isinstance(table, Mapping) else None
    return table


def check_path(path: str, value: Any, condition: str) -> None:
    """Fail for what a condition must not change of tuning: its budget is that of all others.

    Raises
    ------
    InputError
        Anything but a range.
    """
    if not path.startswith(PREFIX):
        what = f"left out in condition {condition!r}: every condition has the same budget"
        checks.fail("study", path, what, checks.shown(value), f"A condition may change {PREFIX}KEY alone.")


def check(columns: Mapping[str, Spec], attempt: Callable[[str, dict[str, Any]], object]) -> None:
    """Check the ranges of all conditions: each of a setting that the condition has, whose ends it takes.

    Parameters
    ----------
    columns : Mapping
        The conditions.
    attempt : callable
        Of a condition and changes; it fails where a value is out of range.

    Raises
    ------
    InputError
        No range, or none of a setting; no validation part.
    """
    if not any(ranges_of(spec) for spec in columns.values()):
        todo = 'Write "train.learning_rate" = {low = 1e-4, high = 1e-1, log = true} into [tune.ranges].'
        checks.fail("study", "tune.ranges", "the range of a setting, of one condition at least", "none", todo)
    for name, spec in columns.items():
        _check_objective(spec)
        _check_seeds(spec)
        for path, found in ranges_of(spec).items():
            _check_key(name, spec, path, found)
            for end in found.ends:
                attempt(name, {path: end})


def seeds_of_trials(plan: Tune) -> range:
    """The seeds of trials, which no run of the study has."""
    return range(limits.MOST["seeds"] - plan.seeds, limits.MOST["seeds"])


def _check_seeds(spec: Spec) -> None:
    """Fail where runs would have the seeds of trials."""
    assert spec.tune is not None
    first = seeds_of_trials(spec.tune)[0]
    if spec.seeds > first:
        checks.fail("study", "seeds", f"at most {first} with this [tune], whose trials have the seeds from {first} on",
                    spec.seeds)  # fmt: skip


def _check_objective(spec: Spec) -> None:
    """Fail where there is nothing to look at."""
    assert spec.tune is not None
    if "validation" not in spec.data and not is_function(spec.data.get("name")):
        fail_without_validation()
    if spec.is_regression and spec.tune.objective == "validation_accuracy":
        checks.fail("study", "tune.objective", "'validation_loss' for data with real targets", "'validation_accuracy'")


def fail_without_validation() -> NoReturn:
    """Fail where data lack the part that tuning looks at.

    Raises
    ------
    InputError
        Always.
    """
    checks.fail("study", "data.validation", "given, for tuning looks at it", "none",
                "Say which share of the training examples to split off, such as 0.1.")  # fmt: skip


def _check_key(name: str, spec: Spec, path: str, found: Range) -> None:
    """Fail for a key that a condition lacks, or that is no number where numbers are asked for."""
    where = f"{PREFIX}{path} in condition {name!r}"
    part = path.partition(".")[0]
    if part not in TUNED:
        checks.fail("study", where, f"a range of a key in {checks.joined(TUNED)}", checks.shown(path))
    now = setting(spec, path)
    if now is None or isinstance(now, Mapping):
        table = spec.model_dump(exclude_none=True).get(part) or {}
        named = f", {table['name']!r}," if isinstance(table, Mapping) and "name" in table else ""
        got, todo = f"one that its {part}{named} lacks", f'Leave it out there: "{PREFIX}{path}" = false.'
        checks.fail("study", where, "the range of a setting that the condition has", got, todo)
    if found.values is None and not _is_number(now):
        checks.fail("study", where, "a list of values, for the setting is no number", checks.shown(now),
                    "Write {values = […]}.")  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Shares of training: a number of updates, written as a part of all of them, such as "5%"."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from steppe.core import checks
from steppe.study.spec.limits import WHOLE

SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")


def is_share(text: Any) -> bool:
    """Whether a text is a share from 0 to 100 %.

    Examples
    --------
    >>> is_share("5%"), is_share("100%"), is_share("101%"), is_share("half")
    (True, True, False, False)
    """
    found = SHARE.fullmatch(text) if isinstance(text, str) else None
    return found is not None and float(found[1]) <= 100


def updates_of(text: str, updates: int) -> int:
    """The number of updates that a share of so many is, rounded.

    Examples
    --------
    >>> updates_of("100%", 70), updates_of("5%", 70), updates_of("0%", 70)
    (70, 4, 0)
    """
    return int(float(text.removesuffix("%")) * updates / 100 + 0.5)


def _count(value: int | str) -> int | str:
    if is_share(value) or (isinstance(value, int) and abs(value) <= WHOLE):
        return value
    raise ValueError('a whole number of updates, or a share of all updates, such as "5%"')


Count = Annotated[int | str, AfterValidator(_count)]
"""A setting that is a number of updates, or a share of all."""


def counted(table: Mapping[str, Any], updates: int) -> dict[str, Any]:
    """A table of a schedule with numbers of updates in the place of shares of so many, in its values and its keys.

    Raises
    ------
    InputError : two keys that are the same update.

    Examples
    --------
    >>> counted({"name": "linear_schedule", "init_value": 1.0, "transition_steps": "50%"}, 8)
    {'name': 'linear_schedule', 'init_value': 1.0, 'transition_steps': 4}
    """

    def one(value: Any) -> Any:
        return updates_of(value, updates) if is_share(value) else value

    found = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            inner = {str(one(key)): change for key, change in value.items()}
            if len(inner) < len(value):
                got = f"two that are the same of {updates} updates"
                checks.fail("study", f"train.learning_rate.{name}", "a table of different updates", got)
            found[name] = inner
        else:
            found[name] = value if name == "name" else one(value)
    return found

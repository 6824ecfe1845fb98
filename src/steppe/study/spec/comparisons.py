"""What a study declares of its comparisons before there are data: margins of equivalence, and controls."""

from collections.abc import Mapping
from typing import Any

from steppe.analysis.quantities import CONTROLLED, QUANTITIES, TESTED
from steppe.core import checks

MARGINS = {name: QUANTITIES[name] for name in dict.fromkeys((*TESTED, *CONTROLLED))}
"""Quantities for which a study may declare the smallest difference that matters, by the names that it gives them."""


def check_margins(margins: Mapping[str, float]) -> None:
    """Fail where a margin is declared for what is not tested, or is none.

    Raises
    ------
    InputError
        Otherwise.
    """
    for name, margin in margins.items():
        checks.one_of("study", "a name in equivalence", name, MARGINS)
        MARGINS[name].check_margin(f"equivalence.{name}", margin)


def translate_rivals(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A specification of an older version, which called a condition's control its rival, in today's words."""
    columns = raw.get("conditions")
    if not isinstance(columns, list) or not all(isinstance(table, Mapping) for table in columns):
        return raw
    for table in columns:
        if {"rival", "control"} <= set(table):
            checks.fail("study", "conditions.rival", "left out beside control", checks.shown(table["rival"]),
                        "It is the older name of control.")  # fmt: skip
    words = {"rival": "control"}
    return {**raw, "conditions": [{words.get(key, key): value for key, value in table.items()} for table in columns]}

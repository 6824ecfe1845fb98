"""What a study declares of its comparisons before there are data: its metrics, margins of equivalence, controls."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from steppe.analysis.correlation.studies import GAP
from steppe.analysis.quantities import COST, QUANTITIES, REGRESSED, SPECTRUM, TRACED, VALIDATED, Quantity
from steppe.core import checks
from steppe.extensions import is_function
from steppe.measures import MEASURES
from steppe.measures.table import heading
from steppe.study.spec.tables import Spec

ALWAYS = {name: quantity for name, quantity in QUANTITIES.items() if name not in (*COST, *SPECTRUM)}
"""Quantities that every study asks for, by the names of their columns in its results."""

TRACKED = TRACED | {name: QUANTITIES[name] for name in SPECTRUM}
"""Those that `[track]` asks for."""


def check_declared(spec: Spec) -> None:
    """Fail where a metric or a margin is declared for what the study does not ask, or a margin is none.

    What a user's own measures give, and on which scale named ones are compared, is known when they are rehearsed.

    Raises
    ------
    InputError
        Otherwise.
    """
    known, patterns = ALWAYS | (TRACKED if spec.track else {}), asked_columns(spec.measure.names)
    absent = {name for name in known if "accuracy" in name} if spec.is_regression else set(REGRESSED)
    if "validation" not in spec.data and not is_function(spec.data.get("name")):
        absent |= set(VALIDATED)
    known = {name: quantity for name, quantity in known.items() if name not in absent}
    patterns.append(GAP)
    places = {name: "equivalence" for name in spec.equivalence} | {name: "analysis" for name in declared(spec)}
    of_seeds = [each for each in spec.measure.pairs if isinstance(each, str) or each.get("partners") != "baseline"]
    _check_asked(places, [*known, *patterns, *asked_columns(of_seeds)])
    claimed = {name: "protocols" for protocol in spec.protocols for name in (*protocol.higher, *protocol.lower)}
    _check_asked(claimed, [*known, *patterns, *asked_columns(spec.measure.pairs)])
    for name, margin in spec.equivalence.items():
        (ALWAYS | TRACKED).get(name, Quantity(name, name)).check_margin(f"equivalence.{name}", margin)


def _check_asked(places: Mapping[str, str], patterns: list[str | None]) -> None:
    """Fail for a column that the study does not ask for; nothing is known where a user's own measure gives columns."""
    names = [pattern for pattern in patterns if pattern]
    for name, place in places.items():
        if None not in patterns and not any(fnmatchcase(name, pattern) for pattern in names):
            fail_unasked(name, names, place)


def margins_of_runs(spec: Spec) -> dict[str, float]:
    """The margins of columns that a network alone gives; those of `pairs` are known once two are there."""
    of_pairs = asked_columns(spec.measure.pairs)
    if None in of_pairs:
        return {}
    return {
        name: margin
        for name, margin in spec.equivalence.items()
        if not any(fnmatchcase(name, pattern) for pattern in of_pairs if pattern)
    }


def asked_columns(entries: Iterable[str | Mapping[str, Any]]) -> list[str | None]:
    """The columns of results that ``[measure] names`` or `pairs` gives, as patterns; None for those of a user's own."""
    found: list[str | None] = []
    for entry in entries:
        table = entry if isinstance(entry, Mapping) else {"name": entry}
        known = MEASURES.get(str(table.get("name")))
        quantities = (known.quantities or (known.name,)) if known else ()
        found += (
            [heading(known.name, quantity, str(table.get("split", known.split))) for quantity in quantities]
            if known
            else [None]
        )
    return found


def declared(spec: Spec) -> list[str]:
    """The columns of results that the study declares as its primary metric and family, and to correlate."""
    plan = spec.analysis
    if not plan:
        return []
    correlated = [*plan.correlation.measures, plan.correlation.outcome] if plan.correlation else []
    return [*((plan.primary,) if plan.primary else ()), *plan.family, *correlated]


def fail_unasked(name: str, names: Iterable[str], place: str = "equivalence") -> NoReturn:
    """Fail for what is declared of a column that the study does not ask for.

    Raises
    ------
    InputError
        Always.
    """
    names = list(dict.fromkeys(names))
    of_a_split = [known for known in (f"test_{name}", f"train_{name}") if known in names]
    near = f"Did you mean {of_a_split[0]!r}?" if of_a_split else checks.close_to(name, names)
    todo = near or "Ask for it in measure.names, or with [track]."
    checks.fail("study", f"a name in {place}", f"one of what the study asks: {', '.join(names)}", repr(name), todo)


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

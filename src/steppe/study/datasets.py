"""The data of a study: the data set of each condition, loaded once, and what the study's folder says of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steppe.data import Dataset
from steppe.measures.table import fingerprinted
from steppe.study.spec.conditions import Condition
from steppe.study.spec.tables import Spec


class Datasets:
    """Data sets by what a specification says of them, each loaded once: the same object for the same settings."""

    def __init__(self) -> None:
        self._known: dict[str, Dataset] = {}

    def of(self, spec: Spec) -> Dataset:
        """The data set of a condition.

        Raises
        ------
        InputError : see `Spec.load_data`.
        """
        code = spec.source.get(str(spec.data["name"]).rpartition(":")[0])
        key = json.dumps([spec.data, spec.is_regression, spec.spreads, code], sort_keys=True)
        if key not in self._known:
            self._known[key] = spec.load_data()
        return self._known[key]


@dataclass(frozen=True)
class DataRecord:
    """What a study runs on, as its ``data.json`` says it.

    Attributes
    ----------
    shared : ``{"about": …, "fingerprint": …}`` of the data of all conditions; empty where they have different ones.
    conditions : condition -> the same of its own data; empty where all have the same.
    """

    shared: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Iterable[Condition], datasets: Datasets) -> "DataRecord":
        """The record of some conditions."""
        found = {column.name: datasets.of(column.spec) for column in columns}
        facts = {name: {"about": data.about, "fingerprint": data.fingerprint} for name, data in found.items()}
        first, *others = facts.values()
        same = all(other["fingerprint"] == first["fingerprint"] for other in others)
        return cls(shared=first) if same else cls(conditions=facts)

    @classmethod
    def read(cls, table: Any) -> "DataRecord":
        """The record of a table of JSON.

        Raises
        ------
        TypeError : it is no such table.
        """
        if not isinstance(table, dict):
            raise TypeError("JSON that is no table")
        conditions = table.get("conditions", {})
        shared = {key: text for key, text in table.items() if key != "conditions"}
        if not isinstance(conditions, dict) or not all(map(_holds_texts, [shared, *conditions.values()])):
            raise TypeError("JSON that is no table of texts")
        return cls(shared, conditions)

    def table(self) -> dict[str, Any]:
        """What JSON is to hold."""
        return {**self.shared, **({"conditions": dict(self.conditions)} if self.conditions else {})}

    def fingerprint(self, condition: str) -> str | None:
        """The fingerprint of a condition's data, if it is known."""
        return {**self.shared, **self.conditions.get(condition, {})}.get("fingerprint")

    @property
    def mark(self) -> str | None:
        """Equal for equal data of all conditions; None where they are not known."""
        known = {name: facts.get("fingerprint") for name, facts in self.conditions.items()}
        return fingerprinted(known) if known else self.shared.get("fingerprint")

    def groups(self) -> dict[str, list[str]]:
        """Fingerprint -> the conditions with these data, where there are several data sets."""
        found: dict[str, list[str]] = {}
        for name, facts in self.conditions.items():
            found.setdefault(facts.get("fingerprint", ""), []).append(name)
        return found


def _holds_texts(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(text, str) for text in table.values())

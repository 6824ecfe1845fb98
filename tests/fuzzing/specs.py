"""Specifications of studies: good ones in which things are replaced, added or removed; mutated text; ``--set``.

What is accepted is rehearsed where that is cheap: its conditions are resolved again from what they freeze to, and one
of them is traced on its data. What cannot be is accepted though it cannot run, which is wrong.
"""

import functools
import inspect
import zlib

import tomli_w
from hypothesis import strategies as st

from fuzzing import Ending, Verdict, judged
from steppe import data, methods, models
from steppe.cli.options import parsed
from steppe.core import losses
from steppe.study import spec as specs
from steppe.study.spec import limits
from steppe.study.training.recipe import Recipe, shape_of

LARGE = 10_000

TABLES = {
    "data": {"name": "moons", "examples": 60, "test_examples": 20},
    "model": {"name": "mlp", "hidden": [5]},
    "method": {"name": "fa", "lam": 0.0, "every": 2, "probes": 2},
    "train": {"learning_rate": 0.05, "batch_size": 8, "epochs": 3},
    "measure": {"every": 1, "batches": 2, "probes": 2},
    "landscape": {"points": 5, "grid_points": 3},
    "grid": {"method.lam": [0.0, 0.1]},
    "loss": {"name": "cross_entropy"},
}
GOOD = {"name": "tiny", "baseline": "lam=0", "seeds": 2, **TABLES}
"""A study that loads."""

MORE = {
    "then": [{"name": "fa", "lam": 0.1}],
    "augment": [{"name": "mixup", "alpha": 0.2}],
    "average": {"name": "ema", "decay": 0.9},
    "track": {"every": 1, "examples": 16, "probes": 2},
    "conditions": [
        {"name": "plain", "train.epochs": 2}, {"name": "sam", "method": {"name": "sam"}, "control": "plain"},
    ],
    "equivalence": {"test_accuracy": 0.01},
    "published": [{"title": "t", "caveat": "c", "columns": ["a", "b"], "rows": [["x", 1.0]]}],
    "title": "A title", "about": "Words.",
}  # fmt: skip
"""What a study may have besides."""

REGISTRIES = {
    "data": data.DATASETS, "model": models.MODELS, "method": methods.METHODS, "loss": losses.LOSSES,
    "augment": data.TRANSFORMS, "then": methods.METHODS,
}  # fmt: skip
NEAR = ("moons", "breast-cancer", "digits")
"""Data sets that are there without a network."""

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 12),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63 - 1, 2**64, 10**9, 10**12, 10**30]),
    st.floats(),
    st.floats(0, 1),
    st.sampled_from([1e-50, 1e39, 1e400, float("nan"), 5e-324]),
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "none",
            "adam",
            ".x.partial",
            "../x",
            "a\x00b",
            "\x1b[31m",
            "x" * 300,
            "☃",
            "lam=0",
            "closed_form",
            "é" * 130,
        ]
    ),
)
SCALARS = st.one_of(NUMBERS, st.booleans(), WORDS, st.datetimes())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["name", "lam"]), st.text(max_size=8)), inner, max_size=3),
    ),
    max_leaves=6,
)


def paths(table, before=()):
    """Every key of nested tables and lists, as a tuple of steps."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*before, key))


def copied(value):
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


@st.composite
def part(draw, kind):
    """A table of one part: a function of its registry, with some of its settings at random."""
    names = [name for name in REGISTRIES[kind] if kind != "data" or name in NEAR]
    name = draw(st.sampled_from(names))
    settings = [p.name for p in inspect.signature(REGISTRIES[kind][name]).parameters.values() if p.name != "classes"]
    chosen = draw(st.lists(st.sampled_from(settings), max_size=2, unique=True)) if settings else []
    table = {"name": name, **{setting: draw(st.one_of(NUMBERS, VALUES)) for setting in chosen}}
    return table | ({"lam": 0.1} if "lam" in settings and "lam" not in table else {})


@st.composite
def tables(draw):
    """A good study after one to three changes."""
    spec = copied(GOOD)
    for key in draw(st.lists(st.sampled_from(sorted(MORE)), max_size=3, unique=True)):
        spec[key] = copied(MORE[key])
    if "conditions" in spec:
        spec.pop("grid"), spec.pop("baseline")
    for kind in draw(st.lists(st.sampled_from(sorted(REGISTRIES)), max_size=2, unique=True)):
        table = draw(part(kind))
        spec[kind] = [table] if kind in ("augment", "then") else table
    for _ in range(draw(st.integers(0, 3))):
        *parents, last = draw(st.sampled_from(list(paths(spec))))
        table = spec
        for step in parents:
            table = table[step]
        what = draw(st.sampled_from(["replace", "replace", "add", "remove"]))
        if what == "remove":
            del table[last]
        elif what == "replace" or isinstance(table, list):
            table[last] = draw(VALUES)
        else:
            table[draw(st.text(min_size=1, max_size=8))] = draw(VALUES)
        if not spec:
            break
    return spec


@st.composite
def mutated(draw):
    """The text of a good study, cut, doubled or with characters put into it."""
    text = tomli_w.dumps(GOOD | MORE | {"conditions": []})
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        odd = ["", "=", "[[", "]", "\x00", "\ufeff", '"', "[" * 1500, ".".join("a" * 1500), "9" * 5000, "1e999", "\r"]
        put = draw(st.one_of(st.sampled_from(odd), st.text(max_size=5), st.just(text[start:end] * 2)))
        text = text[:start] + put + text[end:]
    return text


KEYS = st.one_of(
    st.sampled_from([".".join(map(str, path)) for path in paths(GOOD)]),
    st.sampled_from(["grid.method.lam", "train.early_stopping.patience", "", ".", "a" + ".b" * 999, "a..b", "x"]),
    st.text(max_size=9),
)
CHANGES = st.lists(st.tuples(KEYS, st.one_of(st.text(max_size=12), VALUES.map(str))), min_size=1, max_size=2)
CASES = st.one_of(tables(), tables(), mutated(), CHANGES)


def attempt(case: dict | str | list) -> Verdict:
    try:
        text = case if isinstance(case, str) else tomli_w.dumps(case if isinstance(case, dict) else GOOD)
    except (UnicodeEncodeError, ValueError):
        text = str(case)
    changes = [f"{key}={value}" for key, value in case] if isinstance(case, list) else []
    accepted = []
    verdict = judged(lambda: accepted.append(specs.parse(text, dict(map(parsed, changes)))))
    return checked(accepted[0]) if accepted else verdict


def checked(spec: specs.Spec) -> Verdict:
    """Whether what was accepted can be frozen and run."""
    again = judged(lambda: specs.parse(spec.toml()))
    if again.ending is not Ending.ACCEPTED or specs.parse(spec.toml()).identity() != spec.identity():
        return Verdict(Ending.WRONG, f"does not read back: {again.words}")
    columns = specs.conditions(spec)
    names = [column.name for column in columns]
    if len(set(names)) < len(names) or any(len(name.encode()) > limits.NAME_BYTES for name in names):
        return Verdict(Ending.WRONG, f"names: {names}")
    if spec.data["name"] not in NEAR or spec.data.get("examples", 0) > 10_000 or sum(widths(spec)) > 1000:
        return Verdict(Ending.ACCEPTED)
    if zlib.crc32(spec.toml().encode()) % REHEARSED:
        return Verdict(Ending.ACCEPTED)
    return judged(lambda: rehearsed(columns[-1]))


REHEARSED = 10
"""One accepted study in so many is traced, which takes a second."""


def widths(spec: specs.Spec) -> list[int]:
    return spec.model.get("hidden", [])


def rehearsed(column: specs.Condition) -> None:
    """Trace an epoch of a condition."""
    shape, strengths = shape_of(column.spec)
    Recipe.of(shape, dataset(column.spec.toml())).rehearse(strengths)


@functools.lru_cache(maxsize=32)
def dataset(toml: str) -> data.Dataset:
    return specs.parse(toml).load_data()

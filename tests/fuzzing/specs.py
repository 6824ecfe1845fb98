"""Specifications of studies: a good one in which something is replaced, added or removed."""

import tomli_w
from hypothesis import strategies as st

from fuzzing import Verdict, judged
from steppe.study import spec as specs

LARGE = 10_000

GOOD = {
    "name": "tiny",
    "baseline": "lam=0",
    "seeds": 2,
    "data": {"name": "moons", "examples": 60},
    "model": {"name": "mlp", "hidden": [5]},
    "method": {"name": "fa", "lam": 0.0, "every": 2, "probes": 2},
    "train": {"learning_rate": 0.05, "batch_size": 8, "epochs": 3},
    "measure": {"every": 1, "batches": 2, "probes": 2},
    "landscape": {"points": 5, "grid_points": 3},
    "grid": {"method.lam": [0.0, 0.1]},
}
"""A study that loads."""

SCALARS = st.one_of(
    st.integers(),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63 - 1, 10**30]),
    st.floats(),
    st.booleans(),
    st.text(max_size=20),
    st.sampled_from(["", "fa", "adam", "mlp", ".x.partial", "../x", "a\x00b", "\x1b[31m", "x" * 300, "☃", "lam=0"]),
    st.datetimes(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["name", "lam"]), st.text(max_size=8)), inner, max_size=3),
    ),
    max_leaves=6,
)


def paths(table: dict, before: tuple[str, ...] = ()):
    """Every key of nested tables, as a tuple of steps."""
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


@st.composite
def changed(draw):
    """A good study after one to three changes."""
    spec = {key: dict(value) if isinstance(value, dict) else value for key, value in GOOD.items()}
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(list(paths(spec))))
        table = spec
        for step in parents:
            table = table[step]
        what = draw(st.sampled_from(["replace", "add", "remove"]))
        if what == "remove":
            del table[last]
        else:
            table[last if what == "replace" else draw(st.text(min_size=1, max_size=8))] = draw(VALUES)
        if not spec:
            break
    return spec


CASES = changed()


def attempt(case: dict) -> Verdict:
    try:
        text = tomli_w.dumps(case)
    except (UnicodeEncodeError, ValueError):
        text = str(case)
    return judged(lambda: specs.conditions(specs.parse(text)))

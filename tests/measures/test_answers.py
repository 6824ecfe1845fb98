"""Measures of a user's own: found by name or as a function, and checked in all that they give."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import steppe
from steppe.measures import MEASURES, Quantity, measure, registry, select

PARAMS = {"w": jnp.eye(3)}
BATCH = {"x": jnp.eye(3), "y": jnp.array([0, 1, 2])}


def apply(params, x):
    return x @ params["w"]


def asked(function, **more):
    return measure([function], apply=apply, params=PARAMS, batches=BATCH, **more)


@registry.measure(family="outcome", cost="⅓", needs="outputs", better="")
def logit_size(subject, *, power: float = 1.0):
    """How large are the network's outputs?"""
    outputs = subject.apply(subject.params, subject.batches.first["x"])
    yield Quantity("logit_size", jnp.mean(jnp.abs(outputs) ** power))


def test_a_function_of_ones_own_is_measured_beside_those_of_the_registry():
    rows = measure([logit_size, "loss"], apply=apply, params=PARAMS, batches=BATCH)
    assert [row.measure for row in rows] == ["loss", "logit_size"]
    assert type(rows[1].value) is float and rows[1].value == pytest.approx(1 / 3) and rows[1].settings == {"power": 1.0}


def test_a_module_in_the_current_folder_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sizes.py").write_text(
        "from steppe.measures import Quantity\ndef size(subject, bins=3):\n    yield Quantity('size_n', subject.size)\n"
    )
    (row,) = asked("sizes:size", settings={"sizes:size": {"bins": 4}})
    assert (row.measure, row.quantity, row.value, row.settings) == ("sizes:size", "size_n", 9.0, {"bins": 4})
    found = registry.lookup("sizes:size")
    assert (found.family, found.needs, len(found.source)) == ("outcome", "loss", 64)
    assert "sizes:size" not in MEASURES and "size" not in MEASURES


def test_batches_of_several_shapes_are_seen_one_by_one():
    batches = [{"x": jnp.ones((n, 3)) * i, "y": jnp.zeros(n, int)} for i, n in enumerate([2, 3, 2])]
    seen = []

    def look(subject):
        seen.extend((len(batch["y"]), float(batch["x"][0, 0])) for batch in subject.batches.members())
        yield Quantity("x", 1.0)

    measure([look], apply=apply, params=PARAMS, batches=batches)
    assert seen == [(2, 0.0), (2, 2.0), (3, 1.0)]


def test_a_function_of_the_name_of_a_measure_is_refused():
    def trace(subject):
        yield Quantity("x", 1.0)

    with pytest.raises(steppe.InputError, match="of other names than those of the registry, got trace"):
        asked(trace)


def a_class(subject, *, of: type = int):
    yield Quantity("x", 1.0)


def unset(subject, *, bins):
    yield Quantity("x", 1.0)


def settings_of_any_name(subject, **settings):
    yield Quantity("x", 1.0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (a_class, "of must be plain by default"),
        (unset, "whose bins has none"),
        (settings_of_any_name, r"one with \*\*settings"),
        (lambda: [], "one that takes no subject"),
    ],
)
def test_a_function_whose_settings_cannot_be_written_down_is_refused(function, words):
    with pytest.raises(steppe.InputError, match=words):
        asked(function)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "yields quantities, got None"),
        (0.5, "yields quantities, got 0.5. Yield Quantity"),
        ([], "yields nothing"),
        ([("x", 1.0)], "yields quantities, got a tuple"),
        ([Quantity("x", 1.0)] * 2, "of different names, got 'x' twice"),
        ([Quantity(3, 1.0)], "the name of a quantity must be a name of letters.*got 3"),
        ([Quantity("", 1.0)], "the name of a quantity"),
        ([Quantity("top 5", 1.0)], "got 'top 5'"),
        ([Quantity("test_accuracy", 1.0)], "without train_, validation_ and test_"),
        ([Quantity("condition", 1.0)], "a column of a study"),
        ([Quantity("top_eigenvalue_3", 1.0)], "the measure top_eigenvalues gives"),
        ([Quantity("accuracy", 1.0)], "the measure accuracy gives"),
        ([Quantity("x_sem", 1.0)], "without _sem, _residual and _converged"),
        ([Quantity("x", "high")], "value of 'x' must be one real number, got 'high'"),
        ([Quantity("x", None)], "value of 'x' must be one real number, got None"),
        ([Quantity("x", 1j)], "value of 'x' must be one real number"),
        ([Quantity("x", True)], "value of 'x' must be one real number, got True"),
        ([Quantity("x", np.ones(2))], "value of 'x' must be one real number, got a float64 array of shape"),
        ([Quantity("x", 1.0, -1.0)], "sem of 'x' must be a number of at least 0"),
        ([Quantity("x", 1.0, note=3)], "note of 'x' must be text, got 3"),
        ([Quantity("x", 1.0, converged="yes")], "converged of 'x' must be True or False, got 'yes'"),
        ([Quantity("x", 1.0, curve={"a": "text"})], "curve of 'x' must be a dict"),
        ((Quantity(f"x{i}", 1.0) for i in range(2000)), "at most 1000"),
    ],
)
def test_what_a_measure_gives_is_refused_with_one_sentence_where_it_is_no_quantity(given, words):
    with pytest.raises(steppe.InputError, match=words):
        asked(lambda subject: given)


@pytest.mark.parametrize(("value", "there"), [(10**400, np.inf), (-(10**400), -np.inf), (10**20, 1e20)])
def test_a_whole_number_of_any_size_is_a_value(value, there):
    assert asked(lambda subject: Quantity("x", value))[0].value == there


def test_a_measure_that_changes_its_settings_or_its_subject_changes_neither_for_the_next():
    def spoils(subject, *, table: dict = {"count": 0}):  # noqa: B006
        table["count"] += 1
        subject.params = None
        yield Quantity("x", table["count"])

    def norm(subject):
        yield Quantity("y", abs(subject.params["w"]).sum())

    first, again = (measure([spoils, norm], apply=apply, params=PARAMS, batches=BATCH) for _ in range(2))
    assert [row.value for row in first] == [row.value for row in again] and first[0].value == 1


def test_an_error_in_a_measure_is_one_sentence():
    def fails(subject):
        yield Quantity("x", {}["key"])

    def leaves(subject):
        raise SystemExit(3)

    with pytest.raises(steppe.InputError, match="one that fails: KeyError: 'key'"):
        asked(fails)
    with pytest.raises(steppe.InputError, match="one that ends the program"):
        asked(leaves)


def test_a_value_that_is_not_finite_is_said_and_never_converged():
    (row,) = asked(lambda subject: Quantity("x", jnp.nan, 0.1, "of nothing"))
    assert math.isnan(row.value) and math.isnan(row.sem) and not row.converged
    assert row.note == "not finite; of nothing"


def test_plain_numbers_come_of_arrays_and_scalars():
    (row,) = asked(lambda subject: Quantity("x", np.float64(2), jnp.float32(0), converged=np.bool(True)))
    assert json.dumps([row.value, row.sem, row.converged]) == "[2.0, 0.0, true]"


def test_words_that_the_decorator_does_not_know_are_refused():
    with pytest.raises(steppe.InputError, match="needs must be one of 'loss', 'outputs'"):
        registry.measure(needs="label")(a_class)
    with pytest.raises(steppe.InputError, match="family must be one of"):
        registry.measure("outcomes")(a_class)


def test_names_that_are_not_there_are_refused():
    with pytest.raises(steppe.InputError, match=r"or module:function, got 'trac'\. Did you mean 'trace'"):
        select(["trac"])

"""Accuracy class by class, the gap to the training data, and errors of regressions."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from steppe import InputError, outcomes
from steppe.core import losses
from steppe.measures import measure
from steppe.measures.registry import lookup
from steppe.measures.subject import Subject


def drawn(seed=0, count=80, classes=4):
    random = np.random.default_rng(seed)
    return outcomes.probabilities(random.normal(size=(count, classes))), random.integers(0, classes, count)


def test_the_accuracy_of_a_class_is_its_recall():
    p, y = drawn()
    expected = metrics.recall_score(y, p.argmax(1), average=None)
    np.testing.assert_allclose(outcomes.class_accuracy(p, y), expected, rtol=1e-12)
    assert outcomes.worst_class_accuracy(p, y) == pytest.approx(expected.min())
    absent = outcomes.class_accuracy(p, np.zeros(80, int))
    assert np.isnan(absent[1:]).all() and outcomes.worst_class_accuracy(p, np.zeros(80, int)) == absent[0]


def test_the_measures_say_which_class_is_served_worst():
    p, y = drawn()
    rows = measure(["worst_class_accuracy", "class_accuracy"], apply=lambda w, x: x * w, params=jnp.ones(4),
                   batches={"x": np.log(p).astype(np.float32), "y": y.astype(np.int32)})  # fmt: skip
    each = outcomes.class_accuracy(p, y)
    assert rows[0].value == pytest.approx(each.min()) and rows[0].note == f"class {each.argmin()}"
    assert [row.quantity for row in rows[1:]] == [f"class_accuracy_{k}" for k in range(4)]
    np.testing.assert_allclose([row.value for row in rows[1:]], each, rtol=1e-6)


def test_the_gap_is_that_of_the_two_parts_whichever_is_asked():
    parts = {name: {"x": np.log(drawn(seed)[0]).astype(np.float32), "y": drawn(seed)[1].astype(np.int32)}
             for name, seed in (("train", 1), ("test", 2))}  # fmt: skip
    of = lambda name: Subject(apply=lambda w, x: x * w, params=jnp.ones(4), batches=parts[name])
    for name in parts:
        subject = of(name)
        subject.parts = of
        accuracy, loss = lookup("generalisation_gap").function(subject)
        assert accuracy.value == pytest.approx(of("train").accuracy() - of("test").accuracy())
        assert loss.value == pytest.approx(of("test").value - of("train").value)
    with pytest.raises(InputError, match="in two parts, training and test, got one"):
        measure("generalisation_gap", apply=lambda w, x: x * w, params=jnp.ones(4), batches=parts["test"])


def test_errors_of_a_regression_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    f, y = random.normal(size=(2, 30, 2))
    assert outcomes.root_mean_squared_error(f, y) == pytest.approx(math.sqrt(metrics.mean_squared_error(y, f)))
    assert outcomes.r_squared(f, y) == pytest.approx(metrics.r2_score(y, f, multioutput="variance_weighted"))
    assert outcomes.r_squared(f[:, 0], y[:, 0]) == pytest.approx(metrics.r2_score(y[:, 0], f[:, 0]))
    assert math.isnan(outcomes.r_squared([1.0, 2.0], [3.0, 3.0]))
    found = measure(["root_mean_squared_error", "r_squared"], apply=lambda w, x: x * w, params=jnp.ones(2),
                    criterion=losses.squared_error,
                    batches={"x": f.astype(np.float32), "y": y.astype(np.float32)})  # fmt: skip
    assert {row.quantity: row.value for row in found} == pytest.approx(
        {"root_mean_squared_error": outcomes.root_mean_squared_error(f, y), "r_squared": outcomes.r_squared(f, y)},
        rel=1e-5,
    )
    with pytest.raises(InputError, match=r"of shape \(30, 2\)"):
        outcomes.root_mean_squared_error(f, y[:, :1])
    with pytest.raises(InputError, match="finite"):
        outcomes.r_squared([1.0], [math.nan])

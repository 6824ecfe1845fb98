"""Data drawn from a known rule, against scikit-learn, SciPy and what is known of the functions' minima."""

import numpy as np
import pytest
from scipy import optimize
from sklearn.datasets import make_circles

from steppe import InputError, data
from steppe.data.synthetic.objectives import OBJECTIVES

MINIMA = {
    "sphere": (0, 0), "rosenbrock": (1, 1), "rastrigin": (0, 0), "beale": (3, 0.5), "booth": (1, 3),
    "three-hump-camel": (0, 0), "himmelblau": (3, 2),
}  # fmt: skip
"""Where each function is 0."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_function_is_zero_at_its_minimum_and_nowhere_below(name):
    function, minimum = OBJECTIVES[name], np.array(MINIMA[name], float)
    assert function(*minimum) == pytest.approx(0, abs=1e-12)
    assert np.all(function(*np.random.default_rng(0).uniform(-3.5, 3.5, (2, 1000))) >= 0)
    np.testing.assert_allclose(optimize.approx_fprime(minimum, lambda w: function(*w)), 0, atol=1e-4)


def test_rosenbrock_is_that_of_scipy():
    points = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(OBJECTIVES["rosenbrock"](*points), optimize.rosen(points))


def test_points_are_uniform_over_the_square_and_targets_are_the_functions_values():
    found = data.load("objective", function="himmelblau", examples=4000, test_examples=100)
    x = found.train["x"]
    assert np.abs(x).max() <= 3.5 and np.abs(x.mean(axis=0)).max() < 4 * 3.5 / (3 * 4000) ** 0.5
    np.testing.assert_allclose(
        found.train["y"].ravel(), OBJECTIVES["himmelblau"](*x.astype(float).T), rtol=2e-4, atol=1e-4
    )
    scaled = data.load("objective", function="himmelblau", examples=4000, test_examples=100, standardize=True)
    assert np.std(scaled.train["y"]) == pytest.approx(1, rel=1e-5)


def test_circles_are_those_of_scikit_learn_the_first_to_train_on():
    x, y = make_circles(100, random_state=0, factor=0.8)
    found = data.load("circles", factor=0.8)
    np.testing.assert_array_equal(found.train["x"], x[:50].astype(np.float32))
    np.testing.assert_array_equal(found.test["y"], y[50:])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("circles", {"factor": 1.0}, "factor must be at least 0 and below 1, got 1.0"),
        ("circles", {"examples": 1}, "examples must be a whole number of at least 2, got 1"),
        ("objective", {}, "function must be given"),
        ("objective", {"function": "spher"}, "function must be one of .* Did you mean 'sphere'"),
        (
            "objective",
            {"function": "booth", "test_examples": 0},
            "test_examples must be a whole number of at least 2, got 0",
        ),
    ],
)
def test_a_bad_setting_gets_one_sentence(name, settings, message):
    with pytest.raises(InputError, match=message):
        data.load(name, **settings)


def test_random_labels_are_uniform_on_the_chosen_examples_and_the_clean_ones_stay():
    plain = data.load("digits")
    found = data.load("digits", random_labels=0.6, random_labels_seed=3)
    labels, clean = found.train["y"], found.clean["y"]
    np.testing.assert_array_equal(clean, plain.train["y"])
    assert found.clean["x"] is found.train["x"] and found.test is not None
    np.testing.assert_array_equal(found.test["y"], plain.test["y"])
    count, wrong = len(labels), (labels != clean).mean()
    assert abs(wrong - 0.6 * 0.9) < 4 * (0.54 * 0.46 / count) ** 0.5
    drawn = np.bincount(labels[labels != clean], minlength=10) / (labels != clean).sum()
    assert np.abs(drawn - 0.1).max() < 0.05
    assert found.fingerprint != plain.fingerprint and f"of which {(labels != clean).sum()} are wrong" in found.about
    again = data.load("digits", random_labels=0.6, random_labels_seed=3)
    np.testing.assert_array_equal(again.train["y"], labels)
    none, whole = (data.load("moons", random_labels=share) for share in (0.0, 1.0))
    np.testing.assert_array_equal(none.train["y"], none.clean["y"])
    assert 0.3 < (whole.train["y"] != whole.clean["y"]).mean() < 0.7


def test_examples_to_validate_on_keep_their_labels():
    found = data.load("moons", validation=0.5, random_labels=1.0)
    plain = data.load("moons", validation=0.5)
    np.testing.assert_array_equal(found.validation["y"], plain.validation["y"])
    assert (found.train["y"] != plain.train["y"]).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.load("moons", random_labels=1.5), "random_labels must be a finite number >= 0 <= 1, got 1.5"),
        (lambda: data.load("diabetes", random_labels=0.5), "random_labels must be left out for targets that are no"),
        (
            lambda: data.with_random_labels(data.load("moons", random_labels=0.5), 0.5),
            "must be left out for data whose labels were drawn already",
        ),
    ],
)
def test_labels_that_cannot_be_drawn_get_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()

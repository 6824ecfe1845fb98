"""Calibration against a dense reference in NumPy, and what must be true of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe.core.checks import InputError
from steppe.measures import measure
from steppe.outcomes import expected_calibration_error


def reference(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The definition, bin by bin, in float64."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = (shifted / shifted.sum(-1, keepdims=True)).max(-1)
    right = logits.argmax(-1) == labels
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def drawn(seed: int, count: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(scale=2, size=(count, outputs)).astype(np.float32), random.integers(0, max(outputs, 2), count)


@pytest.mark.parametrize(("outputs", "bins"), [(1, 15), (2, 10), (5, 15), (5, 1), (7, 40)])
def test_it_is_the_definition(outputs, bins):
    logits, labels = drawn(outputs, 300, outputs)
    found = expected_calibration_error(jnp.asarray(logits), jnp.asarray(labels), bins=bins)
    np.testing.assert_allclose(found, reference(logits, labels, bins), rtol=1e-5)


def test_a_network_that_is_right_as_often_as_it_says_has_no_error():
    logits = jnp.log(jnp.array([0.75, 0.25])) * jnp.ones((4, 1))
    np.testing.assert_allclose(expected_calibration_error(logits, jnp.array([0, 0, 0, 1])), 0, atol=1e-6)


def test_a_network_that_is_sure_and_always_wrong_has_an_error_of_one():
    sure = jnp.array([[200.0, 0.0, 0.0]] * 5)
    np.testing.assert_allclose(expected_calibration_error(sure, jnp.array([1, 2, 1, 2, 1])), 1, rtol=1e-6)


def test_the_order_of_examples_does_not_matter():
    logits, labels = drawn(1, 200, 4)
    order = np.random.default_rng(2).permutation(200)
    ordered, shuffled = (expected_calibration_error(logits[o], labels[o]) for o in (slice(None), order))
    np.testing.assert_allclose(shuffled, ordered, rtol=1e-5)


def test_the_names_of_classes_do_not_matter():
    logits, labels = drawn(3, 200, 4)
    names = np.array([2, 0, 3, 1])
    renamed = expected_calibration_error(logits[:, np.argsort(names)], names[labels])
    np.testing.assert_allclose(renamed, expected_calibration_error(logits, labels), rtol=1e-5)


def test_one_logit_is_two_classes():
    logits, labels = drawn(4, 100, 1)
    two = np.concatenate([np.zeros_like(logits), logits], axis=-1)
    np.testing.assert_allclose(
        expected_calibration_error(logits, labels), expected_calibration_error(two, labels), rtol=1e-6
    )


def test_bins_without_examples_count_for_nothing():
    logits, labels = drawn(5, 6, 3)
    found = expected_calibration_error(logits, labels, bins=1000)
    np.testing.assert_allclose(found, reference(logits, labels, 1000), rtol=1e-4)


def test_it_lies_between_0_and_1():
    for seed in range(5):
        assert 0 <= float(expected_calibration_error(*drawn(seed, 7, 3))) <= 1 + 1e-6


def test_bins_that_are_none_are_refused():
    with pytest.raises(InputError, match="bins"):
        expected_calibration_error(*drawn(0, 5, 2), bins=0)


def test_the_measure_is_the_same_however_examples_are_split():
    logits, labels = drawn(6, 50, 3)
    batch = {"x": logits, "y": labels.astype(np.int32)}
    parts = [jax.tree.map(lambda leaf, s=s: leaf[s], batch) for s in (slice(0, 20), slice(20, 40), slice(40, 50))]
    apply = lambda p, x: x * p["w"]
    found = [
        measure("calibration_error", apply=apply, params={"w": jnp.ones(3)}, batches=batches)[0].value
        for batches in (batch, parts)
    ]
    np.testing.assert_allclose(found, reference(logits, labels, 15), rtol=1e-5)


def test_labels_that_do_not_count_are_left_out_of_the_measure():
    logits, labels = drawn(7, 40, 3)
    ignored = np.where(np.arange(40) % 4 == 0, -100, labels).astype(np.int32)
    found = measure(
        "calibration_error",
        apply=lambda p, x: x * p["w"],
        params={"w": jnp.ones(3)},
        batches={"x": logits, "y": ignored},
        ignore=-100,
    )
    kept = ignored >= 0
    np.testing.assert_allclose(found[0].value, reference(logits[kept], labels[kept], 15), rtol=1e-5)

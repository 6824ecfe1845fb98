"""Rounding layer by layer: exact where the second order is all there is, and where errors are noise; else measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, curvature
from steppe.outcomes import precision_table
from steppe.outcomes.compression.precision import rounded_to
from support.networks import mlp_batch, mlp_loss, mlp_params


def bowls(params, batch):
    """A curvature for each layer, its minimum at `at`: the Hessian of a layer is a multiple of the identity."""
    parts = [(params["a"]["kernel"], 1.0), (params["b"]["kernel"], 5.0)]
    rounds = sum(c * jnp.sum((w - batch["at"][0, i]) ** 2) / 2 for i, (w, c) in enumerate(parts))
    return rounds + jnp.sum(params["b"]["bias"] ** 2)


def case(seed=0):
    at = jax.random.normal(jax.random.key(seed), (1, 2, 4, 3))
    return {"a": {"kernel": at[0, 0]}, "b": {"kernel": at[0, 1], "bias": jnp.zeros(3)}}, {"at": at}


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_at_the_minimum_of_a_round_quadratic_the_prediction_is_the_change(granularity, x64):
    rows = precision_table(bowls, *case(), granularity=granularity)
    assert [(row.layer, row.bits) for row in rows] == [(layer, k) for layer in "ab" for k in (8, 4, 3, 2)]
    for row in rows:
        assert row.size == 12 and row.squared_error > 0  # the bias is not rounded
        np.testing.assert_allclose(row.trace.mean, 12 * {"a": 1, "b": 5}[row.layer], rtol=1e-9)
        np.testing.assert_allclose(row.predicted.mean, row.change.mean, rtol=1e-9)
        np.testing.assert_allclose(row.sensitivity.mean, 2 * row.predicted.mean, rtol=1e-12)


def test_errors_like_noise_change_any_quadratic_by_the_prediction_on_average():
    root = np.random.default_rng(0).normal(size=(12, 12))
    H = root @ root.T
    weights = jax.random.normal(jax.random.key(1), (4000, 4, 3))
    moved = np.asarray(jax.vmap(lambda w: rounded_to(w, 4) - w)(weights)).reshape(-1, 12)
    changes, predicted = np.einsum("bi,ij,bj->b", moved, H, moved) / 2, np.trace(H) / 12 * (moved**2).sum(1) / 2
    assert abs(changes.mean() - predicted.mean()) <= 4 * np.std(changes - predicted) / len(changes) ** 0.5


@pytest.mark.slow
def test_the_change_is_that_of_the_network_with_one_layer_rounded():
    params, batch = mlp_params(0, (3, 4, 2)), mlp_batch(1, 6, 3, 2)
    rows = precision_table(mlp_loss, params, batch, bits=(3,), granularity="tensor", probes=64)
    assert [row.layer for row in rows] == ["0", "1"]
    own = [jax.tree.map(lambda leaf: rounded_to(leaf, 3) if leaf.ndim == 2 else leaf, layer) for layer in params]
    for place, row in enumerate(rows):
        rounded = [*params[:place], own[place], *params[place + 1 :]]
        np.testing.assert_allclose(row.change.mean, mlp_loss(rounded, batch) - mlp_loss(params, batch), atol=1e-6)
        H = curvature.hessian(mlp_loss, params, batch, where=f"{place}.w")
        assert abs(row.trace.mean - float(jnp.trace(H.dense()))) <= 4 * row.trace.sem


def test_levels_are_symmetric_few_and_hold_the_largest_weight():
    w = jax.random.normal(jax.random.key(0), (5, 7))
    for bits in (2, 3, 8):
        q = np.asarray(rounded_to(w, bits, (0,)))
        for row, rounded in zip(np.asarray(w), q, strict=True):
            step = abs(row).max() / (2 ** (bits - 1) - 1)
            assert len(np.unique(rounded)) <= 2**bits - 1 and abs(row - rounded).max() <= step / 2 * (1 + 1e-5)
            np.testing.assert_allclose(abs(rounded).max(), abs(row).max(), rtol=1e-6)
        np.testing.assert_allclose(rounded_to(q, bits, (0,)), q, rtol=1e-6)
    assert rounded_to(jnp.zeros((2, 3)), 2, (0,)).tolist() == [[0.0] * 3] * 2
    assert rounded_to(w.astype(jnp.bfloat16), 4).dtype == jnp.bfloat16


def test_what_rounding_hides_is_said_by_the_standard_error():
    params, batch = case()
    high = lambda p, b: 1e6 + 1e-4 * bowls(p, b)
    rows = precision_table(high, params, batch, bits=(8,), probes=1)
    assert all(row.change.sem > 0 for row in rows)
    zero = jax.tree.map(jnp.zeros_like, params)
    assert all(
        row.change == (0, 0) and row.squared_error == 0
        for row in precision_table(high, zero, batch, bits=(2,), probes=1)
    )


def test_bad_input_is_one_sentence():
    params, batch = case()
    for options, words in (
        ({"bits": (1,)}, "bits must be a whole number of at least 2"),
        ({"bits": (32,)}, "bits must be a whole number of at most 16"),
        ({"granularity": "row"}, "granularity must be one of"),
        ({"probes": 0}, "probes must be"),
    ):
        with pytest.raises(InputError, match=words):
            precision_table(bowls, params, batch, **options)
    with pytest.raises(InputError, match="with an array of two axes"):
        precision_table(lambda p, b: jnp.sum(p**2), jnp.ones(3), np.ones(1))

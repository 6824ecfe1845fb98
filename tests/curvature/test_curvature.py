"""Operators and estimates against the dense Hessian in float64, and the theorems that their docstrings claim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature
from steppe.core import trees
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from support.networks import dense_hessian, mlp_batch, mlp_loss, mlp_params


def diagonal(values):
    values = jnp.asarray(values)
    return curvature.Operator(lambda v: values * v, jnp.zeros_like(values))


def test_hessian_product_equals_the_dense_product(x64):
    params, batch = mlp_params(), mlp_batch()
    H = curvature.hessian(mlp_loss, params, batch)
    dense = dense_hessian(mlp_loss, params, batch)
    vector = jax.random.normal(jax.random.key(5), (H.size,))
    product = H.matvec(ravel_pytree(params)[1](vector))
    np.testing.assert_allclose(ravel_pytree(product)[0], dense @ vector, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(H.dense(), dense, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_hessian_over_a_list_is_that_of_all_examples(x64):
    params, whole = mlp_params(), mlp_batch(size=10)
    parts = [jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(0, 3), slice(3, 7), slice(7, 10))]
    np.testing.assert_allclose(
        curvature.hessian(mlp_loss, params, parts).dense(),
        dense_hessian(mlp_loss, params, whole),
        rtol=1e-10,
        atol=1e-13,
    )


def test_rescaled_operator_is_w_a_w(x64):
    params, batch = mlp_params(), mlp_batch()
    flat = ravel_pytree(params)[0]
    scaled = curvature.rescaled(curvature.hessian(mlp_loss, params, batch), params)
    expected = flat[:, None] * dense_hessian(mlp_loss, params, batch) * flat[None, :]
    np.testing.assert_allclose(scaled.dense(), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("key", range(3))
def test_estimates_are_within_four_standard_errors(x64, distribution, key):
    params, batch = mlp_params(), mlp_batch()
    dense = dense_hessian(mlp_loss, params, batch)
    H = curvature.hessian(mlp_loss, params, batch)
    estimates = jax.jit(lambda key: curvature.moments(H, key, probes=400, distribution=distribution))(
        jax.random.key(key)
    )
    for estimate, exact in zip(estimates, (jnp.trace(dense), jnp.sum(dense**2)), strict=True):
        assert abs(estimate.mean - exact) <= 4 * estimate.sem
        assert 0 < estimate.sem < 0.3 * abs(exact)


@pytest.mark.slow
def test_standard_error_shrinks_as_one_over_root_m(x64):
    H = curvature.hessian(mlp_loss, mlp_params(), mlp_batch())
    few, many = (curvature.frobenius_squared(H, 0, probes=m).sem for m in (100, 6400))
    assert 6 < few / many < 10.5


def test_signs_see_a_diagonal_without_noise():
    estimate = curvature.trace(diagonal([1.0, -2.0, 4.0]), 0, probes=3)
    assert (float(estimate.mean), float(estimate.sem)) == (3.0, 0.0)
    assert curvature.frobenius_squared(diagonal([1.0, -2.0, 4.0]), 0).mean == 21


def test_one_probe_has_no_standard_error():
    assert np.isnan(curvature.trace(diagonal([1.0, 2.0]), 0, probes=1).sem)


def test_looped_mapped_and_blocked_probes_are_the_same_probes(monkeypatch):
    params, whole = mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32)
    halves = [jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(0, 4), slice(4, 8))]
    alone, both = (curvature.hessian(mlp_loss, params, data) for data in (halves[0], halves))
    looped = jax.jit(lambda: curvature.moments(alone, 3, probes=5))()
    together = jax.jit(lambda: curvature.moments(both, 3, probes=5))()
    monkeypatch.setattr("steppe.curvature.operators.TOGETHER", 2)  # three blocks, the last of one probe
    in_blocks = jax.jit(lambda: curvature.moments(both, 3, probes=5))()
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    mapped = jax.jit(lambda: curvature.moments(alone, 3, probes=5))()
    np.testing.assert_allclose(jax.tree.leaves(mapped), jax.tree.leaves(looped), rtol=1e-5)
    np.testing.assert_allclose(jax.tree.leaves(in_blocks), jax.tree.leaves(together), rtol=1e-5)


@pytest.mark.parametrize("probes", [3, 16])
def test_a_program_holds_one_product_whatever_the_number_of_probes(probes):
    params, batch = mlp_params(), mlp_batch()
    H = curvature.hessian(mlp_loss, params, batch)
    layers = curvature.find_layers(mlp_loss, params, batch)
    lowered = jax.jit(lambda H: curvature.moments(H, 0, probes=probes)).lower(H).as_text()
    one = jax.jit(lambda H: curvature.moments(H, 0, probes=1)).lower(H).as_text()
    assert layers
    assert lowered.count("dot_general") == one.count("dot_general")


def test_moments_have_derivatives_in_both_modes(x64):
    params, batch = mlp_params(), mlp_batch()
    flat, unravel = ravel_pytree(params)

    def value(flat):
        return curvature.moments(curvature.hessian(mlp_loss, unravel(flat), batch), 0, probes=3).trace.mean

    along = jax.random.normal(jax.random.key(1), flat.shape)
    compiled, step = jax.jit(value), 1e-5
    ahead = jax.jit(lambda p: jax.jvp(value, (p,), (along,))[1])(flat)
    expected = (compiled(flat + step * along) - compiled(flat - step * along)) / (2 * step)
    np.testing.assert_allclose(ahead, expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(flat) @ along, expected, rtol=1e-5)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_probes_have_identity_covariance_and_keep_shapes_and_dtypes(strict, distribution, dtype):
    like = {"a": jnp.zeros((3, 5), dtype), "b": jnp.zeros((), dtype), "c": jnp.zeros(17, dtype)}
    draws = jax.vmap(lambda key: DISTRIBUTIONS[distribution](key, like))(jax.random.split(jax.random.key(0), 4000))
    assert all(draws[name].dtype == dtype and draws[name].shape[1:] == like[name].shape for name in like)
    flat = np.concatenate([np.asarray(x.astype(jnp.float32)).reshape(4000, -1) for x in jax.tree.leaves(draws)], axis=1)
    covariance = flat.T @ flat / 4000
    assert np.abs(covariance - np.eye(33)).max() < 0.12
    assert np.abs(flat.mean(axis=0)).max() < 0.08


def test_estimates_are_differentiable_with_the_standard_error_held_constant(x64):
    def value(scale):
        return curvature.frobenius_squared(diagonal(scale * jnp.arange(1.0, 4.0)), 0, probes=4, distribution="gaussian")

    gradient = jax.grad(lambda s: value(s).mean)(2.0)
    np.testing.assert_allclose(gradient, value(2.0).mean, rtol=1e-12)  # quadratic in s: f'(s) = 2 f(s) / s
    assert jax.grad(lambda s: value(s).sem)(2.0) == 0


def test_bad_input_gets_one_sentence():
    with pytest.raises(InputError, match="hessian: batches must be a batch or a non-empty list of batches"):
        curvature.hessian(mlp_loss, mlp_params(), [])
    with pytest.raises(InputError, match="probes must be a whole number of at least 1, got 0"):
        curvature.trace(diagonal([1.0]), 0, probes=0)
    with pytest.raises(InputError, match="key must be an int or a JAX key array, got 'seed'"):
        curvature.trace(diagonal([1.0]), "seed")
    with pytest.raises(InputError, match="Did you mean 'gaussian'"):
        curvature.trace(diagonal([1.0]), 0, distribution="gausian")


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_the_norm_of_a_tree_is_found_where_its_square_is_not(size):
    tree = {"a": size * jnp.array([3.0, 0.0], jnp.float32), "b": size * jnp.array([[4.0]], jnp.float32)}
    unit, norm = trees.unit_and_norm(tree)
    np.testing.assert_allclose([norm, trees.norm(tree)], 5.0 * size, rtol=1e-6)
    expected = [0.6, 0.0, 0.8] if size else [0.0, 0.0, 0.0]
    np.testing.assert_allclose(np.r_[unit["a"], unit["b"][0]], expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_spread_of_samples_survives_squares_that_do_not(scale):
    found = curvature.estimate(jnp.array([1.0, 2.0, 4.0]) * scale)
    np.testing.assert_allclose(found.sem / scale, np.std([1, 2, 4], ddof=1) / 3**0.5, rtol=1e-6)

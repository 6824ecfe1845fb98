"""Exact moments, and penalties from gradients alone, against the dense Hessian in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature
from steppe.core import losses
from steppe.curvature import closed_form
from steppe.curvature.estimators.probes import rademacher
from steppe.methods import fa
from support.networks import dense_hessian, mlp_batch, mlp_loss, mlp_params


def regression(classes, bias=True, scale=1.0, size=6):
    keys = jax.random.split(jax.random.key(classes), 4)
    params = {"w": scale * jax.random.normal(keys[0], (3, classes))}
    if bias:
        params["b"] = jax.random.normal(keys[1], (classes,))
    x = jax.random.normal(keys[2], (size, 3)).at[1].set(0.0)
    return params, {"x": x, "y": jax.random.randint(keys[3], (size,), 0, max(classes, 2))}


def cross_entropy(params, batch):
    bias = params["b"][None] if "b" in params else 0
    return losses.cross_entropy(batch["x"] @ params["w"] + bias, batch["y"])


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("classes", "bias"), [(1, True), (2, False), (5, True)])
def test_softmax_regression_equals_the_dense_hessian_with_its_gradients(x64, classes, bias):
    params, batch = regression(classes, bias)
    flat, unravel = ravel_pytree(params)
    hessian = jax.hessian(lambda q: cross_entropy(unravel(q), batch))
    dense = (lambda p: jnp.trace(hessian(p)), lambda p: jnp.sum(hessian(p) ** 2))
    for at, exact in enumerate(dense):
        ours = lambda p, at=at: closed_form.softmax_regression(unravel(p), batch["x"], batch["y"])[at].mean
        for a, b in zip(*(jax.jit(jax.value_and_grad(f))(flat) for f in (ours, exact)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert all(estimate.sem == 0 for estimate in closed_form.softmax_regression(params, batch["x"]))


@pytest.mark.optimised
@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_float32_keeps_its_relative_accuracy_at_saturated_logits(classes, scale):
    params, batch = regression(classes, scale=scale)
    params["b"] = params["b"].at[0].add(scale)  # every example sure of the same class

    def squared(params, x):
        return closed_form.softmax_regression(params, x).frobenius_squared.mean

    value, gradient = jax.value_and_grad(squared)(params, batch["x"])
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (params, batch["x"]))
        exact, exact_gradient = jax.value_and_grad(squared)(*double)
    np.testing.assert_allclose(value, exact, rtol=2e-4)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(np.abs(b).max()))


@pytest.mark.slow
def test_the_exact_penalty_is_what_random_probes_estimate():
    params, batch = regression(5, size=16)
    exact = closed_form.softmax_regression(params, batch["x"]).frobenius_squared.mean
    estimate = curvature.loss_moments(cross_entropy, params, batch, 0, probes=2000).frobenius_squared
    assert abs(estimate.mean - exact) <= 4 * estimate.sem
    tx = fa(1.0, every=1, curvature=lambda loss, p, b, key: closed_form.softmax_regression(p, b["x"]).frobenius_squared)
    zeros = jax.tree.map(jnp.zeros_like, params)
    _, state = jax.jit(lambda p: tx.update(zeros, tx.init(p), p, loss=cross_entropy, batch=batch))(params)
    np.testing.assert_allclose(state.monitor, (exact, 0), rtol=1e-6)


def test_shapes_that_do_not_fit_get_one_sentence():
    with pytest.raises(
        InputError, match=r"must be w of shape \(D, K\) with x of shape \(B, D\), got w of shape \(3,\)"
    ):
        closed_form.softmax_regression({"w": jnp.ones(3)}, jnp.ones((2, 3)))
    with pytest.raises(InputError, match=r"b must be of shape \(2,\), got shape \(3,\)"):
        closed_form.softmax_regression({"w": jnp.ones((3, 2)), "b": jnp.ones(3)}, jnp.ones((2, 3)))


def first_order_errors(dtype, step):
    """Relative errors of value and gradient against the exact derivatives along the same probes."""
    params, batch = mlp_params(dtype=dtype), mlp_batch(dtype=dtype)
    flat, unravel = ravel_pytree(params)
    keys = jax.random.split(jax.random.key(0), 3)
    vectors = jnp.stack([ravel_pytree(rademacher(k, params))[0] for k in keys])

    def dense(p):
        return jnp.mean(jnp.sum((vectors @ dense_hessian(mlp_loss, unravel(p), batch)) ** 2, axis=1))

    ours = lambda p: curvature.first_order(probes=3, step=step)(mlp_loss, unravel(p), batch, jax.random.key(0)).mean
    (a, da), (b, db) = jax.jit(jax.value_and_grad(ours))(flat), jax.jit(jax.value_and_grad(dense))(flat)
    return abs(a / b - 1), jnp.linalg.norm(da - db) / jnp.linalg.norm(db)


@pytest.mark.slow
def test_central_differences_converge_as_the_square_of_the_step(x64):
    coarse, fine = (first_order_errors(jnp.float64, step) for step in (0.02, 0.002))
    for a, b in zip(coarse, fine, strict=True):
        assert 60 < a / b < 140
    assert max(first_order_errors(jnp.float64, None)) < 1e-5


@pytest.mark.optimised
@pytest.mark.slow
def test_in_float32_the_default_step_is_good_to_a_few_per_cent():
    assert max(first_order_errors(jnp.float32, None)) < 0.05


@pytest.mark.slow
def test_first_order_mode_asks_for_no_second_derivative():
    @jax.custom_vjp
    def kernel(x):
        return jnp.tanh(x)

    def host(x):
        slope = lambda x: (1 - np.tanh(x) ** 2).astype(x.dtype)
        return jax.pure_callback(slope, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")

    kernel.defvjp(lambda x: (kernel(x), x), lambda x, g: (g * host(x),))
    loss = lambda p, b: mlp_loss(p, b, activation=kernel)
    params, batch = mlp_params(), mlp_batch()
    zeros = jax.tree.map(jnp.zeros_like, params)

    def added(loss, **options):
        tx = fa(1.0, every=1, **options)
        return jax.jit(lambda p, b: tx.update(zeros, tx.init(p), p, loss=loss, batch=b)[0])(params, batch)

    ours = ravel_pytree(added(loss, curvature=curvature.first_order(probes=2)))[0]
    smooth = ravel_pytree(added(mlp_loss, curvature=curvature.first_order(probes=2)))[0]
    np.testing.assert_allclose(ours, smooth, rtol=0.2, atol=0.05 * float(jnp.abs(smooth).max()))
    with pytest.raises(ValueError, match="one that calls back to Python"):
        added(loss)


@pytest.mark.optimised
@pytest.mark.slow
def test_first_order_mode_needs_the_memory_of_gradients():
    params, batch = mlp_params(sizes=(8, 256, 256, 4)), mlp_batch(size=256, inputs=8, classes=4)

    def memory(f):
        return jax.jit(f).lower(params).compile().memory_analysis().temp_size_in_bytes

    plain = memory(lambda p: jax.grad(mlp_loss)(p, batch))
    penalty = lambda p: curvature.first_order(probes=20)(mlp_loss, p, batch, jax.random.key(0)).mean
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert memory(jax.grad(penalty)) < plain + 25 * weights  # a w for each of 20 probes, and a few vectors


def test_flat_and_empty_directions_stay_finite():
    loss = lambda w, x: jnp.mean(x @ w)
    for w in (jnp.zeros(3), jnp.ones(3)):
        value, gradient = jax.value_and_grad(
            lambda w: curvature.first_order()(loss, w, jnp.ones((4, 3)), jax.random.key(0)).mean
        )(w)
        assert value < 1e-8
        assert bool(jnp.all(jnp.isfinite(gradient)))


def test_bad_arguments_get_one_sentence():
    with pytest.raises(InputError, match="first_order: step must be a finite number"):
        curvature.first_order(step=0.0)
    with pytest.raises(InputError, match="first_order: probes must be a whole number"):
        curvature.first_order(probes=0)

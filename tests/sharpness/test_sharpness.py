"""Fisher-Rao norm, relative flatness, flatness by the gradient: dense float64 references, and rescaling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, sharpness
from steppe.core import losses
from support.networks import dense_hessian, mlp_batch, mlp_params
from support.sharpness import (
    COMPILED,
    CRITERIA,
    LAYER_WISE,
    NODE_WISE,
    data,
    example_gradients,
    parts,
    relu_apply,
    rescaled,
    tanh_apply,
)


def unbiased(params):
    return [{"w": layer["w"], "b": 0 * layer["b"]} for layer in params]


# Fisher-Rao norm


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("criterion", "classes"), [("cross-entropy", 3), ("cross-entropy", 1), ("squared error", 2)])
def test_the_fisher_rao_norm_is_the_root_of_its_quadratic_form(x64, criterion, classes):
    params, batch = mlp_params(sizes=(3, 4, classes)), data(classes, criterion)
    criterion = CRITERIA[criterion]
    g, theta = example_gradients(tanh_apply, params, batch, criterion), ravel_pytree(params)[0]
    exact = np.sqrt(theta @ (g.T @ g / len(g)) @ theta)
    for batches in (batch, parts(batch, 2, 2, 2), parts(batch, 4, 2)):
        found = sharpness.fisher_rao(tanh_apply, params, batches, criterion=criterion)
        np.testing.assert_allclose(found.mean, exact, rtol=1e-12)
        assert found.sem == 0


@pytest.mark.first_is_fast
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("hidden", [(4,), (4, 5)])
def test_the_analytic_form_counts_the_weight_matrices_of_a_relu_network_without_biases(x64, classes, hidden):
    params, batch = unbiased(mlp_params(sizes=(3, *hidden, classes))), data(classes)
    norm = lambda layers: sharpness.fisher_rao(relu_apply, params, batch, layers=layers).mean
    matrices = len(hidden) + 1
    np.testing.assert_allclose(norm(matrices), norm(None), rtol=1e-12)
    np.testing.assert_allclose(norm(matrices + 1), norm(None) * (matrices + 1) / matrices, rtol=1e-12)


def test_the_analytic_form_is_the_published_one_for_softmax(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    f = tanh_apply(params, batch["x"])
    inner = jnp.sum(jax.nn.softmax(f) * f, 1) - f[jnp.arange(len(f)), batch["y"]]
    np.testing.assert_allclose(
        sharpness.fisher_rao(tanh_apply, params, batch, layers=2).mean, 2 * jnp.sqrt(jnp.mean(inner**2)), rtol=1e-12
    )


@pytest.mark.parametrize("factors", [LAYER_WISE, NODE_WISE], ids=["layer", "node"])
def test_the_fisher_rao_norm_does_not_change_under_rescaling_but_with_the_scale_of_the_logits(x64, factors):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    other = rescaled(params, factors)
    np.testing.assert_allclose(relu_apply(other, batch["x"]), relu_apply(params, batch["x"]), rtol=1e-12)
    for layers in (None, 2):
        norm = lambda p, layers=layers: sharpness.fisher_rao(relu_apply, p, batch, layers=layers).mean
        np.testing.assert_allclose(norm(other), norm(params), rtol=1e-12)
        assert abs(norm([*params[:-1], jax.tree.map(lambda w: 1.5 * w, params[-1])]) / norm(params) - 1) > 0.1


@pytest.mark.slow
def test_the_norm_of_a_network_of_zeros_is_zero_with_a_finite_gradient():
    params, batch = jax.tree.map(jnp.zeros_like, mlp_params()), mlp_batch()
    norm = lambda p: sharpness.fisher_rao(relu_apply, p, batch).mean
    value, gradient = jax.value_and_grad(norm)(params)
    assert value == 0
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


# Relative flatness


def dense_kappa(apply, params, batch, criterion, at, axis=-1):
    """Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_ss' by its definition, for the weights params[at]["w"] with outputs last."""

    def loss(W):
        changed = [{**layer, "w": W} if i == at else layer for i, layer in enumerate(params)]
        return criterion(apply(changed, batch["x"]), batch["y"])

    W = params[at]["w"]
    H = jax.jit(jax.hessian(loss))(W)
    fan_out = W.shape[-1]
    H = H.reshape(-1, fan_out, W.size // fan_out, fan_out)
    W = W.reshape(-1, fan_out)
    return jnp.einsum("cs,ct,dsdt->", W, W, H)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("at", "criterion", "classes"),
    [
        (0, "cross-entropy", 3),
        (1, "squared error", 2),
        (1, "cross-entropy", 1),
        (2, "cross-entropy", 3),
        (2, "cross-entropy", 1),
        (2, "squared error", 2),
    ],
)
def test_relative_flatness_equals_its_definition_for_every_layer(x64, at, criterion, classes):
    params, batch = mlp_params(sizes=(3, 5, 4, classes)), data(classes, criterion, size=7)
    criterion = CRITERIA[criterion]
    exact = dense_kappa(tanh_apply, params, batch, criterion, at)
    for batches in (batch, parts(batch, 3, 3, 1)):
        found = sharpness.relative_flatness(tanh_apply, params, batches, criterion=criterion, layer=f"{at}/w")
        np.testing.assert_allclose(found.mean, exact, rtol=1e-10)
        assert found.sem == 0


def test_the_default_layer_is_the_last_matrix_and_has_the_closed_form(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    phi = jnp.tanh(batch["x"] @ params[0]["w"] + params[0]["b"])
    W, p = params[1]["w"], jax.nn.softmax(tanh_apply(params, batch["x"]))
    closed = jnp.mean(jnp.sum(phi**2, 1) * (p @ jnp.sum(W**2, 0) - jnp.sum((p @ W.T) ** 2, 1)))
    np.testing.assert_allclose(sharpness.relative_flatness(tanh_apply, params, batch).mean, closed, rtol=1e-12)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("layer", "standardise"), [("0/w", False), ("1/w", True), ("2/w", False), ("2/w", True)])
def test_random_directions_estimate_relative_flatness(x64, layer, standardise):
    params, batch = mlp_params(sizes=(3, 4, 5, 2)), data(2)
    options = {"layer": layer, "standardise": standardise}
    exact = sharpness.relative_flatness(tanh_apply, params, batch, **options).mean
    found = sharpness.relative_flatness(tanh_apply, params, parts(batch, 3, 3), probes=2000, **options)
    assert abs(found.mean - exact) <= 4 * found.sem
    assert found.sem < 0.2 * abs(exact) + 1e-3


def conv_apply(params, x):
    y = jax.lax.conv_general_dilated(x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.mean(jnp.tanh(y), (1, 2)) @ params["out"]


@pytest.mark.slow
def test_a_convolution_is_a_matrix_of_its_filters(x64):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"conv": jax.random.normal(keys[0], (2, 2, 1, 3)), "out": jax.random.normal(keys[1], (3, 2))}
    batch = {"x": jax.random.normal(keys[2], (3, 4, 4, 1)), "y": jnp.array([0, 1, 1])}
    both = [{"w": params["conv"]}, {"w": params["out"]}]
    exact = dense_kappa(
        lambda p, x: conv_apply({"conv": p[0]["w"], "out": p[1]["w"]}, x), both, batch, losses.cross_entropy, 0
    )
    found = sharpness.relative_flatness(conv_apply, params, batch, layer="conv")
    np.testing.assert_allclose(found.mean, exact, rtol=1e-10)
    estimate = sharpness.relative_flatness(conv_apply, params, batch, layer="conv", probes=1000)
    assert abs(estimate.mean - exact) <= 4 * estimate.sem
    with pytest.raises(InputError, match="layer must be a dense one with standardise=True, got 'conv', a convolution"):
        sharpness.relative_flatness(conv_apply, params, batch, layer="conv", standardise=True)


def test_positions_of_a_sequence_meet_the_last_layer_one_by_one_and_others_together(x64):
    params = {"in": jax.random.normal(jax.random.key(0), (2, 3)), "out": jax.random.normal(jax.random.key(1), (3, 4))}

    def apply(params, x):
        h = jnp.tanh(x @ params["in"])
        return (h + jnp.mean(h, axis=1, keepdims=True) ** 2) @ params["out"]

    batch = {"x": jax.random.normal(jax.random.key(2), (3, 5, 2)), "y": jnp.arange(15).reshape(3, 5) % 4}
    for at, name in enumerate(("in", "out")):
        both = [{"w": params["in"]}, {"w": params["out"]}]
        direct = lambda p, x: apply({"in": p[0]["w"], "out": p[1]["w"]}, x)
        exact = dense_kappa(direct, both, batch, losses.cross_entropy, at)
        np.testing.assert_allclose(
            sharpness.relative_flatness(apply, params, batch, layer=name).mean, exact, rtol=1e-10
        )


@pytest.mark.parametrize("at", [1, 2])
def test_relative_flatness_is_invariant_layer_wise_and_standardised_node_by_node(x64, at):
    params, batch = mlp_params(sizes=(3, 4, 5, 3)), data(3)
    kappa = lambda p, **options: sharpness.relative_flatness(relu_apply, p, batch, layer=f"{at}/w", **options).mean
    deeper = lambda p, factors: [p[0], *rescaled(p[1:], factors)]
    np.testing.assert_allclose(kappa(rescaled(params, LAYER_WISE)), kappa(params), rtol=1e-10)
    np.testing.assert_allclose(kappa(deeper(params, LAYER_WISE)), kappa(params), rtol=1e-10)
    nodes = {1: rescaled(params, NODE_WISE), 2: deeper(params, (*NODE_WISE, 1.7))}[at]  # those that feed the layer
    np.testing.assert_allclose(relu_apply(nodes, batch["x"]), relu_apply(params, batch["x"]), rtol=1e-12)
    assert abs(kappa(nodes) / kappa(params) - 1) > 0.05
    np.testing.assert_allclose(kappa(nodes, standardise=True), kappa(params, standardise=True), rtol=1e-10)
    if at == 1:  # those that the layer computes
        np.testing.assert_allclose(kappa(deeper(params, (*NODE_WISE, 1.7))), kappa(params), rtol=1e-10)


def test_standardising_equals_measuring_a_network_whose_features_are_standardised(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    sigma = jnp.std(jax.nn.relu(batch["x"] @ params[0]["w"] + params[0]["b"]), axis=0)
    by_hand = rescaled(params, 1 / sigma)
    for batches in (batch, parts(batch, 4, 2)):
        np.testing.assert_allclose(
            sharpness.relative_flatness(relu_apply, params, batches, standardise=True).mean,
            sharpness.relative_flatness(relu_apply, by_hand, batches).mean,
            rtol=1e-10,
        )


def test_a_constant_feature_counts_for_nothing_when_standardised(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    dead = [{"w": params[0]["w"].at[:, 1].set(0), "b": params[0]["b"].at[1].set(0.3)}, params[1]]
    kappa = lambda p: sharpness.relative_flatness(tanh_apply, p, batch, standardise=True).mean
    moved = jnp.tanh(0.3) * params[1]["w"][1]
    without = [
        jax.tree.map(lambda leaf: jnp.delete(leaf, 1, axis=-1), dead[0]),
        {"w": jnp.delete(params[1]["w"], 1, axis=0), "b": params[1]["b"] + moved},
    ]
    np.testing.assert_allclose(kappa(dead), kappa(without), rtol=1e-10)


@pytest.mark.optimised
def test_relative_flatness_keeps_its_accuracy_in_float32_where_a_classifier_is_sure():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), mlp_params(sizes=(3, 4, 3)))
    single[1]["b"] = single[1]["b"].at[0].add(18.0)
    batch = mlp_batch(classes=3)
    value = sharpness.relative_flatness(tanh_apply, single, batch).mean
    assert value.dtype == jnp.float32
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), single)
        exact = dense_kappa(tanh_apply, double, batch, losses.cross_entropy, 1)
        np.testing.assert_allclose(value, exact, rtol=1e-4)


def test_what_relative_flatness_cannot_do_gets_one_sentence():
    params, batch = mlp_params(sizes=(3, 4, 3)), mlp_batch(classes=3)
    with pytest.raises(
        InputError, match=r"layer must be the path of a layer's weights, got '1/W'\. Did you mean '1/w'"
    ):
        sharpness.relative_flatness(tanh_apply, params, batch, layer="1/W")
    with pytest.raises(InputError, match="apply must be a network with a linear layer"):
        sharpness.relative_flatness(lambda w, x: x * w[None], jnp.ones(3), batch)
    with pytest.raises(InputError, match="probes must be a whole number"):
        sharpness.relative_flatness(tanh_apply, params, batch, probes=0)
    wide = {"in": jnp.ones((2, 200)), "out": jnp.ones((200, 2))}
    mixed = lambda p, x: jnp.mean(jnp.tanh(x @ p["in"]), axis=1) @ p["out"]
    sequences = {"x": jnp.ones((3, 4, 2)), "y": jnp.array([0, 1, 0])}
    sharpness.relative_flatness(mixed, wide, sequences, layer="in")
    deep = {"in": jnp.ones((2, 200)), "mid": jnp.ones((200, 200)), "out": jnp.ones((200, 2))}
    mixing = lambda p, x: jnp.mean(jnp.tanh(jnp.tanh(x @ p["in"]) @ p["mid"]), axis=1) @ p["out"]
    with pytest.raises(InputError, match=r"probes must be a number for the layer 'mid', got None, whose.* 40,000"):
        sharpness.relative_flatness(mixing, deep, sequences, layer="mid")


# Flatness by the gradient


def quadratic(curvatures, slopes):
    curvatures, slopes = jnp.asarray(curvatures), jnp.asarray(slopes)

    def loss(w, batch):
        return jnp.sum(curvatures * w**2) / 2 + jnp.sum(slopes * w) + 0 * jnp.mean(batch)

    return loss


def test_at_a_minimum_the_gradient_norm_flatness_is_the_largest_eigenvalue_times_rho_squared(x64):
    found = sharpness.gradient_norm_flatness(
        quadratic([1.0, -5.0, 3.0], np.zeros(3)), jnp.zeros(3), jnp.ones(1), rho=0.2, steps=60
    )
    np.testing.assert_allclose(found, (5 * 0.2**2, 0, 5), rtol=1e-10)


def test_the_gradient_norm_flatness_reaches_the_maximum_over_the_ball_and_does_not_exceed_it(x64):
    curvatures, slopes, rho = np.array([1.0, 2.0]), np.array([0.3, -0.2]), 0.5
    angles = np.linspace(0, 2 * np.pi, 20001)
    around = rho * np.stack([np.cos(angles), np.sin(angles)])
    most = rho * np.linalg.norm(curvatures[:, None] * around + slopes[:, None], axis=0).max()
    loss = quadratic(curvatures, slopes)
    values = [
        float(sharpness.gradient_norm_flatness(loss, jnp.zeros(2), jnp.ones(1), rho=rho, steps=s).flatness)
        for s in (1, 2, 4, 50)
    ]
    assert all(a <= b * (1 + 1e-12) for a, b in itertools.pairwise(values))
    assert values[0] < 0.999 * most
    np.testing.assert_allclose(values[-1], most, rtol=1e-6)


@pytest.mark.slow
def test_one_step_goes_along_the_hessian_times_the_gradient(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    loss = losses.of(tanh_apply)
    flat, unravel = ravel_pytree(params)
    gradient = jax.jit(jax.grad(lambda p: loss(unravel(p), batch)))
    up = jax.jit(lambda p: dense_hessian(loss, p, batch))(params) @ gradient(flat)
    moved = gradient(flat + 0.1 * up / jnp.linalg.norm(up))
    for batches in (batch, parts(batch, 4, 2)):
        found = sharpness.gradient_norm_flatness(loss, params, batches, rho=0.1, steps=1)
        np.testing.assert_allclose(found.flatness, 0.1 * jnp.linalg.norm(moved), rtol=1e-10)
        np.testing.assert_allclose(found.gradient_norm, jnp.linalg.norm(gradient(flat)), rtol=1e-10)


def test_a_flat_loss_has_zero_gradient_norm_flatness():
    found = sharpness.gradient_norm_flatness(quadratic(np.zeros(2), np.zeros(2)), jnp.ones(2), jnp.ones(1))
    assert [float(value) for value in found] == [0, 0, 0]
    sloped = sharpness.gradient_norm_flatness(quadratic(np.zeros(2), [3.0, 4.0]), jnp.ones(2), jnp.ones(1), rho=0.1)
    np.testing.assert_allclose(sloped, (0.5, 5.0, 50.0), rtol=1e-6)


def test_the_normalised_curvature_is_the_trace_over_the_gradient(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    loss = losses.of(tanh_apply)
    dense = jax.jit(lambda p: dense_hessian(loss, p, batch))(params)
    flat, unravel = ravel_pytree(params)
    size = jnp.linalg.norm(jax.jit(jax.grad(lambda p: loss(unravel(p), batch)))(flat))
    found = sharpness.normalised_curvature(loss, params, parts(batch, 4, 2), probes=400)
    np.testing.assert_allclose(found.gradient_norm, size, rtol=1e-10)
    assert abs(found.ratio.mean - jnp.trace(dense) / size) <= 4 * found.ratio.sem
    np.testing.assert_allclose(found.ratio, np.array(found.trace) / size, rtol=1e-12)


def test_the_normalised_curvature_has_no_bound_where_the_gradient_vanishes_and_is_zero_of_a_flat_loss():
    bowl, saddle, flat = (quadratic(c, np.zeros(2)) for c in ([1.0, 1.0], [1.0, -3.0], [0.0, 0.0]))
    ratio = lambda loss: sharpness.normalised_curvature(loss, jnp.zeros(2), jnp.ones(1)).ratio
    assert ratio(bowl) == (np.inf, 0)
    assert ratio(saddle) == (-np.inf, 0)
    assert ratio(flat) == (0, 0)


@pytest.mark.parametrize("factors", [LAYER_WISE, NODE_WISE], ids=["layer", "node"])
def test_flatness_by_the_gradient_changes_under_rescaling(x64, factors):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    loss, other = losses.of(relu_apply), rescaled(params, factors)
    np.testing.assert_allclose(loss(other, batch), loss(params, batch), rtol=1e-12)
    for measure in (
        lambda p: sharpness.gradient_norm_flatness(loss, p, batch).flatness,
        lambda p: sharpness.normalised_curvature(loss, p, batch, probes=200).ratio.mean,
    ):
        assert abs(measure(other) / measure(params) - 1) > 0.1


# All of them

ALL = {
    "fisher_rao": lambda p, b: sharpness.fisher_rao(tanh_apply, p, b),
    "fisher_rao, layers": lambda p, b: sharpness.fisher_rao(tanh_apply, p, b, layers=2),
    "relative_flatness": lambda p, b: sharpness.relative_flatness(tanh_apply, p, b),
    "relative_flatness, rows": lambda p, b: sharpness.relative_flatness(tanh_apply, p, b, layer="0/w"),
    "relative_flatness, probes": lambda p, b: sharpness.relative_flatness(tanh_apply, p, b, probes=3, standardise=True),
    "gradient_norm_flatness": lambda p, b: sharpness.gradient_norm_flatness(losses.of(tanh_apply), p, b, steps=2),
    "normalised_curvature": lambda p, b: sharpness.normalised_curvature(losses.of(tanh_apply), p, b, probes=3),
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", ALL)
def test_measures_compile_once_keep_float32_and_give_the_same_under_jit(strict, name):
    batches = parts(mlp_batch(size=8, dtype=jnp.float32), 4, 4)
    first, second = (mlp_params(key, dtype=jnp.float32) for key in (0, 1))
    eager = ALL[name](first, batches)
    assert all(jnp.result_type(leaf) == jnp.float32 for leaf in jax.tree.leaves(eager))
    jitted = jax.jit(lambda p: ALL[name](p, batches))(first)
    np.testing.assert_allclose(jax.tree.leaves(jitted), jax.tree.leaves(eager), rtol=1e-4)
    before = len(COMPILED)
    ALL[name](second, batches)
    assert len(COMPILED) == before > 0


@pytest.mark.parametrize("name", ALL)
def test_bad_parameters_and_batches_get_one_sentence(name):
    function = name.split(",")[0]
    with pytest.raises(InputError, match=f"{function}: batches must be a batch or a non-empty list"):
        ALL[name](mlp_params(), [])
    with pytest.raises(InputError, match=rf"{function}: params\[0\]\['b'\] must be a floating-point array"):
        ALL[name]([{"w": jnp.ones((3, 2)), "b": jnp.ones(2, int)}], mlp_batch())


def test_settings_out_of_range_get_one_sentence():
    params, batch, loss = mlp_params(), mlp_batch(), losses.of(tanh_apply)
    with pytest.raises(InputError, match="fisher_rao: layers must be a whole number of at least 1, got 0"):
        sharpness.fisher_rao(tanh_apply, params, batch, layers=0)
    with pytest.raises(InputError, match="gradient_norm_flatness: rho must be above 0"):
        sharpness.gradient_norm_flatness(loss, params, batch, rho=0.0)
    with pytest.raises(InputError, match="gradient_norm_flatness: steps must be a whole number"):
        sharpness.gradient_norm_flatness(loss, params, batch, steps=0)
    with pytest.raises(InputError, match="normalised_curvature: probes must be a whole number"):
        sharpness.normalised_curvature(loss, params, batch, probes=0)

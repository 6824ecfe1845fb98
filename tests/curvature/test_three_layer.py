"""The closed form of a three-layer network's Hessian against the dense one, and float32 where logits saturate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError
from steppe.core import losses
from steppe.curvature import closed_form
from steppe.methods import fa
from support.networks import dense_hessian

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
}


def network(classes, biases=("b1", "b2"), size=7, hidden=4, inputs=3, scale=1.0):
    keys = jax.random.split(jax.random.key(17 * classes + size), 6)
    params = {
        "w1": jax.random.normal(keys[0], (inputs, hidden)),
        "w2": scale * jax.random.normal(keys[1], (hidden, classes)),
        "b1": jax.random.normal(keys[2], (hidden,)),
        "b2": jax.random.normal(keys[3], (classes,)),
    }
    x = jax.random.normal(keys[4], (size, inputs))
    y = jax.random.randint(keys[5], (size,), 0, max(classes, 2))
    return {name: leaf for name, leaf in params.items() if name[0] == "w" or name in biases}, x, y


def loss_of(activation):
    def loss(params, batch):
        x, y = batch
        h = activation(x @ params["w1"] + (params["b1"][None] if "b1" in params else 0))
        return losses.cross_entropy(h @ params["w2"] + (params["b2"][None] if "b2" in params else 0), y)

    return loss


def check_against_dense(activation, params, x, y):
    flat, unravel = ravel_pytree(params)
    loss = loss_of(activation)
    hessian = jax.hessian(lambda q: loss(unravel(q), (x, y)))

    def both(trace, squared):
        return trace + 0.7 * squared, (trace, squared)  # the gradient of each would cost another compilation

    exact = lambda p: both(jnp.trace(hessian(p)), jnp.sum(hessian(p) ** 2))
    ours = lambda p: both(*(m.mean for m in closed_form.three_layer(unravel(p), x, y, activation)))
    (got, want) = (jax.jit(jax.value_and_grad(f, has_aux=True))(flat) for f in (ours, exact))
    np.testing.assert_allclose(got[0][1], want[0][1], rtol=1e-10)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-9, atol=1e-9 * float(jnp.abs(want[1]).max()))


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("name", "classes"), [*(("tanh", k) for k in (1, 2, 4)), *((name, 4) for name in ACTIVATIONS if name != "tanh")]
)
def test_moments_and_their_gradients_equal_those_of_the_dense_hessian(x64, name, classes):
    check_against_dense(ACTIVATIONS[name], *network(classes))


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("classes", "biases"), [(1, ()), (3, ("b1",)), (3, ("b2",))])
def test_either_bias_may_be_left_out(x64, classes, biases):
    check_against_dense(jnp.tanh, *network(classes, biases))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("classes", [1, 5])
def test_one_example_is_enough(x64, classes):
    check_against_dense(jnp.tanh, *network(classes, size=1))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("hidden", [2, 16])
def test_wide_and_narrow_hidden_layers_take_either_way_to_one_result(x64, hidden):
    check_against_dense(jnp.tanh, *network(3, hidden=hidden))  # K² = 9


def test_relu_gives_the_hessian_almost_everywhere(x64):
    check_against_dense(jax.nn.relu, *network(3))


@pytest.mark.optimised
@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("sure", [8.0, 30.0])
def test_float32_is_finite_and_accurate_at_saturated_logits(classes, sure):
    params, x, y = network(classes, size=12)
    params["b2"] = params["b2"].at[0].add(sure)  # 1 − p of the order of exp(−sure) for every example
    single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), (params, x))

    def moments(params, x):
        return jnp.stack([m.mean for m in closed_form.three_layer(params, x, y, jnp.tanh)])

    def logits(params, x):
        return jnp.tanh(x @ params["w1"] + params["b1"][None]) @ params["w2"] + params["b2"][None]

    y = (logits(*single)[:, 0] > 0).astype(int) if classes == 1 else jnp.argmax(logits(*single), axis=1)
    both = jax.jit(lambda params, x: (moments(params, x), jax.jacrev(moments)(params, x)))
    value, gradient = both(*single)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), single)
        exact, exact_gradient = both(*double)
        dense = jax.jit(functools.partial(dense_hessian, loss_of(jnp.tanh)))(double[0], (double[1], y))
        np.testing.assert_allclose(exact, [np.trace(dense), np.sum(dense**2)], rtol=1e-2)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-3)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
        assert bool(jnp.all(jnp.isfinite(a)))
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3 * float(np.abs(b).max()))


@pytest.mark.parametrize("classes", [1, 3])
def test_gradients_are_finite_where_probabilities_underflow(classes):
    params, x, y = network(classes, scale=1e4)
    moments = lambda p: sum(m.mean for m in closed_form.three_layer(p, x, y, jnp.tanh))
    value, gradient = jax.jit(jax.value_and_grad(moments))(params)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((value, gradient)))


@pytest.mark.slow
def test_strict_promotion_one_trace_and_exact_estimates(strict):
    params, x, y = network(3)
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
    traces = []

    @jax.jit
    def moments(params, x, y):
        traces.append(0)
        return closed_form.three_layer(params, x, y, jnp.tanh)

    eager = closed_form.three_layer(params, x, y, jnp.tanh)
    for _ in range(2):
        jitted = moments(params, x, y)
    assert len(traces) == 1
    np.testing.assert_allclose(jitted, eager, rtol=1e-5)
    assert all(m.sem == 0 and m.mean.dtype == jnp.float32 for m in jitted)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert closed_form.three_layer(low, x, y, jnp.tanh).trace.mean.dtype == jnp.float32


def test_it_serves_as_the_exact_penalty_of_fa():
    params, x, y = network(3)
    penalty = lambda loss, p, batch, key: closed_form.three_layer(p, *batch, jnp.tanh).frobenius_squared
    tx = fa(1.0, every=1, curvature=penalty, normalize=None)
    zeros = jax.tree.map(jnp.zeros_like, params)
    added, state = jax.jit(lambda p: tx.update(zeros, tx.init(p), p, loss=loss_of(jnp.tanh), batch=(x, y)))(params)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: penalty(None, p, (x, y), 0).mean))(params)
    np.testing.assert_allclose(state.monitor, (value, 0), rtol=1e-5)
    np.testing.assert_allclose(ravel_pytree(added)[0], ravel_pytree(gradient)[0], rtol=1e-4, atol=1e-6)


def test_a_large_network_needs_no_hessian():
    params, x, y = network(4, hidden=512, inputs=256, size=16)  # n = 133,636: H has 1.8e10 entries
    moments = jax.jit(lambda p: closed_form.three_layer(p, x, y, jnp.tanh))
    memory = moments.lower(params).compile().memory_analysis().temp_size_in_bytes
    assert memory < 4e6
    assert moments(params).frobenius_squared.mean > 0


def test_bad_input_gets_one_sentence():
    params, x, y = network(3)
    call = lambda activation=jnp.tanh, x=x, y=y, **changed: closed_form.three_layer(
        {**params, **changed}, x, y, activation
    )
    with pytest.raises(
        InputError, match=r'three_layer: params must be a dictionary of "w1", "w2".*got keys \[\'w1\'\]'
    ):
        closed_form.three_layer({"w1": params["w1"]}, x, y, jnp.tanh)
    with pytest.raises(InputError, match="params must be a dictionary"):
        call(b3=jnp.ones(2))
    with pytest.raises(InputError, match=r"params must be w1 of shape \(D, H\) with w2 of shape \(H, K\)"):
        call(w2=jnp.ones((5, 3)))
    with pytest.raises(InputError, match=r"b2 must be of shape \(3,\), got shape \(4,\)"):
        call(b2=jnp.ones(4))
    with pytest.raises(InputError, match=r"x must be of shape \(B, 3\), got shape \(7, 2\)"):
        call(x=x[:, :2])
    with pytest.raises(InputError, match=r"y must be integer labels of shape \(7,\), got shape \(7,\) of float32"):
        call(y=y.astype(jnp.float32))
    with pytest.raises(InputError, match="y must be labels from 0 to 2, got labels from 3 to 3"):
        call(y=jnp.full(7, 3))
    with pytest.raises(InputError, match=r"activation must be elementwise, got a function from shape \(7, 4\) to"):
        call(activation=lambda a: jnp.sum(a, axis=1))

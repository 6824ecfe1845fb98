"""A computation that is taken as one: its values and derivatives, and what JAX leaves of `jax.checkpoint` in it."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from steppe import curvature
from steppe.curvature.estimators.as_one import as_one
from steppe.curvature.estimators.averages import averages


def wave(x, y):
    return {"both": jnp.sin(x) * y, "count": jnp.int32(3)}


def test_taken_as_one_it_has_its_values_derivatives_and_maps():
    x, y = jnp.linspace(0.0, 1.0, 4), jnp.float32(2.0)
    one = lambda x: as_one(wave, x, y)["both"]
    for f in (jax.jvp, lambda f, at, along: jax.vjp(f, *at)[1](*along)):
        np.testing.assert_array_equal(f(one, (x,), (x,))[-1], f(lambda x: wave(x, y)["both"], (x,), (x,))[-1])
    np.testing.assert_array_equal(jax.vmap(one)(x), jnp.sin(x) * y)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(one)))(x), -2 * jnp.sin(x), rtol=1e-6)
    assert as_one(wave, x, y)["count"] == 3


def test_the_gradient_of_a_penalty_computes_again_what_the_loss_asks_to():
    """Otherwise JAX opens every `jax.checkpoint` in it, for nothing is left to be differentiated."""
    layer = jax.checkpoint(lambda w, x: jnp.tanh(jnp.sin(x * w) ** 3))
    loss = lambda params, batch: jnp.mean(layer(params["b"], layer(params["a"], batch["x"])))
    params, batch = {"a": jnp.ones(3), "b": jnp.ones(3)}, {"x": jnp.eye(3)}
    penalty = lambda p: curvature.loss_moments(loss, p, batch, 0).frobenius_squared.mean
    assert len(re.findall(r"(remat2|checkpoint)\[", str(jax.make_jaxpr(jax.grad(penalty))(params)))) >= 2


def test_the_gradient_of_an_average_over_vectors_traces_what_it_does_with_one_of_them_once():
    """A second time would cost a tenth of the whole compilation of a network's penalty."""
    keys, traced = jax.random.split(jax.random.key(0), 3), []
    one = lambda x, key: (traced.append(key), (x @ jax.random.normal(key, x.shape)) ** 2)[1:]
    every = jax.vmap(one, (None, 0))
    gradient = jax.grad(lambda x: averages(every, one, x, keys, (True,))[0][0])(jnp.ones(2))
    assert len(traced) == 1
    np.testing.assert_allclose(gradient, jax.grad(lambda x: jnp.mean(every(x, keys)[0]))(jnp.ones(2)), rtol=1e-6)

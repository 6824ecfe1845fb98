"""Modules as users write them, of Flax NNX and Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from steppe import InputError
from steppe.models.adapters.equinox import from_equinox
from steppe.models.adapters.nnx import from_factory, from_nnx

X, KEY = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), jax.random.key(1)


class Scaled(nnx.Module):
    """A layer, and a bare array that its inputs are multiplied by."""

    def __init__(self, rngs, scale=None):
        self.layer = nnx.Linear(3, 4, rngs=rngs)
        self.scale = jnp.arange(3.0) if scale is None else scale

    def __call__(self, x):
        return self.layer(x * self.scale)


class Counted(nnx.Module):
    """BatchNorm, and a count of calls."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        return self.norm(x)


class Pair(nnx.Module):
    """A layer of two inputs."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x, y, *, train):
        return self.layer(x + y)


class Context(eqx.Module):
    """BatchNorm whose state is called otherwise."""

    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.norm = eqx.nn.BatchNorm(3, axis_name="b", mode="batch")

    def __call__(self, x, ctx):
        return self.norm(x, ctx)


def test_a_function_of_rngs_may_make_bare_arrays():
    network = from_factory(Scaled)
    variables = jax.jit(network.init)(KEY)
    np.testing.assert_allclose(network.apply(variables, X)[0], Scaled(nnx.Rngs(KEY))(X), rtol=1e-6)


def test_a_later_change_in_place_is_not_seen():
    module = Scaled(nnx.Rngs(0), np.ones(3, np.float32))
    trained = from_nnx(module)
    before = trained.apply(trained.params, X)
    module.scale[:] = 7
    np.testing.assert_array_equal(before, trained.apply(trained.params, X))


def test_statistics_are_known_only_where_all_state_is_batchnorms():
    assert from_nnx(Counted(nnx.Rngs(0))).network.statistics is None
    assert from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0))).network.statistics is None
    assert from_nnx(nnx.BatchNorm(3, rngs=nnx.Rngs(0))).network.statistics is not None


def test_a_call_that_needs_another_input_is_refused():
    with pytest.raises(InputError, match=r"got a Pair, whose __call__ also needs y\. Wrap it"):
        from_nnx(Pair(nnx.Rngs(0)))


def test_the_state_of_equinox_is_given_whatever_its_argument_is_called():
    trained = from_equinox(*eqx.nn.make_with_state(Context)())
    outputs, state = trained.network.apply(trained.variables, X, train=True)
    np.testing.assert_allclose(np.asarray(outputs).mean(axis=0), 0, atol=1e-5)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (state, trained.state)), strict=True))

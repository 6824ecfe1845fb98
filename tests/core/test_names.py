"""What arrays and layers are called, whatever framework holds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import curvature
from steppe.core import names

FLAT = {"fc1.weight": 0.0, "fc1.bias": 1.0, "head.0.weight": 2.0, "head.0.bias": 3.0, "scale": 4.0}
CONTAINERS = {
    "dictionaries": ({"in": {"w": 0.0, "b": 1.0}, "out": {"w": 2.0}}, ["in", "in", "out"]),
    "a list of tuples": ([(0.0, 1.0), (2.0, 3.0)], ["0", "0", "1", "1"]),
    "numbers as keys": ({"layers": {0: {"w": 0.0}, 1: {"w": 1.0}}}, ["layers/0", "layers/1"]),
    "a tuple": ((0.0, 1.0), ["0", "1"]),
    "one array": (0.0, ["params"]),
    "an array at the root": ({"in": {"w": 0.0}, "scale": 1.0}, ["in", "scale"]),
    "PyTorch's names": (FLAT, ["fc1", "fc1", "head.0", "head.0", "scale"]),
    "Steppe's own files": ({"layers/0/bias": 0.0, "layers/0/kernel": 1.0}, ["layers/0", "layers/0"]),
    "flat names within a dictionary": ({"params": {"a.w": 0.0, "a.b": 1.0}}, ["params/a", "params/a"]),
    "names that read alike": ({"a": {"b": {"w": 0.0}}, "a/b": {"w": 1.0}}, ["['a']['b']", "['a/b']"]),
    "nothing": ({}, []),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_arrays_side_by_side_are_one_layer(container):
    tree, layers = CONTAINERS[container]
    assert names.layers(tree) == layers
    assert len(set(names.names(tree))) == len(jax.tree.leaves(tree))


def linears():
    """A network of two linear layers in three frameworks: parameters, and outputs for a batch of inputs."""
    nnx, eqx = pytest.importorskip("flax.nnx"), pytest.importorskip("equinox")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])

        def __call__(self, x):
            return self.layers[1](jnp.tanh(self.layers[0](x)))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    model = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_array)
    pure = nnx.to_pure_dict(state)
    return {
        "NNX state": (state, lambda p, x: nnx.merge(graph, p)(x)),
        "NNX dictionary": (pure, lambda p, x: nnx.merge(graph, nnx.restore_int_paths(p))(x)),
        "Equinox": (arrays, lambda p, x: jax.vmap(eqx.combine(p, static))(x)),
    }


def test_a_layer_has_one_name_whatever_framework_holds_it():
    last = {"NNX state": "kernel", "NNX dictionary": "kernel", "Equinox": "weight"}
    batch = {"x": jnp.ones((5, 3)), "y": jnp.zeros(5, int)}
    for framework, (params, apply) in linears().items():
        found = [layer.name for layer in curvature.find_layers(lambda p, b: jnp.sum(apply(p, b["x"])), params, batch)]  # noqa: B023
        assert found == [f"layers/{i}/{last[framework]}" for i in range(2)]
        assert set(found) <= set(names.names(params))


@pytest.mark.parametrize("framework", ["NNX state", "NNX dictionary", "Equinox"])
def test_a_kernel_and_its_bias_are_one_block_of_the_hessian(framework):
    params, apply = linears()[framework]
    batch = {"x": jax.random.normal(jax.random.key(1), (6, 3)), "y": jnp.array([0, 1, 1, 0, 1, 0])}
    blocks = curvature.per_layer(curvature.ggn, apply, params, batch)
    assert {name: block.size for name, block in blocks.items()} == {"layers/0": 16, "layers/1": 10}
    whole = curvature.ggn(apply, params, batch).dense()
    np.testing.assert_allclose(blocks["layers/1"].dense(), whole[16:, 16:], atol=1e-6)
    np.testing.assert_allclose(blocks["layers/0"].dense(), whole[:16, :16], atol=1e-6)


def test_a_variable_of_several_arrays_keeps_their_names():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            self.pair = nnx.Param({"a": jnp.ones(2), "b": jnp.ones(3)})
            self.value = nnx.Param(jnp.ones(1))

    state = nnx.state(Net())
    assert names.names(state) == ["pair/a", "pair/b", "value"]
    assert names.layers(state) == ["pair", "pair", "value"]


def test_an_attribute_called_value_is_no_variable_of_flax():
    eqx = pytest.importorskip("equinox")

    class Cell(eqx.Module):
        value: jax.Array
        key: jax.Array

    assert names.names([Cell(jnp.ones(1), jnp.ones(2))]) == ["0/value", "0/key"]
    assert names.layers([Cell(jnp.ones(1), jnp.ones(2))]) == ["0", "0"]

"""Where the outputs of a weight are, and directions that are normalised filter by filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, landscape
from steppe.landscape.filters import filter_axes

W, K, V = np.ones((2, 3)), np.ones((3, 3, 1, 4)), np.ones(2)
KNOWN = {
    "Flax": ({"a": {"kernel": W, "bias": np.ones(3)}, "b": {"kernel": K}}, [(), (1,), (3,)]),
    "Flax, whatever its bias": ({"kernel": W, "bias": np.ones(2)}, [(), (1,)]),
    "Flax's attention": (
        {"query": {"kernel": np.ones((4, 2, 3))}, "out": {"kernel": np.ones((2, 3, 4))}},
        [(2,), (1, 2)],
    ),
    "Flax's outputs of several axes": ({"a": {"kernel": np.ones((2, 3, 4, 5)), "bias": np.ones((4, 5))}}, [(), (2, 3)]),
    "Flax's embedding": ({"embedding": W}, [(1,)]),
    "PyTorch": ({"fc.weight": W, "fc.bias": V, "c.weight": np.ones((4, 1, 3, 3))}, [(0,), (), (0,)]),
    "Hugging Face's Conv1D, a square one too": (
        {
            "attn.c_proj.weight": np.ones((3, 3)),
            "attn.c_proj.bias": np.ones(3),
            "fc.weight": np.ones((3, 3)),
            "fc.bias": np.ones(3),
            "mlp.c_proj.weight": W,
            "mlp.c_proj.bias": np.ones(3),
        },
        [(), (1,), (), (0,), (), (1,)],
    ),
    "PyTorch's transposed convolution": ({"up.weight": np.ones((2, 3, 5)), "up.bias": np.ones(3)}, [(), (1,)]),
    "PyTorch's cells": ({"rnn.weight_ih_l0": W, "rnn.bias_ih_l0": V, "a.in_proj_weight": W}, [(0,), (), (0,)]),
    "PyTorch's embeddings": ({"wte.weight": W, "token_embedding.weight": W, "head.weight": W}, [(0,), (1,), (1,)]),
    "a bias that tells": ({"fc": {"weight": W, "bias": V}}, [(), (0,)]),
    "another bias that tells": ({"fc": {"weight": W, "bias": np.ones(3)}}, [(), (1,)]),
    "biases of several axes": ({"w": K, "bias": np.ones((4, 1, 1))}, [(), (3,)]),
    "pairs": ([(W, np.ones(3)), (W.T, V)], [(1,), (), (1,), ()]),
    "numbers": ({"w1": W, "b1": np.ones(3), "w2": np.ones((3, 5)), "b2": np.ones(5)}, [(), (), (1,), (1,)]),
    "other arrays": ({"scale": V, "w": W}, [(), (1,)]),
    "one array": (W, [(1,)]),
}


@pytest.mark.parametrize("case", KNOWN)
def test_the_outputs_of_an_array_are_known_by_its_name(case):
    tree, axes = KNOWN[case]
    assert filter_axes("test", tree) == axes


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"fc": {"weight": W}}, "'fc/weight' of shape (2, 3)"),
        ({"weight": np.ones((3, 3)), "bias": np.ones(3)}, "'weight' of shape (3, 3), beside a bias of 3"),
        ({"w": W, "b": V}, "'w' of shape (2, 3), beside a bias of 2"),
        ([(W, V), (np.ones((5, 2)), np.ones(5))], "'0/0' of shape (2, 3), beside a bias of 2"),
        ({"w1": W, "b1": V, "w2": W}, "'w1' of shape (2, 3), beside a bias of 2"),
    ],
)
def test_an_array_whose_outputs_nothing_tells_is_asked_about(tree, where):
    for call in (landscape.filter_normalised, landscape.across):
        with pytest.raises(InputError, match=r"filter_axis must be given, got None, for ") as caught:
            call(0, jax.tree.map(jnp.asarray, tree))
        assert where in str(caught.value) and "Say filter_axis=0 for weights stored (out, in)" in str(caught.value)
        call(0, jax.tree.map(jnp.asarray, tree), filter_axis=0)


def test_axes_can_be_named_for_all_arrays_or_some():
    tree = {"a": {"weight": W, "bias": V}, "b": K, "c": (W, V)}
    for axis, found in [
        (0, [(), (0,), (0,), (0,), ()]),
        (-1, [(), (1,), (3,), (1,), ()]),
        ({"a": 1, "b": None, "c": (0, None)}, [(), (1,), (3,), (0,), ()]),
        (lambda tree: {"a": 1, "b": 2, "c": 0}, [(), (1,), (2,), (0,), ()]),
    ]:
        assert filter_axes("test", tree, axis) == found
    for axis, message in [
        (2, r"an axis of 'a/weight', which has shape \(2, 3\), got 2"),
        (True, "got True"),
        ("in", "got 'in'"),
        ({"a": 0}, "filter_axis must be a prefix of the parameters' pytree"),
    ]:
        with pytest.raises(InputError, match=message):
            filter_axes("test", tree, axis)


def test_a_normalisation_of_equinox_has_no_filters():
    eqx = pytest.importorskip("equinox")
    net = {"norm": eqx.nn.LayerNorm((2, 3)), "out": eqx.nn.Linear(3, 2, key=jax.random.key(0))}
    assert filter_axes("test", eqx.filter(net, eqx.is_array)) == [(), (), (0,), ()]


def networks():
    """The same network in Flax NNX, Equinox and PyTorch's names: parameters, and where each kernel is."""
    nnx, eqx = pytest.importorskip("flax.nnx"), pytest.importorskip("equinox")
    key = jax.random.key(0)
    kernel, image = jax.random.normal(key, (3, 5)), jax.random.normal(key, (3, 3, 2, 5))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.conv = nnx.Linear(3, 5, rngs=rngs), nnx.Conv(2, 5, (3, 3), rngs=rngs)

    flax = Net(nnx.Rngs(0))
    flax.dense.kernel[...], flax.conv.kernel[...] = kernel, image
    turned = jnp.transpose(image, (3, 2, 0, 1))
    layers = {"dense": eqx.nn.Linear(3, 5, key=key), "conv": eqx.nn.Conv2d(2, 5, 3, key=key)}
    where = lambda t: (t["dense"].weight, t["conv"].weight)
    torch = {"dense.weight": kernel.T, "dense.bias": jnp.ones(5), "conv.weight": turned, "conv.bias": jnp.ones(5)}
    return {
        "Flax": (
            nnx.state(flax),
            lambda t: (t["dense"]["kernel"][...].T, jnp.transpose(t["conv"]["kernel"][...], (3, 2, 0, 1))),
        ),
        "Equinox": (eqx.filter(eqx.tree_at(where, layers, (kernel.T, turned)), eqx.is_array), where),
        "PyTorch": (torch, lambda t: (t["dense.weight"], t["conv.weight"])),
    }


@pytest.mark.parametrize("framework", ["Flax", "Equinox", "PyTorch"])
def test_a_direction_has_the_norm_of_each_filter_whatever_framework_holds_it(framework):
    params, weights = networks()[framework]
    direction = landscape.filter_normalised(0, params)
    moved = 0
    for w, d in zip(weights(params), weights(direction), strict=True):
        axes = tuple(range(1, w.ndim))
        np.testing.assert_allclose(jnp.sum(d**2, axes), jnp.sum(w**2, axes), rtol=1e-5)
        moved += w.size
    assert sum(int(jnp.sum(leaf != 0)) for leaf in jax.tree.leaves(direction)) == moved  # biases stay, (5, 1, 1) too

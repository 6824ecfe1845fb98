"""Which arrays are statistics of normalisation, and what `measure` does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe import InputError, measures
from steppe.core import trees
from steppe.core.partition import partition, statistics
from support.properties import cheap

ONES, MINUS = np.ones(2), -np.ones(2)
TORCH = {"bn.weight": ONES, "bn.running_mean": ONES, "bn.running_var": ONES}
KERAS = {"bn": {"moving_mean": ONES, "moving_variance": ONES, "gamma": ONES}}
FOUND = {
    "PyTorch": (TORCH, ["bn.running_mean", "bn.running_var"]),
    "PyTorch's count as a float": ({"bn.num_batches_tracked": ONES, "bn.bias": ONES}, ["bn.num_batches_tracked"]),
    "Keras": (KERAS, ["moving_mean", "moving_variance"]),
    "camels": ({"runningMean": ONES, "weight": ONES}, ["runningMean"]),
    "Flax Linen": ({"batch_stats": {"bn": {"mean": MINUS}}, "params": {"w": ONES}}, ["mean"]),
    "Flax NNX as a dictionary": ({"bn": {"mean": MINUS, "var": ONES, "scale": ONES}}, ["mean", "var"]),
    "one file": ({"bn/mean": ONES, "bn/var": ONES, "bn/bias": ONES}, ["bn/mean", "bn/var"]),
    "Haiku": ({"bn/~/mean_ema": {"average": ONES, "hidden": ONES}, "bn": {"scale": ONES}}, ["average", "hidden"]),
    "prefixes": ({"norm1_mean": ONES, "norm1_var": ONES, "norm2_var": ONES, "w": ONES}, ["norm1_mean", "norm1_var"]),
    "a mean alone": ({"mean": ONES, "w": ONES}, []),
    "a layer called mean": ({"mean": {"w": ONES}, "var": {"w": ONES}}, []),
    "a negative variance": ({"mean": ONES, "var": MINUS}, []),
    "another shape": ({"mean": np.ones(3), "var": ONES}, []),
    "log_var": ({"mean": ONES, "log_var": ONES}, []),
    "one array": (ONES, []),
    "nothing": ({}, []),
}


@pytest.mark.parametrize("case", FOUND)
def test_statistics_are_told_by_their_names_and_values(case):
    tree, names = FOUND[case]
    flags = statistics(tree)
    paths = [path[-1].key for path, _ in jax.tree.leaves_with_path(tree) if path]
    assert [name for name, flag in zip(paths, flags, strict=False) if flag] == names
    assert len(flags) == len(jax.tree.leaves(tree))


def test_flax_says_itself_what_is_no_parameter():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.var = nnx.BatchNorm(2, rngs=rngs), nnx.Param(jnp.ones(2))
            self.mean, self.seen = nnx.Param(-jnp.ones(2)), nnx.BatchStat(jnp.ones(2))

    params, fixed, mask, remark = partition(nnx.state(Net(nnx.Rngs(0))), ask="Asking")
    assert len(jax.tree.leaves(params)) == 4 and len(jax.tree.leaves(fixed)) == 3
    assert jax.tree.leaves(mask) == [True, True, False, True, False, False, True]
    assert "norm/mean, norm/var, seen; Asking perturbs them, too." in remark


@pytest.mark.slow
def test_measure_keeps_statistics_and_whole_numbers_fixed_and_says_so():
    key = jax.random.key(0)
    params = {"w": jax.random.normal(key, (3, 2)), "norm": {"mean": jnp.ones(3), "var": 2 * jnp.ones(3)}, "steps": 3}
    params["steps"] = jnp.asarray(3)
    batch = {"x": jax.random.normal(key, (5, 3)), "y": jnp.array([0, 1, 0, 1, 1])}
    apply = lambda p, x: ((x - p["norm"]["mean"]) / jnp.sqrt(p["norm"]["var"])) @ p["w"] * p["steps"]
    names = ["fisher_rao", "distance_from_initialisation"]
    begin = jax.tree.map(lambda leaf: 2 * leaf, params)
    rows = measures.measure(names, apply=apply, params=params, batches=batch, initial=begin)
    alone = lambda p, x: apply({**params, **p}, x)
    expected = measures.measure(names, apply=alone, params={"w": params["w"]}, batches=batch, initial={"w": begin["w"]})
    np.testing.assert_allclose([r.value for r in rows], [r.value for r in expected], rtol=1e-6)
    assert {row.note for row in expected} == {""}
    said = "3 of 4 arrays stay fixed and go to the loss: norm/mean, norm/var, steps. Taken for statistics of "
    said += "normalisation: norm/mean, norm/var; perturb_statistics=True perturbs them, too."
    assert rows[0].note == rows[1].note == said
    options = {"apply": apply, "params": params, "batches": batch, "perturb_statistics": True}
    (moved,) = measures.measure(["fisher_rao"], **options)
    assert moved.value != rows[1].value and "Perturbed as parameters, as asked: norm/mean, norm/var" in moved.note
    with pytest.raises(InputError, match="perturb_statistics must be one of True, False"):
        measures.measure(["loss"], **options | {"perturb_statistics": 1})


def test_arrays_that_are_all_fixed_leave_nothing_to_measure():
    with pytest.raises(
        InputError,
        match="measure: params must be a pytree of arrays with parameters among them, got 1 of",
    ):
        measures.measure(["loss"], loss=lambda p, b: jnp.mean(b), params={"running_mean": ONES}, batches=jnp.ones(3))


LEAVES = st.sampled_from([
    np.ones((2, 3)), np.float32(0.5), np.arange(3), np.array([True, False]), np.zeros((0, 2)), jnp.zeros(3),
    jnp.ones(2, jnp.bfloat16),
])  # fmt: skip
NAMES = st.sampled_from(["w", "bias", "mean", "var", "running_mean", "batch_stats", "0"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@cheap
@given(TREES, st.data(), st.booleans())
def test_the_two_parts_of_any_network_are_the_whole_again_and_share_no_array(tree, data, statistics_too):
    excluded = data.draw(st.lists(st.booleans(), min_size=(n := len(jax.tree.leaves(tree))), max_size=n))
    parts = partition(tree, perturb_statistics=statistics_too, excluded=excluded, ask="--perturb-statistics")
    whole = trees.merge(parts.params, parts.fixed)
    assert jax.tree.structure(whole) == jax.tree.structure(tree)
    leaves, chosen = jax.tree.leaves(tree), jax.tree.leaves(parts.mask)
    assert all(one is other for one, other in zip(jax.tree.leaves(whole), leaves, strict=True))
    assert len(jax.tree.leaves(parts.params)) == sum(chosen) == n - len(jax.tree.leaves(parts.fixed))
    real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    assert not any(c and (e or not r) for c, e, r in zip(chosen, excluded, real, strict=True))
    assert bool(parts.remark) == (not all(chosen) or (statistics_too and any(statistics(tree))))

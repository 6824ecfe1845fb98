import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from steppe.core import names, trees
from support.properties import cheap

SHAPES = [(), (2,), (1, 3), (0,)]
ARRAYS = st.builds(
    lambda shape, seed: np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32),
    st.sampled_from(SHAPES),
    st.integers(0, 99),
)
KEYS = st.one_of(st.text("ab/.", max_size=3), st.sampled_from(["params", "['a/b']", "0"]))
TREES = st.recursive(
    st.one_of(ARRAYS, st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=6,
)


def flat(tree):
    return np.concatenate([np.zeros(0), *(np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(tree))])


@cheap
@given(TREES, st.data())
def test_the_two_parts_of_a_tree_make_the_whole_again(tree, data):
    leaves, structure = jax.tree.flatten(tree)
    flags = data.draw(st.lists(st.booleans(), min_size=len(leaves), max_size=len(leaves)))
    if not any(flags):
        return
    chosen, others = trees.partition(tree, jax.tree.unflatten(structure, flags))
    whole = trees.merge(chosen, others)
    assert jax.tree.structure(whole) == structure
    assert all(a is b for a, b in zip(jax.tree.leaves(whole), leaves, strict=True))
    assert len(jax.tree.leaves(chosen)) == sum(flags)


@settings(cheap, max_examples=15)  # each structure compiles
@given(TREES)
def test_inner_products_and_norms_are_those_of_all_entries_in_a_row(tree):
    entries = flat(tree)
    assert trees.size(tree) == entries.size
    np.testing.assert_allclose(trees.dot(tree, tree), entries @ entries, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trees.norm_squared(tree), entries @ entries, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trees.norm(tree), np.linalg.norm(entries), rtol=1e-5, atol=1e-6)


def test_the_norm_of_what_has_no_entries_is_zero():
    for empty in ({}, [], None, (np.zeros(0, np.float32), None)):
        assert float(trees.norm(empty)) == 0.0


def test_the_norm_outlives_squares_that_are_too_small_or_too_large():
    for scale in (1e-30, 1e30):
        tree = (jnp.full(2, 3 * scale, jnp.float32), {"b": jnp.full((), 4 * scale, jnp.float32)})
        np.testing.assert_allclose(trees.norm(tree), np.sqrt(34) * scale, rtol=1e-5)


@cheap
@given(TREES)
def test_no_two_arrays_of_a_tree_have_the_same_name(tree):
    called = names.names(tree)
    assert len(called) == len(jax.tree.leaves(tree))
    assert len(set(called)) == len(called)
    assert all(called)


def test_a_name_is_its_own_where_a_key_looks_like_the_index_of_another():
    called = names.names({"a/b": 1.0, "a": {"b": 2.0}, "['a/b']": 3.0})
    assert len(set(called)) == 3

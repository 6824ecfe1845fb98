"""Parameters chosen by globs of names, in methods, curvature and studies; and what is said of a pattern for none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, methods, study
from steppe.core import losses, names, trees
from steppe.study.training.recipe import Recipe
from support.networks import dense_hessian

PARAMS = {
    "blocks": {
        "0": {"attn": {"q": jnp.ones((3, 2)), "k": jnp.full((3, 2), 0.5)}, "mlp": {"kernel": jnp.full((2, 2), 0.3)}},
        "1": {"attn": {"q": jnp.full((3, 2), -0.2), "k": jnp.full((3, 2), 0.1)}},
    },
    "head": {"kernel": jnp.full((2, 2), 0.7), "bias": jnp.zeros(2)},
}
BATCH = {"x": jax.random.normal(jax.random.key(0), (6, 3)), "y": jnp.array([0, 1, 0, 1, 1, 0])}


def apply(p, x):
    b, total = p["blocks"], 0.0
    for block in ("0", "1"):
        total += jnp.tanh(x @ b[block]["attn"]["q"]) * (x @ b[block]["attn"]["k"])
    return jnp.tanh(total @ b["0"]["mlp"]["kernel"]) @ p["head"]["kernel"] + p["head"]["bias"]


loss = losses.of(apply)


def chosen(where):
    return [
        n for n, flag in zip(names.names(PARAMS), jax.tree.leaves(trees.mask_of(PARAMS, where)), strict=True) if flag
    ]


def test_globs_choose_by_name_with_dots_or_slashes_and_modules_whole():
    attn = [f"blocks/{i}/attn/{w}" for i in "01" for w in "kq"]
    for where in ("blocks.*.attn.*", "blocks/*/attn/*", "blocks.?.attn", "*attn*", ["blocks.0.attn", "blocks.1"],
                  ("blocks.1.attn.", "blocks/0/attn/[kq]"), lambda p: "*.attn"):  # fmt: skip
        assert chosen(where) == attn
    assert chosen("head") == ["head/bias", "head/kernel"] and chosen("*.kernel") == [
        "blocks/0/mlp/kernel",
        "head/kernel",
    ]
    assert len(chosen("*")) == 7


def test_names_of_pytorch_and_of_flax_are_those_that_users_see():
    torch = {"blocks.0.attn.qkv.weight": 1.0, "blocks.0.mlp.weight": 2.0}
    assert trees.mask_of(torch, "blocks.*.attn.*") == {"blocks.0.attn.qkv.weight": True, "blocks.0.mlp.weight": False}
    state = nnx.state(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.Param)
    assert jax.tree.leaves(trees.mask_of(state, "kernel")) == [False, True]


def test_an_array_alone_is_called_params():
    assert trees.mask_of(jnp.ones(2), "params") is True


@pytest.mark.parametrize("pattern", ["blocks.*.attention.*", "hed", "Head", "zzz", ""])
def test_a_pattern_that_matches_nothing_is_refused_with_names_that_are_near(pattern):
    with pytest.raises(InputError, match=r"where: pattern must be a glob.*(Near|There) are: \w+"):
        curvature.hessian(loss, PARAMS, BATCH, where=pattern)
    with pytest.raises(InputError, match="where: pattern"):
        methods.sam(0.1, where=["head", pattern]).init(PARAMS)


def test_near_names_are_listed():
    with pytest.raises(InputError, match="Near are: head/kernel"):
        names.match(names.names(PARAMS), "head.kernal")
    with pytest.raises(InputError, match="none"):
        names.match(names.names(PARAMS), [])


def rows(where):
    mask = trees.mask_of(PARAMS, where)
    return np.asarray(ravel_pytree(jax.tree.map(lambda flag, leaf: jnp.full(leaf.shape, flag), mask, PARAMS))[0])


@pytest.mark.slow
def test_curvature_is_that_of_the_dense_block(x64):
    params, batch = jax.tree.map(lambda p: p.astype(float), (PARAMS, BATCH))
    batch["y"] = BATCH["y"]
    some = np.flatnonzero(rows("blocks.*.attn.*"))
    block = dense_hessian(loss, params, batch)[np.ix_(some, some)]
    H = curvature.hessian(loss, params, batch, where="blocks.*.attn.*")
    np.testing.assert_allclose(H.dense(), block, atol=1e-12)
    np.testing.assert_allclose(curvature.top_eigenpairs(H, 0, 2).values, np.linalg.eigvalsh(block)[:-3:-1], atol=1e-9)
    found = curvature.moments(H, 0, probes=64)
    assert abs(found.trace.mean - np.trace(block)) <= 5 * found.trace.sem
    G = curvature.ggn(apply, params, batch, where=["blocks.*.attn"])
    whole = curvature.ggn(apply, params, batch).dense()
    np.testing.assert_allclose(G.dense(), whole[np.ix_(some, some)], atol=1e-12)


def quartic(p, batch):
    return sum(jnp.sum((leaf + 1) ** 4) for leaf in jax.tree.leaves(p)) + 0 * jnp.mean(batch)


@pytest.mark.parametrize("make", [methods.sam, lambda rho, **more: methods.seht(rho, every=1, probes=1, **more)])
def test_methods_do_with_a_glob_what_they_do_with_its_mask(make):
    params, batch = {"attn": {"q": jnp.ones(2)}, "head": jnp.ones(3)}, jnp.ones(2)
    grads = jax.grad(quartic)(params, batch)

    def updated(**where):
        tx = make(0.1, **where)
        return ravel_pytree(tx.update(grads, tx.init(params), params, loss=quartic, batch=batch)[0])[0]

    np.testing.assert_array_equal(updated(where="attn"), updated(where={"attn": True, "head": False}))
    assert not np.array_equal(updated(where="attn"), updated())


STUDY = """
name = "tiny"
data = {name = "breast-cancer"}
model = {name = "mlp", hidden = [3]}
method = {name = "sam", rho = 0.1, where = ["layers.0", "*.bias"]}
[train]
learning_rate = 0.1
batch_size = 64
epochs = 1
"""


def test_a_study_takes_globs_and_refuses_what_matches_nothing_before_it_trains():
    spec = study.spec.parse(STUDY)
    assert spec.method["where"] == ["layers.0", "*.bias"]
    Recipe.of(spec, spec.load_data()).rehearse({})
    wrong = study.spec.parse(STUDY.replace("layers.0", "layer.0"))
    with pytest.raises(InputError, match=r"where: pattern must be a glob.*Near are: layers/0/"):
        Recipe.of(wrong, wrong.load_data()).rehearse({})
    assert "where" not in study.spec.parse(STUDY.replace(', where = ["layers.0", "*.bias"]', "")).method

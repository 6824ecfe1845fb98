"""Operators over data against dense float64 matrices, on every kind of network and criterion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, in_batches
from steppe.core import losses
from support.networks import dense_hessian, mlp_apply, mlp_batch, mlp_loss, mlp_params
from support.small_networks import EVERY, NETWORKS


def dense_output_form(apply, params, batch, inner):
    """1/N Σ Jᵢᵀ inner(outputs, y)ᵢ Jᵢ, example by example."""
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def parts(flat):
        outputs = lambda p: apply(unravel(p), batch["x"])
        return jax.jacobian(outputs)(flat), jax.vmap(inner)(outputs(flat), batch["y"])

    J, inside = map(np.asarray, parts(flat))
    return sum(a.T @ b @ a for a, b in zip(J, inside, strict=True)) / len(J)


def one(criterion):
    return lambda f, y: criterion(f[None], y[None])


def close(actual, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", EVERY)
def test_hessian_equals_the_dense_one_whole_and_in_chunks(x64, name):
    apply, params, batch, criterion = NETWORKS[name]()
    loss = losses.of(apply, criterion)
    expected = dense_hessian(loss, params, batch)
    for chunk in (7, 3):
        close(curvature.hessian(loss, params, in_batches(batch, chunk)).dense(), expected)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", EVERY)
def test_ggn_equals_the_dense_one_whole_and_in_chunks(x64, name):
    apply, params, batch, criterion = NETWORKS[name]()
    expected = dense_output_form(apply, params, batch, jax.hessian(one(criterion)))
    for chunk in (7, 3):
        close(curvature.ggn(apply, params, in_batches(batch, chunk), criterion=criterion).dense(), expected)


@pytest.mark.parametrize("name", EVERY)
def test_empirical_fisher_is_the_second_moment_of_gradients(x64, name):
    apply, params, batch, criterion = NETWORKS[name]()
    flat, unravel = ravel_pytree(params)
    loss = losses.of(apply, criterion)
    gradient = jax.jit(jax.grad(lambda p, b: loss(unravel(p), b)))
    gradients = [np.asarray(gradient(flat, b)) for b in in_batches(batch, 1)]
    expected = sum(np.outer(g, g) for g in gradients) / len(gradients)
    close(curvature.fisher(apply, params, in_batches(batch, 3), criterion=criterion).dense(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "regression", "binary"])
def test_drawn_fisher_has_the_ggn_as_its_mean(x64, name):
    apply, params, batch, criterion = NETWORKS[name]()
    exact = curvature.ggn(apply, params, batch, criterion=criterion).dense()
    draw = lambda key: curvature.fisher(apply, params, batch, criterion=criterion, samples=50, key=key).dense()
    draws = np.stack([draw(key) for key in range(40)])
    sem = draws.std(axis=0, ddof=1) / len(draws) ** 0.5
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * sem + 1e-12).all()
    assert np.linalg.norm(draws.mean(axis=0) - exact) < 0.1 * np.linalg.norm(exact)
    assert np.linalg.norm(draws[0] - draws[1]) > 0.01 * np.linalg.norm(exact)


def test_drawn_fisher_does_not_depend_on_the_chunks(x64):
    apply, params, batch, _ = NETWORKS["mlp"]()
    whole, parts = (curvature.fisher(apply, params, b, samples=3, key=5) for b in (batch, in_batches(batch, 2)))
    close(parts.dense(), whole.dense())


def test_ggn_of_a_linear_network_is_its_hessian(x64):
    apply, params, batch = lambda w, x: x @ w, jnp.ones((3, 2)), mlp_batch()
    close(curvature.ggn(apply, params, batch).dense(), curvature.hessian(losses.of(apply), params, batch).dense())


@pytest.mark.first_is_fast
@pytest.mark.parametrize("make", ["hessian", "ggn", "fisher"])
def test_operators_are_symmetric_and_linear(x64, make):
    apply, params, batch, criterion = NETWORKS["transformer"]()
    A = {
        "hessian": lambda: curvature.hessian(losses.of(apply, criterion), params, batch),
        "ggn": lambda: curvature.ggn(apply, params, batch),
        "fisher": lambda: curvature.fisher(apply, params, batch, samples=2),
    }[make]()
    u, v = (curvature.estimators.probes.gaussian(jax.random.key(i), params) for i in range(2))
    dot = lambda a, b: float(ravel_pytree(a)[0] @ ravel_pytree(b)[0])
    np.testing.assert_allclose(dot(u, A.matvec(v)), dot(A.matvec(u), v), rtol=1e-12)
    both = A.matvec(jax.tree.map(lambda a, b: 2 * a + b, u, v))
    expected = jax.tree.map(lambda a, b: 2 * a + b, A.matvec(u), A.matvec(v))
    close(ravel_pytree(both)[0], ravel_pytree(expected)[0])


@pytest.mark.parametrize("make", [curvature.ggn, curvature.fisher])
def test_where_gives_the_block_of_the_chosen_parameters(x64, make):
    apply, params, batch, _ = NETWORKS["mlp"]()
    mask = [{"w": True, "b": False}, {"w": False, "b": True}]
    block = make(apply, params, batch, where=mask)
    chosen = np.concatenate(
        [np.full(leaf.size, flag) for leaf, flag in zip(jax.tree.leaves(params), jax.tree.leaves(mask), strict=True)]
    )
    close(block.dense(), make(apply, params, batch).dense()[np.ix_(chosen, chosen)])
    assert block.like[0]["b"] is None and block.size == chosen.sum()
    moments = curvature.moments(block, 0, probes=3)
    assert moments.trace.mean > 0


def test_layers_are_the_diagonal_blocks(x64):
    params, batch = mlp_params(), mlp_batch()
    blocks = curvature.per_layer(curvature.hessian, mlp_loss, params, in_batches(batch, 4))
    assert list(blocks) == ["0", "1"]
    whole, start = curvature.hessian(mlp_loss, params, batch).dense(), 0
    for block in blocks.values():
        close(block.dense(), whole[start : start + block.size, start : start + block.size])
        start += block.size
    assert start == len(whole)
    with pytest.raises(InputError, match="where must be left out"):
        curvature.per_layer(curvature.hessian, mlp_loss, params, batch, where=[True, False])


def test_one_compilation_serves_all_parameters_and_vectors():
    traces = []

    def loss(params, batch):
        traces.append(1)
        return mlp_loss(params, batch)

    batch = mlp_batch()
    products = [curvature.hessian(loss, mlp_params(key), batch) for key in range(3)]
    products[0].matvec(mlp_params(7))
    before = len(traces)
    for H in products:
        H.matvec(mlp_params(8))
        H.matvec(mlp_params(9))
    assert len(traces) == before
    curvature.trace(products[0], 0, probes=4)
    before = len(traces)
    curvature.trace(products[1], 1, probes=4)
    assert len(traces) == before


@pytest.mark.optimised
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_batches():
    apply, params = mlp_apply, mlp_params(sizes=(64, 256, 10))
    few, many = (
        curvature.hessian(losses.of(apply), params, in_batches(mlp_batch(size=64 * count, inputs=64, classes=10), 64))
        for count in (2, 20)
    )
    memory = [
        jax.jit(lambda H, v: H.matvec(v)).lower(H, params).compile().memory_analysis().temp_size_in_bytes
        for H in (few, many)
    ]
    assert memory[1] < 1.1 * memory[0]


@pytest.mark.slow
def test_products_work_under_jit_vmap_and_strict_promotion(strict):
    params, batch = mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32)
    H = curvature.hessian(mlp_loss, params, in_batches(batch, 4))
    eager = H.matvec(params)
    close_ = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)
    close_(jax.jit(H.matvec)(params), eager)
    close_(jax.jit(lambda p: curvature.hessian(mlp_loss, p, in_batches(batch, 4)).matvec(p))(params), eager)
    stack = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    close_(jax.tree.map(lambda x: x[1] / 2, jax.vmap(H.matvec)(stack)), eager)


@pytest.mark.slow
def test_products_keep_the_dtype_of_the_parameters():
    params, batch = mlp_params(dtype=jnp.bfloat16), mlp_batch(dtype=jnp.bfloat16)
    product = curvature.hessian(mlp_loss, params, in_batches(batch, 4)).matvec(params)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(product))


def test_a_loss_that_changes_from_call_to_call_is_refused():
    params, batch = mlp_params(), mlp_batch()
    noise = np.random.default_rng(0)
    count = iter(range(1000))

    def dropout(params, batch):
        return mlp_loss(params, batch | {"x": batch["x"] * noise.integers(0, 2, batch["x"].shape)})

    def counted(params, batch):
        mask = jax.random.bernoulli(jax.random.key(next(count)), 0.5, batch["x"].shape)
        return mlp_loss(params, batch | {"x": batch["x"] * mask})

    for loss in (dropout, counted):
        with pytest.raises(InputError, match=r"hessian: loss must be the same twice .* Turn dropout"):
            curvature.hessian(loss, params, batch)
    fixed = lambda params, batch: mlp_loss(params, batch | {"x": jax.nn.relu(batch["x"])})
    curvature.hessian(fixed, params, batch)


def test_bad_input_gets_one_sentence():
    params, batch = mlp_params(), mlp_batch()
    H = curvature.hessian(mlp_loss, params, batch)
    with pytest.raises(InputError, match="matvec: v must be a pytree like"):
        H.matvec(params[0])
    with pytest.raises(InputError, match=r"loss must be a function whose value is one floating-point scalar"):
        curvature.hessian(lambda p, b: mlp_apply(p, b["x"]), params, batch)
    with pytest.raises(InputError, match=r'batch must be of the form {"x": …, "y": …}'):
        curvature.ggn(mlp_apply, params, {"x": batch["x"]})
    with pytest.raises(InputError, match=r"fisher: criterion must be losses.cross_entropy .weighted"):
        curvature.fisher(mlp_apply, params, batch, criterion=lambda f, y: jnp.mean(f), samples=1)
    with pytest.raises(InputError, match="dense: operator must be of at most 30,000 parameters"):
        curvature.Operator(lambda v: v, jnp.zeros(30_001)).dense()
    with pytest.raises(InputError, match="mask must be true somewhere"):
        curvature.hessian(mlp_loss, params, batch, where=False)

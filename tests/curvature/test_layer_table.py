"""The curvature of single layers: against dense blocks, and whether error bars mean what they say."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, measures
from steppe.core import names
from steppe.curvature.layer_table import layer_moments
from support.networks import dense_ggn, dense_hessian, mlp_apply, mlp_batch, mlp_loss, mlp_network, mlp_params

PARAMS, BATCH = mlp_params(0, (3, 4, 2)), mlp_batch(1, 6, 3, 2)


def blocks(matrix):
    """The dense diagonal block of each layer."""
    own = names.layers(PARAMS)
    index = np.repeat([own.index(layer) for layer in own], [np.size(leaf) for leaf in jax.tree.leaves(PARAMS)])
    rows = {layer: np.flatnonzero(index == own.index(layer)) for layer in dict.fromkeys(own)}
    return {layer: np.asarray(matrix)[np.ix_(some, some)] for layer, some in rows.items()}


@pytest.fixture(scope="module")
def dense():
    return blocks(dense_hessian(mlp_loss, PARAMS, BATCH))


def test_each_row_is_that_of_its_dense_block(dense):
    rows = curvature.layer_table(mlp_loss, PARAMS, BATCH, probes=64)
    assert [row.layer for row in rows] == list(dense) and sum(row.size for row in rows) == len(ravel_pytree(PARAMS)[0])
    for row in rows:
        block = dense[row.layer]
        assert abs(row.trace.mean - np.trace(block)) <= 4 * row.trace.sem
        assert abs(row.frobenius_squared.mean - np.sum(block**2)) <= 4 * row.frobenius_squared.sem
        assert row.frobenius_squared.sem < 0.5 * np.sum(block**2) and row.converged
        np.testing.assert_allclose(row.top_eigenvalue, np.linalg.eigvalsh(block)[-1], rtol=1e-4)


def test_over_many_draws_the_means_are_right_and_the_errors_are_as_large_as_they_say(dense):
    H = curvature.hessian(mlp_loss, PARAMS, BATCH)
    draws = jax.vmap(lambda key: jax.random.split(key, 6))(jax.random.split(jax.random.key(1), 1500))
    traces, norms = jax.jit(lambda H, draws: jax.lax.map(lambda keys: layer_moments(H, keys), draws))(H, draws)
    squared = {layer: block @ block for layer, block in dense.items()}
    for found, matrices in ((traces, dense), (norms, squared)):
        exact = np.array([np.trace(block) for block in matrices.values()])
        error = np.std(found.mean, axis=0) / len(found.mean) ** 0.5
        assert (abs(np.mean(found.mean, axis=0) - exact) <= 4 * error).all()
        said = np.mean(np.asarray(found.sem) ** 2, axis=0) ** 0.5
        # the jackknife of a U-statistic of few draws errs on the safe side
        assert (said >= 0.9 * np.std(found.mean, axis=0)).all() and (said <= 2 * np.std(found.mean, axis=0)).all()


@pytest.mark.slow
def test_the_gauss_newton_matrix_and_several_batches_go_the_same_way():
    parts = [mlp_batch(1, 4, 3, 2), mlp_batch(2, 2, 3, 2)]
    first, second = (dense_ggn(mlp_apply, mlp_network.criterion, PARAMS, part) for part in parts)
    exact = blocks((4 * first + 2 * second) / 6)
    rows = curvature.layer_table(mlp_apply, PARAMS, parts, make=curvature.ggn, probes=100, eigenvalues=False)
    for row in rows:
        assert abs(row.trace.mean - np.trace(exact[row.layer])) <= 4 * row.trace.sem and np.isnan(row.top_eigenvalue)


def test_few_probes_have_no_standard_error():
    one, two = (curvature.layer_table(mlp_loss, PARAMS, BATCH, probes=m, eigenvalues=False)[0] for m in (1, 2))
    assert np.isfinite(one.trace.mean) and np.isnan(one.trace.sem) and np.isnan(one.frobenius_squared.mean)
    assert np.isfinite(two.frobenius_squared.mean) and np.isnan(two.frobenius_squared.sem)


def test_the_measure_has_a_quantity_for_each_layer(dense):
    rows = measures.measure("layer_curvature", loss=mlp_loss, params=PARAMS, batches=BATCH, probes=8)
    kinds = ("layer_trace", "layer_frobenius_squared")
    assert [row.quantity for row in rows] == [f"{kind}.{layer.replace('/', '.')}" for layer in dense for kind in kinds]
    assert all(row.sem > 0 for row in rows)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="probes must be"):
        curvature.layer_table(mlp_loss, PARAMS, BATCH, probes=0)
    with pytest.raises(InputError, match="where must be left out"):
        curvature.layer_table(mlp_loss, PARAMS, BATCH, where="0")

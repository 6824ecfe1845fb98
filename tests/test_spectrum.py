"""Estimates, eigenvalues and densities against dense float64 matrices, and on chosen spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from networks import mlp_batch, mlp_loss, mlp_params
from small_networks import EVERY, NETWORKS
from steppe import InputError, curvature, in_batches, losses


def with_spectrum(values, key=0):
    """A symmetric matrix with these eigenvalues and random eigenvectors: the operator and the matrix."""
    values = jnp.asarray(values, float)
    Q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(key), (len(values),) * 2, values.dtype))
    matrix = (Q * values[None]) @ Q.T
    return curvature.Operator(lambda v, M: M @ v, jnp.zeros_like(values), (matrix,)), matrix


def of_network(name, make="hessian"):
    apply, params, batch, criterion = NETWORKS[name]()
    if make == "hessian":
        return curvature.hessian(losses.of(apply, criterion), params, in_batches(batch, 3))
    return curvature.ggn(apply, params, in_batches(batch, 3), criterion=criterion)


@pytest.mark.parametrize(
    "which", ["magnitude", *(pytest.param(end, marks=pytest.mark.slow) for end in ("largest", "smallest"))]
)
@pytest.mark.parametrize("name", EVERY)
def test_leading_eigenvalues_equal_the_dense_ones(x64, name, which):
    H = of_network(name)
    exact = np.linalg.eigvalsh(H.dense())
    exact = {"largest": exact[::-1], "smallest": exact, "magnitude": exact[np.argsort(-np.abs(exact))]}[which][:4]
    found = curvature.top_eigenpairs(H, 0, 4, which=which)
    np.testing.assert_allclose(found.values, exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())
    assert found.converged.all()


def test_eigenvectors_are_orthonormal_and_residuals_are_theirs(x64):
    A, matrix = with_spectrum(np.r_[np.linspace(-1, 1, 96), 5, -7, 9, 4])
    found = curvature.top_eigenpairs(A, 1, 5, which="magnitude", tol=1e-4)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), atol=1e-7)
    residuals = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-12)
    assert (residuals <= 1e-4 * 9).all() and found.converged.all()


def test_it_agrees_with_scipy_on_a_clustered_spectrum(x64):
    A, matrix = with_spectrum(np.r_[np.zeros(150), np.geomspace(1e-3, 1, 50)])
    expected = scipy.sparse.linalg.eigsh(np.asarray(matrix), 6, which="LA")[0][::-1]
    np.testing.assert_allclose(curvature.top_eigenpairs(A, 0, 6).values, expected, rtol=1e-8)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("values", [[2.0] * 6, [3.0, 3.0, 3.0, 1.0, 1.0, 0.0], [0.0] * 5, [4.0, 4.0, -4.0, -4.0]])
def test_repeated_eigenvalues_are_found_as_often_as_they_are_there(x64, values):
    A, _ = with_spectrum(values)
    found = curvature.top_eigenpairs(A, 0, 4)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:4], atol=1e-10)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-8)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-8)


def test_restarts_reach_the_residual_asked_for_in_a_small_memory(x64, monkeypatch):
    A, _ = with_spectrum(np.r_[np.linspace(0, 1, 297), 1.01, 1.02, 1.03])
    monkeypatch.setattr("steppe.curvature.spectrum.BASIS_BYTES", 80 * 300 * 8)
    found = curvature.top_eigenpairs(A, 0, 3, max_products=4000)
    np.testing.assert_allclose(found.values, [1.03, 1.02, 1.01], rtol=1e-8)
    assert found.converged.all()


def test_what_has_not_converged_is_marked_and_warned_of(x64):
    A, _ = with_spectrum(np.linspace(0, 1, 300))
    with pytest.warns(UserWarning, match=r"top_eigenpairs: 3 of 3 eigenpairs did not converge"):
        found = curvature.top_eigenpairs(A, 0, 3, max_products=20)
    assert not found.converged.any() and (found.residuals > 1e-6).all()


@pytest.mark.slow
def test_spectral_range_has_both_ends(x64):
    H = of_network("mlp")
    exact = np.linalg.eigvalsh(H.dense())
    found = curvature.spectral_range(H, 0)
    np.testing.assert_allclose(
        [found.smallest, found.largest, found.width], [exact[0], exact[-1], exact[-1] - exact[0]], rtol=1e-8
    )
    assert found.converged.all() and found.residuals.shape == (2,)
    multiple = curvature.spectral_range(curvature.Operator(lambda v: 3.0 * v, jnp.zeros(50)), 0, max_products=60)
    np.testing.assert_allclose([multiple.smallest, multiple.largest], 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_trace_diagonal_and_xtrace_are_within_four_standard_errors(x64, name):
    H = of_network(name)
    dense = H.dense()
    trace, exact = curvature.trace(H, 1, probes=300), jnp.trace(dense)
    assert abs(trace.mean - exact) <= 4 * trace.sem
    diagonal = curvature.diagonal(H, 1, probes=300)
    gaps, sems = (np.asarray(ravel_pytree(x)[0]) for x in (diagonal.mean, diagonal.sem))
    assert (np.abs(gaps - np.diagonal(dense)) <= 5 * sems + 1e-12).all()
    found = curvature.xtrace(H, 1, probes=8)
    assert abs(found.mean - exact) <= 5 * found.sem


def test_xtrace_is_unbiased(x64):
    A, matrix = with_spectrum(np.geomspace(10, 1e-3, 30))
    draws = np.array([curvature.xtrace(A, key, probes=4).mean for key in range(600)])
    assert abs(draws.mean() - jnp.trace(matrix)) <= 4 * draws.std() / 600**0.5


@pytest.mark.slow
def test_xtrace_is_exact_once_it_has_seen_the_whole_range(x64):
    A, _ = with_spectrum(np.r_[5.0, 2.0, -1.0, np.zeros(17)])
    for probes in (4, 7, 20):
        np.testing.assert_allclose(curvature.xtrace(A, 0, probes=probes).mean, 6.0, rtol=1e-8)
    assert curvature.xtrace(with_spectrum(np.zeros(5))[0], 0, probes=3).mean == 0


def test_xtrace_beats_hutchinson_on_a_decaying_spectrum(x64):
    A, matrix = with_spectrum(np.geomspace(10, 1e-10, 100))
    spread = lambda f: np.std([f(key).mean - jnp.trace(matrix) for key in range(20)])
    of_xtrace = spread(lambda key: curvature.xtrace(A, key, probes=20))
    assert of_xtrace < 0.1 * spread(lambda key: curvature.trace(A, key, probes=40))


def test_diagonal_has_the_spread_of_its_samples(x64):
    A, matrix = with_spectrum(np.linspace(-1, 2, 12))
    found = curvature.diagonal(A, 0, probes=4000)
    expected = np.sqrt((np.sum(np.asarray(matrix) ** 2, axis=1) - np.diagonal(matrix) ** 2) / 4000)
    np.testing.assert_allclose(found.sem, expected, rtol=0.1)
    assert np.isnan(curvature.diagonal(A, 0, probes=1).sem).all()


def test_density_integrates_to_one_and_has_the_moments_of_the_spectrum(x64):
    values = np.r_[np.random.default_rng(0).normal(0, 0.1, 180), np.linspace(2, 5, 20)]
    A, _ = with_spectrum(values)
    found = curvature.spectral_density(A, 0, probes=40, steps=60)
    spacing = found.grid[1] - found.grid[0]
    np.testing.assert_allclose(jnp.sum(found.density) * spacing, 1, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(found.density * found.grid) * spacing, values.mean(), atol=0.02)
    exact = np.mean(np.exp(-((np.asarray(found.grid)[:, None] - values) ** 2) / (2 * found.width**2)), axis=1) / (
        np.sqrt(2 * np.pi) * found.width
    )
    distance = float(jnp.sum(jnp.abs(found.density - exact)) * spacing)
    assert distance < 0.15  # of at most 2
    np.testing.assert_allclose(found.width, (values.max() - values.min()) / 120, rtol=1e-3)


def test_density_of_a_multiple_of_the_identity_is_one_peak(x64):
    found = curvature.spectral_density(curvature.Operator(lambda v: 3.0 * v, jnp.zeros(50)), 0)
    assert np.isfinite(found.density).all()
    np.testing.assert_allclose(found.grid[jnp.argmax(found.density)], 3, rtol=1e-2)


def test_quadrature_is_exact_for_polynomials(x64):
    A, matrix = with_spectrum(np.linspace(-1, 3, 40))
    nodes, weights = curvature.quadrature(A, 0, probes=3, steps=4)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    v = jnp.stack([curvature.probes.rademacher(key, A.like) for key in jax.random.split(jax.random.key(0), 3)])
    power = jnp.linalg.matrix_power(matrix, 7)
    np.testing.assert_allclose((weights * nodes**7).sum(axis=1), jnp.einsum("mi,ij,mj->m", v, power, v) / 40, rtol=1e-9)


@pytest.mark.parametrize("damping", [1e-3, 1e-1])
@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("convnet", "transformer"))]
)
def test_soft_rank_is_within_four_standard_errors(x64, name, damping):
    A = of_network(name, "ggn")
    values = np.maximum(np.linalg.eigvalsh(A.dense()), 0)
    found = curvature.soft_rank(A, 0, damping=damping, probes=60, steps=40)
    assert abs(found.mean - np.sum(values / (values + damping))) <= 4 * found.sem + 1e-6


def test_soft_rank_counts_negative_eigenvalues_as_zero(x64):
    found = curvature.soft_rank(with_spectrum([-3.0, 1.0, 1.0])[0], 0, damping=1.0, probes=200)
    assert abs(found.mean - 1) <= 4 * found.sem + 1e-9


@pytest.mark.slow
def test_everything_works_under_jit_and_in_float32():
    H = curvature.hessian(mlp_loss, mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32))
    for function in (
        lambda H: curvature.diagonal(H, 0, probes=3),
        lambda H: curvature.xtrace(H, 0, probes=3),
        lambda H: curvature.spectral_density(H, 0, probes=2, steps=8, points=32),
        lambda H: curvature.soft_rank(H, 0, damping=0.1, probes=2, steps=8),
    ):
        eager, jitted = function(H), jax.jit(function)(H)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(eager))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4), eager, jitted)
    found = curvature.top_eigenpairs(H, 0, 2)
    assert found.values.dtype == jnp.float32 and found.converged.all()
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(H.dense())[::-1][:2], rtol=1e-4)


def test_bad_input_gets_one_sentence():
    A, _ = with_spectrum([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"top_eigenpairs: k must be at most the operator's size, 3, got 4"):
        curvature.top_eigenpairs(A, 0, 4)
    with pytest.raises(InputError, match=r"which must be one of .* Did you mean 'largest'"):
        curvature.top_eigenpairs(A, 0, 1, which="larges")
    with pytest.raises(InputError, match=r"A must be known: convergence is decided on the host"):
        jax.jit(lambda A: curvature.top_eigenpairs(A, 0, 1).values)(A)
    with pytest.raises(InputError, match=r"A must be an operator whose products are finite"):
        curvature.top_eigenpairs(curvature.Operator(lambda v: jnp.nan * v, jnp.zeros(4)), 0, 1)
    with pytest.raises(InputError, match=r"soft_rank: damping must be a finite number >= .*, got 0"):
        curvature.soft_rank(A, 0, damping=0.0)
    with pytest.raises(InputError, match=r"xtrace: probes must be at most the operator's size, 3, got 4"):
        curvature.xtrace(A, 0, probes=4)
    with pytest.raises(InputError, match=r"steps must be a whole number of at least 1, got 0"):
        curvature.spectral_density(A, 0, steps=0)

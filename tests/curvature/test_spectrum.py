"""Estimates, eigenvalues and densities against dense float64 matrices, and on chosen spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, in_batches
from steppe.core import losses
from steppe.curvature.spectrum import certificate
from support.networks import mlp_batch, mlp_loss, mlp_params
from support.small_networks import NETWORKS


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


@pytest.fixture
def searched(monkeypatch):
    """Small matrices are searched as large ones are, not solved whole."""
    monkeypatch.setattr("steppe.curvature.spectrum.eigenpairs.DENSE_MOST", 0)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("mlp", "magnitude"),
        *(pytest.param(name, "magnitude", marks=pytest.mark.slow) for name in NETWORKS if name != "mlp"),
        *(pytest.param("convnet", end, marks=pytest.mark.slow) for end in ("largest", "smallest")),
    ],
)
def test_leading_eigenvalues_equal_the_dense_ones(x64, name, which):
    H = of_network(name)
    exact = np.linalg.eigvalsh(H.dense())
    exact = {"largest": exact[::-1], "smallest": exact, "magnitude": exact[np.argsort(-np.abs(exact))]}[which][:4]
    found = curvature.top_eigenpairs(H, 0, 4, which=which)
    np.testing.assert_allclose(found.values, exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())
    assert found.converged.all()


def test_eigenvectors_are_orthonormal_and_residuals_are_theirs(x64, searched):
    A, matrix = with_spectrum(np.r_[np.linspace(-1, 1, 96), 5, -7, 9, 4])
    found = curvature.top_eigenpairs(A, 1, 5, which="magnitude", tol=1e-4)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(5), atol=1e-7)
    residuals = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-12)
    assert (residuals <= 1e-4 * 9).all() and found.converged.all()


def test_it_agrees_with_scipy_on_a_clustered_spectrum(x64, searched):
    A, matrix = with_spectrum(np.r_[np.zeros(150), np.geomspace(1e-3, 1, 50)])
    expected = scipy.sparse.linalg.eigsh(np.asarray(matrix), 6, which="LA")[0][::-1]
    np.testing.assert_allclose(curvature.top_eigenpairs(A, 0, 6).values, expected, rtol=1e-8)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("values", [[2.0] * 6, [3.0, 3.0, 3.0, 1.0, 1.0, 0.0], [0.0] * 5, [4.0, 4.0, -4.0, -4.0]])
def test_repeated_eigenvalues_are_found_as_often_as_they_are_there(x64, values, searched):
    A, _ = with_spectrum(values)
    found = curvature.top_eigenpairs(A, 0, 4)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:4], atol=1e-10)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(4), atol=1e-8)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-8)


def test_restarts_reach_the_residual_asked_for_in_a_small_memory(x64, monkeypatch, searched):
    A, _ = with_spectrum(np.r_[np.linspace(0, 1, 297), 1.01, 1.02, 1.03])
    monkeypatch.setattr("steppe.curvature.spectrum.eigenpairs.BASIS_BYTES", 40 * 300 * 8)
    found = curvature.top_eigenpairs(A, 0, 3, max_products=4000)
    np.testing.assert_allclose(found.values, [1.03, 1.02, 1.01], rtol=1e-8)
    assert found.converged.all()


def test_what_has_not_converged_is_marked_and_warned_of(x64):
    A, _ = with_spectrum(np.linspace(0, 1, 300))
    with pytest.warns(UserWarning, match=r"top_eigenpairs: 3 of 3 eigenpairs did not converge"):
        found = curvature.top_eigenpairs(A, 0, 3, max_products=20)
    assert not found.converged.any() and (found.residuals > 1e-6).all()


def test_it_is_said_what_would_help(x64, searched):
    with pytest.warns(
        UserWarning, match="4 products could not rule out that others come before them: give more max_pro"
    ):
        curvature.top_eigenpairs(with_spectrum([1.0] * 30)[0], 0, 2, max_products=4)
    with pytest.warns(UserWarning, match=r"give more max_products, or a larger tol\. They are marked in `converged`"):
        curvature.top_eigenpairs(with_spectrum(np.linspace(0, 1, 60))[0], 0, 2, max_products=12)
    noisy = with_spectrum(np.linspace(0, 1, 40))[1] + 1e-5 * jnp.sin(jnp.arange(1600.0) ** 2).reshape(40, 40)
    with pytest.warns(UserWarning, match="so residuals cannot be smaller: use float64"):
        A = curvature.Operator(lambda v, M: M @ v, jnp.zeros(40, jnp.float32), (noisy.astype(jnp.float32),))
        curvature.top_eigenpairs(A, 0, 2, tol=2e-7)


OUTLIERS_AND_BULK = np.r_[1.0, np.linspace(-1e-5, 1e-5, 8)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["dense", "searched"])
def test_the_last_of_many_is_not_the_outlier_at_the_other_end(x64, request, how, dtype):
    if how == "searched":
        request.getfixturevalue("searched")
    values = OUTLIERS_AND_BULK.astype(dtype)
    A = curvature.Operator(lambda v, d: d * v, jnp.zeros_like(values), (jnp.asarray(values),))
    mirrored = curvature.Operator(lambda v, d: -d * v, jnp.zeros_like(values), (jnp.asarray(values),))
    found, other = (curvature.top_eigenpairs(*at) for at in ((A, 0, 8), (mirrored, 0, 8)))
    small = curvature.top_eigenpairs(A, 0, 8, which="smallest")
    atol = 1e-5 if (how, dtype) == ("searched", "float32") else 1e-8  # what is promised is 3e-4
    np.testing.assert_allclose(small.values, np.sort(values)[:8], atol=atol)
    np.testing.assert_allclose(other.values, np.sort(-values)[::-1][:8], atol=atol)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:8], atol=atol)
    assert small.converged.all() and other.converged.all() and found.converged.all()


def test_zeros_below_the_rank_are_found_as_zeros():
    A = curvature.Operator(lambda v, d: d * v, jnp.zeros(400), (jnp.zeros(400).at[7].set(1.0),))
    found = curvature.top_eigenpairs(A, 0, 10, max_products=69)
    np.testing.assert_allclose(found.values, np.eye(10)[0], atol=1e-6)
    assert found.converged.all()


def random_spectrum(rng, size):
    """Outliers, bulks, clusters, copies, low rank, both signs: trained networks' spectra, and stranger ones."""
    some = rng.normal(size=rng.integers(1, 12))
    kind = rng.integers(8)
    values = [
        lambda: np.r_[some, rng.uniform(-1e-5, 1e-5, size)],
        lambda: np.r_[some, np.zeros(size)],
        lambda: np.r_[np.full(rng.integers(1, 20), some[0]), np.full(size, 0.1)],
        lambda: np.r_[1 + 1e-4 * some, -1 + 1e-3 * some, 1e-2 * rng.normal(size=size)],
        lambda: np.repeat(rng.normal(size=size), 4),
        lambda: np.geomspace(1, 1e-9, size) * rng.choice([-1, 1], size),
        lambda: rng.exponential(size=size) ** 4,
        lambda: np.full(size, some[0] * rng.integers(2)),
    ][kind]()[:size]
    return values * 10.0 ** rng.uniform(-9, 6)


def check_pairs(A, values, k, which, key):
    """What is called converged is the right eigenvalue within the tolerance, and its vector has a small residual."""
    order = {"largest": np.argsort(-values), "smallest": np.argsort(values), "magnitude": np.argsort(-np.abs(values))}
    found = curvature.top_eigenpairs(A, key, k, which=which)
    wanted, size = values[order[which][:k]], np.abs(values).max()
    folded = np.abs if which == "magnitude" else np.asarray  # of λ and −λ either may come first
    tolerance = np.finfo(values.dtype).eps ** 0.5 * size
    assert (np.abs(folded(found.values) - folded(wanted)) <= tolerance)[np.asarray(found.converged)].all()
    vectors = np.asarray(found.vectors, float)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=30 * np.finfo(values.dtype).eps)
    residuals = np.linalg.norm(values * vectors - np.asarray(found.values, float)[:, None] * vectors, axis=1)
    assert (residuals <= tolerance)[np.asarray(found.converged)].all()
    assert found.converged.all()


def _times(v, d):
    return d * v


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 3))])
def test_what_is_called_converged_is_the_right_eigenvalue(x64, seed, searched):
    # a diagonal is no easier: the random vector to begin with is spread alike in every basis
    rng, size = np.random.default_rng(seed), 60
    for case in range(60):
        dtype, k = (np.float32, np.float64)[case % 2], (1, 3, 8, 16)[case % 4]
        values = random_spectrum(rng, size).astype(dtype)
        A = curvature.Operator(_times, jnp.zeros(size, dtype), (jnp.asarray(values),))
        check_pairs(A, values, k, str(rng.choice(["largest", "smallest", "magnitude"])), case)


def test_a_bound_on_the_rest_holds_and_is_reached(x64):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = rng.normal(size=(80, 80))
        matrix = matrix + matrix.T
        start = rng.normal(size=80)
        alpha, beta = lanczos_by_hand(matrix, start, 40)
        top = np.linalg.eigvalsh(matrix)[-1]
        growth = certificate.rarity(start @ start)
        edges = [certificate.edge(alpha[:m], beta[:m], growth, 1e3) for m in (5, 10, 20, 40)]
        assert all(edge >= top for edge in edges) and edges == sorted(edges, reverse=True)
        assert edges[-1] <= top + 0.3 * abs(top)
        assert certificate.edge(alpha[:5], beta[:5], growth, 1e-3) == np.inf


def lanczos_by_hand(matrix, start, steps):
    rows, alpha, beta = [start / np.linalg.norm(start)], [], []
    for _ in range(steps):
        left = matrix @ rows[-1]
        alpha.append(rows[-1] @ left)
        for row in (*rows, *rows):
            left = left - (row @ left) * row
        beta.append(np.linalg.norm(left))
        rows.append(left / beta[-1])
    return np.array(alpha), np.array(beta)


def test_the_count_above_is_never_too_small_and_tight_for_invariant_rows(x64):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = np.sort(rng.normal(size=30))[::-1]
        Q = np.linalg.qr(rng.normal(size=(30, 30)))[0]
        matrix = (Q * values) @ Q.T
        exact, rough = Q[:, :6], np.linalg.qr(Q[:, :6] + 0.1 * rng.normal(size=(30, 6)))[0]
        for rows, equal in ((exact, True), (rough, False)):
            theta, S = np.linalg.eigh(rows.T @ matrix @ rows)
            Y = rows @ S
            R = matrix @ Y - Y * theta
            outside = np.eye(30) - Y @ Y.T
            rest = np.linalg.eigvalsh(outside @ matrix @ outside)[-1]
            x = np.linspace(-2, 2, 41)
            counts = certificate.count_above(x, theta, R.T @ R, rest)
            truth = (values[None] > x[:, None]).sum(axis=1)
            assert (counts >= truth).all() and np.isinf(counts[x <= rest]).all()
            assert not equal or (counts == truth)[x > rest + 1e-9].all()


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
    with pytest.raises(InputError, match="A must be an operator of at least 2 parameters, got one of 1"):
        curvature.spectral_range(curvature.Operator(lambda v: v, jnp.zeros(1)), 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_trace_diagonal_and_xtrace_are_within_four_standard_errors(x64, name):
    H = of_network(name)
    dense = H.dense()
    trace, exact = curvature.trace(H, 1, probes=96), jnp.trace(dense)
    assert abs(trace.mean - exact) <= 4 * trace.sem
    diagonal = curvature.diagonal(H, 1, probes=96)
    gaps, sems = (np.asarray(ravel_pytree(x)[0]) for x in (diagonal.mean, diagonal.sem))
    assert (np.abs(gaps - np.diagonal(dense)) <= 5 * sems + 1e-12).all()
    found = curvature.xtrace(H, 1, probes=8)
    assert abs(found.mean - exact) <= 5 * found.sem


def test_xtrace_is_unbiased(x64):
    A, matrix = with_spectrum(np.geomspace(10, 1e-3, 30))
    draws = np.array([curvature.xtrace(A, key, probes=4).mean for key in range(600)])
    assert abs(draws.mean() - jnp.trace(matrix)) <= 4 * draws.std() / 600**0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_xtrace_is_finite_and_right_at_every_rank(x64, dtype):
    zero = curvature.Operator(_times, jnp.zeros(6, dtype), (jnp.zeros(6, dtype),))
    for probes in (2, 5, 6):
        assert curvature.xtrace(zero, 0, probes=probes) == (0, 0)
    for rank in (1, 2, 4):
        values = jnp.zeros(6, dtype).at[:rank].set(3.0)
        A = curvature.Operator(lambda v, Q, d: Q @ (d * (Q.T @ v)), values, (random_basis(6).astype(dtype), values))
        for key in range(20):
            found = curvature.xtrace(A, key, probes=6)
            np.testing.assert_allclose(found.mean, 3 * rank, atol=1e-4 if dtype == "float32" else 1e-9)


def test_xtrace_has_no_scale():
    for scale in (1e-30, 1e30):
        A = curvature.Operator(lambda v, s: s * v, jnp.zeros(6), (jnp.float32(scale),))
        for probes in (2, 6):
            np.testing.assert_allclose(curvature.xtrace(A, 0, probes=probes).mean / scale, 6, rtol=1e-4)


def random_basis(size):
    return jnp.linalg.qr(jax.random.normal(jax.random.key(1), (size, size), float))[0]


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


@pytest.mark.parametrize("value", [0.0, 1e-20, -1e20])
def test_density_of_one_eigenvalue_is_finite_whatever_it_is(value):
    found = curvature.spectral_density(curvature.Operator(lambda v: value * v, jnp.zeros(9)), 0, probes=2, points=64)
    grid = np.asarray(found.grid, float)
    np.testing.assert_allclose(np.sum(np.asarray(found.density, float)) * (grid[-1] - grid[0]) / 63, 1, rtol=5e-3)
    np.testing.assert_allclose(grid[np.argmax(found.density)], value, atol=float(found.width))


@pytest.mark.slow
def test_one_step_gives_the_mean_and_one_parameter_its_eigenvalue():
    A, one = (curvature.Operator(lambda v: jnp.arange(1.0, 1 + v.size) * v, jnp.zeros(n)) for n in (5, 1))
    nodes, weights = curvature.quadrature(A, 0, probes=2, steps=1)
    np.testing.assert_allclose(nodes, 3, rtol=1e-6)
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_allclose(curvature.soft_rank(one, 0, damping=1.0).mean, 0.5)
    assert np.isfinite(curvature.spectral_density(one, 0, points=8).density).all()


def test_what_is_not_finite_stays_so():
    H = curvature.hessian(lambda w, b: jnp.sum(jnp.abs(w) ** 1.5) + 0 * jnp.sum(b), jnp.zeros(4), jnp.ones((2, 1)))
    assert np.isnan(curvature.soft_rank(H, 0, damping=0.1, probes=2, steps=3).mean)
    assert np.isnan(curvature.spectral_density(H, 0, probes=2, steps=3, points=8).density).all()
    below = curvature.quadrature(H, 0, probes=2, steps=3).averages(lambda values: values < 0)
    assert np.isnan(below).all()
    assert not np.isfinite(curvature.trace(H, 0).mean) and not np.isfinite(curvature.xtrace(H, 0, probes=2).mean)


def test_quadrature_is_exact_for_polynomials(x64):
    A, matrix = with_spectrum(np.linspace(-1, 3, 40))
    nodes, weights = curvature.quadrature(A, 0, probes=3, steps=4)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    v = jnp.stack(
        [curvature.estimators.probes.rademacher(key, A.like) for key in jax.random.split(jax.random.key(0), 3)]
    )
    power = jnp.linalg.matrix_power(matrix, 7)
    np.testing.assert_allclose((weights * nodes**7).sum(axis=1), jnp.einsum("mi,ij,mj->m", v, power, v) / 40, rtol=1e-9)


SPECTRA = {
    "outliers": np.r_[np.arange(3.0, 33.0, 3.0), 0.01 * np.random.default_rng(1).normal(size=190)],
    "repeated": np.repeat([1.0, 2.0, 5.0, -3.0], 50),
    "of low rank": np.r_[np.arange(1.0, 21.0), np.zeros(180)],
    "huge": 1e30 * np.linspace(-1, 3, 200),
    "tiny": 1e-30 * np.r_[np.arange(1.0, 11.0), np.linspace(0, 0.01, 190)],
    "decaying": 10.0 ** -np.linspace(0, 20, 200),
    "dominated": np.r_[1e4, -1e4, np.linspace(0, 0.01, 198)],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_float32_has_all_moments_of_a_spectrum_and_no_copies_of_its_ends(name):
    values, steps = SPECTRA[name], 60
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    matrix = ((Q * values) @ Q.T).astype(np.float32)
    A = curvature.Operator(
        lambda v, matrix: jnp.matmul(matrix, v, precision="highest"), jnp.zeros(200), (jnp.asarray(matrix),)
    )
    nodes, weights = (np.asarray(x[0], float) for x in curvature.quadrature(A, 0, probes=1, steps=steps))
    key = jax.random.split(jax.random.key(0), 1)[0]
    start = np.asarray(curvature.estimators.probes.rademacher(key, A.like), float)
    exact, vectors = np.linalg.eigh(matrix.astype(float))
    scale, shares = 1.1 * np.abs(exact).max(), (vectors.T @ start) ** 2 / 200
    degrees = np.arange(2 * steps)[:, None]  # what the quadrature is exact for
    found = np.cos(degrees * np.arccos(nodes / scale)) @ weights
    # a node that is off by one unit of rounding turns a polynomial of degree 119 by 119 of them, more near the ends
    np.testing.assert_allclose(found, np.cos(degrees * np.arccos(exact / scale)) @ shares, atol=1e-4)
    seen = nodes[weights != 0]
    for end in (exact[0], exact[-1]):
        assert np.sum(np.abs(seen - end) < 1e-4 * scale) <= 1 or np.sum(np.abs(exact - end) < 1e-4 * scale) > 1


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

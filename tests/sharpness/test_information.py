"""Information criteria against dense float64 references, exact identities of linear networks, and rescaling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.flatten_util import ravel_pytree

from steppe import InputError, sharpness
from steppe.core import losses
from support.networks import dense_hessian, mlp_batch, mlp_params
from support.sharpness import (
    COMPILED,
    CRITERIA,
    LAYER_WISE,
    NODE_WISE,
    data,
    example_gradients,
    parts,
    relu_apply,
    rescaled,
    tanh_apply,
)


def matrices(apply, params, batch, criterion, operator):
    """Dense H and C."""
    g = example_gradients(apply, params, batch, criterion)
    C = g.T @ g / len(g)
    if operator == "hessian":
        return jax.jit(lambda p: dense_hessian(losses.of(apply, criterion), p, batch))(params), C
    flat, unravel = ravel_pytree(params)
    J = jax.jit(jax.jacrev(lambda p: apply(unravel(p), batch["x"])))(flat)
    S = jax.jit(jax.hessian(lambda f: criterion(f, batch["y"])))(apply(params, batch["x"]))
    return jnp.einsum("iap,iajb,jbq->pq", J, S, J), C


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("criterion", "classes", "operator"),
    [
        ("cross-entropy", 3, "ggn"),
        ("cross-entropy", 3, "hessian"),
        ("cross-entropy", 1, "ggn"),
        ("squared error", 2, "ggn"),
    ],
)
def test_takeuchi_equals_its_three_dense_forms(x64, criterion, classes, operator):
    params, batch = mlp_params(sizes=(3, 4, classes)), data(classes, criterion)
    criterion = CRITERIA[criterion]
    H, C = (np.asarray(matrix) for matrix in matrices(tanh_apply, params, batch, criterion, operator))
    for damping in (0.0, 0.3):
        damped = H + damping * np.eye(len(H))
        inverse = np.linalg.inv(damped) if damping else np.linalg.pinv(damped, rcond=1e-13, hermitian=True)
        exact = {
            "full": np.trace(inverse @ C),
            "diagonal": np.sum(np.diag(C) / np.diag(damped)),
            "trace": np.trace(C) / (np.trace(H) + damping),
        }
        for form, value in exact.items():
            options = {"criterion": criterion, "operator": operator, "damping": damping, "form": form}
            found = sharpness.takeuchi(tanh_apply, params, parts(batch, 2, 2, 2), **options)
            np.testing.assert_allclose(found.complexity, (value, 0), rtol=1e-7)
            np.testing.assert_allclose(found.gap, (value / 6, 0), rtol=1e-7)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("form", ["full", "trace"])
def test_takeuchi_is_estimated_within_four_standard_errors(x64, form):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    options = {"form": form, "damping": 0.05}
    exact = sharpness.takeuchi(tanh_apply, params, batch, **options)
    found = sharpness.takeuchi(tanh_apply, params, parts(batch, 4, 2), probes=400, **options)
    for estimate, value in zip(found, exact, strict=True):
        assert abs(estimate.mean - value.mean) <= 4 * estimate.sem
        assert 0 < estimate.sem < 0.2 * value.mean


def test_the_standard_error_of_a_ratio_of_traces_is_the_spread_of_its_estimates(x64):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    found = [sharpness.takeuchi(tanh_apply, params, batch, probes=50, key=key).complexity for key in range(60)]
    spread, expected = np.std([e.mean for e in found], ddof=1), np.sqrt(np.mean([e.sem**2 for e in found]))
    assert 0.75 < spread / expected < 1.3


def test_directions_without_curvature_count_for_nothing(x64):
    """A loss that is linear in the outputs of a linear network has no curvature, though it has a gradient."""
    sloped = lambda f, y: jnp.mean(f[:, 0] * y)
    batch = {"x": jnp.ones((3, 2)), "y": jnp.array([1.0, 2.0, 3.0])}
    for form in ("full", "diagonal", "trace"):
        measure = lambda damping, form=form: sharpness.takeuchi(
            _linear, jnp.ones((2, 1)), batch, form=form, criterion=sloped, damping=damping
        )
        assert measure(0.0).complexity == (0, 0)
        np.testing.assert_allclose(measure(0.5).complexity.mean, 2 * 14 / 3 / 0.5, rtol=1e-12)


def test_a_well_specified_linear_model_uses_as_many_parameters_as_it_has(x64):
    """Squared error with noise of variance 1/2 has C = H, so that tr(H⁻¹C) = n."""
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (4000, 3))
    batch = {"x": x, "y": jax.random.normal(keys[1], (4000,)) / np.sqrt(2)}
    options = {"criterion": losses.squared_error}
    linear = lambda w, x: x @ w
    for form in ("full", "diagonal", "trace"):
        found = sharpness.takeuchi(linear, jnp.zeros((3, 1)), batch, form=form, **options)
        assert abs(found.complexity.mean - {"trace": 1}.get(form, 3)) < 0.15
    rank = sharpness.soft_rank_gap(linear, jnp.zeros((3, 1)), batch, damping=1e-9, probes=None, **options)
    np.testing.assert_allclose(rank.complexity.mean, 3, rtol=1e-6)
    np.testing.assert_allclose(rank.gap.mean, 3 / 4000, rtol=1e-6)


def test_the_gap_of_a_linear_model_is_what_fresh_data_show(x64):
    """Noise x₁² N(0, 1): tr(H⁻¹C) = 42, where noise of the same variance everywhere would give 2 n σ² = 18."""
    rng, runs, size = np.random.default_rng(0), 2000, 200
    x = rng.normal(size=(runs, size, 3))
    noise = rng.normal(size=(runs, size)) * x[:, :, 0] ** 2
    w = np.einsum("rij,rj->ri", np.linalg.inv(np.einsum("rni,rnj->rij", x, x)), np.einsum("rni,rn->ri", x, noise))
    train = np.mean((noise - np.einsum("rni,ri->rn", x, w)) ** 2, 1)
    test = 3 + np.sum(w**2, 1)  # E x₁⁴ = 3
    gap = lambda r: (
        sharpness.takeuchi(
            _linear, jnp.asarray(w[r, :, None]), {"x": x[r], "y": noise[r]}, form="full", criterion=losses.squared_error
        ).gap.mean
    )
    predicted, seen = np.mean([gap(r) for r in range(100)]), np.mean(test - train)
    assert abs(predicted / seen - 1) < 0.2
    assert seen > 1.8 * 18 / size


def _linear(w, x):
    return x @ w


@pytest.mark.parametrize("factors", [LAYER_WISE, NODE_WISE], ids=["layer", "node"])
def test_takeuchi_is_invariant_in_full_and_on_the_diagonal_but_not_by_traces_nor_damped(x64, factors):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3, size=9)
    other = rescaled(params, factors)
    measure = lambda p, **options: sharpness.takeuchi(relu_apply, p, batch, **options).complexity.mean
    for form in ("full", "diagonal"):
        np.testing.assert_allclose(measure(other, form=form), measure(params, form=form), rtol=1e-6)
        assert abs(measure(other, form=form, damping=0.1) / measure(params, form=form, damping=0.1) - 1) > 1e-3
    assert abs(measure(other) / measure(params) - 1) > 1e-3
    rank = lambda p: sharpness.soft_rank_gap(relu_apply, p, batch, damping=0.1, probes=None).complexity.mean
    assert abs(rank(other) / rank(params) - 1) > 1e-3


@pytest.mark.first_is_fast
@pytest.mark.parametrize("operator", ["ggn", "hessian"])
def test_the_soft_rank_gap_is_that_of_the_eigenvalues(x64, operator):
    params, batch = mlp_params(sizes=(3, 4, 3)), data(3)
    values = np.maximum(np.linalg.eigvalsh(matrices(tanh_apply, params, batch, losses.cross_entropy, operator)[0]), 0)
    exact = np.sum(values / (values + 0.02))
    options = {"damping": 0.02, "operator": operator}
    found = sharpness.soft_rank_gap(tanh_apply, params, batch, probes=None, **options)
    np.testing.assert_allclose(found.complexity, (exact, 0), rtol=1e-9)
    np.testing.assert_allclose(found.gap, (exact / 6, 0), rtol=1e-9)
    estimate = sharpness.soft_rank_gap(tanh_apply, params, batch, probes=200, steps=20, **options).complexity
    assert abs(estimate.mean - exact) <= 4 * estimate.sem


def test_networks_without_gradient_or_curvature_have_finite_gaps():
    batch = {"x": jnp.ones((3, 2)), "y": jnp.zeros(3)}
    dead = lambda w, x: x @ (0 * w)
    for form in ("full", "diagonal", "trace"):
        found = sharpness.takeuchi(dead, jnp.ones((2, 1)), batch, form=form, criterion=losses.squared_error)
        assert found.complexity == (0, 0)


# Interpolating information


def evidence(x, y):
    """−2/m max over γ of log p(y), y = Xw with w ~ N(0, I/2γ)."""
    negative = lambda log: -scipy.stats.multivariate_normal(cov=x @ x.T / (2 * np.exp(log))).logpdf(y)
    return 2 / len(y) * scipy.optimize.minimize_scalar(negative, (-5, 5), tol=1e-12).fun


@pytest.mark.parametrize("manifold", [False, True])
def test_a_linear_network_of_least_norm_has_the_evidence_of_ridge_regression_without_noise(x64, manifold):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 9)), rng.normal(size=5)
    w = jnp.asarray(np.linalg.pinv(x) @ y)[:, None]
    batches = parts({"x": jnp.asarray(x), "y": jnp.asarray(y)}, 2, 2, 1)
    found = sharpness.interpolating_information(_linear, w, batches, manifold=manifold)
    np.testing.assert_allclose(found.criterion, evidence(x, y), rtol=1e-8)
    np.testing.assert_allclose(found.sharpness, np.linalg.slogdet(x @ x.T)[1] / 5, rtol=1e-10)
    np.testing.assert_allclose((found.aligned, found.rank), (1, 5), rtol=1e-10)
    np.testing.assert_allclose(found.manifold, -np.log(2), rtol=1e-10)


def test_several_outputs_are_rows_of_one_jacobian(x64):
    params, x = mlp_params(sizes=(3, 5, 2)), mlp_batch(size=4)["x"]
    flat, unravel = ravel_pytree(params)
    J = jax.jacrev(lambda p: tanh_apply(unravel(p), x).reshape(-1))(flat)
    found = sharpness.interpolating_information(tanh_apply, params, {"x": x, "y": jnp.zeros(4)})
    np.testing.assert_allclose(found.sharpness, np.linalg.slogdet(J @ J.T)[1] / 8, rtol=1e-10)
    within = J.T @ np.linalg.solve(J @ J.T, J @ flat)
    np.testing.assert_allclose(found.aligned, within @ flat / (flat @ flat), rtol=1e-8)


def test_the_curvature_of_the_manifold_is_that_of_the_norm_on_it(x64):
    """f = ½wᵀAw = y has least norm along A's leading eigenvector, where Hess_M R = 2(1 − aⱼ/a₁) on the others."""
    a = jnp.array([4.0, 1.0, -2.0, 0.5])
    apply = lambda w, x: x * jnp.sum(a * w**2) / 2
    w = jnp.array([0.7, 0.0, 0.0, 0.0])
    found = sharpness.interpolating_information(apply, w, {"x": jnp.ones((1, 1)), "y": jnp.ones(1)}, manifold=True)
    np.testing.assert_allclose(found.manifold, np.sum(np.log(1 - a[1:] / 4)) - np.log(2), rtol=1e-10)
    np.testing.assert_allclose(found.aligned, 1, rtol=1e-12)
    np.testing.assert_allclose(found.sharpness, np.log((4 * 0.7) ** 2), rtol=1e-12)
    saddle = jnp.array([0.0, 0.7, 0.0, 0.0])  # stationary, not least: a₁ > a₂
    found = sharpness.interpolating_information(apply, saddle, {"x": jnp.ones((1, 1)), "y": jnp.ones(1)}, manifold=True)
    assert np.isnan(found.criterion)


def test_its_parts_are_the_evidence_of_a_nonlinear_network_under_a_narrow_prior(x64):
    """f = w₁ + ½ b w₂², θ ~ N(0, I/2γ): log p(f = y) by quadrature over w₂, against Laplace's method at that γ."""
    b, y, gamma = 0.5, 1.0, 3000.0
    apply = lambda w, x: x * (w[0] + b * w[1] ** 2 / 2)
    found = sharpness.interpolating_information(
        apply, jnp.array([y, 0.0]), {"x": jnp.ones((1, 1)), "y": jnp.ones(1)}, manifold=True
    )
    laplace = 2 * gamma * np.exp(found.norm) + np.log(2 * np.pi / gamma) + found.sharpness + found.manifold
    t = np.linspace(-0.5, 0.5, 200001)
    exponent = -gamma * ((y - b * t**2 / 2) ** 2 + t**2)
    density = np.sum(np.exp(exponent + gamma * y**2)) * (t[1] - t[0]) * gamma / np.pi
    np.testing.assert_allclose(laplace, -2 * (np.log(density) - gamma * y**2), atol=1e-3)
    best = 1 / (2 * y**2)  # γ = m / 2R
    at_best = 2 * best * y**2 + np.log(2 * np.pi / best) + found.norm * 0 + found.sharpness + found.manifold
    np.testing.assert_allclose(found.criterion, at_best, rtol=1e-12)


def test_repeated_examples_are_seen_in_the_rank():
    x = jnp.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    found = sharpness.interpolating_information(_linear, jnp.ones((3, 1)), {"x": x, "y": jnp.zeros(2)})
    assert found.rank == 1
    assert np.isfinite(found.criterion)
    assert found.sharpness < -5


def test_as_many_outputs_as_parameters_leave_no_manifold():
    batch = {"x": jnp.eye(2), "y": jnp.zeros(2)}
    flat, curved = (
        sharpness.interpolating_information(_linear, jnp.ones((2, 1)), batch, manifold=m).criterion
        for m in (False, True)
    )
    assert flat == curved


@pytest.mark.parametrize("factors", [LAYER_WISE, NODE_WISE], ids=["layer", "node"])
def test_the_interpolating_information_changes_under_rescaling(x64, factors):
    params, batch = mlp_params(sizes=(3, 4, 2)), mlp_batch(size=3)
    measure = lambda p: sharpness.interpolating_information(relu_apply, p, batch).criterion
    assert abs(measure(rescaled(params, factors)) - measure(params)) > 0.01


# All of them

ALL = {
    "takeuchi, full": lambda p, b: sharpness.takeuchi(tanh_apply, p, b, form="full", damping=0.1),
    "takeuchi, trace": lambda p, b: sharpness.takeuchi(tanh_apply, p, b),
    "takeuchi, solved": lambda p, b: sharpness.takeuchi(tanh_apply, p, b, form="full", damping=0.1, probes=2),
    "takeuchi, probes": lambda p, b: sharpness.takeuchi(tanh_apply, p, b, probes=2),
    "soft_rank_gap": lambda p, b: sharpness.soft_rank_gap(tanh_apply, p, b, damping=0.1, probes=2, steps=8),
    "soft_rank_gap, exact": lambda p, b: sharpness.soft_rank_gap(tanh_apply, p, b, damping=0.1, probes=None),
    "interpolating_information": lambda p, b: sharpness.interpolating_information(tanh_apply, p, b),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_criteria_compile_once_keep_float32_and_give_the_same_under_jit(strict, name):
    batches = parts(mlp_batch(size=8, dtype=jnp.float32), 4, 4)
    params, others = (mlp_params(key, dtype=jnp.float32) for key in (0, 1))
    eager = ALL[name](params, batches)
    before = len(COMPILED)
    ALL[name](others, batches)
    assert len(COMPILED) == before > 0
    kinds = {jnp.result_type(leaf) for leaf in jax.tree.leaves(eager)} - {jnp.dtype("int32")}
    assert kinds == {jnp.dtype("float32")}
    jitted = jax.jit(lambda p: ALL[name](p, batches))(params)
    np.testing.assert_allclose(jax.tree.leaves(jitted), jax.tree.leaves(eager), rtol=1e-3)


def test_what_cannot_be_done_gets_one_sentence():
    params, batch = mlp_params(), mlp_batch()
    call = lambda **options: sharpness.takeuchi(tanh_apply, params, batch, **options)
    with pytest.raises(InputError, match="takeuchi: form must be one of 'full', 'diagonal', 'trace', got 'fall'"):
        call(form="fall")
    with pytest.raises(InputError, match="takeuchi: operator must be one of 'ggn', 'hessian'"):
        call(operator="fisher")
    with pytest.raises(InputError, match="takeuchi: damping must be a finite number >= 0"):
        call(damping=-1.0)
    with pytest.raises(InputError, match="takeuchi: probes must be None for form='diagonal'"):
        call(form="diagonal", probes=3)
    with pytest.raises(InputError, match="takeuchi: probes must be None for form='full' unless operator='ggn'"):
        call(form="full", probes=3)
    wide = {"in": jnp.ones((3, 2000)), "out": jnp.ones((2000, 2))}
    apply = lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"]
    with pytest.raises(InputError, match="takeuchi: params must be at most 5,000 numbers for an exact 'full'"):
        sharpness.takeuchi(apply, wide, batch, form="full")
    with pytest.raises(InputError, match="soft_rank_gap: params must be at most 5,000 numbers for an exact rank"):
        sharpness.soft_rank_gap(apply, wide, batch, damping=0.1, probes=None)
    with pytest.raises(InputError, match="soft_rank_gap: damping must be above 0"):
        sharpness.soft_rank_gap(tanh_apply, params, batch, damping=0.0)
    with pytest.raises(InputError, match=r"batches must be of at most 3 outputs, the number of.*got 6"):
        sharpness.interpolating_information(_linear, jnp.ones((3, 1)), mlp_batch(size=6))

"""Where the loss begins to rise along an update, against closed forms, and how a search fails."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError
from steppe.sharpness import Crossing, critical_sharpness

ONE = np.ones(1)


def quadratic(w, batch):
    """gᵀw + wᵀHw/2, the mean over examples."""
    return jnp.mean(batch["g"] @ w + jnp.einsum("i,bij,j->b", w, batch["H"], w) / 2)


def line(function):
    """A loss that is a function of one weight, and the update of one unit of it."""
    return lambda w, batch: function(w[0]) + 0 * jnp.mean(batch)


def along(function, update=1.0, at=0.0, **options):
    return critical_sharpness(line(function), jnp.array([at]), jnp.array([update]), ONE, **options)


def case(seed, size=4):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    return root @ root.T / size + 0.1 * np.eye(size), rng.normal(size=size), rng.normal(size=size)


def data(hessian, gradient, examples=1):
    repeated = lambda leaf: jnp.asarray(np.repeat(np.asarray(leaf, jnp.result_type(float))[None], examples, 0))
    return {"H": repeated(hessian), "g": repeated(gradient)}


def test_on_a_quadratic_it_is_the_closed_form_within_the_tolerance(x64):
    for seed, scale, tol in itertools.product(range(4), (1e-6, 1.0, 1e5), (1e-4, 1 / 16, 0.5)):
        H, g, w = case(seed)
        slope = H @ w + g
        u = -scale * slope
        exact = -2 * slope @ u / (u @ H @ u)
        found = critical_sharpness(quadratic, jnp.asarray(w), jnp.asarray(u), data(H, g), tol=tol)
        assert found.converged and found.lower <= exact * (1 + 1e-6) and exact <= found.upper * (1 + 1e-6)
        assert 1 - found.lower / found.upper <= tol
        np.testing.assert_allclose(found.sharpness, 2 / exact, rtol=1.001 * tol / (2 - tol))


def test_along_the_gradient_it_is_a_mean_of_eigenvalues_and_along_an_eigenvector_one_of_them():
    H = np.diag([1.0, 4.0])
    for w, expected in (([1.0, 1.0], 65 / 17), ([1.0, 0.0], 1.0), ([0.0, 1.0], 4.0)):
        at, eta = jnp.array(w), 0.01
        u = -eta * jax.grad(quadratic)(at, data(H, [0, 0]))
        found = critical_sharpness(quadratic, at, u, data(H, [0, 0]), learning_rate=eta, tol=1e-3)
        np.testing.assert_allclose(found.sharpness, expected, rtol=1e-3)


def test_the_step_at_the_edge_of_stability_is_the_multiple_one_and_takes_few_passes():
    H, w = np.diag([1.0, 4.0]), jnp.array([0.0, 1.0])
    for rate, expected in ((0.25, 2.0), (0.5, 1.0), (1.0, 0.5)):
        u = -rate * jax.grad(quadratic)(w, data(H, [0, 0]))
        found = critical_sharpness(quadratic, w, u, data(H, [0, 0]))
        assert found.lower <= expected * 1.0001 and expected <= found.upper * 1.0001 and found.passes <= 5


def test_adam_has_that_of_the_preconditioned_hessian():
    H, w, tx = np.diag([1.0, 100.0]), jnp.array([1.0, 1.0]), optax.rmsprop(0.01, decay=0.0, eps=1e-8)
    g = jax.grad(quadratic)(w, data(H, [0, 0]))
    u, state = tx.update(g, tx.init(w), w)
    P = np.sqrt(np.asarray(state[0].nu))
    rooted, at = np.diag(P**-0.5), np.asarray(g) * P**-0.5
    expected = at @ rooted @ H @ rooted @ at / (at @ at)
    found = critical_sharpness(quadratic, w, u, data(H, [0, 0]), learning_rate=0.01, tol=1e-3)
    np.testing.assert_allclose(found.sharpness, expected, rtol=2e-3)


def test_another_loss_along_the_update_is_the_relative_form():
    H1, H2, w = np.diag([1.0, 4.0]), np.diag([9.0, 2.0]), jnp.array([1.0, 1.0])
    g1, g2 = H1 @ np.asarray(w), H2 @ np.asarray(w)
    found = critical_sharpness(quadratic, w, jnp.asarray(-g1), data(H2, [0, 0]), tol=1e-3)
    np.testing.assert_allclose(found.sharpness, (g1 @ H2 @ g1) / (g1 @ g2), rtol=1e-3)
    against = critical_sharpness(quadratic, w, jnp.asarray(g1), data(H2, [0, 0]))
    assert Crossing(int(against.status)) is Crossing.RISES_AT_ONCE


def test_several_batches_are_one_loss():
    H, g, w = case(3)
    whole, parts = data(H, g, 6), [data(H, g, 4), data(2 * H, g, 2)]
    u = jnp.asarray(-(H @ w + g))
    mixed = {"H": jnp.concatenate([p["H"] for p in parts]), "g": whole["g"]}
    one, several = (critical_sharpness(quadratic, jnp.asarray(w), u, b) for b in (mixed, parts))
    np.testing.assert_allclose(one[:4], several[:4], rtol=1e-6)


CURVES = {
    "a parabola": lambda t, k: t * t - t,
    "a quartic": lambda t, k: k * t**4 + (1 - k) * t * t - t,
    "an exponential": lambda t, k: jnp.expm1(9 * k * t) / jnp.expm1(9 * k) - t,
    "a kink": lambda t, k: jnp.where(t < 1, -jnp.minimum(t, 1 - t), 9 * k * (t - 1)),
    "waves": lambda t, k: t * t - t + k / 5 * jnp.sin(9 * t) * t,
}


@pytest.mark.parametrize(("what", "most"), [(what, 5 if what == "a parabola" else 9) for what in CURVES])
@pytest.mark.parametrize("apart", [2, 1000])
def test_whatever_the_curve_the_loss_rises_within_the_bracket_and_few_passes_find_it(what, most, apart):
    rng, curve = np.random.default_rng(0), CURVES[what]

    def loss(w, batch):
        scale, level, size, k = batch[0]
        return level + size * curve(w[0] / scale, k)

    for _ in range(12):
        scale, k = np.exp(rng.uniform(-np.log(apart), np.log(apart))), rng.uniform(0.05, 0.9)
        batch = jnp.array([[scale, rng.uniform(0, 2), rng.uniform(0.1, 2), k]])
        found = critical_sharpness(loss, jnp.zeros(1), jnp.ones(1), batch)
        below, above = (curve(end / scale, k) for end in (found.lower, found.upper))
        assert found.converged and 1 - found.lower / found.upper <= 1 / 16 and below < 1e-4 and above > -1e-4
        assert found.passes <= (most if apart == 2 else 18)


FAILURES = {
    "a zero update": (lambda t: (t - 1) ** 2, 0.0, Crossing.NO_UPDATE),
    "a direction uphill": (lambda t: (t + 1) ** 2, 1.0, Crossing.RISES_AT_ONCE),
    "a minimum": (lambda t: 1 + t**2, 1.0, Crossing.RISES_AT_ONCE),
    "a loss that is NaN here": (lambda t: jnp.log(t - 1), 1.0, Crossing.NOT_FINITE),
    "an infinite loss": (lambda t: jnp.inf + t, 1.0, Crossing.NOT_FINITE),
    "an update that is NaN": (lambda t: (t - 1) ** 2, np.nan, Crossing.NOT_FINITE),
    "a flat loss": (lambda t: 3.0 + 0 * t, 1.0, Crossing.NEVER_RISES),
    "a loss that falls for ever": (lambda t: jnp.exp(-t), 1.0, Crossing.NEVER_RISES),
    "a valley lost in rounding": (lambda t: 1e6 + 1e-4 * (t - 1) ** 2 * jnp.exp(-t), 1.0, Crossing.NEVER_RISES),
}


@pytest.mark.parametrize("what", FAILURES)
def test_where_there_is_no_crossing_the_status_says_so_and_the_value_is_nan(what):
    function, update, expected = FAILURES[what]
    found = along(function, update)
    assert Crossing(int(found.status)) is expected and Crossing(int(found.status)).note
    assert not found.converged and np.isnan(found.sharpness) and np.isnan(found.step)


@pytest.mark.parametrize("noise", [0.0, 2e-6])
def test_a_small_update_is_followed_until_its_effect_is_more_than_rounding(noise):
    found = along(lambda t: 1 + 1e-3 * (t - 1) ** 2 + noise * jnp.sin(1e4 * t), 1e-4)
    assert found.converged
    np.testing.assert_allclose(found.step, 2e4, rtol=1 / 16)


def test_a_network_in_half_precision_is_not_judged_by_its_rounding():
    batch, signs = np.random.default_rng(0).normal(size=(2, 256, 40)).astype(np.float32)

    def fitted(dtype):
        def loss(w, x):
            outputs = jnp.tanh(x.astype(dtype) @ w.astype(dtype)).astype(jnp.float32)
            return jnp.mean((outputs - jnp.tanh(x @ target)) ** 2)

        return loss

    target = jnp.asarray(signs[0]) / 6
    w = target + 0.02
    u = -1e-3 * jax.grad(fitted(jnp.float32))(w, batch)
    found, expected = (critical_sharpness(fitted(dtype), w, u, batch) for dtype in (jnp.bfloat16, jnp.float32))
    assert found.converged
    np.testing.assert_allclose(found.sharpness, expected.sharpness, rtol=0.15)
    u = -1e-3 * jax.grad(fitted(jnp.float32))(target + 1e-4, batch)  # too near for half precision to see anything
    assert not critical_sharpness(fitted(jnp.bfloat16), target + 1e-4, u, batch).converged


def test_what_rounding_makes_of_a_slope_uphill_is_no_crossing():
    found = along(lambda t: 1000.0 + t, 1e-3)  # one unit of rounding at 1000 is 6e-5
    assert not found.converged
    fine = along(lambda t: 1000.0 - 1e-6 * t + 1e-6 * t**2, 1.0)
    assert not fine.converged


def test_a_loss_that_is_no_number_further_on_counts_as_risen():
    for further in (jnp.nan, jnp.inf):
        found = along(lambda t, further=further: jnp.where(t > 3, further, -t), tol=1e-3)
        assert found.converged
        np.testing.assert_allclose(found.step, 3.0, rtol=1e-3)


def test_a_flat_stretch_is_passed_until_the_loss_rises():
    found = along(lambda t: jnp.maximum(t - 10, 0.0), tol=1e-3)
    assert found.converged
    np.testing.assert_allclose(found.step, 10, rtol=2e-3)


def waves(w, batch):
    a, t = jnp.mean(batch, axis=0), w[0]
    return a[0] * jnp.sin(3 * t) + a[1] * jnp.sin(t) + a[2] * t + 0.1 * t**2


def test_of_many_crossings_the_bracket_holds_one():
    met = 0
    for seed, start in itertools.product(range(6), (0.1, 1.0, 7.0)):
        batch = np.random.default_rng(seed).normal(size=(1, 3)).astype(np.float32)
        found = critical_sharpness(waves, jnp.zeros(1), jnp.ones(1), batch, start=start, tol=1e-2)
        if found.converged:
            met += 1
            below, here, above = (float(waves(jnp.array([t]), batch)) for t in (found.lower, 0.0, found.upper))
            assert below <= here < above and 1 - found.lower / found.upper <= 1e-2
    assert met >= 6


def test_a_search_that_is_cut_short_says_so_and_keeps_its_bracket():
    found = along(lambda t: (t - 1) ** 2, 1e-6, max_passes=10)
    assert Crossing(int(found.status)) is Crossing.NEVER_RISES and found.passes == 10
    assert found.lower >= 2.0**8 and np.isinf(found.upper)


def test_it_is_the_same_inside_jit_and_in_a_scan():
    H, g, w = case(5)
    batch, w = data(H, g), jnp.asarray(w, jnp.float32)
    u = -jax.grad(quadratic)(w, batch)
    plain = critical_sharpness(quadratic, w, u, batch)
    inside = jax.jit(lambda w, u, batch: critical_sharpness(quadratic, w, u, batch))(w, u, batch)
    np.testing.assert_allclose(plain[:4], inside[:4], rtol=1e-6)
    scanned = jax.lax.scan(lambda c, _: (c, critical_sharpness(quadratic, w, u, batch).step), 0, length=2)[1]
    np.testing.assert_allclose(scanned, [plain.step] * 2, rtol=1e-6)


def test_parameters_of_half_precision_are_moved_in_full():
    w, u = jnp.array([1.0], jnp.bfloat16), jnp.array([-0.25], jnp.bfloat16)
    found = critical_sharpness(lambda w, b: jnp.sum(w.astype(jnp.float32) ** 2), w, u, ONE)
    assert found.converged and found.lower <= 8 * 1.01 and found.upper >= 8 * 0.99


def test_bad_input_is_one_sentence():
    w = jnp.ones(2)
    loss = lambda w, batch: jnp.sum(w**2)
    for update, options, words in (
        (jnp.ones(3), {}, "update must be of the parameters' structure"),
        ({"w": w}, {}, "update must be of the parameters' structure"),
        (jnp.ones(2, jnp.int32), {}, "floating-point"),
        (w, {"tol": 0.0}, "tol must be"),
        (w, {"start": 0.0}, "start must be"),
        (w, {"learning_rate": -1.0}, "learning_rate must be"),
        (w, {"max_passes": 2}, "max_passes must be"),
    ):
        with pytest.raises(InputError, match=words):
            critical_sharpness(loss, w, update, ONE, **options)

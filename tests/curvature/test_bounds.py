"""The bounds on a spectrum's ends, as theorems on chosen spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, curvature
from steppe.core.types import Estimate


def bounds(values, function=curvature.wolkowicz_styan):
    values = jnp.asarray(values)
    return function(jnp.sum(values), jnp.sum(values**2), values.size)


SPECTRA = {
    "one above": [7.0, 1.0, 1.0, 1.0, 1.0],
    "one below": [-3.0, 2.0, 2.0, 2.0],
    "two": [-1.0, 4.0],
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_the_outer_ends_are_attained_where_all_other_eigenvalues_are_equal(x64, values):
    got = bounds(values)
    above = np.max(values) - np.mean(values) >= np.mean(values) - np.min(values)
    attained, inner = (got.max_upper, got.min_upper) if above else (got.min_lower, got.max_lower)
    np.testing.assert_allclose(attained, np.max(values) if above else np.min(values), rtol=1e-14)
    np.testing.assert_allclose(inner, np.min(values) if above else np.max(values), rtol=1e-14)


def test_the_outer_ends_are_attained_by_no_other_spectrum(x64):
    for values in ([5.0, 1.0, 1.0, 1.2], [0.0, 1.0, 2.0], [2.0, 2.0, -1.0, -1.0]):
        got = bounds(values)
        assert got.max_upper > max(values) + 1e-4
        assert got.min_lower < min(values) - 1e-4


def test_they_hold_every_spectrum_and_the_width_lies_between_its_bounds(x64):
    rng = np.random.default_rng(0)
    for n in range(2, 12):
        for _ in range(40):
            A = rng.normal(size=(n, n)) * rng.exponential(size=(n, 1)) ** 2
            A = A + A.T + rng.normal() * np.eye(n)
            values = np.linalg.eigvalsh(A)
            low, high, width = values[0], values[-1], values[-1] - values[0]
            slack = 1e-12 * np.abs(values).max()
            got = curvature.wolkowicz_styan(np.trace(A), np.sum(A**2), n)
            assert got.min_lower - slack <= low <= got.min_upper + slack
            assert got.max_lower - slack <= high <= got.max_upper + slack
            s = np.std(values)
            least = 2 * s * (n / np.sqrt(n**2 - 1) if n % 2 else 1)
            assert least - slack <= width <= curvature.mirsky(np.trace(A), np.sum(A**2), n) + slack


def test_mirsky_is_attained_where_the_others_lie_midway_and_its_lower_twin_by_two_halves(x64):
    np.testing.assert_allclose(bounds([-2.0, 1.0, 1.0, 1.0, 4.0], curvature.mirsky), 6.0, rtol=1e-14)
    assert bounds([-2.0, 0.9, 1.0, 1.0, 4.0], curvature.mirsky) > 6.0
    even, odd = np.array([-1.0, -1.0, 3.0, 3.0]), np.array([-1.0, -1.0, 3.0])
    np.testing.assert_allclose(2 * even.std(), 4.0)
    np.testing.assert_allclose(2 * odd.std() * 3 / np.sqrt(8), 4.0)


def test_mirsky_is_the_distance_of_the_outer_ends_times_a_constant(x64):
    values = [0.3, -2.0, 5.0, 1.0, 1.5]
    got = bounds(values)
    np.testing.assert_allclose(
        bounds(values, curvature.mirsky), (got.max_upper - got.min_lower) * np.sqrt(5 / 8), rtol=1e-13
    )


def test_estimates_give_the_bounds_of_their_means():
    numbers = curvature.wolkowicz_styan(2.0, 9.0, 5)
    estimates = curvature.wolkowicz_styan(Estimate(jnp.float32(2.0), 0.1), Estimate(jnp.float32(9.0), 0.2), 5)
    np.testing.assert_array_equal(numbers, estimates)
    assert curvature.mirsky(Estimate(2.0, 0.1), Estimate(9.0, 0.2), 5) == curvature.mirsky(2.0, 9.0, 5)


def test_random_moments_that_no_spectrum_has_give_no_spread():
    got = curvature.wolkowicz_styan(10.0, 1.0, 5)  # tr(H²) below (tr H)² / n
    assert [float(bound) for bound in got] == [2.0] * 4
    assert curvature.mirsky(10.0, 1.0, 5) == 0


def test_moments_beyond_the_dtype_tell_nothing():
    for moments in [(0.0, np.inf), (np.inf, 1.0), (np.nan, 1.0), (1e30, 1e38)]:
        first, second = map(jnp.float32, moments)
        assert np.isnan(curvature.wolkowicz_styan(first, second, 3)).all()
        assert np.isnan(curvature.mirsky(first, second, 3))


def test_one_eigenvalue_is_its_own_bounds():
    assert [float(bound) for bound in curvature.wolkowicz_styan(3.0, 9.5, 1)] == [3.0] * 4
    assert curvature.mirsky(3.0, 9.5, 1) == 0


def test_gradients_equal_their_formula_and_are_finite_at_a_multiple_of_the_identity(x64):
    n, t1, t2 = 5, 2.0, 9.0
    m, s = t1 / n, np.sqrt(t2 / n - (t1 / n) ** 2)
    upper = lambda t1, t2: curvature.wolkowicz_styan(t1, t2, n).max_upper
    expected = (1 / n - np.sqrt(n - 1) * m / (n * s), np.sqrt(n - 1) / (2 * n * s))
    np.testing.assert_allclose(jax.grad(upper, (0, 1))(t1, t2), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(upper, (0, 1))(5.0, 5.0), (1 / n, 0.0), rtol=1e-13)
    assert jax.grad(lambda t: curvature.mirsky(t, t, n))(5.0) == 0


def test_arrays_are_taken_elementwise_and_keep_their_dtype(strict):
    first, second = jnp.array([8.0, 0.0], jnp.float32), jnp.array([28.0, 8.0], jnp.float32)
    got = jax.jit(curvature.wolkowicz_styan, static_argnums=2)(first, second, 4)
    np.testing.assert_allclose(got.max_upper, [5.0, np.sqrt(6)], rtol=1e-6)
    assert got.max_upper.dtype == jnp.float32
    assert curvature.wolkowicz_styan(first.astype(jnp.bfloat16), second.astype(jnp.bfloat16), 4)[0].dtype == jnp.float32


def test_bad_sizes_get_one_sentence():
    with pytest.raises(InputError, match="wolkowicz_styan: size must be a whole number of at least 1, got 0"):
        curvature.wolkowicz_styan(1.0, 1.0, 0)
    with pytest.raises(InputError, match=r"mirsky: size must be a whole number of at least 1, got 2\.5"):
        curvature.mirsky(1.0, 1.0, 2.5)

"""Intervals of real targets: definitions, independent values, chance, and the measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from steppe import InputError, outcomes
from steppe.core import losses
from steppe.measures import measure
from support.properties import cheap

RANDOM = np.random.default_rng(0)
MEAN, SCALE = RANDOM.normal(size=(50, 2)), RANDOM.uniform(0.5, 2, (50, 2))
TARGETS = MEAN + SCALE * RANDOM.normal(size=(50, 2)) * 1.3 + 0.2


def test_an_interval_holds_its_level_of_a_normal_distribution():
    lower, upper = outcomes.normal_interval(MEAN, SCALE, level=0.8)
    inside = stats.norm.cdf(upper, MEAN, SCALE) - stats.norm.cdf(lower, MEAN, SCALE)
    np.testing.assert_allclose(inside, 0.8, rtol=1e-12)
    np.testing.assert_allclose(lower + upper, 2 * MEAN)
    assert outcomes.normal_interval(MEAN[:, 0], SCALE[:, 0])[0].shape == (50,)


def test_coverage_is_that_of_each_interval_by_itself():
    found = outcomes.interval_calibration(MEAN, SCALE, TARGETS)
    for level, coverage in zip(found.level, found.coverage, strict=True):
        ends = outcomes.normal_interval(MEAN, SCALE, level=level)
        assert coverage == pytest.approx(outcomes.interval_coverage(*ends, TARGETS))
    assert ((found.lower <= found.coverage) & (found.coverage <= found.upper)).all()
    assert found.error == pytest.approx(np.mean(np.abs(found.coverage - found.level)))
    wide = outcomes.interval_calibration(MEAN, 10 * SCALE, TARGETS)
    assert (wide.coverage >= found.coverage).all()


def test_the_score_is_proper_and_the_sum_of_two_quantile_losses():
    ends = outcomes.normal_interval(MEAN, SCALE, level=0.9)
    pinball = [
        np.maximum(q * (TARGETS - end), (q - 1) * (TARGETS - end)) for q, end in zip((0.05, 0.95), ends, strict=True)
    ]
    assert outcomes.interval_score(*ends, TARGETS, level=0.9) == pytest.approx(2 / 0.1 * np.mean(sum(pinball)))

    def expected(low, high):  # of a standard normal target
        value = lambda y: outcomes.interval_score([low], [high], [y], level=0.8) * stats.norm.pdf(y)
        return integrate.quad(value, -8, 8, points=[low, high], limit=60)[0]

    right = expected(*(float(end[0]) for end in outcomes.normal_interval([0.0], [1.0], level=0.8)))
    assert all(right < expected(*other) for other in ((-1.1, 1.4), (-1.5, 1.28), (-0.9, 0.9)))


def test_it_is_what_uncertainty_toolbox_finds():
    """Recorded from uncertainty-toolbox 0.1.1: `interval_score` at one level, and in the mean over ours; and
    `mean_absolute_calibration_error(prop_type="interval")`, which counts the levels 0 and 1, too, at which coverage is
    always right."""
    mean, scale, y = [0.0, 1.0, -2.0], [1.0, 0.5, 2.0], [0.5, 2.0, -1.0]
    for level, expected in ((0.5, 2.4574829169934693), (0.9, 5.0218130397151945)):
        ends = outcomes.normal_interval(mean, scale, level=level)
        assert outcomes.interval_score(*ends, y, level=level) == pytest.approx(expected, rel=1e-12)
    random = np.random.default_rng(3)
    mean, scale = random.normal(size=40), random.uniform(0.5, 2, 40)
    y = mean + 1.3 * scale * random.normal(size=40)
    found = outcomes.interval_calibration(mean, scale, y)
    assert found.error * 19 / 21 == pytest.approx(0.10476190476190479, rel=1e-12)
    scores = [outcomes.interval_score(*outcomes.normal_interval(mean, scale, level=level), y, level=level)
              for level in found.level]  # fmt: skip
    assert np.mean(scores) == pytest.approx(5.4785304678228, rel=1e-12)


def test_a_calibrated_forecast_has_the_error_of_chance_which_goes_to_zero():
    for size in (100, 10_000):
        errors = [outcomes.interval_calibration(m, np.ones(size), np.random.default_rng(seed).normal(m)).error
                  for seed in range(40) for m in (np.linspace(-3, 3, size),)]  # fmt: skip
        assert np.mean(errors) == pytest.approx(0.33 / np.sqrt(size), rel=0.2)
    levels = np.linspace(0.05, 0.95, 19)
    assert np.sqrt(2 / np.pi) * np.mean(np.sqrt(levels * (1 - levels))) == pytest.approx(0.33, abs=0.005)


@cheap
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_units_of_the_targets_change_the_score_alone(seed, factor, shift):
    random = np.random.default_rng(seed)
    mean, scale, y = random.normal(size=9), random.uniform(0.1, 1, 9), random.normal(size=9)
    one = outcomes.interval_calibration(mean, scale, y)
    other = outcomes.interval_calibration(factor * mean + shift, factor * scale, factor * y + shift)
    np.testing.assert_array_equal(one.coverage, other.coverage)


def apply(params, x):
    return x @ params


def test_the_measure_reads_means_and_scales_from_outputs():
    x = RANDOM.normal(size=(30, 3)).astype(np.float32)
    params = jnp.asarray(RANDOM.normal(size=(3, 2)) * 0.5, jnp.float32)
    outputs = np.asarray(apply(params, x))
    y = (outputs[:, 0] + np.exp(outputs[:, 1]) * RANDOM.normal(size=30)).astype(np.float32)
    nll = losses.gaussian_negative_log_likelihood
    batches = [{"x": x[:20], "y": y[:20]}, {"x": x[20:], "y": y[20:]}]
    rows = measure(["loss", "interval_calibration"], apply=apply, criterion=nll, params=params, batches=batches)
    found = {row.quantity: row.value for row in rows}
    scale = np.exp(outputs[:, 1])
    assert found["loss"] == pytest.approx(-np.mean(stats.norm.logpdf(y, outputs[:, 0], scale)), rel=1e-5)
    ends = outcomes.normal_interval(outputs[:, 0], scale)
    assert found["interval_coverage"] == pytest.approx(outcomes.interval_coverage(*ends, y))
    assert found["interval_score"] == pytest.approx(outcomes.interval_score(*ends, y), rel=1e-6)
    assert found["interval_error"] == pytest.approx(outcomes.interval_calibration(outputs[:, 0], scale, y).error)
    drawn = jax.vmap(losses.sampler(nll), (0, None))(jax.random.split(jax.random.key(0), 4000), jnp.array([2.0, -1.0]))
    assert drawn.shape == (4000, 1) and float(drawn.std()) == pytest.approx(np.exp(-1), rel=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: outcomes.normal_interval([0.0], [0.0]), "positive"),
        (lambda: outcomes.normal_interval([0.0], [1.0], level=1.0), "between 0 and 1"),
        (lambda: outcomes.interval_coverage([1.0], [0.0], [0.5]), "at most upper"),
        (lambda: outcomes.interval_score([0.0], [1.0, 2.0], [0.5]), "of shape"),
        (lambda: outcomes.interval_calibration([0.0], [1.0], [np.nan]), "finite"),
        (lambda: outcomes.interval_calibration([0.0], [1.0], [0.0], levels=[]), "levels"),
        (
            lambda: measure("interval_calibration", apply=apply, criterion=losses.squared_error,
                            params=jnp.ones((3, 1)), batches={"x": jnp.ones((4, 3)), "y": jnp.ones(4)}),
            "standard deviations",
        ),
        (
            lambda: losses.gaussian_negative_log_likelihood(jnp.ones((4, 1)), jnp.ones(4)),
            r"shape \(B, 2\)",
        ),
    ],
)  # fmt: skip
def test_what_is_no_forecast_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

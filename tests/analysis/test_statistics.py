"""Statistics over seeds: against scipy and statsmodels, known values, and what must hold whatever the numbers."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

from steppe.analysis import compare, compare_all, detectable_difference, holm, summary, welch_power
from steppe.analysis.quantities import Quantity
from steppe.analysis.verdict import Verdict
from steppe.core.checks import InputError
from steppe.report.wording import verdicts
from steppe.report.wording.verdicts import disagreement

RNG = np.random.default_rng(1)
SAMPLES = [(RNG.normal(0, 1, n), RNG.normal(0.8, 2, m)) for n, m in ((2, 2), (3, 3), (3, 5), (10, 4), (30, 30))]


LOSS = Quantity("loss", "Loss")


def verdict(found, quantity=LOSS) -> str:
    return verdicts.verdict(quantity, found)


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


@pytest.mark.parametrize("values", [pair[0] for pair in SAMPLES])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_summary_is_students_interval(values, confidence):
    found = summary(values, confidence=confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    np.testing.assert_allclose(found[1:], (np.mean(values), np.std(values, ddof=1), low, high))


def test_one_value_has_a_mean_and_no_spread():
    found = summary([0.7])
    assert found[:2] == (1, 0.7) and all(map(math.isnan, found[2:]))
    assert summary([]).count == 0 and all(map(math.isnan, summary([])[1:]))


@pytest.mark.parametrize(("x", "y"), SAMPLES)
def test_compare_is_scipys_welch_and_its_interval(x, y):
    found, theirs = compare(by_seed(x), by_seed(y)), stats.ttest_ind(y, x, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert found.welch.status == "tested"
    np.testing.assert_allclose(found.welch.p, theirs.pvalue)
    np.testing.assert_allclose((found.difference, found.low, found.high), (y.mean() - x.mean(), *interval))


def test_paired_uses_common_seeds_only():
    x, y = {0: 1.0, 1: 2.0, 2: 4.0, 7: 9.0}, {2: 4.5, 1: 2.1, 0: 1.4, 5: 3.0}
    found = compare(x, y)
    assert found.pairs == 3
    np.testing.assert_allclose(found.paired.p, stats.ttest_rel([1.4, 2.1, 4.5], [1, 2, 4]).pvalue)
    np.testing.assert_allclose(found.d_z, np.mean([0.4, 0.1, 0.5]) / np.std([0.4, 0.1, 0.5], ddof=1))


def test_hedges_g_of_a_worked_example():
    # pooled sd 1, difference 2, nu = 4: g = (1 - 3/15) * 2
    found = compare(by_seed([1, 2, 3]), by_seed([3, 4, 5]))
    assert found.hedges_g.value == pytest.approx(1.6)


def test_hedges_interval_covers_what_it_says():
    rng, true, hits = np.random.default_rng(2), 1.0, 0
    for _ in range(400):
        g = compare(by_seed(rng.normal(0, 1, 6)), by_seed(rng.normal(true, 1, 6))).hedges_g
        correction = 1 - 3 / (4 * 10 - 1)
        hits += g.low <= correction * true <= g.high
    assert abs(hits / 400 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(("x", "y"), SAMPLES)
def test_swapping_sides_flips_every_sign_and_keeps_every_p(x, y):
    one, other = compare(by_seed(x), by_seed(y)), compare(by_seed(y), by_seed(x))
    assert (one.welch.p, one.paired.p) == pytest.approx((other.welch.p, other.paired.p))
    np.testing.assert_allclose((one.difference, one.low, one.high), (-other.difference, -other.high, -other.low))
    np.testing.assert_allclose(one.hedges_g, (-other.hedges_g.value, -other.hedges_g.high, -other.hedges_g.low), 1e-6)
    assert one.d_z == pytest.approx(-other.d_z)


@pytest.mark.parametrize(("x", "y"), SAMPLES)
def test_the_welch_interval_holds_zero_exactly_if_p_exceeds_alpha(x, y):
    p = compare(by_seed(x), by_seed(y)).welch.p
    for confidence in (1 - 0.99 * p, 1 - min(1.01 * p, 0.9999)):
        found = compare(by_seed(x), by_seed(y), confidence=confidence)
        assert (found.low <= 0 <= found.high) == (p > 1 - confidence)


@pytest.mark.parametrize(("x", "y"), SAMPLES)
def test_shift_and_scale_change_no_p(x, y):
    one, other = compare(by_seed(x), by_seed(y)), compare(by_seed(5 + 3 * x), by_seed(5 + 3 * y))
    assert (one.welch.p, one.paired.p, one.d_z) == pytest.approx((other.welch.p, other.paired.p, other.d_z))


@pytest.mark.parametrize("size", [1, 2, 5, 14])
def test_holm_is_statsmodels_never_below_raw_and_monotone(size):
    raw = RNG.uniform(0, 0.3, size)
    found = holm(raw)
    np.testing.assert_allclose(found, multipletests(raw, method="holm")[1])
    assert (found >= raw).all() and (found <= 1).all() and (np.diff(found[np.argsort(raw)]) >= 0).all()


def test_holm_leaves_undone_tests_outside_the_family():
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04])
    assert np.isnan(holm([math.nan])).all() and holm([]).shape == (0,)


def test_a_lone_comparison_needs_no_correction():
    found = compare_all(by_seed([1, 2, 3]), {"a": by_seed([2, 3, 5])})["a"]
    assert found.welch.corrected == found.welch.p and found.paired.corrected == found.paired.p


EQUAL = "no difference shown: identical in every run"


@pytest.mark.parametrize(
    ("x", "y", "welch", "paired", "words"),
    [
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], "identical", "identical", EQUAL),
        ([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], "tested", "identical", EQUAL),
        ([0.9, 0.8, 0.7], [0.7, 0.9, 0.8], "tested", "tested", "no difference shown"),
        ([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], "no spread", "no spread", "cannot tell: lower in every run by 0.1"),
        ([0.9, 0.9, 0.9], [0.8, 0.81, 0.8], "tested", "tested", "significantly lower (by 0.0967)"),
        ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], "tested", "no spread", "no difference shown"),
        ([0.9], [0.8], "too few", "too few", "cannot tell: one run cannot be tested"),
        ([0.9, 0.8], [0.8], "too few", "too few", "cannot tell: one run cannot be tested"),
        ([], [0.8], "too few", "too few", "cannot tell: no values"),
    ],
)  # fmt: skip
def test_degenerate_samples_get_a_reason(x, y, welch, paired, words):
    found = compare(by_seed(x), by_seed(y))
    assert (found.welch.status, found.paired.status) == (welch, paired)
    assert verdict(found).startswith(words)
    for test in (found.welch, found.paired):
        assert math.isnan(test.p) == (test.status in ("no spread", "too few"))
        assert test.p == 1 or test.status != "identical"


def test_rounding_in_float32_is_no_spread():
    x = {0: float(np.float32(0.9)), 1: 0.9, 2: 0.9}
    assert summary(x.values()).sd == 0
    assert compare(x, by_seed([0.9, 0.9, 0.9])).welch.status == "identical"
    shifted = {0: float(np.float32(0.95)), 1: float(np.float32(0.85)), 2: 0.75}
    assert compare(by_seed([0.9, 0.8, 0.7]), shifted).paired.status == "no spread"


def test_verdict_follows_holm_and_the_size_asked_for():
    base, far = by_seed([1.0, 2.0, 3.0]), by_seed([4.0, 4.5, 6.0])
    alone = compare(base, far)
    assert alone.welch.p < 0.05 and verdict(alone).startswith("significantly higher")
    among = compare_all(base, {str(i): far for i in range(5)})["0"]
    assert among.welch.corrected > 0.05 and verdict(among) == "no difference shown"
    assert verdict(alone, Quantity("a", "A", "share")) == "significantly higher (by 283.3 points)"
    assert alone.verdict is Verdict.HIGHER and among.verdict is Verdict.INCONCLUSIVE


def test_disagreement_is_said_only_where_there_is_one():
    assert disagreement(compare(by_seed([1, 2, 3]), by_seed([1.5, 2.5, 3.6]))).startswith("The seed-paired test finds")
    assert disagreement(compare(by_seed([1, 2, 3]), by_seed([4.5, 3.9, 4.4]))).startswith("Welch’s test finds")
    assert "undefined" in disagreement(compare(by_seed([1, 2, 3]), by_seed([2, 3, 4])))
    for same in ([1, 2, 3], [3.1, 1.2, 2.3], [7, 8, 9.1]):
        assert disagreement(compare(by_seed([1, 2, 3]), by_seed(same))) == ""


@pytest.mark.parametrize(
    ("effect", "count", "alpha"), [(3.0, 3, 0.05), (4.5, 3, 0.0125), (6.0, 2, 0.05), (1.2, 6, 0.05)]
)
def test_power_is_what_simulated_experiments_find(effect, count, alpha):
    rng, trials = np.random.default_rng(3), 20_000
    x, y = rng.normal(0, 1, (count, trials)), rng.normal(effect, 1, (count, trials))
    found = np.mean(stats.ttest_ind(y, x, equal_var=False).pvalue <= alpha)
    expected = welch_power(effect, count, alpha=alpha)
    assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


def test_power_meets_students_for_many_runs_and_stays_below_it_for_few():
    student = TTestIndPower()
    assert welch_power(0.4, 100) == pytest.approx(student.power(0.4, 100, 0.05), abs=1e-3)
    assert welch_power(3.0, 3) < student.power(3.0, 3, 0.05) - 0.05


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("power", [0.5, 0.8])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 14])
def test_the_detectable_difference_is_found_as_often_as_it_says(count, power, alpha):
    found = detectable_difference(count, 0.5, power=power, alpha=alpha)
    assert welch_power(found / 0.5, count, alpha=alpha) == pytest.approx(power, abs=1e-4)


def test_more_runs_less_spread_and_less_power_detect_smaller_differences():
    assert detectable_difference(10, 1.0) < detectable_difference(3, 1.0)
    assert detectable_difference(3, 1.0, power=0.5) < detectable_difference(3, 1.0)
    assert detectable_difference(3, 1.0) < detectable_difference(3, 1.0, alpha=0.0125)
    assert detectable_difference(3, 2.0) == pytest.approx(2 * detectable_difference(3, 1.0))
    assert detectable_difference(3, 0.0) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summary([1.0, math.nan]), "summary: values must be finite, got nan. Leave diverged runs out"),
        (lambda: compare({0: math.inf}, {0: 1.0}), "compare: values must be finite"),
        (lambda: summary([1.0], confidence=1.0), "summary: confidence must be between 0 and 1, got 1.0"),
        (lambda: detectable_difference(1, 1.0), "detectable_difference: count must be a whole number of at least 2"),
        (lambda: detectable_difference(3, -1.0), "detectable_difference: sd must be a finite number >= 0"),
        (lambda: detectable_difference(3, 1.0, power=0.01), "detectable_difference: power must be greater than alpha"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)

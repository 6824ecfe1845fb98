"""Verdicts: what must hold of them whatever the numbers, and equivalence against statsmodels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from statsmodels.stats.weightstats import ttost_ind

from steppe.analysis import compare, compare_all
from steppe.analysis.comparison import compare_quantity
from steppe.analysis.quantities import Quantity
from steppe.analysis.statistics.effects import LARGE_T
from steppe.analysis.verdict import Verdict
from steppe.report.wording.verdicts import verdict as words
from support.properties import cheap

LOSS = Quantity("loss", "Loss")
SIZES = some.sampled_from([1e-320, 1e-150, 1e-12, 1.0, 1e12, 1e150, 1e300])
UNITS = some.floats(-1, 1, allow_subnormal=False)
MARGINS = some.floats(1e-3, 1e3)


@some.composite
def samples(draw, least=1):
    """Two samples by seed, of one magnitude, huge and tiny ones among them, with ties and constants."""
    scale = draw(SIZES)
    values = some.lists(UNITS | some.sampled_from([0.0, 0.5]), min_size=least, max_size=6)
    return tuple(dict(enumerate(scale * x for x in draw(values))) for _ in range(2))


@cheap
@given(samples())
def test_without_a_margin_nothing_is_equivalent(pair):
    found = compare(*pair)
    assert found.verdict is not Verdict.EQUIVALENT and found.equivalence.status == "no margin"
    assert words(LOSS, found)


@cheap
@given(samples(), MARGINS, MARGINS)
def test_a_wider_margin_moves_a_verdict_only_towards_equivalence(pair, one, other):
    scale = max(abs(v) for by in pair for v in by.values()) or 1.0
    narrow, wide = (compare(*pair, margin=scale * m) for m in sorted((one, other)))
    assert narrow.verdict is wide.verdict or wide.verdict is Verdict.EQUIVALENT
    assert narrow.different == wide.different


@cheap
@given(samples(), MARGINS)
def test_swapping_sides_swaps_higher_and_lower(pair, margin):
    scale = max(abs(v) for by in pair for v in by.values()) or 1.0
    one, other = (compare(*sides, margin=scale * margin) for sides in (pair, pair[::-1]))
    swapped = {Verdict.HIGHER: Verdict.LOWER, Verdict.LOWER: Verdict.HIGHER}
    assert one.verdict is swapped.get(other.verdict, other.verdict)


@cheap
@given(samples(), MARGINS)
def test_a_sample_is_never_different_from_itself(pair, margin):
    for known in (compare(pair[0], pair[0]), compare(pair[0], pair[0], margin=margin)):
        assert not known.verdict.directed and not known.different


@cheap
@given(samples())
def test_one_seed_is_never_tested(pair):
    found = compare({0: pair[0][0]}, pair[1], margin=1e200)
    assert found.verdict is Verdict.UNTESTABLE and found.welch.status == "too few"


@cheap
@given(UNITS, UNITS, MARGINS)
def test_without_spread_neither_a_difference_nor_equivalence_is_claimed(one, other, margin):
    found = compare(dict.fromkeys(range(3), one), dict.fromkeys(range(3), other), margin=margin)
    assert found.verdict in (Verdict.UNTESTABLE, Verdict.INCONCLUSIVE)
    assert (found.verdict is Verdict.INCONCLUSIVE) == found.identical


def test_equivalence_is_statsmodels_tost():
    rng = np.random.default_rng(0)
    for n, m, shift, margin in ((3, 3, 0.0, 1.0), (3, 5, 0.4, 2.0), (10, 4, -0.3, 0.5), (30, 30, 0.1, 0.6)):
        x, y = rng.normal(0, 1, n), rng.normal(shift, 0.3, m)
        found = compare(dict(enumerate(x)), dict(enumerate(y)), margin=margin)
        p, *_ = ttost_ind(y, x, -margin, margin, usevar="unequal")
        np.testing.assert_allclose(found.equivalence.p, p, rtol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_of_a_huge_effect_comes_at_once_and_continues_that_of_a_large_one(sign):
    x = {0: 0.0, 1: 1.0, 2: -1.0}
    large, huge = (compare(x, {seed: sign * shift + v for seed, v in x.items()}).hedges_g for shift in (816.0, 8.16e5))
    assert LARGE_T / 2 < 816 / math.sqrt(2 / 3) < LARGE_T
    np.testing.assert_allclose(np.array(huge) / 1e3, large, rtol=1e-3)


def test_a_certain_difference_within_the_margin_is_equivalent_and_both_facts_are_said():
    base, other = {0: 1.0, 1: 1.01, 2: 0.99}, {0: 1.2, 1: 1.21, 2: 1.19}
    found = compare(base, other, margin=0.5)
    assert found.verdict is Verdict.EQUIVALENT and found.different
    assert words(LOSS, found) == "equivalent within 0.5, though significantly higher (by 0.2)"
    assert compare(base, other, margin=0.05).verdict is compare(base, other).verdict is Verdict.HIGHER


def test_equivalence_is_a_family_of_its_own():
    base = {0: 1.0, 1: 1.1, 2: 0.9}
    found = compare_all(base, {"near": {0: 1.0, 1: 1.1, 2: 0.95}, "far": {0: 9.0, 1: 9.1, 2: 8.9}}, margin=0.5)
    assert found["near"].equivalence.corrected == 2 * found["near"].equivalence.p
    assert found["far"].welch.corrected == 2 * found["far"].welch.p
    assert found["far"].equivalence.p > 0.5


def test_a_margin_is_a_factor_where_logarithms_are_compared():
    values = {"a": {0: 1.0, 1: 1.01, 2: 0.99}, "b": {0: 1.05, 1: 1.06, 2: 1.04}}
    log = LOSS._replace(log=True)
    for margin, verdict in ((1.1, Verdict.EQUIVALENT), (1.01, Verdict.HIGHER), (None, Verdict.HIGHER)):
        assert compare_quantity(log, values, {"b": "a"}, margin=margin).verdict("b") is verdict


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_is_not_finite_is_left_out(missing):
    found = compare_quantity(LOSS, {"a": {0: 1.0, 1: 2.0}, "b": {0: missing, 1: 1.0}}, {"b": "a"}, margin=9.0)
    assert found.summaries["b"].count == 1 and found.verdict("b") is Verdict.UNTESTABLE


def test_a_value_that_is_only_a_bound_is_not_tested():
    values = {"a": {0: 1.0, 1: 1.1}, "b": {0: 9.0, 1: 9.1}}
    found = compare_quantity(LOSS, values, {"b": "a"}, bounds={"b": 1}, margin=99.0)
    assert found.verdict("b") is Verdict.UNTESTABLE and found.comparisons["b"].welch.status == "bounds"
    assert words(LOSS, found.comparisons["b"]) == "cannot tell: some values are only bounds"


@cheap
@given(some.floats(-1, 1), some.floats(0, 1), MARGINS)
def test_an_interval_within_the_margin_is_equivalent_and_one_without_zero_is_directed(middle, half, margin):
    low, high = middle - half, middle + half
    plain = Verdict.from_interval(low, high)
    assert Verdict.from_interval(-high, -low) is {
        Verdict.HIGHER: Verdict.LOWER, Verdict.LOWER: Verdict.HIGHER
    }.get(plain, plain)  # fmt: skip
    within = -margin <= low and high <= margin
    assert (Verdict.from_interval(low, high, margin) is Verdict.EQUIVALENT) == within

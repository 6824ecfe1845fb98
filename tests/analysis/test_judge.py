"""Two samples judged: against other implementations, and what must hold whatever the numbers.

Values named "recorded" come from pingouin 0.7.0, baycomp 1.0.3 and scikit-posthocs 0.17.1 on the samples `A` and `B`:
``pingouin.ttest(A, B, correction=True)``, ``wilcoxon``, ``mwu``, ``compute_effsize(eftype="hedges")``,
``tost(bound=0.02, paired=True)``, ``friedman(method="f")``; ``baycomp.CorrelatedTTest.probs(B, A, rope, runs=1)``,
``SignedRankTest.probs(B, A, rope, random_state=0)``; ``scikit_posthocs.posthoc_nemenyi_friedman``.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from steppe import analysis
from steppe.analysis import Verdict, judge
from steppe.analysis.statistics.samples import summary
from steppe.core.checks import InputError
from support.properties import cheap

A = [0.951, 0.957, 0.949, 0.953, 0.955, 0.948, 0.960]
B = [0.941, 0.946, 0.952, 0.939, 0.943, 0.950, 0.944]
BLOCKS = [[.90, .80, .70, .75], [.80, .85, .60, .70], [.70, .60, .65, .5], [.9, .8, .6, .7], [.88, .87, .80, .85],
          [.6, .5, .55, .4]]  # fmt: skip
PLANS = list(itertools.product(("t", "rank", "permutation"), (False, True)))


def test_differences_are_a_minus_b_and_the_verdict_is_of_a():
    found = judge(A, B)
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B)) and found.difference > 0
    assert found.verdict is Verdict.HIGHER and judge(B, A).verdict is Verdict.LOWER


def test_tests_of_a_difference_are_pingouins():
    found = judge(A, B)
    assert found.p == pytest.approx(0.005047, abs=5e-7)
    assert judge(A, B, paired=True).p == pytest.approx(0.02833, abs=5e-6)
    assert judge(A, B, paired=True, test="rank").p == pytest.approx(0.078125, abs=1e-12)
    assert found.rank_biserial == pytest.approx(0.785714, abs=5e-7)
    assert found.improvement == pytest.approx(0.897959, abs=5e-7)
    assert found.hedges_g.value == pytest.approx(1.7151923672989382, rel=5e-3)  # theirs: the exact factor's series


def test_the_rank_sum_test_is_exact_where_pingouin_gives_the_normal_limit():
    ours = judge(A, B, test="rank").p
    assert ours == pytest.approx(stats.mannwhitneyu(A, B, method="exact").pvalue)
    assert abs(ours - 0.011072) < 0.003


@pytest.mark.parametrize("paired", [False, True])
def test_permutations_are_all_relabellings(paired):
    a, b = np.array(A[:4]), np.array(B[:4])
    if paired:
        d = a - b
        all_means = [np.mean(d * signs) for signs in itertools.product((1, -1), repeat=4)]
    else:
        both = np.concatenate([a, b])
        chosen = (list(c) for c in itertools.combinations(range(8), 4))
        all_means = [both[c].mean() - np.delete(both, c).mean() for c in chosen]
    observed = a.mean() - b.mean()
    above = np.mean(np.array(all_means) >= observed - 1e-12)
    assert judge(a, b, paired=paired, test="permutation", alternative="greater").p == pytest.approx(above)
    assert judge(a, b, paired=paired, test="permutation").p == pytest.approx(min(2 * above, 1.0))


def test_ranks_with_ties_are_those_of_all_relabellings():
    a, b = [1.0, 2.0, 2.0, 3.0, 5.0], [1.0, 1.0, 2.0, 2.0, 0.0]
    method = stats.PermutationMethod()
    theirs = stats.wilcoxon(a, b, method=method).pvalue, stats.mannwhitneyu(a, b, method=method).pvalue
    ours = judge(a, b, paired=True, test="rank").p, judge(a, b, test="rank").p
    assert ours == pytest.approx(theirs)


def test_many_seeds_have_tests_of_ranks_and_permutations_too():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    assert judge(a, b, test="rank").p == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    assert judge(a, b, test="rank", paired=True).p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    for paired in (False, True):
        t = judge(a, b, paired=paired).p
        assert judge(a, b, test="permutation", paired=paired).p == pytest.approx(t, abs=0.03)
    assert judge(a, b, test="permutation", seed=3).p == judge(a, b, test="permutation", seed=3).p


@pytest.mark.parametrize("paired", [False, True])
def test_equivalence_is_statsmodels_tost_and_pingouins_for_pairs(paired):
    found = analysis.equivalence(A, B, margin=0.02, paired=paired)
    assert found.p == judge(A, B, margin=0.02, paired=paired).equivalence.p
    if paired:
        assert found.p == pytest.approx(0.003321, abs=5e-7)
    else:
        both = CompareMeans(DescrStatsW(A), DescrStatsW(B))
        assert found.p == pytest.approx(both.ttost_ind(-0.02, 0.02, usevar="unequal")[0])


@pytest.mark.parametrize("paired", [False, True])
def test_not_inferior_is_half_of_equivalent(paired):
    one = analysis.non_inferiority(A, B, margin=0.02, paired=paired)
    other = analysis.non_inferiority(A, B, margin=0.02, paired=paired, higher_is_better=False)
    assert max(one.p, other.p) == pytest.approx(analysis.equivalence(A, B, margin=0.02, paired=paired).p)
    assert one.p < other.p  # a is higher
    assert other.p == pytest.approx(analysis.non_inferiority(B, A, margin=0.02, paired=paired).p)


@pytest.mark.parametrize(("name", "theirs"), [("holm", "holm"), ("benjamini_hochberg", "fdr_bh"),
                                              ("benjamini_yekutieli", "fdr_by")])  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 7])
def test_corrections_are_statsmodels_and_leave_undone_tests_out(name, theirs, size):
    raw = np.random.default_rng(size).uniform(0, 0.2, size)
    ours = getattr(analysis, name)([*raw, math.nan])
    np.testing.assert_allclose(ours[:-1], multipletests(raw, method=theirs)[1])
    assert math.isnan(ours[-1]) and getattr(analysis, name)([]).shape == (0,)


def test_bayesian_tests_are_baycomps():
    found = analysis.correlated_t(A, B, margin=0.005, correlation=1 / len(A))  # their 1 / (folds − 1)
    assert found == pytest.approx((0.01017256149, 0.22401849061, 0.76580894789))
    assert analysis.correlated_t(A, B, correlation=1 / len(A)).higher == pytest.approx(0.95057673100)
    recorded = {0.005: (0.0, 0.1339, 0.8661), 0.008: (0.0, 0.52692, 0.47308), 0.0: (0.0137, 0.0, 0.9863)}
    for margin, theirs in recorded.items():
        ours = analysis.signed_rank(A, B, margin=margin, seed=1)
        assert ours == pytest.approx(theirs, abs=0.012) and sum(ours) == pytest.approx(1)


def test_ranks_over_data_sets_are_friedmans_and_nemenyis():
    found = analysis.friedman(BLOCKS)
    ranks = [stats.rankdata([-v for v in row]) for row in BLOCKS]
    assert found.ranks == pytest.approx(tuple(np.mean(ranks, axis=0)))
    assert found.p == pytest.approx(stats.f.sf(9.516129, 3, 15), rel=1e-5)  # their F, with Iman and Davenport's freedom
    apart = [(0, 2), (0, 3)]  # the pairs with p < 0.05 of scikit_posthocs
    for i, j in itertools.combinations(range(4), 2):
        assert (abs(found.ranks[i] - found.ranks[j]) > found.critical_difference) == ((i, j) in apart)
        assert any({i, j} <= set(group) for group in found.groups) == ((i, j) not in apart)
    assert analysis.friedman(-np.array(BLOCKS), higher_is_better=False).ranks == found.ranks


@pytest.mark.parametrize("shape", [(2, 3), (5, 3), (3, 4)])
def test_friedmans_p_is_exact_for_few_data_sets(shape):
    table = np.random.default_rng(len(shape)).normal(size=shape).round(1)
    rows = [list(itertools.permutations(row)) for row in table]
    known = [
        stats.friedmanchisquare(*np.transpose(dealt)).statistic for dealt in itertools.product(table[:1], *rows[1:])
    ]
    observed = stats.friedmanchisquare(*table.T).statistic
    assert analysis.friedman(table).p == pytest.approx(np.mean(np.array(known) >= observed - 1e-9))
    alike = analysis.friedman(np.arange(3.0)[None] + np.zeros((10, 1)))
    assert alike.p == pytest.approx(6.0**-9)  # where F is infinite


def test_huge_values_have_intervals():
    huge = [1.7e308, -1.7e308, 1e308, 1.2e308]
    assert judge(huge, A, test="rank").p == pytest.approx(
        judge([4, 0, 2, 3], [1] * 7, test="rank").p
    )  # all equal beside these
    found, scaled = analysis.bootstrap([1e300, 2e300, 4e300]), analysis.bootstrap([1.0, 2.0, 4.0])
    assert (found.low, found.high) == pytest.approx((1e300 * scaled.low, 1e300 * scaled.high))
    assert math.isnan(analysis.bootstrap(A, statistic=lambda x, axis: np.nan * np.mean(x, axis=axis)).low)
    assert math.isnan(analysis.cluster_bootstrap(np.mean, "aabb", [1, 2, 3, math.nan]).low)


def test_the_bootstrap_is_scipys_obeys_its_seed_and_falls_back():
    data = np.array(A)
    theirs = stats.bootstrap((data,), np.mean, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    ours = analysis.bootstrap(A, method="BCa", seed=5)
    assert ours[:2] == pytest.approx(tuple(theirs), rel=1e-12) and ours.method == "BCa"
    assert analysis.bootstrap(A, method="BCa", seed=5) == ours != analysis.bootstrap(A, method="BCa", seed=6)
    assert analysis.bootstrap([0.9] * 4, [0.8] * 3)[2] == "constant"
    assert analysis.bootstrap([0.9])[2] == "too few"
    middle = analysis.bootstrap([1.0, 1.0, 1.0, 2.0], statistic=np.median, method="BCa")
    assert middle.method in ("BCa", "percentile") and math.isfinite(middle.low + middle.high)
    low, high = judge(A, B, interval="bca", seed=2).interval
    assert (low, high) == analysis.bootstrap(A, B, method="BCa", seed=2)[:2] and low < judge(A, B).difference < high


def test_with_few_values_the_default_interval_is_the_jackknifes_and_of_means_students_and_welchs():
    few, other = [0.1, 0.4, 0.35, 0.8], [0.5, 0.9, 0.7]
    assert analysis.bootstrap(few)[:2] == pytest.approx(summary(few)[3:], rel=1e-12)
    assert analysis.bootstrap(few, other)[:2] == pytest.approx(judge(few, other).interval, rel=1e-12)
    paired = analysis.bootstrap(few[:3], other, paired=True)
    assert paired[:2] == pytest.approx(judge(few[:3], other, paired=True).interval, rel=1e-12)
    assert paired.method == "jackknife" and not paired.is_short
    forced, many = analysis.bootstrap(few, method="BCa"), analysis.bootstrap(np.arange(10.0))
    assert forced.is_short and forced.method == "BCa" and not many.is_short and many.method == "BCa"
    whole = analysis.bootstrap(few, method="jackknife", statistic=lambda a, axis: np.log(np.std(a, axis=axis)))
    without = [math.log(np.std(np.delete(few, j))) for j in range(4)]
    half = stats.t.ppf(0.975, 3) * math.sqrt(3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert whole.high - whole.low == pytest.approx(2 * half)
    assert analysis.bootstrap(few, statistic=lambda a, axis: 1.0).method == "constant"


def test_the_clustered_interval_is_wider_where_rows_repeat():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10)
    alone = analysis.cluster_bootstrap(np.mean, np.arange(10), x, seed=1)
    repeated = analysis.cluster_bootstrap(np.mean, np.repeat(np.arange(10), 5), np.repeat(x, 5), seed=1)
    naive = analysis.cluster_bootstrap(np.mean, np.arange(50), np.repeat(x, 5), seed=1)
    assert repeated == pytest.approx(alone) and naive.high - naive.low < 0.6 * (repeated.high - repeated.low)


@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_the_power_of_tost_is_what_simulated_experiments_find(effect):
    rng, margin, count = np.random.default_rng(0), 1.5, 8
    x, y = rng.normal(size=(4000, count)), rng.normal(effect, 1, (4000, count))
    sides = ((y + margin, x, "greater"), (y - margin, x, "less"))
    below, above = (stats.ttest_ind(a, b, axis=1, equal_var=False, alternative=way).pvalue for a, b, way in sides)
    assert analysis.equivalence(y[0], x[0], margin=margin).p == pytest.approx(max(below[0], above[0]))
    shown = np.mean(np.maximum(below, above) <= 0.05)
    assert analysis.equivalence_power(margin, count, effect=effect) == pytest.approx(shown, abs=0.025)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_the_bound_of_a_one_sided_test_is_scipys(paired, alternative):
    a, b = np.array(A[:5]), np.array(B[:5])
    theirs = stats.ttest_1samp(a - b, 0, alternative=alternative) if paired else stats.ttest_ind(
        a, b, equal_var=False, alternative=alternative
    )  # fmt: skip
    ends = theirs.confidence_interval(0.95)
    found = judge(a, b, paired=paired, alternative=alternative)
    assert found.bound == pytest.approx(ends.low if alternative == "greater" else ends.high)
    assert math.isnan(judge(a, b, paired=paired).bound) and found.interval == judge(a, b, paired=paired).interval


@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("paired", [False, True])
def test_intervals_cover_and_tests_reject_as_often_as_they_say(count, paired):
    rng, rounds = np.random.default_rng(count), 200
    found = [judge(rng.normal(size=count), rng.normal(size=count), paired=paired) for _ in range(rounds)]
    covered = np.mean([f.low <= 0 <= f.high for f in found])
    assert covered == np.mean([f.p > 0.05 for f in found]) and covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / rounds)


@pytest.mark.parametrize("equivalence", [False, True])
@pytest.mark.parametrize("size", [0.7, 2.0])
def test_the_seeds_needed_are_just_enough(equivalence, size):
    chance = analysis.equivalence_power if equivalence else analysis.welch_power
    count = analysis.seeds_needed(size, 1.0, equivalence=equivalence)
    assert chance(size, count) >= 0.8 > chance(size, count - 1)


def test_so_few_seeds_show_nothing_by_ranks_and_permutations():
    far = [10.0, 11.0, 12.0], [0.0, 1.0, 2.5]
    for test, paired, least in (("rank", True, 0.25), ("rank", False, 0.1), ("permutation", True, 0.25)):
        found = judge(*far, test=test, paired=paired)
        assert found.p == found.smallest_p == pytest.approx(least) and found.verdict is Verdict.INCONCLUSIVE
    assert judge(*far).smallest_p == 0.0 and judge(*far).verdict is Verdict.HIGHER


numbers = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 1e300, -1e300, 1e-300, 5e-324, 0.1]))
samples = st.lists(numbers, min_size=1, max_size=6)


@cheap
@given(samples, samples, st.sampled_from(PLANS), st.one_of(st.none(), st.floats(1e-3, 1e3)), st.randoms())
def test_whatever_the_numbers_a_verdict_is_one_and_does_not_depend_on_the_order_of_seeds(a, b, plan, margin, shuffle):
    test, paired = plan
    if paired:
        a, b = a[: len(b)], b[: len(a)]
    found = judge(a, b, test=test, paired=paired, margin=margin)
    assert isinstance(found.verdict, Verdict)
    assert math.isnan(found.p) == (found.test.status not in ("tested", "identical"))
    assert (found.verdict is Verdict.UNTESTABLE) == math.isnan(found.p)
    assert min(len(a), len(b)) > 1 or found.verdict is Verdict.UNTESTABLE
    order = list(range(len(a)))
    shuffle.shuffle(order)
    other = [b[i] for i in order] if paired else b[::-1]
    again = judge([a[i] for i in order], other, test=test, paired=paired, margin=margin)
    assert again.p == pytest.approx(found.p, rel=1e-6, nan_ok=True)
    back = judge(b, a, test=test, paired=paired, margin=margin)
    assert back.p == pytest.approx(found.p, rel=1e-6, nan_ok=True)
    turned = {Verdict.HIGHER: Verdict.LOWER, Verdict.LOWER: Verdict.HIGHER}
    assert back.verdict is turned.get(found.verdict, found.verdict)


@cheap
@given(samples, samples, st.sampled_from(PLANS), st.sampled_from([2.0**-500, 0.5, 4.0, 2.0**500]))
def test_another_unit_changes_no_verdict(a, b, plan, unit):
    test, paired = plan
    if paired:
        a, b = a[: len(b)], b[: len(a)]
    a, b = ([x if 1e-100 < abs(x) < 1e100 else 0.0 for x in side] for side in (a, b))
    one = judge(a, b, test=test, paired=paired, margin=1.0)
    other = judge([unit * x for x in a], [unit * x for x in b], test=test, paired=paired, margin=unit)
    assert other.verdict is one.verdict and other.p == pytest.approx(one.p, rel=1e-9, nan_ok=True)
    assert other.difference == pytest.approx(unit * one.difference, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: judge([], B), "judge: a must be at least one number"),
        (lambda: judge(A, [0.1, math.nan]), "judge: b must be finite, got nan. Leave diverged runs out"),
        (lambda: judge(A, [0.1, math.inf]), "judge: b must be finite, got inf"),
        (lambda: judge(A, B[:3], paired=True), "judge: b must be as long as a, 7 values, for pairs of seeds, got 3"),
        (lambda: judge(np.zeros((2, 3)), B), "judge: a must be a sequence of numbers, one for each seed, got 2-dim"),
        (lambda: judge("ab", B), "judge: a must be a sequence of numbers"),
        (lambda: judge(0.5, B), "judge: a must be a sequence of numbers"),
        (lambda: judge(A, B, margin=0.0), "judge: margin must be"),
        (lambda: judge(A, B, margin=-1), "judge: margin must be"),
        (lambda: judge(A, B, test="welch"), "judge: test must be"),
        (lambda: judge(A, B, alternative="bigger"), "judge: alternative must be"),
        (lambda: judge(A, B, confidence=95), "judge: confidence must be between 0 and 1"),
        (lambda: analysis.equivalence(A, B, margin=math.nan), "equivalence: margin must be"),
        (lambda: analysis.signed_rank(A, B[:2]), "signed_rank: b must be as long as a"),
        (lambda: analysis.correlated_t([1.0], [2.0]), "correlated_t: a must be two values or more"),
        (lambda: analysis.correlated_t(A, B, correlation=1.0), "correlated_t: correlation must be"),
        (lambda: analysis.friedman([[1, 2], [2, 3]]), "friedman: values must be of two data sets × three conditions"),
        (lambda: analysis.friedman([[1, 2, math.nan], [2, 3, 4]]), "friedman: values must be finite"),
        (lambda: analysis.holm([0.1, 1.2]), "holm: p_values must be between 0 and 1, got 1.2"),
        (analysis.bootstrap, "bootstrap: samples must be one or several, got none"),
        (lambda: analysis.seeds_needed(0.0, 1.0), "seeds_needed: difference must be"),
        (lambda: judge({0: 0.9, 1: 0.8}, B), "judge: a must be a sequence of numbers, one for each seed, got a map"),
        (lambda: judge({0.9, 0.8}, B), "judge: a must be a sequence of numbers"),
        (lambda: judge(b"ab", B), "judge: a must be a sequence of numbers"),
        (lambda: judge(["0.9", "0.8"], B), "judge: a must be a sequence of numbers, one for each seed, got '0.9' am"),
        (lambda: judge([0.9, None], B), "judge: a must be a sequence of numbers, one for each seed, got None am"),
        (lambda: judge([10**400, 1], B), "judge: a must be a sequence of numbers"),
        (lambda: judge(np.array([1j, 2]), B), "judge: a must be a sequence of numbers"),
        (lambda: judge(np.ma.masked_array([1.0, 2.0], [0, 1]), B), "judge: a must be a sequence of numbers"),
        (lambda: judge(A, B, paired="yes"), "judge: paired must be True or False"),
        (lambda: judge(A, B, seed=-1), "judge: seed must be a whole number of at least 0"),
        (lambda: judge(A, B, margin=10**400), "judge: margin must be a finite number"),
        (lambda: analysis.compare([1, 2], {0: 1.0}), "compare: baseline must be a mapping from seed to value"),
        (lambda: analysis.compare({0: 1.0}, {0: 1.0}, margin=-1.0), "compare: margin must be"),
        (lambda: analysis.compare({0: 1.0}, {0: 1.0}, plan=analysis.Plan("welch")), "compare: test must be"),
        (lambda: analysis.bootstrap(A, B, A), "bootstrap: statistic must be given for more than two samples"),
        (lambda: analysis.bootstrap(A, statistic=max), "bootstrap: statistic must be a function of arrays and axis"),
        (lambda: analysis.cluster_bootstrap(np.mean, None, [1]), "cluster_bootstrap: clusters must be a sequence of"),
        (lambda: analysis.welch_power("x", 3), "welch_power: effect must be a finite number"),
        (lambda: analysis.welch_power(1.0, 3, alpha=1e-300), "welch_power: alpha must be at least 1e-12"),
        (lambda: analysis.friedman([["1", "2", "3"]] * 3), "friedman: values must be an array of data sets"),
    ],
)  # fmt: skip
def test_bad_samples_get_a_sentence(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)


def test_integers_lists_and_arrays_of_any_kind_are_samples():
    expected = judge([1.0, 2.0, 4.0], [2.0, 3.0, 3.0])
    assert judge(np.array([1, 2, 4]), (2, 3, 3)) == expected
    assert judge(np.float32([1, 2, 4]), np.array([2, 3, 3], object)) == expected
    assert judge(polars.Series([1, 2, 4]), jnp.float16([2, 3, 3])) == expected
    assert judge((x for x in (1, 2, 4)), [2, 3, 3]) == expected

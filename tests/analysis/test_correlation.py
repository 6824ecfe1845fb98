"""Measures against outcomes: against SciPy, Jiang's definitions written out, and networks whose truth is known."""

import dataclasses
import itertools
import math

import numpy as np
import polars
import pytest
from scipy import stats

from steppe.analysis.correlation import counts
from steppe.analysis.correlation.pairs import correlate
from steppe.analysis.correlation.studies import GAP, correlations, is_flatness, networks
from steppe.analysis.quantities import TR_H2
from steppe.analysis.results import CorrelationPlan
from steppe.analysis.verdict import Verdict
from steppe.core.checks import InputError
from steppe.report.figures import correlations as figures
from steppe.report.wording.correlations import about, answers, conclusion, paradoxes

RNG = np.random.default_rng(0)


def grid(seeds=3):
    """Networks over two hyperparameters and seeds."""
    rows = list(itertools.product((1, 2, 3), ("x", "y"), range(seeds)))
    a, b, seed = zip(*rows, strict=True)
    return {"a": a, "b": b}, seed, [f"{i}{j}" for i, j in zip(a, b, strict=True)]


@pytest.mark.parametrize("ties", [False, True])
def test_over_all_pairs_it_is_scipys_tau_b(ties):
    x, y = RNG.normal(size=(2, 30))
    x = np.round(x) if ties else x
    found = correlate(x, y, configurations=range(30))
    assert found.overall.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.overall.low < found.overall.value < found.overall.high
    assert math.isnan(found.within.value) and found.networks == found.configurations == 30


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 200])
def test_a_perfect_order_is_certain_where_an_exact_test_of_it_would_be_and_never_exact(count):
    order, of = np.arange(2.0 * count), np.repeat(np.arange(count), 2)
    found = correlate(order, -order, configurations=of)
    assert found.overall.value == found.within.value == -1
    assert (found.overall.high < 0) == (2 / math.factorial(count) <= 0.05)
    assert (found.within.high < 0) == (2 / 2**count <= 0.05)
    assert all(math.isnan(tau.high) or tau.low == -1 < tau.high for tau in (found.overall, found.within))


def test_simpsons_paradox_is_seen():
    of = np.repeat(np.arange(10), 5)
    level, noise = of, np.random.default_rng(1).normal(size=len(of))
    found = correlate(10 * level + noise, 10 * level - noise, configurations=of)
    assert found.overall.low > 0 > found.within.high and found.within.value == -1 and found.is_paradoxical


def test_pairs_at_the_same_accuracy_are_compared():
    accuracy = np.repeat(np.linspace(0.5, 1, 10), 3)
    noise = RNG.normal(size=30)
    x, y = accuracy + 1e-3 * noise, accuracy - 1e-3 * noise
    found = correlate(x, y, configurations=range(30), matched=accuracy, tolerance=0.01)
    assert found.overall.value > 0.5 and found.matched.value == -1
    assert correlate(x, y, configurations=range(30), matched=accuracy, tolerance=1.0).matched == found.overall


@pytest.mark.parametrize("at_once", [5, 2**20])
def test_counted_in_blocks_it_is_the_sum_over_pairs_of_drawn_configurations(monkeypatch, at_once):
    monkeypatch.setattr(counts, "AT_ONCE", at_once)
    x, y, level = np.round(np.random.default_rng(4).normal(size=(3, 24)), 1)
    of = np.random.default_rng(5).permutation(np.repeat(np.arange(6), 4))
    found = counts.count_pairs(x, y, of, level, 0.3, seed=0)
    drawn = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=counts.RESAMPLES)[0][of]
    same = of[:, None] == of
    near = np.abs(level[:, None] - level) <= 0.3 * (1 + 1e-9)
    signs = [np.sign(values[:, None] - values) for values in (x, y)]
    for sums, pairs in ((found.overall, same | True), (found.within, same), (found.matched, near)):
        for place, term in enumerate((signs[0] * signs[1], signs[0] ** 2, signs[1] ** 2)):
            weights = np.where(same, drawn[:, None], np.outer(drawn, drawn))
            assert sums.all[place] == term[pairs].sum()
            assert sums.resampled[place, 0] == (weights * term)[pairs].sum()


def test_the_granulated_correlation_is_jiangs():
    factors, seeds, of = grid()
    x, y = RNG.normal(size=(2, len(of)))
    axes = []
    for name, other in (("a", "b"), ("b", "a")):
        taus = []
        for value, seed in itertools.product(dict.fromkeys(factors[other]), range(3)):
            some = [i for i in range(len(of)) if factors[other][i] == value and seeds[i] == seed]
            assert len({factors[name][i] for i in some}) == len(some)
            taus.append(stats.kendalltau(x[some], y[some]).statistic)
        axes.append(np.mean(taus))
    found = correlate(x, y, configurations=of, factors=factors, seeds=seeds)
    assert list(found.axes.values()) == pytest.approx(axes) and found.granulated == pytest.approx(np.mean(axes))


def test_the_information_is_jiangs():
    factors, seeds, of = grid(seeds=1)
    x, y = np.random.default_rng(3).normal(size=(2, len(of)))
    pairs = [(i, j) for i in range(len(of)) for j in range(len(of)) if i != j]

    def entropy(*keys):
        counts = np.unique([str(key) for key in zip(*keys, strict=True)], return_counts=True)[1]
        return stats.entropy(counts)

    v, g = ([z[i] > z[j] for i, j in pairs] for z in (x, y))
    found = []
    for names in ((), ("a",), ("b",), ("a", "b")):
        s = [tuple((factors[n][i], factors[n][j]) for n in names) for i, j in pairs]
        uncertain = entropy(g, s) - entropy(s)
        if uncertain > 1e-12:
            found.append((entropy(v, s) + entropy(g, s) - entropy(v, g, s) - entropy(s)) / uncertain)
    by_size = found[0], min(found[1:3]), *found[3:]
    answer = correlate(x, y, configurations=of, factors=factors, seeds=seeds)
    assert answer.informations[: len(by_size)] == pytest.approx(by_size)
    assert answer.information == pytest.approx(min(found))


def test_a_measure_that_follows_a_hyperparameter_says_nothing_beyond_it():
    factors, seeds, of = grid(seeds=10)
    level = np.array(factors["a"], float)
    noise = np.random.default_rng(2).normal(size=(2, len(of)))
    x, y = level + 1e-3 * noise[0], level + 1e-3 * noise[1]
    found = correlate(x, y, configurations=of, factors=factors, seeds=seeds)
    assert found.overall.value > 0.5 and found.information < 0.05
    same = correlate(x, x, configurations=of, factors=factors, seeds=seeds)
    assert same.information == pytest.approx(1) and same.granulated == pytest.approx(1)


def test_order_and_names_change_nothing_and_intervals_obey_their_seed():
    factors, seeds, of = grid()
    x, y = RNG.normal(size=(2, len(of)))
    order = np.random.default_rng(0).permutation(len(of))

    def shuffled(column):
        return [column[i] for i in order]

    one = correlate(x, y, configurations=of, factors=factors, seeds=seeds)
    named = {"other": shuffled(factors["b"]), "one": shuffled(factors["a"])}
    other = correlate(x[order], y[order], configurations=shuffled(of), factors=named, seeds=shuffled(seeds))
    assert (one.overall.value, one.within.value, one.granulated, one.information) == pytest.approx(
        (other.overall.value, other.within.value, other.granulated, other.information)
    )
    assert one == correlate(x, y, configurations=of, factors=factors, seeds=seeds)
    twice = correlate(np.tile(x, 2), np.tile(y, 2), configurations=of * 2)
    assert twice.overall.high - twice.overall.low > 0.8 * (one.overall.high - one.overall.low)  # copies tell nothing


@pytest.mark.parametrize("values", [[1.0] * 6, [math.nan] * 6, [1.0, math.nan, math.inf, 2.0, math.nan, 3.0]])
def test_constant_and_missing_values_give_no_number_and_no_error(values):
    found = correlate(values, [1.0] * 6, configurations=range(6), factors={"a": range(6)}, seeds=[0] * 6)
    assert all(math.isnan(v) for v in (found.overall.value, found.granulated, found.information))


def test_columns_of_other_lengths_get_a_sentence():
    with pytest.raises(InputError, match="correlate: seeds must be of 3 entries, one for each network, got 2"):
        correlate([1, 2, 3], [1, 2, 3], configurations="abc", seeds=[0, 1])


def test_studies_give_measures_and_outcomes(results_of):
    results = results_of()
    table = networks([results])
    assert {"study", "condition", "seed", TR_H2, "test_accuracy", GAP, "settings.method.lam"} <= set(table.columns)
    found = correlations([results])
    assert found.networks == 24 and found.factors == ("method.lam",) and found.matched == "train_accuracy"
    assert TR_H2 in found.measures and {"test_accuracy", "test_loss", GAP} <= set(found.outcomes)
    both = correlations([results, results_of("others")], measures=[TR_H2], outcomes=["test_loss"])
    assert both.networks == 48 and both.found[TR_H2, "test_loss"].configurations == 12
    assert paradoxes(both) == []


def test_a_declared_correlation_has_a_verdict_that_holds_for_all_measures_together(results_of):
    results = results_of()
    plan = CorrelationPlan((TR_H2, "lam"), "test_loss", margin=0.1)
    alone = correlations([results], plan=plan._replace(measures=(TR_H2,))).declared[TR_H2]
    found = correlations([results], plan=plan).declared[TR_H2]
    assert alone.confidence == pytest.approx(0.95) and found.confidence == pytest.approx(0.975)
    assert found.tau.value == alone.tau.value > 0 and found.verdict is Verdict.HIGHER
    assert found.tau.high - found.tau.low >= alone.tau.high - alone.tau.low > 0
    plan = plan._replace(measures=(TR_H2,), pairs="within", outcome="test_accuracy")
    within = correlations([results], plan=plan).declared[TR_H2]
    assert within.verdict is Verdict.INCONCLUSIVE and within.tau.low < 0 < within.tau.high


def test_networks_that_did_not_fit_are_left_out_and_counted(results_of):
    results = results_of()
    loss = polars.when(polars.col("seed") == 0).then(1.0).otherwise(polars.col("train_loss"))
    results = dataclasses.replace(results, runs=results.runs.with_columns(loss.alias("train_loss")))
    found = correlations([results], plan=CorrelationPlan((TR_H2,), "test_loss", max_train_loss=0.5))
    assert (found.networks, found.left_out, found.found[TR_H2, "test_loss"].networks) == (18, 6, 18)
    assert correlations([results], max_train_loss=0.05 + 1).left_out == 0


def test_a_study_judged_by_a_correlation_says_first_what_became_of_it(results_of):
    plan = CorrelationPlan((TR_H2,), "test_loss", margin=0.1)
    found = correlations([results_of()], plan=plan)
    declared, beyond = answers(found)
    assert declared.question == "Does Final tr(H²) go with final test loss?" and declared.text.startswith("Yes: ")
    assert "95 % interval; primary" in declared.effect and beyond.question.startswith("Does a measure say more")
    assert conclusion(found).startswith("Over all pairs of networks, Final tr(H²) rises with final test loss.")
    assert "24 networks of 6 conditions" in conclusion(found) and answers(correlations([results_of()])) == ()
    assert "Exploratory but for what was declared" in about(found)
    (drawn,) = figures.forest(found, "test_loss")
    (matrix,) = figures.matrix(found)
    assert "Final tr(H²) +" in drawn.alt and "with Final test loss +" in matrix.alt


def test_networks_that_are_there_twice_are_refused_and_another_study_of_that_name_is_not(results_of):
    with pytest.raises(InputError, match="correlate: studies must be different ones, got the same networks of 's'"):
        correlations([results_of(), results_of()])
    found = correlations([results_of(), results_of(seed=7)])
    assert found.networks == 48 and found.studies == ("s", "s (2)")
    assert found.found[TR_H2, "test_loss"].configurations == 12


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"measures": ["flatness"]}, "a column must be one of"),
        ({"matched": "accuracy"}, "a column must be one of"),
        ({"tolerance": -1.0}, "tolerance must be a finite number >= 0"),
    ],
)
def test_a_column_or_a_tolerance_that_is_none_gets_a_sentence(results_of, asked, message):
    with pytest.raises(InputError, match=message):
        correlations([results_of()], **asked)


def test_so_few_networks_get_a_sentence(results_of):
    with pytest.raises(InputError, match="of 8 finished networks or more, got 6"):
        correlations([results_of(keep=6)])
    assert "2 conditions are too few for one" in about(correlations([results_of(keep=8)]))


def test_measures_that_name_their_quantities_themselves_are_measures_of_flatness_too():
    there = ("pac_bayes_sigma", "top_eigenvalue_1", "keskar_sharpness", TR_H2)
    assert [name for name in there if not is_flatness(name)] == []
    assert not any(map(is_flatness, ("test_loss", "train_accuracy", "fisher_rao_sem", GAP)))


@pytest.fixture
def results_of():
    """Results of a study that nobody trained: six conditions of four seeds."""
    from steppe.analysis.results import Results

    def make(name="s", keep=24, seed=None):
        rng = np.random.default_rng(len(name) if seed is None else seed)
        rows = [
            {"condition": f"lam={lam}", "seed": seed, "lam": lam, "status": "finished", "train_accuracy": 1.0}
            | {TR_H2: math.exp(-lam + 0.1 * rng.normal()), "train_loss": 0.1}
            | {"test_accuracy": 0.9 + 0.01 * lam + 0.001 * rng.normal(), "test_loss": 0.3 - 0.01 * lam}
            for lam in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
            for seed in range(4)
        ][:keep]
        conditions = tuple(dict.fromkeys(row["condition"] for row in rows))
        settings = {c: {"method.lam": c} for c in conditions}
        runs = polars.DataFrame(rows)
        names = conditions[0], conditions
        return Results(name, "S", "", *names, 24, runs, polars.DataFrame(), None, (), {}, (), "", settings=settings)

    return make

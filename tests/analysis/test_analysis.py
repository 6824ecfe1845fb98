"""What a study's results say, whole or partial, in words."""

import dataclasses
import math

import numpy as np
import polars
import pytest
from scipy import stats

from steppe.analysis import compare_all, detectable_difference, summary
from steppe.analysis.analysis import analyse
from steppe.analysis.quantities import QUANTITIES, TESTED
from steppe.analysis.results import Results
from steppe.analysis.statistics.samples import pooled_sd
from steppe.analysis.verdict import Verdict
from steppe.report.wording import notes as noting
from steppe.report.wording import verdicts
from steppe.report.wording.conclusion import conclusion as concluded
from steppe.report.wording.sizes import factor, points, size

TR_H2 = "batch_frobenius_squared"
BASE = {
    "test_accuracy": [0.90, 0.91, 0.92],
    TR_H2: [40.0, 50.0, 45.0],
    "train_seconds": [10.0, 11.0, 9.0],
}
SAME = {
    "test_accuracy": [0.905, 0.90, 0.925],
    TR_H2: [44.0, 41.0, 52.0],
    "train_seconds": [10.0, 10.0, 10.0],
}
FLAT = {
    "test_accuracy": [0.91, 0.905, 0.915],
    TR_H2: [4.0, 5.0, 4.5],
    "train_seconds": [25.0, 24.0, 26.0],
}
GOOD = {
    "test_accuracy": [0.97, 0.98, 0.99],
    TR_H2: [0.4, 0.5, 0.45],
    "train_seconds": [30.0, 30.0, 30.0],
}
TWO = ("lam=0", "lam=1")


def study(outcomes, *, baseline="lam=0", planned=None, conditions=None) -> Results:
    rows = []
    for name, values in outcomes.items():
        for seed in range(len(values["test_accuracy"])):
            row = {metric: math.nan for metric in QUANTITIES} | {m: v[seed] for m, v in values.items()}
            row.setdefault("status", "finished")
            row["best_test_accuracy"] = row["test_accuracy"]
            rows.append({"condition": name, "seed": seed, **row})
    schema = {"condition": polars.String, "seed": polars.Int64, "status": polars.String}
    runs = polars.DataFrame(rows, schema=schema | {metric: polars.Float64 for metric in QUANTITIES})
    names = tuple(conditions or outcomes)
    planned = len(rows) if planned is None else planned
    notes = ("Said before.",)
    return Results("s", "S", "", baseline, names, planned, runs, polars.DataFrame(), None, (), {}, notes, "")


def power_of(found) -> str:
    return noting.power(found.power, found.alpha, found.judged.quantity)


def test_summaries_and_tests_are_those_of_statistics():
    found = analyse(study({"lam=0": BASE, "lam=1": FLAT, "lam=2": GOOD}))
    assert found.quantities["test_accuracy"].summaries["lam=1"] == summary(FLAT["test_accuracy"])
    sides = [dict(enumerate(np.log(side[TR_H2]))) for side in (BASE, FLAT, GOOD)]
    theirs = compare_all(sides[0], {"lam=1": sides[1], "lam=2": sides[2]})
    for condition, expected in theirs.items():
        assert found.quantities[TR_H2].comparisons[condition].welch.corrected == pytest.approx(expected.welch.corrected)
        assert found.quantities[TR_H2].comparisons[condition].difference == pytest.approx(expected.difference)
    assert {name for name, by in found.quantities.items() if by.comparisons} == set(TESTED)
    for condition, seconds in (("lam=1", FLAT["train_seconds"]), ("lam=2", GOOD["train_seconds"])):
        logs = np.log(seconds) - np.log(BASE["train_seconds"])
        half = stats.t.ppf(0.975, 2) * stats.sem(logs)
        expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
        cost = found.cost[condition]
        np.testing.assert_allclose((cost.ratio, cost.low, cost.high), expected, rtol=1e-12)
    alone = found.cost["lam=0"]
    np.testing.assert_equal((alone.ratio, alone.low, alone.high), (1.0, np.nan, np.nan))


def test_the_conclusion_answers_the_three_questions():
    told = concluded(analyse(study({"lam=0": BASE, "lam=0.1": FLAT, "lam=1": GOOD})))
    assert "significantly lower under both other conditions (by a factor of 10 to 100, most under lam=1)" in told
    assert "significantly higher under lam=1 (by 7.00 points) and not shown to differ under lam=0.1" in told
    assert "Training took 2.51 to 3.01 times as long as under lam=0." in told
    assert "This rests on 3 runs per condition" in told


def test_no_difference_is_said_as_plainly():
    found = analyse(study({"lam=0": BASE, "lam=1": SAME}))
    assert concluded(found).count("no difference shown under lam=1") == 2
    assert found.quantities["test_accuracy"].verdict("lam=1") is Verdict.INCONCLUSIVE


def test_identical_results_are_called_identical():
    found = analyse(study({"lam=0": BASE, "lam=1": BASE}))
    assert "no difference shown under lam=1 (identical)" in concluded(found)
    assert found.quantities[TR_H2].comparisons["lam=1"].identical


def test_diverged_runs_are_left_out_and_said():
    broken = FLAT | {"status": ["finished", "diverged", "finished"], "test_accuracy": [0.91, 0.01, 0.915]}
    found = analyse(study({"lam=0": BASE, "lam=1": broken}))
    assert found.seeds == {"lam=0": (0, 1, 2), "lam=1": (0, 2)}
    assert found.quantities["test_accuracy"].summaries["lam=1"].mean == pytest.approx(0.9125)
    assert noting.notes(found)[0] == "Said before."
    assert "A run that diverged is left out" in noting.notes(found)[1] and "lam=1 (seed 1)" in noting.notes(found)[1]
    assert "2 to 3 runs per condition" in concluded(found)


def test_values_that_are_missing_are_left_out_and_said():
    gaps = FLAT | {"test_accuracy": [0.91, None, math.nan], TR_H2: [0.0, 5.0, 4.5]}
    found = analyse(study({"lam=0": BASE, "lam=1": gaps}))
    by = found.quantities["test_accuracy"]
    assert verdicts.verdict(by.quantity, by.comparisons["lam=1"]) == "cannot tell: one run cannot be tested"
    assert "Final test accuracy is missing or not finite in 2 finished runs." in noting.notes(found)
    assert any("Values of 0 have no logarithm" in note and "lam=1" in note for note in noting.notes(found))
    assert found.quantities[TR_H2].comparisons["lam=1"].condition.count == 2


@pytest.mark.parametrize(
    ("results", "conclusion", "note"),
    [
        (study({}, conditions=TWO, planned=6), "No run has finished yet", "0 of 6 planned runs are done"),
        (study({"lam=0": BASE}, conditions=TWO, planned=6), "Only the baseline", "No run yet under lam=1."),
        (study({"lam=1": FLAT}, conditions=TWO, planned=6), "The baseline, lam=0, has no", "3 of 6"),
        (
            study({name: {m: v[:1] for m, v in x.items()} for name, x in (("lam=0", BASE), ("lam=1", GOOD))}),
            "This rests on one run per condition",
            "nothing can be tested",
        ),
    ],
)
def test_partial_studies_say_what_is_missing(results, conclusion, note):
    found = analyse(results)
    assert conclusion in concluded(found)
    assert any(note in said for said in noting.notes(found))
    assert "No difference can be tested yet" in power_of(found)


def test_one_run_per_condition_still_tells_what_was_observed():
    one = {name: {m: v[:1] for m, v in x.items()} for name, x in (("lam=0", BASE), ("lam=1", GOOD))}
    told = concluded(analyse(study(one)))
    assert "Final test accuracy could not be tested (observed: higher by 7.00 points under lam=1)." in told
    assert "times as long" not in told  # how much of it is noise is not known


def test_the_power_note_tells_both_chances_at_both_levels():
    found = analyse(study({"lam=0": BASE, "lam=0.1": FLAT, "lam=1": GOOD}))
    sd = pooled_sd(found.quantities["test_accuracy"].summaries.values())
    for chance in (0.5, 0.8):
        for alpha in (0.05, 0.025):
            assert points(detectable_difference(3, sd, power=chance, alpha=alpha)) in power_of(found)
    assert "With 3 seeds per condition" in power_of(found)
    assert "Holm’s strictest step for 2 comparisons (2.5 %)" in power_of(found)
    family = ("test_accuracy", "batch_frobenius_squared")
    declared = analyse(dataclasses.replace(found.results, primary=family[0], family=family))
    assert "Holm’s strictest step for 4 comparisons (1.25 %)" in power_of(declared)


def test_no_spread_has_no_power_to_tell():
    still = BASE | {"test_accuracy": [0.9, 0.9, 0.9]}
    assert "no spread at all" in power_of(analyse(study({"lam=0": still, "lam=1": still})))


def test_the_interval_of_a_share_stays_within_its_range():
    found = analyse(study({"lam=0": BASE | {"test_accuracy": [0.99, 1.0, 0.95]}}))
    assert found.quantities["test_accuracy"].summaries["lam=0"].high == 1.0


def test_conditions_need_no_lambda_and_confidence_sets_the_level():
    found = analyse(study({"adam": BASE, "sam": SAME}, baseline="adam"), confidence=0.9)
    assert found.alpha == 0.1 and "at the 10 % level" in concluded(found)


def test_sizes_in_words():
    assert points(0.00002) == "less than 0.01 points" and points(0.5) == "50.0 points" and points(0.0) == "0.00 points"
    assert size(QUANTITIES[TR_H2], math.log(700)) == "a factor of 700" and factor(1.0) == "less than 1 %"
    assert size(QUANTITIES["test_loss"], -0.25) == "0.25 nats"


def test_analysis_does_not_change_what_it_reads():
    results = study({"lam=0": BASE, "lam=1": FLAT})
    before = results.runs.clone()
    analyse(results)
    assert results.runs.equals(before, null_equal=True)
    assert dataclasses.is_dataclass(results)

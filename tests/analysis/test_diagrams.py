"""Reliability and coverage of whole conditions, from the curves of their runs; and how they are drawn."""

import re

import numpy as np
import polars
import pytest
from scipy import stats

from steppe import outcomes
from steppe.analysis.diagrams import SMALLEST, diagrams
from steppe.report.figures.diagrams import pictures


def curves_of(mark, seed, size=200):
    """The curves of one run, as the measures leave them, and its probabilities and labels."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(3) * 0.5, size)
    y = np.array([random.choice(3, p=row) for row in p])
    found = outcomes.reliability(p, y, bins=8)
    curve = outcomes.coverage_curve(p.max(1), p.argmax(1) == y)
    return {f"{mark}/reliability_{k}": v for k, v in found._asdict().items()} | {
        f"{mark}/coverage_{k}": v for k, v in curve._asdict().items()
    }, (p, y)


def rows_of(*pairs):
    rows = [{"condition": c, "quantity": q, "fingerprint": mark} for c, mark in pairs for q in ("reliability", "aurc")]
    return polars.DataFrame(rows)


ONE, (P1, Y1) = curves_of("a", 0)
TWO, (P2, Y2) = curves_of("b", 1)
FOUND = diagrams(
    rows_of(("plain", "a"), ("plain", "b"), ("sam", "a")), "condition", ["plain", "sam", "none"], ONE | TWO
)


def test_bins_of_several_runs_are_those_of_all_their_predictions():
    both = outcomes.reliability(np.concatenate([P1, P2]), np.concatenate([Y1, Y2]), bins=8)
    found = FOUND.reliability["plain"]
    np.testing.assert_allclose(found.confidence, both.confidence)
    np.testing.assert_allclose(found.accuracy, both.accuracy)
    np.testing.assert_allclose(found.share, both.count / 400)
    assert found.runs == 2 and "none" not in FOUND.reliability


def test_an_interval_is_wilsons_and_two_runs_on_the_same_examples_do_not_narrow_it():
    single, alone = FOUND.reliability["sam"], outcomes.reliability(P1, Y1, bins=8)
    np.testing.assert_allclose([single.lower, single.upper], [alone.lower, alone.upper], atol=1e-12)
    twice = diagrams(rows_of(("c", "a"), ("c", "d")), "condition", ["c"],
                     ONE | {k.replace("a/", "d/", 1): v for k, v in ONE.items()}).reliability["c"]  # fmt: skip
    np.testing.assert_allclose([twice.lower, twice.upper], [alone.lower, alone.upper], atol=1e-12)
    assert stats.binomtest(3, 9).proportion_ci(method="wilson").low == pytest.approx(0.1206, abs=1e-3)


def test_coverage_is_the_mean_over_runs_between_the_lowest_and_the_highest():
    band = FOUND.coverage["plain"]
    assert band.x[0] == pytest.approx(SMALLEST / 200) and band.x[-1] == 1 and band.runs == 2
    ends = [np.mean(p.argmax(1) == y) for p, y in ((P1, Y1), (P2, Y2))]
    assert band.mean[-1] == pytest.approx(np.mean(ends))
    assert (band.low[-1], band.high[-1]) == pytest.approx((min(ends), max(ends)))
    assert ((band.low <= band.mean) & (band.mean <= band.high)).all()


def test_what_was_not_measured_is_not_drawn():
    assert pictures(diagrams(rows_of(("plain", "x")), "condition", ["plain"], {})) == []
    reliability, coverage = pictures(FOUND)
    assert "Wilson" in reliability.caption and "mean" in coverage.caption
    sizes = re.findall(r"(\d+\.\d) %", coverage.alt)
    assert len(sizes) == 2 and "plain" in reliability.alt
    assert pictures(FOUND)[0].uri == reliability.uri

"""Others' claims, by their tests and by the study's own."""

import dataclasses
import itertools
import math

import numpy as np
import polars
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from fuzzing import damage
from steppe import study
from steppe.analysis import Plan
from steppe.analysis.analysis import analyse
from steppe.analysis.comparison import Role, compare_quantity
from steppe.analysis.measurements import by_seed, compare_measurements
from steppe.analysis.protocols.claims import protocol_results
from steppe.analysis.quantities import Quantity
from steppe.analysis.results import Protocol
from steppe.core.checks import InputError
from steppe.report import markdown
from steppe.report.document import Document, Section
from steppe.report.tables.protocols import claims
from steppe.study import Store
from steppe.study.spec.comparisons import margins_of_runs

THEIRS = Plan("rank", paired=True, correction="benjamini_yekutieli")
CLAIMED = {"sharpness": "greater", "error": "less"}
SEEDS = 10


@pytest.fixture(scope="module")
def results():
    return study.gathered(Store.read(damage.whole()))


def drawn(scale: float = 1.0):
    """column -> condition -> seed -> value, positive."""
    random = np.random.default_rng(0)
    shift = {"base": 0.0, "one": 1.8, "two": -0.4}
    return {
        column: {c: {s: float(np.exp(scale * (random.normal() + at))) for s in range(SEEDS)} for c, at in shift.items()}
        for column in CLAIMED
    }


def compared(values):
    others = {"one": "base", "two": "base"}
    return {c: compare_quantity(Quantity(c, c, log=True), by, others) for c, by in values.items()}


def test_a_protocol_gives_the_numbers_of_scipy_and_statsmodels(results):
    values = drawn()
    given = dataclasses.replace(results, protocols=(Protocol("theirs", THEIRS, CLAIMED),))
    (found,) = protocol_results(given, compared(values), None)
    assert [(c.quantity.name, c.condition) for c in found.claims] == list(itertools.product(CLAIMED, ("one", "two")))
    raw = []
    for claim in found.claims:
        side = values[claim.quantity.name]
        change = np.array([side[claim.condition][s] - side["base"][s] for s in range(SEEDS)])
        expected = stats.wilcoxon(change, alternative=CLAIMED[claim.quantity.name], method="exact")
        assert claim.theirs.test.p == pytest.approx(expected.pvalue, rel=1e-12)
        ranks = stats.rankdata(abs(change))
        assert claim.theirs.rank_biserial == pytest.approx(2 * ranks[change > 0].sum() / ranks.sum() - 1)
        raw.append(expected.pvalue)
    corrected = multipletests(raw, method="fdr_by")[1]
    assert [claim.theirs.test.corrected for claim in found.claims] == pytest.approx(list(corrected), rel=1e-12)
    assert [claim.is_theirs for claim in found.claims] == list(corrected <= 0.05)


def test_ours_stay_what_they_are_and_may_show_the_contrary_of_a_claim(results):
    quantities = compared(drawn())
    given = dataclasses.replace(results, protocols=(Protocol("t", THEIRS, {"sharpness": "less"}),))
    (found,) = protocol_results(given, quantities, None)
    first = found.claims[0]
    assert first.ours is quantities["sharpness"].comparisons["one"] and first.ours.verdict.name == "HIGHER"
    assert first.ours_on_it is False and first.theirs.test.p > 0.9
    text = markdown.render(Document("x", "x", sections=(Section("", (claims(found),)),)))
    assert "the contrary" in text and "Wilcoxon p" in text and "BY p" in text


def test_a_column_without_numbers_is_said_to_be_missing(results):
    given = dataclasses.replace(results, protocols=(Protocol("t", THEIRS, {"test_disagreement": "less"}),))
    (found,) = protocol_results(given, compared(drawn()), None)
    assert not found.claims and found.missing == ("test_disagreement",)
    assert "Not measured: test_disagreement." in claims(found).caption


@pytest.mark.parametrize("ordered", [True, False])
def test_pairs_of_seeds_enter_as_they_are_asked_to(results, ordered):
    template = results.measurements.head(1)
    conditions, seeds = results.conditions, range(SEEDS)
    random = np.random.default_rng(1)
    frames = [
        template.with_columns(
            run=polars.lit(f"{c}-s{i}"), partner=polars.lit(f"{c}-s{j}"), condition=polars.lit(c),
            seed=polars.lit(i, polars.Int64), stage=polars.lit("later"), measure=polars.lit("disagreement"),
            quantity=polars.lit("disagreement"), split=polars.lit("test"), scale=polars.lit("linear"),
            value=polars.lit(float(random.uniform())), converged=polars.lit(True), fingerprint=polars.lit(f"{c}{i}{j}"),
        )
        for c in conditions for i, j in itertools.combinations(seeds, 2)
    ]  # fmt: skip
    rows = polars.concat(frames)
    protocol = Protocol("t", THEIRS, {"test_disagreement": "less"}, ordered=ordered)
    given = dataclasses.replace(results, measurements=rows, protocols=(protocol,))
    measurements = compare_measurements(given, {c: tuple(seeds) for c in conditions})
    (found,) = protocol_results(given, {}, measurements)
    (claim,) = found.claims
    by = {c: rows.filter(polars.col("condition") == c) for c in conditions}
    if ordered:
        change = np.subtract(*(np.repeat(by[c]["value"].to_numpy(), 2) for c in reversed(conditions)))
        assert claim.theirs.pairs == SEEDS * (SEEDS - 1)
    else:
        change = np.subtract(*(by_seed(by[c]).sort("seed")["value"].to_numpy() for c in reversed(conditions)))
        assert claim.theirs.pairs == SEEDS
    assert claim.theirs.test.p == pytest.approx(stats.wilcoxon(change, alternative="less").pvalue, rel=1e-9)
    assert math.isfinite(claim.ours.p) and claim.ours.baseline.count == SEEDS
    runs = [{"condition": c, "seed": s, "status": "finished"} for c in conditions for s in seeds]
    whole = polars.concat([results.runs.clear(), polars.DataFrame(runs)], how="diagonal_relaxed")
    declared = dataclasses.replace(
        given,
        runs=whole,
        family=("test_disagreement",),
        primary="test_disagreement",
        margins={"test_disagreement": 0.5},
    )
    primary = analyse(declared).primary
    assert primary.role is Role.PRIMARY and primary.quantity.direction == "lower is better"
    (theirs,) = primary.comparisons.values()
    assert theirs.welch.p == pytest.approx(claim.ours.welch.p) and theirs.equivalence.p < 0.05


SPEC = """
name = "t"
data = {name = "digits"}
model = {name = "linear"}
train = {learning_rate = 0.1, batch_size = 100, epochs = 1}
measure = {names = ["fisher_rao"], pairs = ["disagreement"]}
conditions = [{name = "a"}, {name = "b"}]
"""


def test_a_protocol_claims_only_what_the_study_asks():
    good = '[[protocols]]\ntitle = "t"\nhigher = ["fisher_rao"]\nlower = ["test_disagreement", "test_loss"]\n'
    spec = study.spec.reading.parse(SPEC + good)
    assert spec.protocols[0].lower == ["test_disagreement", "test_loss"]
    assert spec.identity() == study.spec.reading.parse(SPEC).identity()
    plan = '[analysis]\nprimary = "test_disagreement"\n[equivalence]\ntest_disagreement = 0.02\nfisher_rao = 1.1\n'
    assert list(margins_of_runs(study.spec.reading.parse(SPEC + plan))) == ["fisher_rao"]
    with pytest.raises(InputError, match="a name in protocols must be one of what the study asks"):
        study.spec.reading.parse(SPEC + good.replace('"fisher_rao"', '"relative_flatness"'))
    with pytest.raises(InputError, match="each of them once"):
        study.spec.reading.parse(SPEC + good.replace('"fisher_rao"', '"test_loss"'))

"""What a study declares of its analysis before its runs, and what its report says of it."""

import dataclasses
import json
import math
import shutil
import tomllib

import pytest

from fuzzing import damage
from steppe import study
from steppe.analysis import Plan, holm
from steppe.analysis.analysis import analyse
from steppe.analysis.comparison import Role
from steppe.core.checks import InputError
from steppe.report import markdown
from steppe.report.study import document
from steppe.storage import files
from steppe.study import Store

TR_H2 = "batch_frobenius_squared"


@pytest.fixture
def out(tmp_path):
    """A copy of a finished study that nobody trained: two conditions of two seeds, without a plan."""
    return shutil.copytree(damage.whole(), tmp_path / "out")


def declare(out, **plan) -> Store:
    """The study with another plan in its specification."""
    raw = Store.read(out).spec.model_dump(exclude_none=True) | ({"analysis": plan} if plan else {})
    files.write_checked(out / "study.toml", study.spec.tables.Spec(**raw).toml())
    return Store.read(out)


def written(out) -> str:
    return markdown.render(document(analyse(study.gathered(Store.read(out)))))


def test_a_plan_does_not_change_what_a_study_is(out):
    before = Store.read(out).spec
    after = declare(out, primary=TR_H2, test="permutation").spec
    assert after.identity() == before.identity() and after.analysis.primary == TR_H2
    assert "analysis" not in before.model_dump(exclude_none=True)


def test_p_values_are_corrected_over_the_family_and_the_rest_is_exploratory(out):
    declare(out, primary="test_loss", family=[TR_H2])
    found = analyse(study.gathered(Store.read(out)))
    assert found.primary.quantity.name == "test_loss" and found.tested[0] is found.primary
    family = [found.quantities[name] for name in ("test_loss", TR_H2)]
    tests = [by.comparisons[c].test for by in family for c in by.comparisons]
    assert [t.corrected for t in tests] == pytest.approx(list(holm([t.p for t in tests])), nan_ok=True)
    assert {by.together for by in family} == {sum(not math.isnan(t.p) for t in tests)}
    roles = {by.quantity.name: by.role for by in found.tested}
    assert roles == {"test_loss": Role.PRIMARY, TR_H2: Role.FAMILY, "test_accuracy": Role.EXPLORATORY,
                     "best_test_accuracy": Role.EXPLORATORY}  # fmt: skip
    text = written(out)
    assert text.count("Exploratory: not among what the study declared.") == 2
    assert text.index("Primary metric: the study declared") < text.index("Declared together with the primary metric")


def test_without_a_plan_nothing_has_a_role_and_welchs_test_decides(out):
    results = study.gathered(Store.read(out))
    assert results.plan == Plan() and results.primary == "" and results.family == ()
    assert {by.role for by in analyse(results).quantities.values()} == {None}
    assert "Exploratory: not" not in written(out)


def test_the_declared_test_decides_and_stands_in_the_report(out):
    declare(out, test="rank", paired=True, correction="benjamini_yekutieli", alternative="less")
    results = study.gathered(Store.read(out))
    assert results.plan == Plan("rank", True, "less", "benjamini_yekutieli") and results.primary == "test_accuracy"
    text = written(out)
    assert (
        "Wilcoxon p" in text and "Corrected p (BY)" in text and "Holm" not in text.partition("## Statistical power")[0]
    )
    assert "by Wilcoxon’s signed-rank test (one-sided: lower) with Benjamini and Yekutieli’s correction" in text
    assert (
        "These are figures of Welch’s test; the study declares Wilcoxon’s signed-rank test (one-sided: lower)" in text
    )
    assert "not corrected and two-sided" in text and "two-sided 95 % interval" in text
    assert "With 2 seeds a side, Wilcoxon’s signed-rank test (one-sided: lower) cannot give a p below 0.25" in text


def test_a_plan_declared_after_runs_is_said_and_one_declared_before_is_not(out):
    assert "plan of the analysis" not in written(out)
    store = declare(out, primary="test_accuracy")
    assert "declared or changed after 4 of 4 runs had finished" in written(out)
    for row in study.gathered(store).runs.iter_rows(named=True):
        run, history = store.load(row["condition"], row["seed"])
        network = store.network(row["condition"], row["seed"])
        shutil.rmtree(store.run_folder(row["condition"], row["seed"]))
        store.save(row["condition"], row["seed"], network, history, run)
    record = json.loads((out / "runs" / "lam=0-s0" / "run.json").read_text())
    assert record["analysis"]["primary"] == "test_accuracy"
    assert "plan of the analysis" not in written(out)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"primary": "accuracy"}, "a name in analysis must be one of what the study asks"),
        ({"family": ["top_eigenvalue"]}, "a name in analysis must be one of what the study asks"),
        ({"test": "anova"}, "analysis.test"),
        ({"correction": "bonferroni"}, "analysis.correction"),
        ({"alpha": 0.1}, "analysis.alpha"),
    ],
)
def test_a_plan_of_what_is_not_asked_gets_a_sentence(plan, message):
    with pytest.raises(InputError) as error:
        study.load("fa-breast-cancer", {"analysis": plan})
    assert message in str(error.value)


def test_permuting_seeds_and_renaming_conditions_change_no_number(out):
    results = study.gathered(Store.read(out))
    names = dict(zip(results.conditions, ("b", "a"), strict=True))
    renamed = dataclasses.replace(
        results,
        conditions=tuple(names[c] for c in results.conditions),
        baseline=names[results.baseline],
        settings={names[c]: settings for c, settings in results.settings.items()},
        runs=results.runs.with_columns(results.runs["condition"].replace(names), seed=1 - results.runs["seed"]),
        history=results.history.with_columns(
            results.history["condition"].replace(names), seed=1 - results.history["seed"]
        ),
    )
    one, other = analyse(results), analyse(renamed)
    for name, by in one.quantities.items():
        for c, comparison in by.comparisons.items():
            again = other.quantities[name].comparisons[names[c]]
            assert again.verdict is comparison.verdict
            assert (again.difference, again.p) == pytest.approx((comparison.difference, comparison.p), nan_ok=True)


def test_a_study_may_be_judged_by_a_correlation_and_then_all_comparisons_are_exploratory(out):
    declare(out, correlation={"measures": [TR_H2], "outcome": "generalisation_gap", "margin": 0.1})
    results = study.gathered(Store.read(out))
    assert results.correlation == (((TR_H2,), "generalisation_gap", "overall", 0.1, math.inf))
    assert results.primary == "" and {by.role for by in analyse(results).tested} == {Role.EXPLORATORY}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"measures": ["keskar_sharpness"], "outcome": "test_loss"}, "a name in analysis must be one of what the stu"),
        ({"measures": [TR_H2], "outcome": "gap"}, "a name in analysis must be one of what the study asks"),
        ({"measures": [], "outcome": "test_loss"}, "measures must be a list with at least one value"),
        ({"measures": [TR_H2], "outcome": "test_loss", "margin": 1.0}, "margin must be less than 1, got 1.0"),
    ],
)
def test_a_correlation_of_what_is_not_asked_gets_a_sentence(plan, message):
    with pytest.raises(InputError, match=message):
        study.load("hsr-moons", {"analysis": {"correlation": plan}})


def test_every_shipped_study_declares_what_it_decides_by_or_says_that_all_of_it_is_exploratory():
    found = {name: tomllib.loads(text) for name, text in study.shipped().items()}
    assert len(found) > 10
    for name, raw in found.items():
        plan = raw.get("analysis", {})
        judged = [plan[key] for key in ("primary",) if key in plan] + plan.get("family", [])
        assert set(judged) == set(raw.get("equivalence", {})), name
        assert judged or plan.get("correlation", {}).get("margin") or "exploratory" in raw["about"], name

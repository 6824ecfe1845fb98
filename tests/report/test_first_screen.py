"""A report's first screen: three lines, one figure; and its tables for other programs."""

import base64
import csv
import dataclasses
import io
import math
from typing import NamedTuple

import numpy as np
import polars
import pytest

from steppe.analysis import judge
from steppe.analysis.analysis import analyse
from steppe.analysis.comparison import Role
from steppe.analysis.equal_loss import EqualLossRatio
from steppe.analysis.judgement.plan import Plan
from steppe.analysis.measurements import described
from steppe.analysis.quantities import QUANTITIES, TR_H2, TRACED, Quantity
from steppe.analysis.results import Results
from steppe.analysis.verdict import Ratio
from steppe.core.checks import InputError
from steppe.measures import MEASURES
from steppe.measures.table import heading
from steppe.report import tables_of
from steppe.report.figures import forest
from steppe.report.pages import html
from steppe.report.study import document
from steppe.report.wording.answers import _compared, _cost, _good
from support.command import run


def results(accuracy: dict[str, float], curvature: dict[str, float], *, seeds=5, **more) -> Results:
    """Conditions of these means, nearly without spread; the first is the baseline."""
    noise = np.random.default_rng(0).normal(size=(len(accuracy), seeds, 3))
    rows = [
        {"condition": c, "seed": s, "status": "finished", "host": "here", "train_seconds": 10.0 * (1 + i) + 0.01 * z[2]}
        | {"test_accuracy": mean + 0.001 * z[0], TR_H2: curvature[c] * np.exp(0.01 * z[1]), "test_loss": 1 - mean}
        | {"best_test_accuracy": mean, "train_loss": 0.1}
        for i, (c, mean) in enumerate(accuracy.items())
        for s, z in enumerate(noise[i])
    ]
    names = next(iter(accuracy)), tuple(accuracy)
    runs = polars.DataFrame(rows)
    return Results("s", "Title", "", *names, len(rows), runs, polars.DataFrame(), None, (), {}, (), "", **more)


class Judged(NamedTuple):
    """What a line reads of a comparison of one quantity."""

    quantity: Quantity
    comparisons: dict
    role: Role | None = None
    plan: Plan = Plan()


def timed(seconds: list[float]) -> Results:
    """Two conditions of one accuracy, of which one took so long in each run and the other ten seconds."""
    found = results({"plain": 0.9, "sam": 0.9}, {"plain": 1.0, "sam": 1.0}, seeds=len(seconds))
    times = polars.Series("train_seconds", [10.0] * len(seconds) + seconds)
    return dataclasses.replace(found, runs=found.runs.with_columns(times))


BETTER = results({"plain": 0.90, "sam": 0.95}, {"plain": 2.0, "sam": 1.0})


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (BETTER, ("Yes, under sam.", "Yes, under sam.", "Time, under sam.")),
        (results({"plain": 0.95, "sam": 0.90}, {"plain": 1.0, "sam": 2.0}),
         ("No: worse under sam.", "No: sharper under sam.", "Time, under sam.")),
        (results({"plain": 0.9, "a": 0.8, "b": 0.9}, {"plain": 1.0, "a": 1.0, "b": 2.0}),
         ("No: worse under a, no difference shown under b.", "No: sharper under b, no difference shown under a.",
          "Time, under both other conditions.")),
        (results({"plain": 0.9, "a": 0.95, "b": 0.8}, {"plain": 1.0, "a": 1.0, "b": 1.0}),
         ("It depends: better under a, worse under b.", "Cannot tell: no difference shown.",
          "Time, under both other conditions.")),
        (dataclasses.replace(results({"plain": 0.9, "sam": 0.9}, {"plain": 1.0, "sam": 1.0}),
                             margins={"test_accuracy": 0.01, TR_H2: 1.5}),
         ("No difference that matters, under sam.", "No difference that matters, under sam.", "Time, under sam.")),
        (dataclasses.replace(results({"plain": 0.9, "sam": 0.95}, {"plain": 1.0, "sam": 1.0}), primary="test_loss",
                             family=("test_loss",)),
         ("Cannot tell: nothing could be tested.", "Cannot tell: no difference shown.", "Time, under sam.")),
        (results({"plain": 0.9, "sam": 0.95}, {"plain": 1.0, "sam": 1.0}, seeds=1),
         ("Cannot tell: nothing could be tested.", "Cannot tell: nothing could be tested.",
          "Cannot tell: nothing could be tested.")),
    ],
)  # fmt: skip
def test_three_lines_answer_three_questions(found, lines):
    answers = document(analyse(found)).answers
    assert [a.question for a in answers] == ["Did it help?", "Is it flatter?", "What did it cost?"]
    assert tuple(a.text for a in answers) == lines


def test_a_condition_that_is_a_control_is_no_treatment_and_what_it_shows_is_said():
    means = {"plain": 0.90, "longer": 0.97, "sam": 0.95}
    found = results(means, {"plain": 2.0, "longer": 0.5, "sam": 1.0}, controls={"sam": "longer"})
    found = dataclasses.replace(found, primary="test_accuracy", family=("test_accuracy", TR_H2))
    helped, flatter, _ = document(analyse(found)).answers
    assert helped.text == "Yes, under sam. Against controls: worse under sam." and "under sam: +5" in helped.effect
    assert flatter.text == "Yes, under sam. Against controls: sharper under sam."
    alike = results(means | {"longer": 0.95}, {"plain": 2.0, "longer": 1.0, "sam": 1.0}, controls={"sam": "longer"})
    assert document(analyse(alike)).answers[0].text.endswith(" Against controls: no difference shown.")


def test_a_condition_that_is_a_task_of_its_own_is_not_said_to_help():
    settings = {c: {"data.factor": factor} for c, factor in (("near", 0.5), ("far", 0.1), ("nearer", 0.9))}
    found = results(
        {"near": 0.9, "far": 0.9, "nearer": 0.8}, {"near": 1.0, "far": 0.1, "nearer": 9.0}, settings=settings
    )
    first, second = document(analyse(found)).answers
    assert first.question == "Do the tasks differ in final test accuracy?" and first.text == "Yes: lower under nearer."
    assert second.text == "Yes: flatter under far, sharper under nearer."
    mixed = {c: {"data.factor": 0.5, "method.name": c} for c in ("near", "far")} | {"nearer": settings["nearer"]}
    lines = document(analyse(dataclasses.replace(found, settings=mixed))).answers
    assert [a.text for a in lines[:2]] == ["Cannot tell: no difference shown.", "Yes, under far."]


@pytest.mark.parametrize(
    ("primary", "family", "helped", "flatter"),
    [
        (TR_H2, (TR_H2,), "Final test accuracy", "Final tr(H²)"),
        (TR_H2, (TR_H2, "test_loss"), "Final test loss", "Final tr(H²)"),
        ("top_eigenvalue", ("top_eigenvalue",), "Final test accuracy", "λ_max"),
        ("test_loss", ("test_loss", "top_eigenvalue"), "Final test loss", "Final tr(H²)"),
    ],
)
def test_whether_it_helped_is_asked_of_an_outcome_whatever_is_primary(primary, family, helped, flatter):
    runs = BETTER.runs.with_columns(top_eigenvalue=polars.col(TR_H2), test_loss=1 - polars.col("test_accuracy"))
    found = document(analyse(dataclasses.replace(BETTER, runs=runs, primary=primary, family=family))).answers
    assert [a.text for a in found[:2]] == ["Yes, under sam.", "Yes, under sam."]
    assert found[0].effect.startswith(f"{helped} under sam") and found[1].effect.startswith(f"{flatter} (lower is")
    assert ("exploratory" in found[0].effect) is (helped == "Final test accuracy")
    assert ("; the primary metric)" in found[1].effect) is (primary in (TR_H2, "top_eigenvalue"))


def test_an_outcome_is_told_from_a_sharpness_by_the_family_of_its_measure():
    parts = [("loss", "test"), ("accuracy", "train"), ("r_squared", "test"), ("trace", "train")]
    parts += [("batch_frobenius_squared", "train"), ("frobenius_squared", "train")]
    for name, split in parts:
        assert (QUANTITIES | TRACED)[heading(name, name, split)].family == MEASURES[name].family
    asked = {"measure": "random_sharpness", "quantity": "random_sharpness", "scale": "log", "split": "train"}
    rows = polars.DataFrame(
        [{**asked, "heading": "x"}, {**asked, "measure": "mine:shift", "split": "test", "heading": "y"}]
    )
    assert described(rows, "x").is_sharpness and described(rows, "y").is_outcome


@pytest.mark.parametrize(
    ("curvature", "low", "high", "text"),
    [
        (1.0, 0.4, 0.6, "Yes, under sam. So it is at equal training loss."),
        (1.0, 0.9, 1.1, "Yes, under sam. But at equal training loss no difference under sam: training ended"),
        (1.0, 1.1, 1.3, "Yes, under sam. But at equal training loss sharper under sam: training ended"),
        (4.0, 0.4, 0.6, "No: sharper under sam. But at equal training loss flatter under sam: training ended"),
        (4.0, math.nan, math.nan, "No: sharper under sam."),
        (2.0, 0.4, 0.6, "Cannot tell: no difference shown. At equal training loss it is, under sam."),
    ],
)
def test_the_second_line_says_what_is_left_at_equal_training_loss(curvature, low, high, text):
    found = analyse(results({"plain": 0.9, "sam": 0.95}, {"plain": 2.0, "sam": curvature}))
    ratio = EqualLossRatio(math.sqrt(low * high), low, high, 5, epochs=9)
    answer = document(dataclasses.replace(found, equal_loss={TR_H2: {"sam": ratio}})).answers[1].text
    assert answer.startswith(text) and (text.endswith("ended") or answer == text)


def test_the_terms_of_a_report_are_explained_where_it_uses_them():
    found = next(s for s in document(analyse(BETTER)).sections if s.title == "Terms")
    terms = {item.partition(": ")[0] for item in found.blocks[0].items}
    assert {"tr(H²)", "Welch", "TOST", "Hedges’ g"} <= terms and "Kendall’s τ" not in terms
    assert "<h2>Terms</h2>" in html.render(document(analyse(BETTER)))


@pytest.mark.parametrize(
    ("column", "quantity", "text"),
    [
        ("test_forgetting", "forgetting", "No: worse under sam."),
        ("test_x", "old_task_accuracy", "Yes, under sam."),
    ],
)
def test_of_a_primary_metric_the_better_end_is_that_of_its_quantity(column, quantity, text):
    measured = {"run": "", "measure": "forgetting", "quantity": quantity, "scale": "linear", "split": "test"}
    described_ = described(polars.DataFrame([measured | {"heading": column}]), column)
    comparison = judge([0.5, 0.51, 0.52], [0.4, 0.41, 0.42])
    found = Judged(described_, {"sam": comparison})
    assert _compared("Did it help?", found, _good(described_), "better", "").text == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ([10.0, 10.1, 9.9], "Little or no time: no difference was shown."),
        ([2.0, 10.0, 40.0], "Cannot tell: training times vary more than they differ."),
    ],
)
def test_a_cost_that_is_lost_in_noise_cannot_be_told(seconds, text):
    assert document(analyse(timed(seconds))).answers[-1].text == text


def test_the_effect_of_a_cost_is_that_of_a_condition_that_is_named():
    found = _cost({"noisy": Ratio(3.0, 0.5, 18.0, 3), "slow": Ratio(2.0, 1.5, 2.7, 3)}, "95 % interval")
    assert found.text == "Time, under slow." and found.effect.startswith("Training time under slow: × 2.00 [")


def test_each_line_has_its_effect_and_interval():
    found = document(analyse(BETTER)).answers
    assert found[0].effect.startswith("Final test accuracy under sam: +") and "points [+" in found[0].effect
    assert (
        found[1].effect.startswith("Final tr(H²) (lower is flatter) under sam: × 0.5")
        and "95 % interval" in found[1].effect
    )
    assert found[2].effect.startswith("Training time under sam: × 2.00 [")
    assert document(analyse(dataclasses.replace(BETTER, runs=BETTER.runs.head(0)))).answers == ()


def test_the_page_begins_with_the_lines_and_one_figure_and_wide_tables_say_that_they_scroll():
    page = html.render(document(analyse(BETTER)))
    order = [page.index(words) for words in ("Did it help?", "What did it cost?", "data:image/svg", 'class="lead"')]
    assert order == sorted(order) and "Scroll sideways for more columns" in page and 'class="scroll wide"' in page


def test_the_forest_shows_every_condition_the_margin_and_its_words():
    found = analyse(dataclasses.replace(BETTER, margins={"test_accuracy": 0.02}))
    (drawn,) = forest.pictures(found.chosen(("test_accuracy", TR_H2)), "plain")
    assert "Final test accuracy, sam: +" in drawn.alt and "Final tr(H²), sam: × 0.5" in drawn.alt
    assert "grey band is the margin" in drawn.caption and b"svg" in base64.b64decode(drawn.uri.partition(",")[2])
    assert forest.pictures((), "plain") == []


def test_tables_for_other_programs_hold_every_condition():
    latex, text = tables_of(BETTER, "latex"), tables_of(BETTER, "csv")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") > 2
    body = "".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert "±" not in body and "²" not in body
    rows = list(csv.reader(io.StringIO(text)))
    assert ["Results by condition", "sam"] in [row[:2] for row in rows] and len({tuple(r) for r in rows}) > 4
    worse = tables_of(results({"plain": 0.95, "sam": 0.90}, {"plain": 1.0, "sam": 1.0}), "csv")
    assert ",-5.00," in worse and "−" not in worse and ",–," not in worse
    assert "| plain" in tables_of(BETTER, "markdown")
    with pytest.raises(InputError, match="report: format must be one of"):
        tables_of(BETTER, "excel")


def test_the_command_prints_tables_to_paste(small_study, monkeypatch, capsys):
    status, said, _ = run(monkeypatch, capsys, "show", small_study, "--format", "latex")
    assert status == 0 and said.startswith("% ") and r"\bottomrule" in said

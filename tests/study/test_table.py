"""What a report is told of a study's folder besides its numbers: margins declared late, conditions withdrawn."""

import json
import shutil

import polars
import pytest

from fuzzing import damage
from steppe import study
from steppe.analysis.analysis import analyse
from steppe.analysis.results import LateMargin
from steppe.analysis.verdict import Verdict
from steppe.report import markdown
from steppe.report.study import document
from steppe.storage import files
from steppe.study import Store
from steppe.study.store import OF_A_RUN, SUMS


@pytest.fixture
def out(tmp_path):
    """A copy of a finished study that nobody trained: two conditions of two seeds, without margins."""
    return shutil.copytree(damage.whole(), tmp_path / "out")


def declare(out, **margins) -> Store:
    """The study with other margins in its specification."""
    spec = Store.read(out).spec.model_copy(update={"equivalence": margins})
    files.write_checked(out / "study.toml", spec.toml())
    return Store.read(out)


def train_again(out, condition, seed) -> None:
    """Make one run anew, with the margins that stand now."""
    store = Store.read(out)
    run, history = store.load(condition, seed)
    network = store.network(condition, seed)
    shutil.rmtree(store.run_folder(condition, seed))
    store.save(condition, seed, network, history, run)


def late_margins(out):
    return study.gathered(Store.read(out)).late_margins


def test_a_margin_declared_before_all_runs_is_no_late_one(out):
    assert late_margins(out) == {}
    declare(out, test_accuracy=0.05)
    for run in study.gathered(Store.read(out)).runs.iter_rows(named=True):
        train_again(out, run["condition"], run["seed"])
    record = json.loads((out / "runs" / "lam=0-s0" / "run.json").read_text())
    assert record["equivalence"] == {"test_accuracy": 0.05}
    assert late_margins(out) == {}


def test_a_margin_declared_changed_or_withdrawn_after_runs_is_said_in_the_report(out):
    declare(out, test_accuracy=0.05)
    assert late_margins(out) == {"test_accuracy": LateMargin(0.05, 4, 4, ())}
    train_again(out, "lam=0", 0)
    assert late_margins(out) == {"test_accuracy": LateMargin(0.05, 3, 4, ())}
    words = "margin of equivalence for final test accuracy, 5.00 points, was declared after 3 of 4 runs had finished"
    assert written(out).count(words) == 2  # among the notes, and at the table
    declare(out, test_accuracy=0.02)
    assert late_margins(out) == {"test_accuracy": LateMargin(0.02, 4, 4, (0.05,))}
    assert "2.00 points, was changed from 5.00 points after 4 of 4 runs" in written(out)
    declare(out)
    assert late_margins(out) == {"test_accuracy": LateMargin(None, 1, 4, (0.05,))}
    assert "final test accuracy, 5.00 points, was declared when 1 of 4 runs finished" in written(out)


def test_conditions_that_are_gone_are_said_in_the_report(out):
    spec = Store.read(out).spec
    shutil.copytree(out / "runs" / "lam=0-s0", out / "runs" / "of-old-s0")
    (out / "runs" / "lam=0-s0.set-aside-1234abcd").mkdir()
    notes = study.gathered(Store(out, spec)).notes
    assert [note for note in notes if "no longer has this condition, which had runs: of-old (1 run)" in note]
    assert not [note for note in study.gathered(Store.read(damage.whole())).notes if "no longer" in note]


def test_a_record_whose_margins_are_none_is_damaged(out):
    path = out / "runs" / "lam=0-s0" / "run.json"
    record = json.loads(path.read_text()) | {"equivalence": {"test_accuracy": "much"}}
    path.write_text(json.dumps(record))
    sums = [(files.digest(path.parent / name), name) for name in OF_A_RUN if name != SUMS]
    (path.parent / SUMS).write_text(files.listed(sums))
    with pytest.raises(files.DamagedFile, match="equivalence is no table of numbers"):
        Store.read(out).load("lam=0", 0)


def answered(out, converged=(True, True)) -> Store:
    """The study with a named measure, which gave 0.10 and 0.11 under lam=0, and near those under lam=0.1."""
    store = Store.read(out)
    names = store.spec.measure.model_copy(update={"names": ["calibration_error"]})
    margins = {"test_calibration_error": 0.05, "test_loss": 2.0}
    spec = store.spec.model_copy(update={"measure": names, "equivalence": margins})
    files.write_checked(out / "study.toml", spec.toml())
    for condition, base in (("lam=0", 0.1), ("lam=0.1", 0.101)):
        for seed in range(2):
            run, rows = store.load(condition, seed)
            network, last = store.network(condition, seed), rows.tail(1)
            shutil.rmtree(store.run_folder(condition, seed))
            answer = last.with_columns(
                measure=polars.lit("calibration_error"), quantity=polars.lit("calibration_error"),
                split=polars.lit("test"), stage=polars.lit("end"), value=base + 0.01 * seed,
                converged=polars.lit(converged[seed]),
            )  # fmt: skip
            Store.read(out).save(condition, seed, network, polars.concat([rows, answer]), run)
    return Store.read(out)


def test_a_margin_of_a_named_measure_judges_it_in_the_one_analysis(out):
    found = analyse(study.gathered(answered(out)))
    by = found.quantities["test_calibration_error"]
    assert by in found.tested and by.verdict("lam=0.1") is Verdict.EQUIVALENT and by.margin == 0.05
    assert by.quantity.direction == "lower is better" and by.quantity.label == "Calibration error"
    assert found.quantities["test_loss"] in found.tested
    text = written(out)
    assert "Calibration error (lower is better) was equivalent within 0.05 under lam=0.1" in text
    assert "Final test loss against lam=0" in text and "2 nats" in text


def test_a_margin_does_not_make_a_bound_an_equivalence(out):
    by = analyse(study.gathered(answered(out, converged=(True, False)))).quantities["test_calibration_error"]
    assert by.verdict("lam=0.1") is Verdict.UNTESTABLE and by.bounds == {"lam=0": 1, "lam=0.1": 1}


def test_a_late_margin_of_a_named_measure_is_said(out):
    answered(out)
    declare(out, test_calibration_error=0.02)
    assert late_margins(out)["test_calibration_error"] == LateMargin(0.02, 4, 4, (0.05,))
    assert "margin of equivalence for calibration error, 0.02, was changed from 0.05" in written(out)


@pytest.mark.parametrize(("batch_size", "said"), [("", True), ("measure.batch_size = 8\n", False)])
def test_conditions_of_other_batch_sizes_are_said_not_to_compare_by_their_tr_h2(out, batch_size, said):
    text = damage.SPEC.replace('"method.lam" = [0.0, 0.1]', '"train.batch_size" = [8, 16]').replace(
        "lam=0", "batch_size=8"
    )
    files.write_checked(out / "study.toml", study.spec.parse(text.replace("grid =", f"{batch_size}grid =")).toml())
    notes = " ".join(study.gathered(Store.read(out)).notes)
    assert ("mini-batches of 8 to 16 examples, depending on the condition" in notes) == said


def test_a_study_whose_every_run_diverged_says_so(out):
    store = Store.read(out)
    for condition, seed in damage.NAMES:
        run, rows = store.load(condition, seed)
        network = store.network(condition, seed)
        shutil.rmtree(store.run_folder(condition, seed))
        store.save(condition, seed, network, rows, run | {"status": "diverged"})
    assert "Every run diverged, so there is nothing to conclude." in written(out)


def written(out) -> str:
    """The report as text."""
    return markdown.render(document(analyse(study.gathered(Store.read(out)))))


def test_a_measure_that_failed_in_one_run_is_missing_there_and_no_bound(out):
    """The report says of which run, and why."""
    answered(out)
    store = Store.read(out)
    run, rows = store.load("lam=0.1", 1)
    network, is_answer = store.network("lam=0.1", 1), polars.col("measure") == "calibration_error"
    shutil.rmtree(store.run_folder("lam=0.1", 1))
    failed = rows.with_columns(
        value=polars.when(is_answer).then(float("nan")).otherwise("value"),
        converged=~is_answer & polars.col("converged"),
        note=polars.when(is_answer).then(polars.lit("not measured: it broke")).otherwise("note"),
    )  # fmt: skip
    store.save("lam=0.1", 1, network, failed, run)
    found = analyse(study.gathered(Store.read(out)))
    measured = found.measurements.quantities["calibration_error"]
    assert measured.bounds == {"lam=0": 0, "lam=0.1": 0} and measured.summaries["lam=0.1"].count == 1
    text = written(out)
    assert "Calibration error of lam=0.1-s1: not measured: it broke." in text
    assert "Calibration error is missing or not finite in 1 finished run." in text

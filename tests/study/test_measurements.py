"""The long table of a study: what its rows say, where they come from, and that nothing is lost."""

import json
import shutil

import jax
import numpy as np
import polars
import pytest

from steppe import InputError, models, study
from steppe.analysis import frames
from steppe.analysis.analysis import analyse
from steppe.data import Dataset
from steppe.measures import Quantity, answers, measure, registry, table
from steppe.measures.registry import lookup
from steppe.networks import measurement
from steppe.networks.settings import Settings
from steppe.networks.user import UserNetwork
from steppe.report import markdown
from steppe.report.study import document
from steppe.storage import files
from steppe.study import measurements
from steppe.study.examination import Examination
from steppe.study.progress import Watcher
from steppe.study.questions import Question, Sample, named
from steppe.study.spec.identity import changes
from steppe.study.spec.reading import parse
from steppe.study.store import OF_A_RUN, SUMS

pytestmark = pytest.mark.usefixtures("without_surfaces")

TOML = """
name = "tiny"
seeds = 2
data = {name = "breast-cancer"}
model = {name = "mlp", hidden = [3]}
method = {name = "fa", lam = 0.0}
landscape = {points = 3, grid_points = 3, examples = 8}
[train]
learning_rate = 0.01
batch_size = 64
epochs = 2
[measure]
batches = 1
probes = 1
names = [
  "calibration_error",
  {name = "sam_sharpness", rho = 0.01, every = 1},
  {name = "sizes:weight_norm", power = 1.0},
]
"""
SIZES = """
import jax, jax.numpy as jnp
from steppe.measures import Quantity

def weight_norm(subject, *, power: float = 2.0):
    "How long is the vector of all weights?"
    total = sum(jnp.sum(jnp.abs(leaf) ** power) for leaf in jax.tree.leaves(subject.params))
    yield Quantity("weight_norm", total ** (1 / power))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("asked")
    code = tmp_path_factory.mktemp("code")
    (code / "sizes.py").write_text(SIZES)
    return study.run(parse(TOML, folder=code), directory), directory


def test_a_measure_that_a_study_names_is_a_column_of_its_results(finished):
    runs = finished[0].runs
    assert runs["test_calibration_error"].is_between(0, 1).all() and (runs["sam_sharpness"] > 0).all()


def test_a_measure_of_a_users_own_is_a_column_of_its_results_and_named_by_its_function(finished):
    results, directory = finished
    rows = table.read(directory).filter(measure="sizes:weight_norm")
    store = study.Store.read(directory)
    source = store.spec.source["sizes"]
    for seed in (0, 1):
        network = store.network("all", seed)
        norm = sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(network.params))
        np.testing.assert_allclose(results.runs.filter(seed=seed)["test_weight_norm"].item(), norm, rtol=1e-5)
        (text,) = rows.filter(seed=seed)["settings"]
        assert json.loads(text) == {"power": 1.0, "source": source[:16]}
    assert store.spec.identity()["source"] == {"sizes": source}


def test_no_quantity_of_a_users_own_may_be_a_column_of_results(finished):
    def gives(name):
        return lambda subject: Quantity(name, 1.0)

    taken = {name for name in finished[0].runs.columns if not name.startswith(answers.PREFIXES)}
    for name in taken:
        with pytest.raises(InputError, match="the name of a quantity"):
            measure([gives(name)], loss=lambda p, b: p.sum() + 0 * b.sum(), params=np.ones(2), batches=np.ones((2, 2)))
    assert "seed" in taken


def test_the_long_table_says_what_the_results_say(finished):
    results, directory = finished
    found = frames.finals(table.read(directory))
    for column in ("test_loss", "test_accuracy", "train_loss", "train_accuracy", "sam_sharpness"):
        for condition, seed, value in results.runs.select("condition", "seed", column).iter_rows():
            assert found[condition, seed][column] == value


def test_the_long_table_holds_every_measured_epoch(finished):
    rows = table.read(finished[1]).filter(stage="training", measure="accuracy", split="test")
    assert sorted(zip(rows["seed"], rows["epoch"], strict=True)) == [(s, e) for s in (0, 1) for e in (1, 2)]


def test_a_named_measure_with_every_is_asked_in_training_and_its_last_answer_is_that_of_the_end(finished):
    results, directory = finished
    rows = table.read(directory).filter(measure="sam_sharpness", seed=0)
    assert rows.select("epoch", "stage").rows() == [(1, "training"), (2, "training"), (2, "end")]
    assert rows["value"][1] == rows["value"][2] == results.runs["sam_sharpness"][0] != rows["value"][0]
    assert results.history["sam_sharpness"].to_list()[:2] == rows["value"].to_list()[:2]


def test_what_is_asked_of_a_named_measure_in_training_changes_no_training(finished, tmp_path):
    (tmp_path / "sizes.py").write_text(SIZES)
    plain = study.run(parse(TOML.replace(", every = 1", ""), folder=tmp_path), tmp_path / "out")
    for column in ("test_loss", "batch_frobenius_squared", "sam_sharpness", "test_calibration_error"):
        assert plain.runs[column].to_list() == finished[0].runs[column].to_list()


def test_settings_of_a_named_measure_are_in_its_rows(finished):
    rows = table.read(finished[1]).filter(measure="sam_sharpness")
    assert {json.loads(text)["rho"] for text in rows["settings"]} == {0.01}


def test_the_table_can_be_made_again_from_the_runs(finished, tmp_path):
    store = study.Store.read(finished[1])
    runs = [store.load("all", seed) for seed in (0, 1)]
    again = measurements.of_study(store, runs)
    assert again.equals(table.read(finished[1]), null_equal=True)


def test_uniting_twice_adds_nothing_and_keeps_what_was_asked_later(finished, tmp_path):
    rows = table.read(finished[1])
    later = rows.head(1).with_columns(stage=polars.lit("later"), fingerprint=polars.lit("asked later"))
    whole = table.Table(tmp_path)
    whole.unite(later)
    whole.unite(rows)
    whole.unite(rows)
    whole.close()
    assert table.read(tmp_path).equals(polars.concat([later, rows]), null_equal=True)


def test_rows_of_a_run_trained_again_otherwise_leave_with_what_was_asked_of_it_later(finished, tmp_path):
    rows = table.read(finished[1])
    later = rows.group_by("run", maintain_order=True).first()
    later = later.with_columns(stage=polars.lit("later"), fingerprint="later " + polars.col("run"))
    is_other = polars.col("run") == "all-s1"
    again = rows.with_columns(value=polars.col("value") + is_other, fingerprint="again " + polars.col("fingerprint"))
    whole = table.Table(tmp_path)
    whole.unite(rows)
    whole.add(later.to_dicts(), None)
    assert whole.unite(rows) == [] and whole.unite(again) == ["all-s1"]
    whole.close()
    assert table.read(tmp_path).equals(polars.concat([later.filter(~is_other), again]), null_equal=True)


def test_times_that_differ_do_not_make_another_network(finished, tmp_path):
    rows = table.read(finished[1])
    seconds = polars.col("value") + (polars.col("quantity") == "train_seconds")
    whole = table.Table(tmp_path)
    whole.unite(rows)
    whole.add(rows.head(1).with_columns(stage=polars.lit("later")).to_dicts(), None)
    assert whole.unite(rows.with_columns(value=seconds)) == []
    whole.close()


def test_a_table_of_an_older_version_is_read(tmp_path, finished):
    rows = table.read(finished[1]).with_columns(stage=polars.lit("later")).drop("epoch", "stage")
    rows.write_parquet(tmp_path / table.OLD)
    found = table.read(tmp_path)
    assert dict(found.schema) == table.SCHEMA
    assert set(found["stage"]) == {"later"} and found["epoch"].is_null().all()
    np.testing.assert_array_equal(found["value"], rows["value"])


def test_what_training_asked_is_none_of_what_was_asked_later(finished):
    rows = table.read(finished[1])
    assert frames.finals(rows.with_columns(stage=polars.lit("later"))) == {}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["calibration"], "calibration_error"),
        ([{"bins": 3}], "a name"),
        ([{"name": "calibration_error", "bin": 3}], "bins"),
        (["trace", "trace"], "twice"),
        (["loss"], "every study asks for it"),
        ([{"name": "batch_frobenius_squared", "every": 1}], "every study asks for it"),
        ([{"name": "trace", "every": 0}], r"measure\.names\.trace\.every"),
        ([{"name": "trace", "every": "2"}], r"measure\.names\.trace\.every"),
        (["distance_from_initialisation"], "steppe measure"),
    ],
)
def test_names_that_cannot_be_asked_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        named(names)


def test_what_is_tracked_is_named_for_the_end_alone():
    (question,) = named(["frobenius_squared"], tracked=True)
    assert question.every is None
    with pytest.raises(InputError, match=r"measure\.names\.frobenius_squared\.every must be left out beside \[track\]"):
        named([{"name": "frobenius_squared", "every": 1}], tracked=True)


def test_a_measure_is_asked_of_epochs_that_are_measured():
    assert named([{"name": "trace", "every": 4}], stride=2)[0].every == 4
    with pytest.raises(InputError, match=r"measure\.names\.trace\.every must be a multiple of measure\.every, 2"):
        named([{"name": "trace", "every": 3}], stride=2)


def test_a_fit_of_a_users_own_without_a_value_is_no_divergence():
    """What follows it is asked all the same."""
    network = models.build("linear", (2,), 2)
    variables = network.init(jax.random.key(0))
    data = Dataset("toy", *[{"x": np.eye(2, dtype=np.float32), "y": np.arange(2)}] * 2, lambda b: b, (2,), 2, "", "")
    nothing = registry.known(registry.measure(family="fit")(lambda subject: Quantity("nothing", np.nan)))
    asked = [Question(known, {}, Sample("test", None, 2), None) for known in (nothing, lookup("calibration_error"))]
    asked[1] = asked[1]._replace(settings={"bins": 2})
    rows = list(Examination(network, data, asked).answers(variables, 1, last=True))
    assert np.isnan(rows[0]["value"]) and np.isfinite(rows[1]["value"])


@pytest.fixture
def changed(finished, tmp_path):
    """A study killed after it trained a run again, otherwise, and before it put the run's rows into the table."""
    folder = shutil.copytree(finished[1], tmp_path / "out")
    whole = table.Table(folder)
    later = whole.rows.filter(stage="end", measure="sam_sharpness").with_columns(
        stage=polars.lit("later"), value=7.0, fingerprint="later " + polars.col("run")
    )
    whole.add(later.to_dicts(), None)
    whole.close()
    store = study.Store.read(folder)
    record, rows = store.load("all", 1)
    network = store.network("all", 1)
    shutil.rmtree(store.run_folder("all", 1))
    shifted = polars.when(polars.col("measure") == "training").then("value").otherwise(polars.col("value") + 1)
    store.save("all", 1, network, rows.with_columns(value=shifted), record)
    return folder


def test_a_report_of_a_run_trained_again_is_of_its_new_network(changed, finished):
    results = study.gathered(study.Store.read(changed))
    before, now = (r.runs.filter(seed=1)["sam_sharpness"].item() for r in (finished[0], results))
    measured = analyse(results).measurements.quantities["sam_sharpness"].values["all"]
    assert now == before + 1 and measured == {0: finished[0].runs["sam_sharpness"][0], 1: now}
    assert "all-s1 were trained again" in " ".join(results.notes)


def test_what_a_study_names_is_reported_whatever_was_asked_of_one_run_later(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "out")
    settings = Settings(("calibration_error",), examples=8)
    measurement.measure(measurement.read_targets([folder / "runs" / "all-s0"], UserNetwork(), settings), settings)
    found = analyse(study.gathered(study.Store.read(folder))).measurements
    assert list(found.quantities["calibration_error"].values["all"].values()) == found_in(finished)
    assert found.others and not analyse(finished[0]).measurements.others


def found_in(finished):
    return finished[0].runs["test_calibration_error"].to_list()


def test_what_is_asked_later_of_a_network_trained_again_stays(changed):
    """The table is brought up to date before a command adds to it."""
    settings = Settings(("loss",), examples=8)
    measurement.measure(measurement.read_targets([changed], UserNetwork(), settings), settings)
    later = table.read(changed).filter(stage="later")
    assert later.select("run", "measure").rows() == [
        ("all-s0", "sam_sharpness"),
        ("all-s0", "loss"),
        ("all-s1", "loss"),
    ]
    assert "trained again" not in " ".join(study.gathered(study.Store.read(changed)).notes)


@pytest.mark.parametrize("content", [b"PAR1 and nothing", None])
def test_a_study_whose_table_is_damaged_is_reported_from_its_runs(finished, tmp_path, content):
    folder = shutil.copytree(finished[1], tmp_path / "out")
    if content is None:
        polars.DataFrame({"a": [1]}).write_parquet(folder / table.NAME)
        (folder / f"{table.NAME}.sha256").unlink()
    else:
        (folder / table.NAME).write_bytes(content)
    results = study.gathered(study.Store.read(folder))
    assert results.runs.equals(finished[0].runs) and analyse(results).measurements is not None
    assert "What `steppe measure` added is left out" in " ".join(results.notes)


class Quiet(Watcher):
    """Keeps what it is told."""

    def __init__(self):
        self.words = []

    def say(self, text):
        self.words.append(text)


@pytest.fixture(scope="module")
def grown(finished, tmp_path_factory):
    """The study begun with one measure of three, and asked for the others when its runs had finished."""
    directory, code = (tmp_path_factory.mktemp(name) for name in ("grown", "code"))
    (code / "sizes.py").write_text(SIZES)
    text = TOML.replace('{name = "sam_sharpness", rho = 0.01, every = 1},', "").replace(
        '{name = "sizes:weight_norm", power = 1.0},', ""
    )
    study.run(parse(text, folder=code), directory)
    before = {path: path.read_bytes() for path in directory.glob("runs/*/*")}
    watcher = Quiet()
    results = study.run(parse(TOML, folder=code), directory, watcher=watcher)
    assert before == {path: path.read_bytes() for path in before}
    return results, directory, watcher


def test_a_measure_named_later_is_asked_of_finished_runs_to_the_bit(finished, grown):
    for column in ("sam_sharpness", "test_weight_norm", "test_calibration_error", "test_loss"):
        assert grown[0].runs[column].to_list() == finished[0].runs[column].to_list()
    rows = table.read(grown[1]).filter(measure="sam_sharpness", seed=0)
    assert rows.select("epoch", "stage").rows() == [(2, "training"), (2, "end")]
    assert grown[2].words == []


def test_what_was_asked_later_is_asked_once_and_again_where_it_is_damaged(grown, tmp_path, monkeypatch):
    folder = shutil.copytree(grown[1], tmp_path / "out")
    spec, asked = study.Store.read(folder).spec, []
    answers = Examination.answers
    monkeypatch.setattr(Examination, "answers", lambda *a, **k: asked.append(a[2]) or answers(*a, **k))
    study.run(spec, folder, watcher=Quiet())
    assert asked == []
    path = folder / "runs" / "all-s0" / "additions.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    results = study.gathered(study.Store.read(folder))
    assert results.runs["sam_sharpness"].null_count() == 1
    assert "runs/all-s0/additions.parquet" in " ".join(results.notes) and "Answers to sam_sharpness" in " ".join(
        results.notes
    )
    assert study.run(spec, folder, watcher=Quiet()).runs.equals(grown[0].runs) and asked == [2]


def test_what_was_asked_of_another_network_is_no_addition(grown, tmp_path):
    folder = shutil.copytree(grown[1], tmp_path / "out")
    names = [folder / "runs" / f"all-s{seed}" / "additions.parquet" for seed in (0, 1)]
    for suffix in ("", ".sha256"):
        shutil.copy(f"{names[0]}{suffix}", f"{names[1]}{suffix}")
    assert len(study.Store.read(folder).additions("all", 1)) == 0 < len(study.Store.read(folder).additions("all", 0))


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["trace", {"name": "calibration_error", "bins": 3}], True),
        (["trace", "mine:norm"], True),
        (["soft_rank"], False),
        ([{"name": "trace", "probes": 3}, "soft_rank"], False),
        ([], False),
    ],
)
def test_settings_differ_where_a_measure_goes_or_changes_and_not_where_one_comes(names, same):
    before = {"measure": {"probes": 5, "names": ["trace"]}, "train": {}}
    source = {"source": {"mine": "ab"}} if "mine:norm" in names else {}
    assert (list(changes(before, {"measure": {"probes": 5, "names": names}, "train": {}} | source)) == []) is same


def test_the_code_of_a_measure_that_comes_is_no_other_study_and_other_code_is():
    before = {"measure": {"names": []}, "source": {"mynet": "ab"}}
    after = {"measure": {"names": ["mine:norm"]}, "source": {"mynet": "ab", "mine": "cd"}}
    assert list(changes(before, after)) == []
    after["source"]["mynet"] = "ba"
    assert [path for path, *_ in changes(before, after)] == ["source.mynet"]


def test_the_report_shows_the_question_of_a_users_own_measure(finished):
    """Its docstring's first line, read from the rows: reading a study runs no code."""
    shown = markdown.render(document(analyse(finished[0])))
    assert "How long is the vector of all weights?" in shown and "source" in shown


def test_rows_of_a_version_without_questions_are_read(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "out")
    for path in (folder / table.NAME, *folder.glob("runs/*/measurements.parquet")):
        polars.read_parquet(path).drop("question", "update").write_parquet(path)
    (folder / f"{table.NAME}.sha256").unlink()
    for path in folder.glob("runs/*"):
        sums = [(files.digest(path / name), name) for name in OF_A_RUN if name != SUMS]
        (path / SUMS).write_text(files.listed(sums))
    results = study.gathered(study.Store.read(folder))
    assert results.notes == () and results.runs.equals(finished[0].runs)
    assert set(table.read(folder)["question"]) == {""}

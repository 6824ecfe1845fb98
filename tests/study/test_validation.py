"""Examples that validate: split off the training data, looked at by stopping and selection, never the test data."""

import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import polars
import pytest

from steppe import InputError, data, study
from steppe.analysis.analysis import analyse
from steppe.analysis.frames import histories, runs
from steppe.report import markdown
from steppe.report.study import document
from steppe.study.history import History, of_training
from steppe.study.questions import questions
from steppe.study.training.recipe import Recipe
from steppe.study.training.rehearsal import check_measures
from steppe.study.training.run import _converged, _watched

pytestmark = pytest.mark.usefixtures("without_surfaces")

SPEC = """
name = "tiny"
seeds = 1
data = {name = "moons", examples = 60, test_examples = 50, validation = 0.2}
model = {name = "mlp", hidden = [4], activation = "tanh"}
method = {name = "sam", rho = 0.05}
train = {learning_rate = 0.2, batch_size = 16, epochs = 12, clip_norm = 1.0, accumulate = 2}
measure = {batches = 2, probes = 2}
landscape = {points = 3, grid_points = 3}
[grid]
"method.rho" = [0.0, 0.05]
"""
STOPPING = {"on": "validation_loss", "patience": 2, "min_delta": 0.02}


def spec(**changes):
    return study.spec.parse(SPEC, {key.replace("__", "."): value for key, value in changes.items()})


# --- The split --------------------------------------------------------------------------------------------------------


def labelled(*sizes):
    """A data set with so many examples of each class, numbered."""
    y = np.repeat(np.arange(len(sizes)), sizes)
    x = np.arange(len(y), dtype=np.float32)[:, None]
    return data.from_arrays("numbered", ((x, y), (x[:1], y[:1])))


@pytest.mark.parametrize("validation", [0.25, 7, 1, 27])
@pytest.mark.parametrize("sizes", [(14, 14), (2, 26), (1, 27), (5, 9, 14)])
def test_a_split_is_proportional_to_each_class_and_loses_no_example(sizes, validation):
    whole = labelled(*sizes)
    count = 7 if validation == 0.25 else validation
    if count > 28 - len(sizes):
        with pytest.raises(InputError, match=f"validation must be at most {28 - len(sizes)} examples, so that each"):
            data.with_validation(whole, validation)
        return
    found = data.with_validation(whole, validation)
    rows = [part["x"][:, 0].astype(int) for part in (found.train, found.validation)]
    assert len(rows[1]) == count and sorted(np.concatenate(rows)) == list(range(28))
    assert all(np.all(np.diff(part) > 0) for part in rows)  # in their order
    np.testing.assert_array_equal(found.validation["y"], whole.train["y"][rows[1]])
    shares = np.bincount(found.validation["y"], minlength=len(sizes)) - count * np.array(sizes) / 28
    if all(size * (28 - count) >= 28 for size in sizes):  # where each class can keep an example
        assert np.abs(shares).max() < 1
    assert set(found.train["y"]) == set(range(len(sizes)))
    assert found.test is whole.test and found.fingerprint != whole.fingerprint


def test_a_split_is_that_of_its_seed():
    whole = labelled(30, 30)
    one, same, other = (data.with_validation(whole, 0.2, seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.about.endswith("; 12 of 60 training examples split off to validate on (seed 0)")


@pytest.mark.parametrize("name", ["breast-cancer", "digits"])
def test_every_data_set_by_name_takes_it(name):
    whole, found = data.load(name), data.load(name, validation=50, validation_seed=3)
    assert len(found.validation["y"]) == 50 and len(found.train["y"]) == len(whole.train["y"]) - 50
    decoded = found.decode(jax.tree.map(lambda leaf: leaf[:2], found.validation))
    assert decoded["x"].shape == (2, *found.shape)


def test_a_data_set_that_has_a_validation_part_keeps_it_and_is_split_no_further():
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    whole = data.dataset("own", (x, y), (x, y), decode=lambda batch: batch, shape=(4,), classes=2, about="",
                         validation=(x[:2], y[:2]))  # fmt: skip
    checked = data.checked(whole)
    assert checked.fingerprint == whole.fingerprint and len(checked.validation["y"]) == 2
    with pytest.raises(InputError, match="validation must be left out for data that have a validation part"):
        data.with_validation(whole, 0.5)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0, "from 1 to 59, of 60"), (60, "from 1 to 59, of 60"), (1.0, "a share above 0 and below 1"),
        (-0.1, "a share above 0"), (float("nan"), "a share above 0"), (True, "a share above 0"), ("0.1", "a share"),
        (1e-9, "a share of at least one training example"), (0.999999, "a share of at least one .* and not of all"),
    ],
)  # fmt: skip
def test_a_share_that_makes_no_sense_gets_one_sentence(share, message):
    with pytest.raises(InputError, match=f"validation must be {message}"):
        data.with_validation(labelled(30, 30), share)


# --- In a study -------------------------------------------------------------------------------------------------------


def test_a_study_splits_what_it_says_and_without_it_is_what_it_was():
    found = spec()
    assert found.data["validation"] == 0.2 and found.data["validation_seed"] == 0
    assert study.spec.parse(found.toml()) == found
    assert len(found.load_data().validation["y"]) == 12
    plain = {"name": "moons", "examples": 60, "test_examples": 50}
    without = spec(data=plain)
    assert not {"validation", "validation_seed"} & without.identity()["data"].keys()
    assert without.load_data().fingerprint == data.load("moons", examples=60, test_examples=50).fingerprint
    assert not any(question.sample.split == "validation" for question in questions(without, without.load_data()))


def test_a_data_set_of_one_s_own_is_split_too(tmp_path, monkeypatch):
    (tmp_path / "countable.py").write_text(
        "import numpy as np\n"
        "def made(count: int):\n    x = np.arange(count, dtype=float)\n    y = np.arange(count) % 2\n"
        "    return (x, y), (x, y)\n"
        "def taken(validation: float = 0.1):\n    return made(8)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = spec(data={"name": "countable:made", "count": 40, "validation": 10}).load_data()
    assert (len(found.train["y"]), len(found.validation["y"]), len(found.test["y"])) == (30, 10, 40)
    with pytest.raises(InputError, match="got one with a setting called validation, which is a study's own"):
        spec(data={"name": "countable:taken"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__validation": 1.5}, "data.validation must be a share above 0 and below 1, or a whole number"),
        ({"data__validation": "tenth"}, "data.validation must be a share above 0 and below 1, or a whole number"),
        ({"data__validation": True}, "data.validation must be a share above 0 and below 1, or a whole number"),
        ({"data": {"name": "moons", "validation_seed": 1}}, "validation_seed must be left out without data.validation"),
        ({"train__early_stopping": {"on": "test_loss", "patience": 1}}, "early_stopping.on must be 'validation_l"),
        ({"train__early_stopping": {"on": "validation_loss"}}, "must be a table that gives patience, target or both"),
        ({"train__early_stopping": STOPPING, "measure__every": 2}, "measure.every must be 1 with early stopping"),
        ({"train__early_stopping": STOPPING, "data": {"name": "moons"}},
         "data.validation must be given, for early stopping on validation_loss looks at it, got none"),
        ({"measure__names": [{"name": "trace", "split": "validation"}], "data": {"name": "moons"}},
         "data.validation must be given, for a measure is asked of that part, got none"),
        ({"equivalence": {"test_loss": 0.1}, "data": {"examples": 60}, "loss": {}}, "data.name must be given"),
        ({"equivalence": {"validation_loss": 0.1}, "data": {"name": "moons"}}, "validation_loss"),
        ({"measure__names": [{"name": "trace", "split": "held"}]},
         "measure.names.trace.split must be one of 'train', 'validation', 'test', 'clean', got 'held'"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_get_one_sentence(changes, message):
    with pytest.raises(InputError) as error:
        found = spec(**changes)
        recipe = Recipe.of(found, found.load_data())
        check_measures(study.questions.named(found.measure.names), recipe)
    assert message in str(error.value)


def history_of(**series):
    history = History()
    for epoch, values in enumerate(zip(*series.values(), strict=True), start=1):
        rows = [of_training(epoch, name, value) | {"measure": name, "split": "validation"}
                for name, value in zip(series, values, strict=True)]  # fmt: skip
        history.add(epoch, 1 / epoch, rows)
    return history


@pytest.mark.parametrize(
    ("stopping", "loss", "stops"),
    [
        ({"patience": 1}, (3.0, 2.0, 1.0), False),
        ({"patience": 1}, (3.0, 2.0, 2.0), True),
        ({"patience": 2}, (3.0, 2.0, 2.5), False),
        ({"patience": 2}, (3.0, 2.0, 2.5, 2.1), True),
        ({"patience": 2}, (3.0, 2.0, 2.5, 1.9), False),
        ({"patience": 1, "min_delta": 0.5}, (3.0, 2.0, 1.6), True),
        ({"patience": 1, "min_delta": 0.5}, (3.0, 2.0, 1.4), False),
        ({"patience": 1}, (2.0, float("nan")), False),
        ({"target": 2.0}, (3.0, 2.5), False),
        ({"target": 2.0}, (3.0, 1.75), True),
        ({"target": 2.0}, (float("nan"),), False),
        ({"target": 1.0, "patience": 1}, (2.0, 2.0), True),
        ({"target": 1.0, "patience": 2}, (2.0, 2.0), False),
    ],
)
def test_training_stops_at_its_target_or_when_nothing_has_improved_for_so_many_epochs(stopping, loss, stops):
    # the training loss falls throughout, and the test part is not there at all
    for on, values in {"validation_loss": loss, "validation_accuracy": [1 - value / 10 for value in loss]}.items():
        scaled = {**stopping, "min_delta": stopping.get("min_delta", 0.0) / (1 if on == "validation_loss" else 10)}
        if on == "validation_accuracy" and "target" in stopping:
            scaled["target"] = 1 - stopping["target"] / 10
        asked = spec(train__early_stopping={"on": on, **scaled})
        quantity = on.removeprefix("validation_")
        assert _converged(history_of(**{quantity: values}), asked) == stops
        *past, last = values
        row = of_training(1, quantity, last) | {"measure": quantity, "split": "validation"}
        assert _converged(history_of(**{quantity: past}), asked, _watched(asked, 0.0, [row])) == stops


def test_a_history_that_was_read_back_goes_on_where_it_was():
    whole = history_of(loss=(3.0, 2.0, 1.0))
    again = History(whole.rows)
    assert again.series("loss", "validation") == [3.0, 2.0, 1.0]
    assert (again.objectives, again.epochs) == (whole.objectives, 3)


def selected(**series):
    """What validation selects from an epoch's values, as the table of runs has it."""
    names = {"validation_accuracy": ("accuracy", "validation"), "validation_loss": ("loss", "validation"),
             "test_accuracy": ("accuracy", "test")}  # fmt: skip
    rows = [
        of_training(epoch, names[name][0], value)
        | {"measure": names[name][0], "split": names[name][1], "condition": "a", "seed": 0}
        for epoch in range(1, len(series["test_accuracy"]) + 1)
        for name, value in ((name, values[epoch - 1]) for name, values in series.items())
    ]
    rows += [of_training(1, "measure_seconds", 0.0) | {"condition": "a", "seed": 0}]
    table = polars.DataFrame(rows, infer_schema_length=None)
    table = table.with_columns(residual=polars.lit(None, polars.Float64), update=polars.lit(None, polars.Int64))
    record = {"condition": "a", "seed": 0, "status": "finished", "epochs": len(series["test_accuracy"])}
    return runs([record], table, histories(table)).row(0, named=True)


def test_the_selected_epoch_is_the_best_on_validation_and_never_looks_at_the_test_data():
    found = selected(
        validation_accuracy=[0.5, 0.9, 0.8], validation_loss=[1.0, 0.5, 0.4], test_accuracy=[0.9, 0.6, 0.7]
    )
    assert (found["selected_epoch"], found["selected_test_accuracy"], found["best_test_accuracy"]) == (2, 0.6, 0.9)
    tied = selected(validation_accuracy=[0.9, 0.9, 0.9], validation_loss=[1.0, 0.4, 0.4], test_accuracy=[0.1, 0.2, 0.3])
    assert (tied["selected_epoch"], tied["selected_test_accuracy"]) == (2, 0.2)
    none = selected(test_accuracy=[0.1, 0.2])
    assert not {"selected_epoch", "selected_test_accuracy", "validation_loss"} & none.keys()


# --- From its beginning to its report ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with clipping, accumulation, validation and early stopping, run uninterrupted."""
    folder = tmp_path_factory.mktemp("validated")
    asked = spec(train__early_stopping=STOPPING, measure__names=[{"name": "calibration_error", "split": "validation"}])
    return folder / "out", study.run(asked, folder / "out")


def test_results_say_what_validation_says(finished):
    folder, results = finished
    kept = results.runs
    assert {"validation_loss", "validation_accuracy", "selected_epoch", "selected_test_accuracy"} <= set(kept.columns)
    assert "validation_calibration_error" in kept.columns
    assert kept["selected_test_accuracy"].is_not_null().all()
    for row in kept.iter_rows(named=True):
        path = results.history.filter(condition=row["condition"], seed=row["seed"])
        assert len(path) == row["epochs"]
        best = path.sort(["validation_accuracy", "validation_loss"], descending=[True, False]).row(0, named=True)
        assert row["selected_test_accuracy"] == best["test_accuracy"]
        assert row["validation_loss"] == path["validation_loss"][-1]
    rows = polars.read_parquet(folder / "measurements.parquet").filter(split="validation")
    assert set(rows["measure"]) == {"loss", "accuracy", "calibration_error"} and set(rows["examples"]) == {12}


def test_the_report_shows_it_and_says_which_number_is_optimistic(finished):
    _, results = finished
    text = markdown.render(document(analyse(results)))
    assert "Test accuracy at the best validation epoch" in text and "so that test data select nothing there" in text
    assert "selected on the test set: it is optimistic" in text and "Final validation loss" in text


KILL = """
import os, signal, sys
from steppe import study
from steppe.study.progress import Watcher

class Killer(Watcher):
    left = int(sys.argv[3])
    def epoch(self, *numbers):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

study.run(study.load(sys.argv[1]), sys.argv[2], checkpoint_seconds=0, watcher=Killer())
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(finished, tmp_path):
    folder, results = finished
    asked = shutil.copy(folder / "study.toml", tmp_path / "tiny.toml")
    done = subprocess.run([sys.executable, "-c", KILL, asked, tmp_path / "out", "4"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "out" / "checkpoints").rglob("progress.npz"))
    again = study.run(study.load(str(asked)), tmp_path / "out")
    machine = ("seconds", "memory", "host")
    columns = [name for name in results.runs.columns if not any(word in name for word in machine)]
    assert again.runs.select(columns).equals(results.runs.select(columns))
    assert min(results.runs["epochs"]) < 12  # some were stopped
    for path in sorted((folder / "runs").rglob("parameters.npz")):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(folder)).read_bytes()

"""A study: what it reads, what it leaves on disk, and that nothing is lost, mixed, or different the second time."""

import contextlib
import io
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import jax
import numpy as np
import polars
import pytest
from polars import selectors

from steppe import InputError, study
from steppe.study.history import History
from steppe.study.progress import Watcher
from steppe.study.records import flattened, unflattened
from steppe.study.store import Store, continuation
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.run import _converged
from support.folders import paths_in

SPEC = """
name = "tiny"
seeds = 2
baseline = "lam=0"
[data]
name = "file"
file = "toy.npz"
label = "y"
[model]
name = "mlp"
hidden = [6]
dropout = 0.2
[method]
name = "fa"
lam = 0.0
probes = 2
every = 2
[train]
learning_rate = 0.01
batch_size = 8
epochs = 4
[measure]
batches = 2
probes = 2
[landscape]
points = 5
grid_points = 3
[grid]
"method.lam" = [0.0, 0.1, 1.0]
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a small study and its data."""
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    np.savez(folder / "toy.npz", x=x, y=(x.sum(axis=1) > 0).astype(np.int64))
    (folder / "tiny.toml").write_text(SPEC)
    return folder


@pytest.fixture
def only_runs(finished, monkeypatch):
    """Studies from here on compute no loss surfaces."""
    monkeypatch.setattr("steppe.study.execution.run.add_surfaces", lambda *_: None)


def load(toy, **changes):
    return study.load(str(toy / "tiny.toml"), {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def finished(toy):
    """The study run once, uninterrupted."""
    directory = toy / "finished"
    return directory, study.run(load(toy), directory)


def science(results):
    """The columns that must be the same every time."""
    machine = [c for c in results.runs.columns if any(word in c for word in ("seconds", "memory", "host"))]
    return results.runs.drop(machine)


def assert_same_science(directory, other, results, other_results):
    assert science(results).equals(science(other_results))
    for run in sorted((directory / "runs").iterdir()):
        with np.load(run / "parameters.npz") as a, np.load(other / "runs" / run.name / "parameters.npz") as b:
            assert sorted(a.files) == sorted(b.files)
            for name in a.files:
                np.testing.assert_array_equal(a[name], b[name])


# --- specification


@pytest.mark.parametrize("name", study.shipped())
def test_shipped_studies_are_valid_and_freeze_to_themselves(name):
    spec = study.load(name)
    assert study.spec.parse(spec.toml()) == spec
    assert spec.name == name


@pytest.mark.parametrize("name", [name for name in study.shipped() if name.startswith("fa-")])
def test_shipped_studies_of_fa_follow_the_paper(name):
    spec = study.load(name)
    assert [c.lam for c in study.conditions(spec)] == [0.0, 0.001, 0.01, 0.1, 1.0]
    assert spec.seeds == 3
    assert (spec.method["probes"], spec.method["every"]) == (5, 10)


def test_raw_differs_from_breast_cancer_in_standardisation_alone():
    a, b = (study.load(name).identity() for name in ("fa-breast-cancer", "fa-breast-cancer-raw"))
    assert [path for path, _, _ in study.spec.differences(a, b)] == ["data.standardize", "name"]


def test_any_value_can_be_overridden(toy):
    spec = load(toy, train__epochs=2, model__hidden=[3, 4], method__normalize="params")
    assert (spec.train.epochs, spec.model["hidden"], spec.method["normalize"]) == (2, (3, 4), "params")


def test_grid_is_a_product_and_conditions_are_named_by_what_they_change(toy):
    spec = load(toy, grid={"method.lam": [0.0, 0.1], "train.penalty_dropout": [False, True]}, baseline="")
    names = [c.name for c in study.conditions(spec)]
    assert names == [
        "lam=0,penalty_dropout=False", "lam=0,penalty_dropout=True",
        "lam=0.1,penalty_dropout=False", "lam=0.1,penalty_dropout=True",
    ]  # fmt: skip
    assert spec.baseline == names[0]


def test_conditions_can_be_written_out(toy):
    spec = load(toy, grid={}, baseline="", conditions=[{"name": "plain"}, {"name": "strong", "method.lam": 5.0}])
    assert [(c.name, c.lam) for c in study.conditions(spec)] == [("plain", 0.0), ("strong", 5.0)]


def test_a_table_in_a_condition_that_was_to_be_one_setting_is_explained(toy):
    with pytest.raises(
        InputError, match=r'replaces all of \[train\]. For one setting write "train.<setting>" in quotes'
    ):
        load(toy, grid={}, baseline="", conditions=[{"name": "long", "train": {"epochs": 3}}])


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a  b", " a", "a\n", "a\tb", "\x1b[1m", "\u200b"])
def test_a_condition_whose_name_cannot_be_shown_unchanged_is_refused(toy, name):
    with pytest.raises(InputError, match=r"study: conditions(\.0)?\.name must be"):
        load(toy, grid={}, baseline="", conditions=[{"name": name}])


BAD_SETTINGS = {
    "train.validation": (0.2, "got an unknown key. Did you mean 'data.validation'?"),
    "train.seeds": (2, "got an unknown key. Did you mean 'seeds' or 'tune.seeds'?"),
    "epochs": (2, "study: epochs must be a setting that exists, got an unknown key. Did you mean 'train.epochs'?"),
    "train.epoch": (2, "study: train.epoch must be a setting that exists, got an unknown key. Did you mean 'epochs'?"),
    "equivalence": (0.1, "study: equivalence must be a table, got 0.1."),
    "measure.names": ("loss", "study: measure.names must be a list, got 'loss'."),
    "augment": ("mixup", "study: augment must be a list, got 'mixup'. Write a list of tables: [{name = \"mixup\"}]."),
    "trian": ({}, "Did you mean 'train'?"),
    "train.epochs": ("five", "study: train.epochs must be a whole number, got 'five'."),
    "train.batch_size": (0, "study: train.batch_size must be greater than 0, got 0."),
    "train.devices": (0, "study: train.devices must be 'all' or greater than 0, got 0."),
    "train.learning_rate": (-1.0, "study: train.learning_rate must be greater than 0, got -1.0."),
    "train.optimizer": ("adm", "study: train.optimizer must be 'adam', 'adamw' or 'sgd', got 'adm'."),
    "train.early_stopping.patience": (0, "study: train.early_stopping.patience must be greater than 0, got 0."),
    "data.name": ("cifar10", "Did you mean 'cifar100'?"),
    "data.fil": ("x.csv", "Did you mean 'file'?"),
    "model.name": ("mpl", "Did you mean 'mlp'?"),
    "model.hiden": ([3], "Did you mean 'hidden'?"),
    "model.hidden": ([3.5], "study: model.hidden.0 must be a whole number, got 3.5."),
    "method.name": ("fb", "study: method.name must be one of 'fa'"),
    "method.prob": (3, "Did you mean 'probes'?"),
    "method.key": (3, "study: method.key must be a setting that exists"),
    "method.lam": (
        0.5,
        "study: method.lam must be set through grid.method.lam, the list that it varies over, got a value, 0.5.",
    ),
    "grid.method.lam": ([0.0, -0.5], "fa: lam must be a finite number >= 0, got -0.5."),
    "grid": ({"method.lam": [0.0, -1.0]}, "fa: lam must be a finite number >= 0, got -1.0."),
    "grid.train.epochs": ([], "study: grid.train.epochs must be a list with at least one value, got []."),
    "published": ([{"title": "t", "caveat": "c", "columns": ["a"], "rows": [[1, 2]]}], "whose rows have 1 cells"),
    "grid.data": ([1], "study: data must be a table in condition 'lam=0,data=1', got 1."),
    "grid.seeds": (
        [1],
        "must be one of 'data', 'method', 'then', 'loss', 'augment', 'average', 'model', 'train', 'tune', got",
    ),
    "baseline": ("lam=2", "study: baseline must be one of 'lam=0', 'lam=0.1', 'lam=1', got 'lam=2'. Did you mean"),
    "source.mine": (
        "ab",
        "study: 'source.mine' must be left out: digests of your code, which Steppe writes, got 'ab'.",
    ),
    "landscape.points": (4, "study: landscape.points must be odd, so that the network itself is one of the points"),
    "landscape.grid_points": (20, "study: landscape.grid_points must be odd"),
    "seeds": (0, "study: seeds must be greater than 0, got 0."),
    "name": ("../x", "study: name must be letters, digits"),
}


@pytest.mark.parametrize("path", BAD_SETTINGS)
def test_bad_settings_get_one_sentence(toy, path):
    value, message = BAD_SETTINGS[path]
    with pytest.raises(InputError) as error:
        study.load(str(toy / "tiny.toml"), {path: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_files_get_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"Did you mean 'fa-imdb'\?"):
        study.load("fa-imbd")
    with pytest.raises(InputError, match="There is no such file"):
        study.load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("name = \n")
    with pytest.raises(InputError, match=r"bad\.toml must be valid TOML, got .*line 1"):
        study.load(str(tmp_path / "bad.toml"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(InputError, match="UTF-8"):
        study.load(str(tmp_path / "latin.toml"))
    (tmp_path / "flat.toml").write_text(SPEC.partition("[grid]")[0].replace("seeds = 2", "seeds = 2\ngrid = 3"))
    for path in ("method.lam", "grid.method.lam"):
        with pytest.raises(InputError, match="grid"):
            study.load(str(tmp_path / "flat.toml"), {path: 0.5})
    (tmp_path / "short.toml").write_text('name = "short"\n')
    with pytest.raises(InputError, match="study: data must be given, got nothing"):
        study.load(str(tmp_path / "short.toml"))


# --- runs


def test_a_study_leaves_what_it_promises(finished):
    directory, results = finished
    assert len(results.runs) == results.planned == 6
    assert results.runs["condition"].to_list() == ["lam=0"] * 2 + ["lam=0.1"] * 2 + ["lam=1"] * 2
    assert set(results.runs["status"]) == {"finished"}
    assert results.runs["lam"].to_list() == [0.0, 0.0, 0.1, 0.1, 1.0, 1.0]
    assert results.runs["batch_frobenius_squared"].is_finite().all()
    assert len(results.history) == 6 * 4
    assert results.surfaces.grids.shape == (3, 3, 3)
    assert tomllib.loads((directory / "study.toml").read_text())["train"]["epochs"] == 4
    for name in ("parameters.npz", "measurements.parquet", "run.json"):
        assert (directory / "runs" / "lam=0.1-s1" / name).is_file()
    assert not list((directory / "checkpoints").glob("*"))


def test_flatness_is_measured_for_lam_zero_too(finished):
    plain = finished[1].history.filter(polars.col("lam") == 0)
    assert (plain["batch_frobenius_squared"] > 0).all()
    assert finished[1].runs["average_batch_frobenius_squared"][0] == pytest.approx(
        plain.filter(polars.col("seed") == 0)["batch_frobenius_squared"].mean()
    )


@pytest.mark.slow
def test_seeds_start_alike_in_every_condition(toy, finished, only_runs):
    """Seed-paired tests are paired: the first epoch before any penalty differs by λ alone."""
    results = study.run(load(toy, grid={"method.lam": [0.0, 1e-30]}), toy / "paired")
    by_seed = [results.runs.filter(polars.col("seed") == s)["test_loss"].to_list() for s in range(2)]
    for plain, barely in by_seed:
        assert plain == pytest.approx(barely, rel=1e-4)
    assert by_seed[0][0] != by_seed[1][0]


@pytest.mark.optimised
@pytest.mark.slow
def test_the_same_study_again_is_bitwise_the_same(toy, finished):
    directory, results = finished
    again = study.run(load(toy), toy / "again")
    assert_same_science(directory, toy / "again", results, again)


def test_a_finished_study_is_not_run_again(toy, finished, monkeypatch):
    directory, results = finished
    monkeypatch.setattr("steppe.study.execution.local.train", None)
    assert study.run(load(toy), directory).runs.equals(results.runs)


@pytest.mark.optimised
@pytest.mark.slow
def test_more_seeds_extend_a_study_by_new_runs_alone(toy, finished):
    directory, results = finished
    shutil.copytree(directory, toy / "more")
    before = {p: p.stat().st_mtime_ns for p in (toy / "more" / "runs").rglob("*.npz")}
    more = study.run(load(toy, seeds=3), toy / "more")
    assert len(more.runs) == 9
    assert science(more).filter(polars.col("seed") < 2).equals(science(results))
    assert all(p.stat().st_mtime_ns == then for p, then in before.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__epochs": 5}, r"with train\.epochs = 5, got one with train\.epochs = 4"),
        ({"method__probes": 3}, r"method\.probes = 3, got one with method\.probes = 2"),
    ],
)
def test_a_changed_study_never_mixes_with_old_results(toy, finished, change, message):
    with pytest.raises(InputError, match=message):
        study.run(load(toy, **change), finished[0])
    assert study.gathered(Store.read(finished[0])).runs.equals(finished[1].runs)


def test_changed_data_never_mix_with_old_results(toy, finished, tmp_path):
    shutil.copytree(toy / "finished", tmp_path / "out")
    with np.load(toy / "toy.npz") as arrays:
        changed = {name: arrays[name].copy() for name in arrays.files}
    changed["x"][0, 0] += 1
    original = (toy / "toy.npz").read_bytes()
    try:
        np.savez(toy / "toy.npz", **changed)
        with pytest.raises(InputError, match="data that has changed since"):
            study.run(load(toy), tmp_path / "out")
    finally:
        (toy / "toy.npz").write_bytes(original)


def test_a_folder_with_other_files_is_left_alone(toy, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="a folder with other files"):
        study.run(load(toy), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "runs" / "lam=0-s0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Put its study\.toml back"):
        study.run(load(toy), tmp_path)


def test_two_processes_cannot_run_one_study(toy, finished):
    directory, _ = finished
    with (
        Store.open(directory, load(toy), Store.read(directory).data()),
        pytest.raises(InputError, match="another process"),
    ):
        study.run(load(toy), directory)


def test_a_batch_larger_than_the_data_stops_before_anything_is_written(toy, tmp_path):
    with pytest.raises(InputError, match=r"train\.batch_size must be at most the 48 training examples, got 100"):
        study.run(load(toy, train__batch_size=100), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_that_diverge_are_recorded_and_the_study_goes_on(toy, tmp_path):
    conditions = [{"name": "calm"}, {"name": "wild", "train.learning_rate": 1e30, "train.optimizer": "sgd"}]
    results = study.run(
        load(toy, grid={}, baseline="calm", conditions=conditions, train__schedule="constant"), tmp_path / "out"
    )
    status = dict(zip(results.runs["condition"], results.runs["status"], strict=True))
    assert status == {"calm": "finished", "wild": "diverged"}
    wild = results.runs.filter(polars.col("condition") == "wild")
    assert wild["test_accuracy"].is_null().all()
    assert (wild["epochs"] <= 4).all()
    assert results.surfaces.conditions == ("calm",)


@pytest.mark.slow
def test_convergence_criterion_stops_on_the_training_loss(toy, only_runs, tmp_path):
    spec = load(toy, train__early_stopping={"patience": 1, "min_delta": 100.0}, seeds=1)
    results = study.run(spec, tmp_path / "out")
    assert results.runs["epochs"].to_list() == [2, 2, 2]
    falling = (3.0, 2.0, 1.0, 0.5)
    assert not _converged(History(), load(toy, train__early_stopping={"patience": 2}), *falling)
    assert not _converged(History(), load(toy), *falling, *falling[-1:] * 9)
    assert _converged(History(), load(toy, train__early_stopping={"patience": 1}), 1.0, 1.0, 1.0)


@pytest.mark.slow
def test_penalty_dropout_penalises_the_function_that_is_trained(toy, only_runs, tmp_path):
    grid = {"train.penalty_dropout": [False, True]}
    results = study.run(load(toy, grid=grid, baseline="", method__lam=1.0, seeds=1), tmp_path / "out")
    assert results.runs["test_loss"][0] != results.runs["test_loss"][1]


@pytest.mark.optimised
@pytest.mark.slow
def test_microbatches_in_a_study_change_results_only_by_rounding(toy, only_runs, tmp_path):
    # one part takes the estimate through layers, by other random vectors of the same expectation
    grid = {"method.microbatches": [2, 4]}
    results = study.run(load(toy, grid=grid, baseline="", method__lam=1.0, seeds=1), tmp_path / "out")
    np.testing.assert_allclose(results.runs["test_loss"], results.runs["test_loss"][0], rtol=1e-3)


def test_settings_that_do_not_fit_stop_before_anything_is_trained(toy, tmp_path):
    with pytest.raises(InputError, match="microbatches must be a divisor of the batch size 8, got 3"):
        study.run(load(toy, method__microbatches=3), tmp_path / "out")
    with pytest.raises(InputError, match="penalty_dropout must be false with microbatches"):
        study.run(load(toy, method__microbatches=2, train__penalty_dropout=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flatness_beyond_float32_is_left_out_and_the_study_goes_on(toy, only_runs, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)) * 1e21
    np.savez(toy / "huge.npz", x=x, y=(x.sum(axis=1) > 0).astype(int))
    calm = {"train__learning_rate": 1e-5, "data__file": str(toy / "huge.npz"), "data__standardize": False, "seeds": 1}
    results = study.run(load(toy, **calm, model__dropout=0.0, grid={}, baseline=""), tmp_path / "out")
    assert len(results.runs) == 1


def test_fewer_seeds_later_take_nothing_away(toy, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    results = study.run(load(toy, seeds=1), tmp_path / "out")
    assert results.runs.equals(finished[1].runs)


def test_other_surfaces_are_computed_when_other_surfaces_are_asked(toy, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    results = study.run(load(toy, landscape__points=7), tmp_path / "out")
    assert results.surfaces.lines.shape == (3, 7)
    assert results.runs.equals(finished[1].runs)


def test_a_run_without_its_record_is_made_again(toy, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "out/runs/lam=0-s0/run.json").unlink()
    with pytest.warns(UserWarning, match=r"lam=0-s0/run\.json is damaged .*: the run is trained again"):
        again = study.run(load(toy), tmp_path / "out")
    assert_same_science(finished[0], tmp_path / "out", finished[1], again)


def test_what_a_kill_leaves_is_swept_away(toy, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (out / ".summary.md.partial").touch()
    (out / "runs/.lam=0-s0.partial").mkdir()  # as older versions called it
    (out / "runs/.lam=0-s0.0123abcd.partial").mkdir()
    (out / "checkpoints/lam=0-s0/2").mkdir(parents=True)  # killed between the rename and the clean-up
    study.run(load(toy), out)
    assert not list(out.rglob("*.partial")) and not (out / "checkpoints/lam=0-s0").exists()


def checkpointed(toy, finished, folder, monkeypatch, epochs):
    """A copy of the finished study whose last run was interrupted after so many epochs."""
    out = folder / "out"
    shutil.copytree(finished[0], out)
    shutil.rmtree(out / "runs/lam=1-s1")
    offered = []

    def stop(self, progress, history):
        offered.append(real(self, progress, history))
        if len(offered) == epochs:
            raise KeyboardInterrupt

    real = Checkpoints.offer
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "offer", stop)
        study.run(load(toy), out, checkpoint_seconds=0)
    return out


@pytest.mark.optimised
@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_its_checkpoint(toy, finished, only_runs, tmp_path, monkeypatch):
    out = checkpointed(toy, finished, tmp_path, monkeypatch, epochs=3)
    trained = []
    watcher = Watcher()
    watcher.epoch = lambda loss, squared: trained.append(loss)
    results = study.run(load(toy), out, watcher=watcher)
    assert len(trained) == 1  # three of four epochs came from the checkpoint
    assert_same_science(finished[0], out, finished[1], results)
    assert epochs(results).equals(epochs(finished[1]))


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_time_and_nothing_else(toy, finished, only_runs, tmp_path, monkeypatch):
    out = checkpointed(toy, finished, tmp_path, monkeypatch, epochs=2)
    for path in (out / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_same_science(finished[0], out, finished[1], study.run(load(toy), out))


def test_parameters_survive_the_way_to_disk():
    params = {"layers": {0: {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, 11: {"kernel": np.ones(1)}}}
    back = unflattened(flattened(params))
    assert jax.tree.structure(back) == jax.tree.structure(params)


@pytest.mark.slow
def test_a_report_says_what_was_changed_of_a_shipped_study(only_runs, tmp_path):
    changes = {"train.epochs": 1, "model.hidden": [4], "seeds": 1, "landscape.points": 3, "landscape.grid_points": 3}
    results = study.run(study.load("fa-breast-cancer", changes), tmp_path / "out")
    assert "train.epochs = 1 (shipped: 50)" in results.notes[0]
    assert "model.hidden" in results.notes[0]


# --- interruption


def command(toy, out, *more):
    code = "from steppe.cli import main; main()"
    arguments = ["run", str(toy / "tiny.toml"), "--out", str(out), "--checkpoint-seconds", "0", *more]
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.optimised
@pytest.mark.slow
def test_killed_at_random_moments_a_study_resumes_to_the_same_bits(toy, finished, tmp_path):
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    for _ in range(2):  # `make fuzz` kills a hundred times
        process = subprocess.Popen(command(toy, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = paths_in(out)
        while process.poll() is None and paths_in(out) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))  # somewhere in training, saving, or beginning the next run
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1  # how far a study gets between two kills depends on the machine
    subprocess.run(command(toy, out), check=True, capture_output=True)
    results = study.gathered(Store.read(out))
    assert_same_science(finished[0], out, finished[1], results)
    assert epochs(results).equals(epochs(finished[1]))


def epochs(results):
    return results.history.select(~selectors.contains("seconds"))


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_loses_nothing(toy, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(toy, out, "--set", "train.epochs=100000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not (before := kept(out)) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("steppe: Interrupted.")
    assert "Traceback" not in errors
    assert kept(out) >= before >= 1


def kept(out):
    """The last epoch that the first run can go on from."""
    found = []
    for path in paths_in(out / "checkpoints" / "lam=0-s0"):
        if path.name == "progress.npz" and not path.parent.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # the run removes a checkpoint when it has written the next
                found.append(np.load(path)["rows"])
    return max((polars.read_parquet(io.BytesIO(rows.tobytes()))["epoch"].max() for rows in found), default=0)


def test_a_study_killed_at_its_very_start_goes_on(toy, tmp_path):
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / ".lock").touch()
    assert continuation.is_unused(tmp_path / "out")


def test_none_survives_freezing(toy):
    spec = load(toy, method__normalize="none")
    assert study.spec.settings.split_name(spec.method)[1]["normalize"] is None
    assert study.spec.parse(spec.toml()) == spec

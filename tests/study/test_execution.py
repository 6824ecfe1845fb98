"""The seams of a study: where its runs lie, and where they are trained."""

import json
import shutil
import subprocess
import sys

import pytest

from steppe import InputError, study
from steppe.models import Variables
from steppe.study.execution.base import Run
from steppe.study.execution.local import work

WORK = """
import json, sys
from steppe.study.execution.base import Run
from steppe.study.execution.local import work
work(sys.argv[1], [Run(*run) for run in json.loads(sys.argv[2])], checkpoint_seconds=0)
"""


class Processes:
    """Trains runs in two processes at once: an executor in one class."""

    def submit(self, store, runs, watcher):
        self.workers = {}
        for place in range(2):
            words = [str(store.directory), json.dumps(runs[place::2])]
            self.workers[str(place)] = subprocess.Popen([sys.executable, "-c", WORK, *words])
        return list(self.workers)

    def wait(self, ids):
        assert [self.workers[name].wait(timeout=300) for name in ids] == [0, 0]


class Idle:
    """Takes runs, and trains none."""

    def submit(self, store, runs, watcher):
        return [run.id for run in runs]

    def wait(self, ids):
        pass


def unfinished(folder, *lost):
    """A copy of a study, without some runs and without what is made of them."""
    for name in lost or ("",):
        shutil.rmtree(folder / "runs" / name)
    return study.load(str(folder / "study.toml"))


def bytes_of_runs(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("parameters.npz"))}


@pytest.mark.slow
def test_runs_trained_by_two_processes_at_once_are_the_same_to_the_bit(small_study, without_surfaces, tmp_path):
    out = shutil.copytree(small_study, tmp_path / "out")
    spec = unfinished(out)
    study.run(spec, out, executor=Processes())
    assert bytes_of_runs(out / "runs") == bytes_of_runs(small_study / "runs")
    assert not list(out.rglob("*.partial"))


def test_runs_that_an_executor_loses_are_said_and_trained_by_the_next(small_study, tmp_path):
    out = shutil.copytree(small_study, tmp_path / "out")
    spec = unfinished(out, "lam=0-s1")
    with pytest.warns(UserWarning, match=r"1 of 1 runs ended without a result: lam=0-s1\. Run the same command again"):
        study.run(spec, out, executor=Idle())
    assert work(out, [Run("lam=0", 1), Run("lam=0", 0)]) == ["lam=0-s1", "lam=0-s0"]
    assert bytes_of_runs(out / "runs") == bytes_of_runs(small_study / "runs")


def test_a_worker_trains_a_damaged_run_again(small_study, tmp_path):
    out = shutil.copytree(small_study, tmp_path / "out")
    (out / "runs" / "lam=0-s1" / "parameters.npz").write_bytes(b"PK")
    work(out, [Run("lam=0", 1)])
    assert bytes_of_runs(out / "runs") == bytes_of_runs(small_study / "runs")


def test_of_two_attempts_at_one_run_the_first_stays(small_study, tmp_path):
    out = shutil.copytree(small_study, tmp_path / "out")
    store = study.Store.read(out)
    record, rows = store.load("lam=0", 0)
    store.save("lam=0", 0, Variables({"w": store.params("lam=0", 1)["layers"][0]["bias"]}, {}), rows, record)
    assert bytes_of_runs(out / "runs") == bytes_of_runs(small_study / "runs")
    assert not list(out.rglob("*.partial"))


def test_a_worker_refuses_data_that_are_not_the_studys(small_study, tmp_path):
    out = shutil.copytree(small_study, tmp_path / "out")
    unfinished(out, "lam=0-s1")
    facts = json.loads((out / "data.json").read_text()) | {"fingerprint": "0" * 64}
    (out / "data.json").write_text(json.dumps(facts))
    (out / "data.json.sha256").unlink()
    with pytest.raises(InputError, match="data must be what the study runs on, got other data on this machine"):
        work(out, [Run("lam=0", 1)])


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([Run("lam=7", 0)], "the condition of a run must be one of 'lam=0', 'lam=0.1', got 'lam=7'"),
        ([Run("lam=0", 2)], "the seed of a run must be below 2, the study's number of seeds, got 2"),
        ([("lam=0", 0.5)], "the seed of a run must be a whole number of at least 0, got 0.5"),
        (["lam=0-s0"], "a run must be a condition and a seed, got 'lam=0-s0'"),
        (None, "runs must be a list of runs, each a condition and a seed, got None"),
    ],
)
def test_a_worker_refuses_runs_that_the_study_does_not_have(runs, sentence, small_study):
    with pytest.raises(InputError, match=sentence):
        work(small_study, runs)


def test_a_worker_takes_runs_as_json_has_them(small_study):
    assert work(small_study, [["lam=0", 0]]) == ["lam=0-s0"]


@pytest.mark.parametrize("executor", [Idle, 3, object()])
def test_what_is_no_executor_is_refused_before_anything_is_trained(executor, small_study, tmp_path):
    with pytest.raises(InputError, match="executor must be an object with the methods submit and wait"):
        study.run(study.load(str(small_study / "study.toml")), tmp_path / "out", executor=executor)
    assert not (tmp_path / "out").exists()

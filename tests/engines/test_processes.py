"""Several processes on this machine: a study, its measures and its landscapes, bit for bit those of one process."""

import os
import select
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from steppe import study
from steppe.engines import base, tasks
from steppe.engines.base import Task
from steppe.engines.pool import Pool
from steppe.engines.processes import Processes
from steppe.engines.progress import Watcher
from steppe.engines.standing import Standing
from steppe.measures.table import ABOUT_THE_MACHINE
from steppe.networks import distributed, exploration, landscapes, measurement
from steppe.networks.settings import Settings, UserNetwork
from steppe.study.execution.base import Run
from steppe.study.execution.distributed import Distributed, divided
from support.units import missing


class Killer(Watcher):
    """Kills the first worker that trains."""

    def __init__(self, folder):
        self.folder, self.killed = folder, []

    def stage(self, text):
        found = [tasks.read(path) for path in self.folder.glob("tasks/*/progress.json")]
        if not self.killed and found and found[0].get("at"):
            self.killed.append(found[0]["process"])
            os.kill(found[0]["process"], signal.SIGKILL)


class Quiet(Watcher):
    def say(self, text):
        assert text == "Some words."


def numbers_of(folder):
    rows = study.gathered(study.Store.read(folder)).measurements
    return rows.filter(~ABOUT_THE_MACHINE).select("run", "epoch", "stage", "measure", "quantity", "split", "value")


@pytest.mark.slow
def test_a_study_whose_worker_is_killed_has_the_bits_of_one_process(small_study, without_surfaces, tmp_path):
    out, killer = shutil.copytree(small_study, tmp_path / "out"), Killer(tmp_path / "out")
    for name in ("lam=0-s0", "lam=0-s1"):
        shutil.rmtree(out / "runs" / name)
    executor = Distributed(Processes(1))
    study.run(study.load(str(out / "study.toml")), out, watcher=killer, executor=executor)
    assert killer.killed and executor.lost == []
    for name in ("lam=0-s0", "lam=0-s1"):
        path = Path("runs") / name / "parameters.npz"
        assert (out / path).read_bytes() == (small_study / path).read_bytes()
    assert numbers_of(out).equals(numbers_of(small_study), null_equal=True)
    assert not list(out.rglob("*.partial")) and not list((out / "tasks").glob("0*"))


@pytest.mark.slow
def test_measures_and_landscapes_of_workers_are_those_of_one_process(small_study, tmp_path):
    settings, found = Settings(("frobenius_squared",), examples=16, probes=2), []
    asked = landscapes.Settings(points=3, grid=3, examples=16)
    for place, engine in enumerate((None, Processes(1))):
        out = shutil.copytree(small_study, tmp_path / str(place))
        paths = [out / "runs" / name for name in ("lam=0-s0", "lam=0.1-s0")]
        runs = measurement.read_targets(paths, UserNetwork(), settings)
        if engine:
            assert distributed.measure(runs, settings, engine, Watcher()) == []
        rows = measurement.measure(runs, settings).rows
        question, drawn = landscapes.read_question(paths, asked), tmp_path / f"landscape-{place}"
        if engine:
            assert distributed.explore(question, paths, UserNetwork(), drawn, engine, Watcher()) == []
            assert landscapes.stored_landscape(question, drawn) is not None
            assert not (out / "measuring").exists()
        found.append((rows["value"].to_list(), exploration.explore(question, drawn)))
    (values, one), (others, other) = found
    assert values == others and len(values) > 1
    assert all(np.array_equal(one.lines[name], other.lines[name]) for name in one.lines)
    assert all(np.array_equal(one.grids[name], other.grids[name]) for name in one.grids)


@pytest.mark.slow
def test_a_worker_ends_when_the_command_is_gone(tmp_path):
    engine = Processes(1)
    work = [Task("support.units:write", {"folder": str(tmp_path)}, ("long",))]

    class Gone(Quiet):
        def stage(self, text):
            if "long" in text and not (tmp_path / "enough").exists():
                (standing, _), *_ = engine._running.values()
                standing.process.stdin.close()  # as the system does when a process ends
                assert standing.process.wait(timeout=300) == -signal.SIGKILL
                (tmp_path / "enough").touch()

    assert Pool(engine, missing(tmp_path), Gone()).run(tmp_path, work) == []
    assert (tmp_path / "long.tries").read_text() == "xx"


@pytest.mark.slow
def test_a_worker_takes_further_tasks_until_one_fails_or_runs_a_users_code_and_leaves_nothing(tmp_path, monkeypatch):
    names = ("a", "flaky", "users", "greedy")
    work = [Task("support.units:write", {"folder": str(tmp_path)}, (name,)) for name in names]
    begun, first = [], []
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)

    def begin(folder, mark, *rest, **more):
        first.append(tasks.read(folder / tasks.TASK)["units"][0])
        begun.append(Standing(folder, mark, *rest, **more))
        return begun[-1]

    monkeypatch.setattr("steppe.engines.processes.Standing", begin)
    monkeypatch.setattr("steppe.engines.worker.LEAVE_SECONDS", 300.0)  # none is killed as it ends
    assert Pool(Processes(1), missing(tmp_path), Quiet()).run(tmp_path, work) == []
    assert select.select([held], [], [], 300)[0] and os.read(held, 1) == b""  # what "greedy" left has ended
    os.close(held)
    assert first == ["a", "users", "greedy"]
    assert [standing.process.returncode for standing in begun] == [base.FAILED, 0, 0]
    assert [(tmp_path / f"{name}.tries").read_text() for name in names] == ["x", "xx", "x", "x"]


def test_runs_are_divided_by_their_shape_and_none_is_left_out(small_study):
    spec = study.Store.read(small_study).spec
    runs = [Run(condition, seed) for seed in range(6) for condition in ("lam=0", "lam=0.1")]
    for parts in (1, 2, 3, 5, 12, 100):
        found = divided(spec, runs, parts)
        assert sorted(run for part in found for run in part) == sorted(runs)
        assert len(found) >= min(parts, len(runs)) and all(len({run.condition for run in part}) == 1 for part in found)
    assert divided(spec, [], 4) == []

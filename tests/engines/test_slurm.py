"""Arrays of Slurm, by programs that stand in for its own; and by a real cluster, where one is."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from steppe import InputError
from steppe.engines import tasks
from steppe.engines.base import Ending, Task, Waits
from steppe.engines.engines import Place
from steppe.engines.pool import Pool
from steppe.engines.progress import Watcher
from steppe.engines.slurm import Slurm
from support.units import missing

PROGRAMS = {
    "scontrol": 'echo "MaxArraySize            = 4"',
    "sbatch": 'test -f refusal && { cat refusal >&2; exit 1; }; cp "$2" submitted.sh; echo "41;cluster"',
    "squeue": 'echo "$@" > asked; test -f silence && exit 1; cat states',
    "scancel": 'echo "$@" > cancelled',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder in which programs of Slurm write what they are asked, and read what they are to say."""
    place = tmp_path / "slurm"
    place.mkdir()
    for name, text in PROGRAMS.items():
        (place / name).write_text(f"#!/bin/sh\ncd {place}\n{text}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("steppe.engines.slurm.SECONDS", 0.0)
    return place


def jobs_in(folder, count):
    place = tasks.begin(folder)
    task = Task("support.units:write", {"folder": str(folder)}, ("a",))
    return [tasks.give(place, f"{number:05}", task) for number in range(1, count + 1)]


def test_a_script_says_what_was_asked_and_begins_each_task_with_its_own_folder_and_mark(slurm, tmp_path):
    folder = tmp_path / "5%A"
    folder.mkdir()
    jobs = jobs_in(folder, 5)
    engine = Slurm({"partition": "gpu", "exclusive": "", "mem_per_cpu": "2G"}, workers=2, cpus=3, gpus=1)
    assert engine.start(jobs) == jobs[:3]  # as many as an array holds
    script = (slurm / "submitted.sh").read_text()
    for line in ("--partition=gpu", "--exclusive", "--mem-per-cpu=2G", "--array=0-2%2", "--cpus-per-task=3",
                 "--gres=gpu:1", f"--output={tmp_path}/5%%A/tasks/slurm/%A_%a.log"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "export NPROC=3\n" in script
    told = script.replace("exec ", "echo ")  # what the last line would begin
    done = subprocess.run(["bash", "-c", told], env={**os.environ, "SLURM_ARRAY_TASK_ID": "1"}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.endswith(f"-m steppe.engines.worker {jobs[1].folder} {jobs[1].mark}\n")


def test_tasks_end_by_what_squeue_says_and_none_ends_while_it_says_nothing(slurm, tmp_path):
    engine = Slurm()
    engine.start(jobs_in(tmp_path, 3))
    (slurm / "states").write_text("41|0|RUNNING|None\n41|1|COMPLETED|None\n7|2|RUNNING|None\n41|2|NODE_FAIL|\n")
    (slurm / "silence").touch()
    assert engine.ended() == {}
    assert engine.waits().heed == ("Slurm does not answer now ('nothing'). Its tasks go on.",)
    (slurm / "silence").unlink()
    assert engine.ended() == {"00002": Ending(0), "00003": Ending(None, "Slurm's task 41_2 lost its machine")}
    (slurm / "states").write_text("")
    assert engine.ended() == {"00001": Ending(None, "Slurm's task 41_0 ended")}
    assert "--jobs=41" in (slurm / "asked").read_text()


def test_tasks_that_would_wait_for_ever_end_the_command_in_one_sentence_once_none_computes(slurm, tmp_path):
    engine = Slurm()
    engine.start(jobs_in(tmp_path, 3))
    never, later = "41|0|PENDING|PartitionTimeLimit\n", "41|1|PENDING|ReqNodeNotAvail, UnavailableNodes:n1\n"
    (slurm / "states").write_text(f"{never}{later}41|2|RUNNING|None\n")
    engine.ended()
    assert engine.waits() == Waits(
        "2 wait: PartitionTimeLimit, ReqNodeNotAvail, UnavailableNodes:n1",
        ("Slurm's tasks wait: their time limit is above that of the partition (PartitionTimeLimit).",
         "Slurm's tasks wait: machines that they need are down, drained or reserved "
         "(ReqNodeNotAvail, UnavailableNodes:n1)."),
    )  # fmt: skip
    (slurm / "states").write_text(f"{never}{later}41|2|COMPLETED|None\n")
    with pytest.raises(InputError, match=r"tasks that would wait for ever: their time limit is above .*cancelled\."):
        engine.ended()


def test_other_jobs_are_named_as_a_reason_only_where_no_task_computes(slurm, tmp_path):
    engine = Slurm()
    engine.start(jobs_in(tmp_path, 2))
    (slurm / "states").write_text("41|0|PENDING|Resources\n41|1|PENDING|None\n")
    engine.ended()
    assert engine.waits() == Waits(
        "2 wait: Resources", ("Slurm's tasks wait: other jobs have the machines (Resources).",)
    )
    (slurm / "states").write_text("41|0|PENDING|Resources\n41|1|RUNNING|None\n")
    engine.ended()
    assert engine.waits() == Waits("1 wait: Resources")


def test_a_later_command_watches_the_tasks_that_are_still_there(slurm, tmp_path):
    jobs = jobs_in(tmp_path, 3)
    Slurm().start(jobs)
    (slurm / "states").write_text("41|0|PENDING|Resources\n41|2|RUNNING|None\n")
    later = Slurm()
    assert later.adopt(jobs) == [jobs[0], jobs[2]]
    later.stop()
    assert (slurm / "cancelled").read_text() == "41\n"
    (slurm / "states").write_text("41|0|PENDING|BadConstraints\n")
    assert Slurm().adopt(jobs) == []


def test_what_is_too_much_for_now_waits_and_anything_else_that_sbatch_refuses_is_its_sentence(slurm, tmp_path):
    jobs, engine = jobs_in(tmp_path, 5), Slurm()
    (slurm / "refusal").write_text(
        "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed\n"
    )
    with pytest.raises(InputError, match="slurm: the job must be one that sbatch accepts, got 'Batch job submission"):
        engine.start(jobs)  # nothing of ours is there that could end
    (slurm / "refusal").rename(slurm / "later")
    engine.start(jobs)
    (slurm / "later").rename(slurm / "refusal")
    assert engine.start(jobs[3:]) == []
    assert len(list((tmp_path / "tasks" / "slurm").glob("*.sh"))) == 1
    (slurm / "refusal").write_text("sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more\n")
    with pytest.raises(InputError, match=r"got .*unrecognized option '--foo=1'"):
        engine.start(jobs)  # not the line that only names the help


def test_a_dry_run_shows_the_first_of_several_arrays(slurm, tmp_path):
    shown = Slurm({"time": "1:00:00"}).preview(tmp_path, 7)
    assert "#SBATCH --time=1:00:00\n" in shown and "#SBATCH --array=0-2\n" in shown
    assert shown.endswith("# 3 arrays of at most 3 tasks, 7 in all; this is the first.\n")
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (Place("cloud"), r"--on must be one of 'processes', 'ray', 'slurm', got 'cloud'"),
        (
            Place(None, workers=2),
            r"--workers must be given with --on, got without it. There are: processes, ray, slurm",
        ),
        (
            Place("processes", address="a:1"),
            r"--address must be left out with --on processes, got given. It is of --on ray",
        ),
        (Place("processes", workers=0), r"--workers must be a whole number of at least 1, got 0"),
        (Place("slurm", slurm=["=1"]), r"--slurm must be KEY=VALUE, such as partition=gpu, got '=1'"),
        (Place("slurm", slurm=["array=1-3"]), r"--slurm must be an option that Steppe does not set itself, got array"),
        (Place("slurm", slurm=["mem=1\n2"]), r"--slurm must be KEY=VALUE"),
        (Place("slurm", cpus=0.5), r"--cpus-per-run must be a whole number, got 0.5"),
        (
            Place("slurm", gpus=1, slurm=["gpus=2"]),
            r"--gpus-per-run must be left out where --slurm says it, got it and --slurm gpus=2\.",
        ),
        (Place("slurm", cpus=4, slurm=["cpus-per-task=2"]), r"--cpus-per-run must be left out .* cpus-per-task=2\."),
    ],
)
def test_options_that_cannot_be_are_one_sentence(place, sentence):
    with pytest.raises(InputError, match=sentence):
        place.engine()


def test_a_machine_without_slurm_is_one_sentence_and_shows_the_script_in_a_dry_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"with scontrol on the path, got a machine without it\. Log in to"):
        Slurm()
    shown = Slurm(dry=True).preview(tmp_path, 7)
    assert "#SBATCH --array=0-6\n" in shown
    assert "# The cluster was not asked how large an array may be; here it is 1000. slurm: --on slurm must" in shown


class Chaos(Watcher):
    """Cancels a task as soon as two compute."""

    def __init__(self, folder, engine):
        self.folder, self.engine, self.done = folder, engine, False

    def say(self, text):
        assert text == "Some words." or text.startswith("Slurm's tasks wait: ")

    def epoch(self, loss, frobenius_squared=None):
        if not self.done and len(list(self.folder.glob("long*.tries"))) == 2:
            (job, numbered), *_ = self.engine._arrays.items()
            task = f"{job}_{min(numbered)}"
            subprocess.run(["scancel", task], check=True)
            while subprocess.run(["squeue", "--noheader", f"--jobs={task}"], capture_output=True, check=False).stdout:
                time.sleep(0.2)
            (self.folder / "enough").touch()
            self.done = True


def is_there():
    """Whether Slurm answers here."""
    try:
        return subprocess.run(["scontrol", "ping"], capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not is_there(), reason="no Slurm answers on this machine")
def test_a_real_slurm_loses_nothing_where_a_task_is_cancelled(tmp_path, monkeypatch):
    here = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))
    engine = Place("slurm", workers=2, slurm=["time=10"]).engine()
    work = [Task("support.units:write", {"folder": str(tmp_path)}, (f"long{i}", f"unit{i}")) for i in range(2)]
    assert Pool(engine, missing(tmp_path), Chaos(tmp_path, engine)).run(tmp_path, work) == []
    assert sorted(path.read_text() for path in tmp_path.glob("long*.tries")) == ["x", "xx"]
    assert all((tmp_path / f"unit{i}").is_file() for i in range(2))

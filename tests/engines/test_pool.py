"""What becomes of tasks, whatever carries them."""

import json
import sys

import pytest

from steppe import InputError
from steppe.engines import base, performance, tasks, worker
from steppe.engines.base import Ending, Task, Waits
from steppe.engines.pool import Pool
from steppe.engines.progress import Watcher
from steppe.storage import files
from support.units import missing


class Here:
    """Performs jobs in this process, at most so many at once; those in `killed` end by the first of their endings."""

    name, asked = "here", None

    def __init__(self, room=2, killed=(), adopted=()):
        self.room, self.endings, self.adopted = room, {}, adopted
        self.killed = list(killed)
        self.given, self.stopped, self.slow = [], False, False

    def parts(self, count):
        return count

    def adopt(self, jobs):
        return [job for job in jobs if job.name in self.adopted]

    def start(self, jobs):
        for job in jobs[: self.room]:
            self.given.append(job.name)
            self.endings[job.name] = self.killed.pop() if self.killed else self.perform(job)
        return list(jobs[: self.room])

    def perform(self, job):
        status = performance.perform(job.folder, job.mark)
        return Ending(status, f"status {status}" if status else "")

    def ended(self):
        found, self.endings = self.endings, {}
        return found

    def waits(self):
        return Waits("some wait", ("A sentence.",) if self.slow else ())

    def stop(self):
        self.stopped = True


class Ears(Watcher):
    def __init__(self):
        self.epochs, self.told = 0, []

    def epoch(self, loss, frobenius_squared):
        assert (loss, frobenius_squared) == (0.5, 2.0)
        self.epochs += 1

    def skip(self, epochs):
        self.epochs += epochs

    def say(self, text):
        self.told.append(text)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("steppe.engines.pool.SECONDS", 0.0)
    monkeypatch.setattr("steppe.engines.performance.SECONDS", 0.0)
    monkeypatch.setattr("steppe.engines.pool.PATIENCE", 0.0)


def pool_of(engine, folder, *units, watcher=None):
    work = [Task("support.units:write", {"folder": str(folder)}, names) for names in units]
    pool = Pool(engine, missing(folder), watcher or Ears())
    return pool.run(folder, work)


def left(folder):
    return sorted(path.name for path in (folder / "tasks").iterdir() if path.name != ".lock")


def test_all_units_are_computed_once_and_nothing_is_left_of_their_tasks(tmp_path):
    engine, ears = Here(), Ears()
    assert pool_of(engine, tmp_path, ("a", "b"), ("c",), ("d", "e"), watcher=ears) == []
    assert [(tmp_path / f"{unit}.tries").read_text() for unit in "abcde"] == ["x"] * 5
    assert (ears.epochs, ears.told) == (10, ["Some words."])
    assert left(tmp_path) == []


def test_workers_that_have_nothing_to_do_are_said(tmp_path):
    engine, ears = Here(), Ears()
    engine.asked, engine.slow = 5, True
    pool_of(engine, tmp_path, ("a", "b"), watcher=ears)
    assert ears.told[0] == "5 workers were asked for, and 2 are enough: no more runs are missing."
    assert ears.told.count("A sentence.") == 1


def test_what_a_killed_worker_left_is_given_again(tmp_path):
    engine, killed = Here(), Ending(-9, "its process was killed by SIGKILL")
    engine.killed = [killed, killed]
    assert pool_of(engine, tmp_path, ("a", "b"), ("c",)) == []
    assert all((tmp_path / unit).is_file() for unit in "abc")
    assert engine.given == ["00001", "00002", "00003", "00004"]


def test_a_unit_that_fails_once_is_computed_by_the_next_worker_and_no_epoch_counts_twice(tmp_path):
    ears = Ears()
    assert pool_of(Here(), tmp_path, ("a", "flaky", "b"), watcher=ears) == []
    assert ears.epochs == 6
    assert (tmp_path / "a.tries").read_text() == "x"  # what was there was not computed again


def test_a_unit_that_fails_each_time_is_lost_with_its_reason_and_its_log_and_no_other_is(tmp_path):
    (lost,) = pool_of(Here(), tmp_path, ("a", "broken", "b"), ("c",))
    assert (lost.unit, lost.why) == ("broken", "OSError: no luck")
    assert (tmp_path / "broken.tries").read_text() == "xxx"
    assert all((tmp_path / unit).is_file() for unit in "abc")
    assert left(tmp_path) == [lost.log.parent.name]


def test_a_task_that_cannot_be_done_ends_all_with_its_sentence_and_the_traceback_of_its_cause(tmp_path):
    engine = Here()
    log = tmp_path / "tasks" / "00001" / "log.txt"
    with pytest.raises(InputError, match=rf"this cannot be done\. \(Said by a worker on .+; its log is {log}\.\)"):
        pool_of(engine, tmp_path, ("a", "refused"), ("b",), ("c",))
    assert "ValueError: of the user's own" in log.read_text()
    assert engine.stopped
    assert (tmp_path / "a").is_file()


@pytest.mark.parametrize("name", ["Python", "steppe", "source of Steppe"])
def test_a_worker_with_another_version_refuses_in_one_sentence(name, tmp_path, monkeypatch):
    job = tasks.give(tasks.begin(tmp_path), "00001", Task("support.units:write", {"folder": str(tmp_path)}, ("a",)))
    monkeypatch.setattr(
        tasks, "versions", lambda: {**json.loads((job.folder / "task.json").read_text())["made_with"], name: "7"}
    )
    assert performance.perform(job.folder, job.mark) == base.REFUSED
    why = tasks.read(job.folder / "failure.json")["why"]
    assert why.startswith(f"worker: versions must be those of the command, {name} ") and f"got {name} 7. Install" in why


def test_a_folder_that_workers_do_not_see_is_one_sentence(tmp_path):
    class Blind(Here):
        def perform(self, job):
            return Ending(performance.perform(job.folder, "another mark"))

    with pytest.raises(InputError, match=rf"here: {tmp_path} must be a folder that all workers see, got a worker"):
        pool_of(Blind(), tmp_path, ("a",))
    assert worker.main([str(tmp_path / "nowhere"), "mark"]) == base.BLIND


def test_workers_that_end_before_they_begin_are_one_sentence_and_not_all_are_tried(tmp_path):
    engine = Here(room=1)
    engine.killed = [Ending(None, "Slurm's task 7_0 failed")] * 9
    with pytest.raises(
        InputError, match=r"got 3 workers that wrote nothing there \(Slurm's task 7_0 failed\)\. Put it"
    ):
        pool_of(engine, tmp_path, *((unit,) for unit in "abcdefgh"))
    assert len(engine.given) == 3


def test_two_commands_at_one_folder_are_one_sentence(tmp_path):
    place = tasks.begin(tmp_path)
    with (
        files.lock(place / ".lock", "here", tmp_path, "has tasks computed in"),
        pytest.raises(InputError, match="must be free, got a folder that another process has tasks computed in"),
    ):
        pool_of(Here(), tmp_path, ("a",))


def test_tasks_of_an_earlier_command_that_are_still_carried_are_watched_and_not_given_again(tmp_path):
    place = tasks.begin(tmp_path)
    earlier = tasks.give(place, "00007", Task("support.units:write", {"folder": str(tmp_path)}, ("a", "b")))
    tasks.give(
        place, "00003", Task("support.units:write", {"folder": str(tmp_path)}, ("c",))
    )  # of a worker that is gone
    engine = Here(adopted=("00007",))
    engine.endings = {"00007": engine.perform(earlier)}
    assert pool_of(engine, tmp_path, ("a", "b", "c")) == []
    assert [(tmp_path / f"{unit}.tries").read_text() for unit in "abc"] == ["x"] * 3
    assert engine.given == ["00008"] and left(tmp_path) == []


def test_users_modules_are_looked_for_where_the_command_looks_and_not_among_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = tasks.search_path()
    assert found[0] == str(tmp_path.resolve())
    assert not any("site-packages" in folder for folder in found)

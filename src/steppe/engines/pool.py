"""Tasks given to an engine and watched until they have ended; what is missing then is given again, up to a limit.

Which units of a task are done is read from the folder that it writes to, never from what an engine says.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from steppe.core import checks
from steppe.engines import tasks
from steppe.engines.base import BLIND, Ending, Engine, Job, Task, Waits
from steppe.engines.progress import Watcher
from steppe.storage import files

ATTEMPTS = 3
"""So often is a unit begun that ends without a result."""

SECONDS = 0.25
"""Between two looks at the tasks, at least."""

SHARE = 0.1
"""Of the time that looks take, at most: a look at ten thousand tasks takes longer than one at ten."""

LONGEST = 5.0
"""Seconds between two looks, at most: a worker that has ended waits so long for its next task."""

PATIENCE = 5.0
"""Seconds after the end of a task in which its results may still appear: file systems of a network are slow to tell."""


class Lost(NamedTuple):
    """A unit that ended without a result, as often as is allowed; why, and where its log is."""

    unit: str
    why: str
    log: Path


class Pool:
    """Carries tasks by an engine.

    Parameters
    ----------
    engine : Engine
        What carries them.
    missing : callable
        Gives the units of a task that are not there yet, in their order.
    watcher : Watcher
        Is told of progress and of what was said by workers.
    attempts : int
        How often a unit is begun.
    """

    def __init__(
        self, engine: Engine, missing: Callable[[Task], Sequence[str]], watcher: Watcher, attempts: int = ATTEMPTS
    ):
        self.engine, self.missing, self.attempts = engine, missing, attempts
        self.progress = _Progress(watcher)
        self.waiting: list[Job] = []
        self.carried: dict[Job, Task] = {}
        self.ended: dict[Job, tuple[Ending, float]] = {}
        self.tries: dict[str, int] = {}
        self.lost: list[Lost] = []
        self.count = self.silent = 0

    def run(self, folder: Path, work: Sequence[Task]) -> list[Lost]:
        """Have tasks computed that write into a folder; the units that were lost.

        Tasks that an earlier process gave to the engine, and that it still carries, are watched with the others: their
        units are not computed twice.

        Raises
        ------
        InputError : a worker refused a task, for it cannot be done as it is asked for; another process has tasks
            computed in this folder; the engine cannot be used.
        """
        place = tasks.begin(folder)
        with files.lock(place / ".lock", self.engine.name, folder, "has tasks computed in"), self._stopping():
            self._begin(place, work)
            self._say_idle()
            pause = SECONDS
            while self.carried:
                self._start()
                time.sleep(pause)
                began = time.monotonic()
                self._look(place)
                pause = min(max(SECONDS, (time.monotonic() - began) * (1 / SHARE - 1)), LONGEST)
            self._leave(place)
        return self.lost

    @contextlib.contextmanager
    def _stopping(self) -> Any:
        """Within it, what ends early ends all jobs; at its end no worker waits for more."""
        try:
            yield
        finally:
            self.engine.stop()

    def _begin(self, place: Path, work: Sequence[Task]) -> None:
        """Watch what is carried already, and put the rest into folders."""
        earlier = tasks.found(place)
        adopted = self.engine.adopt(list(earlier))
        known = {unit for job in adopted for unit in earlier[job].units}
        self.carried = {job: earlier[job] for job in adopted}
        names = {job.name for job in adopted}
        for path in place.iterdir():
            if path.is_dir() and path.name.isdigit() and path.name not in names:
                tasks.forget(path)
        self.count = max((int(name) for name in names), default=0)
        for task in work:
            rest = tuple(unit for unit in task.units if unit not in known)
            if rest:
                self._give(place, _narrowed(task, rest))

    def _say_idle(self) -> None:
        """Tell of workers that were asked for, and that have nothing to do."""
        units, asked = sum(len(task.units) for task in self.carried.values()), self.engine.asked or 0
        if asked > units > 0:
            enough = f"{units} {'are' if units > 1 else 'is'} enough: no more runs are missing."
            self.progress.watcher.say(f"{asked} workers were asked for, and {enough}")

    def _give(self, place: Path, task: Task) -> None:
        self.count += 1
        job = tasks.give(place, f"{self.count:05}", task)
        self.carried[job] = task
        self.waiting.append(job)

    def _start(self) -> None:
        started = set(self.engine.start(self.waiting) if self.waiting else [])
        self.waiting = [job for job in self.waiting if job not in started]

    def _look(self, place: Path) -> None:
        """See how far tasks are, and which have ended."""
        now, by_name = time.monotonic(), {job.name: job for job in self.carried}
        for name, ending in self.engine.ended().items():
            if name in by_name:
                self.ended[by_name[name]] = ending, now
        waiting = set(self.waiting)
        on_their_way = [job for job in self.carried if job not in waiting]
        self.progress.look(on_their_way, self.engine.waits())
        for job, (ending, when) in list(self.ended.items()):
            rest = self.missing(self.carried[job])
            if not rest or ending.status != 0 or now - when > PATIENCE:
                self._close(place, job, ending, rest)

    def _close(self, place: Path, job: Job, ending: Ending, rest: Sequence[str]) -> None:
        """What becomes of a task that has ended: units of it that are missing are given again, or lost."""
        task, failure = self.carried[job], tasks.read(job.folder / tasks.FAILURE)
        if not rest:
            self._drop(job)
            tasks.forget(job.folder)
            return
        if ending.status == BLIND or failure.get("kind") == "refused":
            self._refuse(job, failure)
        self._count_silent(job, ending)
        why = failure.get("why") or ending.why or "its process ended before the task was done, with status 0"
        first = rest[0]
        self.tries[first] = self.tries.get(first, 0) + 1
        if self.tries[first] >= self.attempts:
            self.lost.append(Lost(first, why, job.folder / tasks.LOG))
            rest = rest[1:]
        self._drop(job)
        if rest:
            self._give(place, _narrowed(task, tuple(rest)))

    def _drop(self, job: Job) -> None:
        del self.carried[job], self.ended[job]

    def _count_silent(self, job: Job, ending: Ending) -> None:
        """Fail where workers end one after another before they can write to their folders."""
        if self.progress.began or (job.folder / tasks.PROGRESS).is_file():
            self.silent = 0
            return
        self.silent += 1
        if self.silent >= self.attempts:
            what = "a folder that all workers see and can write to"
            checks.fail(self.engine.name, str(job.folder.parent.parent), what,
                        f"{self.silent} workers that wrote nothing there ({ending.why or 'they ended without a word'})",
                        "Put it on a file system that the machines share, with the same Python.")  # fmt: skip

    def _refuse(self, job: Job, failure: Any) -> None:
        """Fail as a task failed that cannot be done."""
        if failure:
            log = job.folder / tasks.LOG
            raise checks.InputError(f"{failure['why']} (Said by a worker on {failure.get('host')}; its log is {log}.)")
        checks.fail(self.engine.name, str(job.folder.parent.parent), "a folder that all workers see",
                    "a worker that does not see it, or sees another one under that name",
                    "Put it on a file system that the machines share.")  # fmt: skip

    def _leave(self, place: Path) -> None:
        """Keep the logs of what was lost, with what the engine keeps beside them, and nothing else."""
        kept = {lost.log.parent.name for lost in self.lost}
        for name in kept:
            (place / name / tasks.PROGRESS).unlink(missing_ok=True)  # nothing goes on
        for path in place.iterdir():
            if path.is_dir() and path.name not in kept and (path.name.isdigit() or not kept):
                tasks.forget(path)


def _narrowed(task: Task, units: tuple[str, ...]) -> Task:
    """A task of fewer units."""
    return replace(task, units=units)


class _Progress:
    """What all workers say, told to one watcher: no epoch counts twice, however often it was trained."""

    def __init__(self, watcher: Watcher):
        self.watcher = watcher
        self.known: dict[str, int] = {}
        self.said: set[str] = set()
        self.text = ""
        self.began = False

    def look(self, jobs: Sequence[Job], waits: Waits) -> None:
        """Read what workers wrote, and tell of what keeps others from being there."""
        contents = [content for job in jobs if (content := tasks.read(job.folder / tasks.PROGRESS))]
        self.began = self.began or bool(contents)
        text = f"{len(contents)} worker{'s' if len(contents) != 1 else ''}"
        if len(contents) == 1:
            text += f": {contents[0].get('at', '')}"
        text += f"; {waits.brief}" if waits.brief else ""
        if text != self.text:
            self.watcher.stage(text)
            self.text = text
        for sentence in waits.heed:
            self._say(sentence)
        for content in contents:
            self._count(content)
            for sentence in content.get("said", []):
                self._say(sentence)

    def _say(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.add(sentence)
            self.watcher.say(sentence)

    def _count(self, content: Any) -> None:
        state = content.get("state", [0.0, 0.0])
        for at, done in content.get("done", {}).items():
            more = done - self.known.get(at, 0)
            if more > 0:
                self.known[at] = done
                self.watcher.skip(more - 1)
                self.watcher.epoch(*state)

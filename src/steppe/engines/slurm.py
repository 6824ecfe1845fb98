"""A cluster of Slurm: job arrays of our own, watched by their folders and by ``squeue``.

```
FOLDER/tasks/slurm/<id>.json    an array that was submitted: its job, and the tasks in the order of their numbers
FOLDER/tasks/slurm/<id>.sh      its script, which submits it again by hand
FOLDER/tasks/slurm/*.log        what Slurm says of its tasks
```

A task reads which worker to begin from the script itself, so that a machine needs nothing but the folder and Python.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from steppe.core import checks
from steppe.engines import reasons, tasks, worker
from steppe.engines.base import Ending, Job, Waits
from steppe.engines.processes import environment
from steppe.storage import files

FOLDER = "slurm"

SECONDS = 5.0
"""Between two questions to Slurm, which many ask."""

LARGEST = 1000
"""Tasks in an array, where the cluster does not say how many it takes."""

MOST = 10_000
"""Tasks in an array, at most: a script may be 4 MB large."""

LIMITS = ("QOSMaxSubmitJob", "AssocMaxSubmitJob", "AssocGrpSubmitJob", "MaxJobCount", "job count limit", "temporarily")
"""What ``sbatch`` says where there are too many jobs for now."""

OURS = ("array", "output", "error", "wrap", "parsable")
"""Options of ``sbatch`` that are set here."""

CORES = ("cpus-per-task", "cpus-per-gpu")
GPUS = ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task")
"""Options of ``sbatch`` by which it is asked for cores, and for GPUs."""

DONE = {"COMPLETED"}
WAITING = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED",
           "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "PREEMPTED", "RESV_DEL_HOLD"}  # fmt: skip
"""States of a task that is not over."""


class Slurm:
    """Carries jobs by arrays of Slurm.

    Parameters
    ----------
    options : Mapping
        Of ``sbatch``, by their long names: ``{"partition": "gpu", "time": "4:00:00"}``. An empty text is an option
        without a value.
    workers : int, optional
        How many tasks of an array run at once, at most; as many as Slurm lets run.
    cpus : int, optional
        Cores, and threads, of each; one core, and as many threads as this process would have.
    gpus : int, optional
        GPUs of each.
    dry : bool
        Whether it only shows what it would submit, for which no Slurm needs to answer.

    Raises
    ------
    InputError
        Options that Steppe sets itself, that cannot stand in a script, or that say one thing twice; no Slurm here.
    """

    name = "slurm"

    def __init__(
        self,
        options: Mapping[str, str] | None = None,
        workers: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        *,
        dry: bool = False,
    ):
        self.options = {name.lstrip("-").replace("_", "-"): str(text) for name, text in (options or {}).items()}
        for name, text in self.options.items():
            if name in OURS:
                checks.fail("slurm", "--slurm", "an option that Steppe does not set itself", name, "Leave it out.")
            if not re.fullmatch(r"[a-z][a-z-]*", name) or "\n" in text:
                checks.fail("slurm", "--slurm", "KEY=VALUE, such as partition=gpu", checks.shown(f"{name}={text}"))
        if workers is not None:
            checks.whole("slurm", "--workers", workers)
        if cpus is not None or "cpus-per-gpu" not in self.options:
            asked = 1 if cpus is None else self._asked_for("--cpus-per-run", cpus, CORES)
            self.options.setdefault("cpus-per-task", str(asked))
        if gpus is not None:
            self.options["gres"] = f"gpu:{self._asked_for('--gpus-per-run', gpus, GPUS)}"
        self.workers = self.asked = workers
        self.environment = environment(None if cpus is None else int(cpus))
        self._arrays: dict[str, dict[int, str]] = {}
        self._asked = 0.0
        self._waits = Waits()
        self.most, self._unasked = _largest(dry=dry)

    def _asked_for(self, option: str, value: float, others: Sequence[str]) -> int:
        """A whole number that an option asks for, and no option of ``sbatch`` with it."""
        if value != int(value):
            checks.fail("slurm", option, "a whole number", value)
        both = [f"--slurm {name}={self.options[name]}" for name in others if name in self.options]
        if both:
            checks.fail("slurm", option, "left out where --slurm says it", f"it and {checks.joined(both)}")
        return checks.whole("slurm", option, int(value), least=0)

    def parts(self, count: int) -> int:
        """See `Engine`: one unit a task, as far as two arrays hold them."""
        return min(count, 2 * self.most)

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`: Slurm goes on with its tasks, wherever the process is that submitted them."""
        if not jobs:
            return []
        place, by_mark = jobs[0].folder.parent / FOLDER, {job.mark: job for job in jobs}
        for path in sorted(place.glob("*.json")):
            array = tasks.read(path)
            numbered = {
                int(number): by_mark[mark].name for number, mark in array.get("tasks", {}).items() if mark in by_mark
            }
            if numbered and array.get("job"):
                self._arrays[array["job"]] = numbered
        self._asked = 0.0
        try:
            over = self.ended()
        except checks.InputError:  # they would wait for ever: another command asks otherwise
            self.stop()
            return []
        names = {name for numbered in self._arrays.values() for name in numbered.values()} - set(over)
        return [job for job in jobs if job.name in names]

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`: one array, as large as the cluster takes; none while it has too many jobs."""
        chosen = list(jobs[: self.most])
        folder = chosen[0].folder.parent
        place = files.make(folder / FOLDER, folder)
        name = secrets.token_hex(4)
        path = files.write(place / f"{name}.sh", self.script(folder, chosen))
        said = _call("sbatch", "--parsable", str(path))
        if said.returncode:
            path.unlink()
            if self._arrays and any(limit in said.stderr for limit in LIMITS):
                return []
            checks.fail("slurm", "the job", "one that sbatch accepts", _line(said.stderr),
                        "Change --slurm; --dry-run prints the script.")  # fmt: skip
        number = said.stdout.strip().partition(";")[0]
        marks = {place_: job.mark for place_, job in enumerate(chosen)}
        files.write(place / f"{name}.json", json.dumps({"job": number, "tasks": marks}, indent=1) + "\n")
        self._arrays[number] = {place_: job.name for place_, job in enumerate(chosen)}
        self._asked = time.monotonic()
        return chosen

    def ended(self) -> dict[str, Ending]:
        """See `Engine`; what Slurm does not know any more has ended."""
        if not self._arrays or time.monotonic() - self._asked < SECONDS:
            return {}
        self._asked = time.monotonic()
        said = _call(
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            "--format=%F|%K|%T|%r",
            f"--jobs={','.join(self._arrays)}",
        )
        if said.returncode and "Invalid job id" not in said.stderr:
            self._waits = Waits(heed=(f"Slurm does not answer now ({_line(said.stderr)}). Its tasks go on.",))
            return {}
        states = _states(said.stdout)
        found, there = {}, []
        for array, numbered in list(self._arrays.items()):
            for number, name in list(numbered.items()):
                state, reason = states.get((array, number), ("", ""))
                if state in WAITING:
                    there.append((state, reason))
                else:
                    found[name] = _ending(state, f"{array}_{number}")
                    del numbered[number]
            if not numbered:
                del self._arrays[array]
        self._waits = _waits(there)
        return found

    def waits(self) -> Waits:
        """See `Engine`: the reasons that Slurm gives."""
        return self._waits

    def stop(self) -> None:
        """See `Engine`."""
        if self._arrays:
            _call("scancel", *self._arrays)
        self._arrays.clear()

    def preview(self, folder: Path, count: int) -> str:
        """See `Engine`: the script of an array."""
        folders = [folder / tasks.FOLDER / f"{place + 1:05}" for place in range(min(count, self.most))]
        notes = []
        if count > self.most:
            arrays = -(-count // self.most)
            notes.append(f"{arrays} arrays of at most {self.most} tasks, {count} in all; this is the first.")
        if self._unasked:
            notes.append(
                f"The cluster was not asked how large an array may be; here it is {self.most}. {self._unasked}"
            )
        script = self.script((folder / tasks.FOLDER).absolute(), [Job(path.name, path, "MARK") for path in folders])
        return script + "".join(f"# {note}\n" for note in notes)

    def script(self, folder: Path, jobs: Sequence[Job]) -> str:
        """The script of an array of some jobs, whose folders lie in `folder`."""
        running = f"%{self.workers}" if self.workers else ""
        log = str(folder / FOLDER).replace("%", "%%") + "/%A_%a.log"  # Slurm replaces what follows a %
        given = {"job-name": "steppe", **self.options, "array": f"0-{len(jobs) - 1}{running}", "open-mode": "append",
                 "output": log}  # fmt: skip
        lines = [
            f"#SBATCH --{name}={shlex.quote(text)}" if text else f"#SBATCH --{name}" for name, text in given.items()
        ]
        exports = [f"export {name}={shlex.quote(text)}" for name, text in self.environment.items()]
        words = worker.command(Path("FOLDER"), "MARK")
        begin = shlex.join(words[: words.index("FOLDER")])
        known = [f"{job.name}/{job.mark}" for job in jobs]
        return "\n".join([
            "#!/bin/bash", *lines, "", *exports,
            f"tasks=({' '.join(known)})",
            'task=${tasks[$SLURM_ARRAY_TASK_ID]}',
            f'exec {begin} {shlex.quote(str(folder))}/"${{task%/*}}" "${{task#*/}}"',
            "",
        ])  # fmt: skip


def _largest(*, dry: bool) -> tuple[int, str]:
    """Tasks in an array, at most; and why the cluster could not be asked, where that is no error."""
    try:
        said = _call("scontrol", "show", "config")
        if said.returncode:
            checks.fail("slurm", "--on slurm", "used where Slurm takes jobs", _line(said.stderr),
                        "`scontrol ping` says whether it is there.")  # fmt: skip
    except checks.InputError as error:
        if dry:
            return LARGEST, str(error)
        raise
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said.stdout, re.MULTILINE)
    return max(1, min(int(found[1]) - 1, MOST)) if found else LARGEST, ""


def _call(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """What a program of Slurm says.

    Raises
    ------
    InputError : it is not there.
    """
    if shutil.which(program) is None:
        where = f"used where Slurm takes jobs, with {program} on the path"
        checks.fail("slurm", "--on slurm", where, "a machine without it",
                    "Log in to the cluster, or take --on processes.")  # fmt: skip
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, "LC_ALL": "C"})  # fmt: skip


def _states(text: str) -> dict[tuple[str, int], tuple[str, str]]:
    """(job, number) -> state and reason, of lines of ``squeue``."""
    rows = [line.strip().split("|", 3) for line in text.splitlines()]
    return {(row[0], int(row[1])): (row[2], row[3]) for row in rows if len(row) == 4 and row[1].isdigit()}


def _waits(there: Sequence[tuple[str, str]]) -> Waits:
    """What keeps tasks from being computed, by the states and reasons of all that are not over.

    Raises
    ------
    InputError : none computes, and what is waited for never comes.
    """
    pending = Counter(reason for state, reason in there if state == "PENDING")
    busy = len(there) > pending.total()
    hopeless = [words for reason in pending if (words := reasons.never(reason))]
    if hopeless and not busy:
        checks.fail("slurm", "--slurm", "options of a job that can begin here",
                    f"tasks that would wait for ever: {checks.joined(hopeless)}", "They were cancelled.")  # fmt: skip
    given = [reason for reason in pending if reason not in ("", "None")]
    brief = f"{pending.total()} wait" + (f": {', '.join(given)}" if given else "")
    heed = [reason for reason in given if not (busy and reason in reasons.USUAL)]
    return Waits(brief if pending else "", tuple(f"Slurm's tasks wait: {reasons.explained(each)}." for each in heed))


def _ending(state: str, job: str) -> Ending:
    """How a task ended, by the state that Slurm gives it; it forgets those that ended long ago."""
    if state in DONE:
        return Ending(0)
    words = {"CANCELLED": "was cancelled", "NODE_FAIL": "lost its machine", "OUT_OF_MEMORY": "had too little memory",
             "TIMEOUT": "took longer than its time limit", "DEADLINE": "took longer than its time limit"}  # fmt: skip
    return Ending(None, f"Slurm's task {job} {words.get(state, 'ended' if not state else 'failed')}")


def _line(text: str) -> str:
    """The last line that says something of its own: what follows an unknown option only names the help."""
    lines = [
        line.removeprefix("sbatch: ").removeprefix("error: ").strip()
        for line in text.splitlines()
        if line.strip() and not line.startswith("Try ")
    ]
    return checks.shown(lines[-1] if lines else "nothing")

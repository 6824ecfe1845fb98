"""What a study of many runs costs the command that runs it, its folder, its tables, its report and its live page.

``python benchmarks/many_runs.py FOLDER [--conditions C] [--seeds N]`` trains one run, and simulates all others: an
engine writes its files again under their names, with numbers of their own. Times are of the processor, in all threads;
the largest memory is the process's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe import study
from steppe.engines import tasks
from steppe.engines.base import Ending, Job, Waits
from steppe.engines.progress import Watcher
from steppe.models import Variables
from steppe.study.execution.base import Run, run_of
from steppe.study.execution.distributed import Distributed
from steppe.study.execution.local import Local
from steppe.study.store import Store

SPEC = """
name = "many"
baseline = "lam=0"
data = {name = "moons", examples = 60}
model = {name = "mlp", hidden = [4]}
method = {name = "fa", lam = 0.0, every = 2, probes = 2}
train = {learning_rate = 0.05, batch_size = 8, epochs = 2}
measure = {probes = 2, batches = 1, names = ["sam_sharpness"]}
"""


class Simulated:
    """An engine of a hundred workers that need no time: the first run is trained, all others are copies of it with
    other numbers. Like Slurm it takes all tasks at once, one run each.
    """

    name, asked, workers = "simulated", None, 100

    def __init__(self) -> None:
        self.queue: list[Job] = []
        self.draws, self.seconds = np.random.default_rng(0), 0.0
        self.made: Made | None = None

    def parts(self, count: int) -> int:
        """See `Engine`."""
        return count

    def adopt(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`."""
        return []

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """See `Engine`."""
        self.queue += jobs
        return list(jobs)

    def ended(self) -> dict[str, Ending]:
        """See `Engine`: a hundred more have ended."""
        some, self.queue = self.queue[: self.workers], self.queue[self.workers :]
        begin = time.process_time()
        for job in some:
            task = tasks.read(job.folder / tasks.TASK)
            for unit in task["units"]:
                self.write(Path(task["arguments"]["directory"]), run_of(unit))
        self.seconds += time.process_time() - begin
        return {job.name: Ending(0) for job in some}

    def waits(self) -> Waits:
        """See `Engine`."""
        return Waits()

    def write(self, directory: Path, run: Run) -> None:
        """Put a run into a study's folder."""
        if self.made is None:
            store = Store.read(directory)
            Local().submit(store, [run], Watcher())
            self.made = Made(store, *store.load(*run), store.network(*run))
            return
        store, record, rows, network = self.made
        values = rows["value"].to_numpy()
        # Rounded, so that there are ties, as there are between accuracies.
        drawn = polars.Series("value", np.round(values * self.draws.uniform(0.9, 1.0, len(values)), 2))
        mine = {**record, "condition": run.condition, "seed": run.seed}
        store.save(*run, network, rows.with_columns(drawn), mine)

    def stop(self) -> None:
        """See `Engine`."""

    def preview(self, folder: Path, count: int) -> str:
        """See `Engine`."""
        return ""


class Made(NamedTuple):
    """What copies are made of."""

    store: Store
    record: dict[str, Any]
    rows: polars.DataFrame
    network: Variables


def cost(words: list[str]) -> tuple[float, float, int]:
    """Processor seconds and the largest memory (MB) of a process, and how many bytes it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A process between, so that the largest memory is this one's alone.
    code = (
        "import resource as r, subprocess as s, sys; s.run(sys.argv[1:], check=True); "
        "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(done.stderr.split()[-1]) / 1024, len(done.stdout)


def simulate(folder: Path, conditions: int, seeds: int) -> tuple[float, float]:
    """Make the folder of a study of so many runs; processor seconds of the command and of its simulated workers."""
    spec = folder / "many.toml"
    folder.mkdir(parents=True, exist_ok=True)
    strengths = [round(0.001 * i, 4) for i in range(conditions)]
    spec.write_text(f'{SPEC}\nseeds = {seeds}\ngrid = {{"method.lam" = {strengths}}}\n'.replace("\nname", "name", 1))
    engine, begin = Simulated(), time.process_time()
    study.run(study.load(str(spec)), folder / "out", executor=Distributed(engine))
    return time.process_time() - begin - engine.seconds, engine.seconds


def watched(folder: Path) -> list[tuple[str, float, float, int]]:
    """The looks of a live page: the first ones, until all runs are read, and those after."""
    code = (
        "import json, sys, time; from pathlib import Path; from steppe.watch.snapshot import StudyReader\n"
        "reader = StudyReader(Path(sys.argv[1])); begin = time.process_time(); looks = 0\n"
        "while True:\n"
        "    state = reader.snapshot(); looks += 1\n"
        "    if not state['unread']: break\n"
        "first = time.process_time() - begin; begin = time.process_time()\n"
        "for _ in range(5): state = reader.snapshot()\n"
        "again = (time.process_time() - begin) / 5\n"
        "print(json.dumps([looks, first, again, len(json.dumps(state))]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, check=True)
    looks, first, again, size = json.loads(done.stdout)
    return [(f"live page: {looks} looks until all is read", first, 0.0, size),
            ("live page: every look after", again, 0.0, size)]  # fmt: skip


def main() -> None:
    """Simulate a study, unless it is there, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--conditions", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", default="", help="of the rows, those that begin so")
    asked = parser.parse_args()
    out = asked.folder / "out"
    rows: list[tuple[str, float, float, int]] = []
    if not out.exists():
        command, workers = simulate(asked.folder, asked.conditions, asked.seeds)
        rows.append(("`steppe run` on an engine that takes a task for each run", command, 0.0, 0))
        rows.append(("its workers: writing a run each", workers, 0.0, 0))
        print(rows, flush=True)
    steppe = [sys.executable, "-m", "steppe"]
    commands = {
        "show": [*steppe, "show", str(out)],
        "report": [*steppe, "report", str(out)],
        "correlate": [*steppe, "correlate", str(out)],
        "run, with nothing left to train": [*steppe, "run", str(asked.folder / "many.toml"), "--out", str(out)],
    }
    for name, words in commands.items():
        if name.startswith(asked.only):
            rows.append((f"`steppe {name}`", *cost(words)))
            print(rows[-1], flush=True)
    if "live".startswith(asked.only):
        rows += watched(out)
    print("| | processor seconds | memory, MB | bytes printed or sent |\n|---|---|---|---|")
    for name, seconds, memory, size in rows:
        print(f"| {name} | {seconds:.3g} | {f'{memory:.0f}' if memory else '–'} | {size or '–'} |")
    files = [path for path in out.rglob("*") if path.is_file()]
    print(
        f"\n{len(files)} files of {sum(path.stat().st_size for path in files) / 1e6:.1f} MB; the report's are", end=" "
    )
    named = ("report.html", "results.parquet", "measurements.parquet")
    print(", ".join(f"{name} {(out / name).stat().st_size / 1e6:.2f} MB" for name in named if (out / name).exists()))


if __name__ == "__main__":
    main()

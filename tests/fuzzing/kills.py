"""Kills (SIGKILL) of a process that runs a tiny study, each at a random moment: nothing is lost, mixed or left over.

Cases share one folder: each goes on where the one before was killed, and the finished runs that are there are compared,
bit for bit, with those of a study that nobody interrupted. When the study is finished, another folder is begun.
"""

import functools
import subprocess
import sys
import time
from pathlib import Path

import polars
from hypothesis import strategies as st

from fuzzing import Ending, Verdict, scratch
from fuzzing.damage import same
from steppe import study
from steppe.measures.table import ABOUT_THE_MACHINE
from steppe.study import Store
from steppe.study.records import RunRecord
from support.folders import paths_in

LARGE = 100
SMALL = 1
SLOW = True

SPEC = """
name = "tiny"
baseline = "rho=0"
seeds = 2
data = {name = "moons", examples = 60}
model = {name = "mlp", hidden = [4]}
method = {name = "sam", rho = 0.0}
train = {learning_rate = 0.05, batch_size = 8, epochs = 30}
landscape = {points = 5, grid_points = 3}
grid = {"method.rho" = [0.0, 0.1]}
"""
MACHINE = ("measure_seconds", "host")
"""Columns of rows that do not repeat when a run does."""

CASES = st.floats(0, 2)
"""Seconds between the first sign of life in the folder and the kill."""


def command(folder: Path) -> list[str]:
    """What runs the study in a folder, with a checkpoint after every epoch."""
    (folder / "tiny.toml").write_text(SPEC)
    code = "from steppe.cli import main; main()"
    words = ["run", str(folder / "tiny.toml"), "--out", str(folder / "out"), "--checkpoint-seconds", "0"]
    return [sys.executable, "-c", code, *words]


@functools.cache
def whole() -> Path:
    """The study run once, uninterrupted."""
    folder = scratch()
    subprocess.run(command(folder), check=True, capture_output=True)
    return folder / "out"


folders: list[Path] = []
"""Where studies were killed; the last one lies in the last of them."""


def attempt(case: float) -> Verdict:
    whole()
    if not folders:
        folders.append(scratch())
    out = folders[-1] / "out"
    process = subprocess.Popen(command(folders[-1]), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    before = paths_in(out)
    while process.poll() is None and paths_in(out) == before:
        time.sleep(0.01)
    time.sleep(case)
    process.kill()
    errors = process.communicate()[1]
    if "Traceback" in errors or process.returncode not in (0, -9):
        return Verdict(Ending.TRACEBACK, errors)
    wrong = compared(out) + (left_over(out) if process.returncode == 0 else [])
    if process.returncode == 0:
        folders.append(scratch())
    return Verdict(Ending.WRONG, "; ".join(wrong)) if wrong else Verdict(Ending.ACCEPTED)


def compared(out: Path) -> list[str]:
    """What of the finished runs is not as it would be uninterrupted."""
    if not (out / "study.toml").exists():
        return []
    there, here, wrong = Store.read(whole()), Store.read(out), []
    for column in study.conditions(there.spec):
        for seed in range(2):
            if here.has(column.name, seed):
                (run, rows), (other, others) = (store.load(column.name, seed) for store in (here, there))
                alike = science(run) == science(other) and numbers(rows).equals(numbers(others), null_equal=True)
                if not (alike and same(here.params(column.name, seed), there.params(column.name, seed))):
                    wrong.append(f"{column.name}-s{seed} is another run")
    return wrong


def science(record: RunRecord) -> dict[str, object]:
    """What must be the same every time."""
    machine = ("seconds", "memory", "host", "made_with")
    return {name: value for name, value in record.items() if not any(word in name for word in machine)}


def numbers(rows: polars.DataFrame) -> polars.DataFrame:
    """Rows without what does not repeat when a run does."""
    return rows.filter(~ABOUT_THE_MACHINE).drop(MACHINE, strict=False)


def left_over(out: Path) -> list[str]:
    """What a finished study should not have, or lacks."""
    here, there = ({str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (out, whole()))
    return [f"{name} is left over, or missing" for name in sorted(here ^ there)]

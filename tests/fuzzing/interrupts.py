"""Real signals at random moments of each command, in processes of their own."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from hypothesis import strategies as st

from fuzzing import Ending, Verdict, scratch

LARGE, SMALL, SLOW = 100, 2, True

SPEC = """
name = "tiny"
seeds = 1
data = {name = "moons", examples = 20, test_examples = 10}
model = {name = "mlp", hidden = [3]}
method = {name = "fa", lam = 0.0}
train = {learning_rate = 0.01, batch_size = 10, epochs = 2}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3}
"""

COMMANDS = {
    "run": "run tiny.toml --out new",
    "run again": "run tiny.toml --out done",
    "report": "report done",
    "show": "show done",
    "measure": "measure done --measures loss,trace --out rows",
    "landscape": "landscape done/runs/all-s0 --points 3 --grid 3 --out plane",
    "list": "list",
    "help": "run --help",
}

START = (
    "from steppe.core import process; process.begin(); print('begun', flush=True); from steppe.cli import main; main()"
)

CASES = st.tuples(
    st.sampled_from(sorted(COMMANDS)),
    st.sampled_from(sorted(["SIGINT", "SIGTERM", "SIGHUP"])),
    st.floats(0, 1),
    st.booleans(),
)
"""A command, a signal, when (a share of the time that the command takes), and whether it comes twice."""


@functools.lru_cache
def prepared() -> tuple[Path, dict[str, float]]:
    """A folder with a finished study, and how many seconds each command has taken so far."""
    folder = scratch()
    (folder / "tiny.toml").write_text(SPEC)
    command = [sys.executable, "-m", "steppe", "run", "tiny.toml", "--out", "done"]
    begun = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder, dict.fromkeys(COMMANDS, time.monotonic() - begun)


def attempt(case: tuple[str, str, float, bool]) -> Verdict:
    name, kind, share, twice = case
    folder, seconds = prepared()
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", START, *COMMANDS[name].split()],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    process.stdout.readline()
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.communicate()))
    reader.start()
    reader.join(share * seconds[name])
    alive = process.poll() is None
    for _ in range(1 + twice):
        process.send_signal(getattr(signal, kind))
    sent = time.monotonic()
    reader.join(60)
    if not alive:
        seconds[name] = time.monotonic() - begun
    if process.poll() is None:
        process.kill()
        reader.join()
        return Verdict(Ending.WRONG, f"{name} goes on for a minute after {kind}")
    return judged(process.returncode, said[1], folder, kind, time.monotonic() - sent)


def judged(status: int, errors: str, folder: Path, kind: str, seconds: float) -> Verdict:
    """How a command that got a signal ended; it may have been over already."""
    if "Traceback" in errors or "Exception ignored" in errors:
        return Verdict(Ending.TRACEBACK, errors)
    left = [str(p) for where in ("done", "rows", "plane") for p in (folder / where).glob(".*.partial*")]
    if left or seconds > 10:
        return Verdict(Ending.WRONG, f"{left} left, after {seconds:.1f} s")
    if status == 0:
        return Verdict(Ending.ACCEPTED)
    number = getattr(signal, kind)
    if status == -number:  # before Python was there, or when it was gone
        return Verdict(Ending.ACCEPTED)
    one = errors.count("steppe: ") == 1 and errors.strip().splitlines()[-1].endswith(".")
    return Verdict(Ending.CLEAR if status == 128 + number and one else Ending.WRONG, f"status {status}: {errors}")

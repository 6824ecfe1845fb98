"""What an engine adds to the bare loop for each run, and what a second worker brings.

``python benchmarks/executors.py [--rounds N] [--runs N] [--longer] [--ways WORD ...]``: each way runs the same
study in a new folder, in turn, round after round, with compiled programs in the cache. Processor seconds are of the
command and of all that it begins; Ray's and Slurm's own processes do not end with it, so that they are not in them.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = """
name = "many"
data = {{name = "moons", examples = {examples}}}
model = {{name = "mlp", hidden = [{width}]}}
method = {{name = "fa", lam = 0.0, every = 2, probes = 2}}
train = {{learning_rate = 0.05, batch_size = 8, epochs = {epochs}}}
measure = {{probes = 2, batches = 1}}
seeds = {seeds}
"""

WAYS = {
    "the bare loop": [],
    "processes, one worker": ["--on", "processes", "--workers", "1"],
    "processes, two workers": ["--on", "processes", "--workers", "2"],
    "Ray on this machine, one worker": ["--on", "ray", "--workers", "1"],
    "Ray on this machine, two workers": ["--on", "ray", "--workers", "2"],
}

SHORT = {"examples": 60, "width": 4, "epochs": 2}

if shutil.which("sbatch"):
    WAYS["Slurm"] = ["--on", "slurm"]


def taken(spec: Path, way: list[str]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, of a command."""
    out = spec.with_suffix("")
    shutil.rmtree(out, ignore_errors=True)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words = [sys.executable, "-m", "steppe", "run", str(spec), "--out", str(out), *way]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begin, used


def table(folder: Path, title: str, ways: dict[str, list[str]], rounds: int, runs: int, **settings: int) -> None:
    """Time some ways, the bare loop among them, and print a table."""
    spec = folder / "many.toml"
    spec.write_text(SPEC.format(seeds=runs, **settings))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    taken(spec, [])  # compiles
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(taken(spec, way))
            print(name, *(f"{seconds:.1f}" for seconds in found[name][-1]), file=sys.stderr, flush=True)
    bare = [statistics.median(column) for column in zip(*found["the bare loop"], strict=True)]
    print(f"\n{title}: {runs} runs, medians of {rounds} rounds; load {os.getloadavg()[0]:.1f}\n")
    print("| | seconds on the clock | of the processor | more for each run: ms on the clock | of the processor |")
    print("|---|---|---|---|---|")
    for name, rows in found.items():
        clock, used = (statistics.median(column) for column in zip(*rows, strict=True))
        more = [f"{1000 * (value - base) / runs:.0f}" for value, base in zip((clock, used), bare, strict=True)]
        print(f"| {name} | {clock:.1f} | {used:.1f} | {' | '.join(more)} |", flush=True)


def main() -> None:
    """Time a study of tiny runs, and one whose runs compute for a while."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--longer", action="store_true", help="runs that compute for a while")
    parser.add_argument("--ways", nargs="*", default=[""], help="words of the engines to time, such as processes")
    asked = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if not way or any(word in name for word in asked.ways)}
    settings = {"examples": 40_000, "width": 64, "epochs": 150} if asked.longer else SHORT
    with tempfile.TemporaryDirectory() as folder:
        table(Path(folder), "Longer runs" if asked.longer else "Tiny runs", ways, asked.rounds, asked.runs, **settings)


if __name__ == "__main__":
    main()

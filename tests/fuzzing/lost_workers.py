"""Kills on several processes and on a cluster of Ray of three machines: ``python -m fuzzing.lost_workers``, by hand.

Each kill is of a worker, a machine or the command, at a random moment of its work; a command that has ended is begun
again, until its study is finished, and then another study. After each kill, and at the end, finished runs are compared,
bit for bit, with those of one process that nobody interrupted. It takes minutes, so that the suite has none of these.
"""

import argparse
import atexit
import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzzing import kills, scratch
from steppe.engines import tasks
from support.machines import cluster_of, left_of, workers_of

PATIENCE = 300.0
"""Seconds that a command may take to begin its work, or to end."""

LONGEST = 4.0
"""Seconds between the first sign of a worker and a kill, at most."""

KILLS = [("processes", "worker"), ("processes", "command"), ("processes", "Ctrl-C"), ("ray", "worker"),
         ("ray", "machine"), ("ray", "command"), ("ray", "Ctrl-C")]  # fmt: skip
"""Engines, and what is killed; in turn."""

begun: dict[str, tuple[Path, Any]] = {}
"""Engine -> the folder of its study, and the command that runs it."""


@functools.cache
def cluster() -> Any:
    """Three machines, until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(cluster_of(3))


def main() -> int:
    """Kill, finish all studies, and print a table."""
    parser = argparse.ArgumentParser("fuzzing.lost_workers", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draws, done, bad, studies = random.Random(asked.seed), Counter[tuple[str, str]](), [], Counter[str]()
    kills.whole()
    for engine, victim in itertools.islice(itertools.cycle(KILLS), asked.kills):
        seconds = draws.uniform(0, LONGEST)
        folder, command = going(engine)
        at = worker_of(folder, command)
        time.sleep(seconds)
        if at and command.poll() is None:
            kill(victim, draws.choice(at), command)
            done[engine, victim] += 1
        wrong = ended(engine, folder, command, killed=victim in ("command", "Ctrl-C")) + kills.compared(folder / "out")
        studies[engine] += engine not in begun
        bad += wrong
        print(f"{engine}, {victim} after {seconds:.1f} s: {'; '.join(wrong) or 'the same bits'}", flush=True)
    for engine in list(begun):
        while engine in begun and not bad:
            folder, command = going(engine)
            command.wait()
            bad += ended(engine, folder, command, killed=True) + kills.compared(folder / "out")
        studies[engine] += engine not in begun
    print("\n| engine | what is killed | times |\n|---|---|---|")
    for (engine, victim), times in sorted(done.items()):
        print(f"| {engine} | {victim} | {times} |")
    print(f"\nStudies finished: {dict(studies)}. Wrong: {'; '.join(bad) or 'nothing'}.")
    return int(bool(bad))


def going(engine: str) -> tuple[Path, "subprocess.Popen[bytes]"]:
    """A folder, and the command that runs its study with an engine; begun again where it has ended."""
    folder, command = begun.get(engine, (None, None))
    if folder is None:
        folder = scratch()
    if command is None or command.poll() is not None:
        where = ["--workers", "2"] if engine == "processes" else ["--address", cluster().address]
        with open(folder / "said.txt", "ab") as said:
            command = subprocess.Popen([*kills.command(folder), "--on", engine, *where], stdout=said, stderr=said)
        begun[engine] = folder, command
    return folder, command


def worker_of(folder: Path, command: "subprocess.Popen[bytes]") -> list[int]:
    """The processes of workers, as soon as there are some that compute."""
    until = time.monotonic() + PATIENCE
    while command.poll() is None and time.monotonic() < until:
        found = [tasks.read(path) for path in (folder / "out").glob("tasks/*/progress.json")]
        alive = workers_of(folder)
        at = [content["process"] for content in found if content.get("at") and content["process"] in alive]
        if at:
            return at
        time.sleep(0.05)
    return []


def kill(victim: str, worker: int, command: "subprocess.Popen[bytes]") -> None:
    """Kill one of the three."""
    if victim == "worker":
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    elif victim == "machine":
        cluster().remove_node(cluster().others.pop(0), allow_graceful=False)
        cluster().others.append(cluster().add_node(num_cpus=1))
    else:
        command.send_signal(signal.SIGINT if victim == "Ctrl-C" else signal.SIGKILL)


def ended(engine: str, folder: Path, command: "subprocess.Popen[bytes]", *, killed: bool) -> list[str]:
    """What is wrong with a command that was killed, or has ended; nothing while it goes on."""
    if killed:
        command.wait(PATIENCE)
        left_of(folder, PATIENCE)
    if command.poll() is None:
        return []
    said = (folder / "said.txt").read_text(errors="replace")
    if "Traceback" in said or command.returncode not in (0, 1, 130, -signal.SIGKILL):
        return [f"status {command.returncode}: {said[-2000:]}"]
    if workers_of(folder):
        return ["workers are left"]
    if command.returncode == 0:
        del begun[engine]
        return [each for each in kills.left_over(folder / "out") if not each.startswith("tasks")]
    return []


if __name__ == "__main__":
    sys.exit(main())

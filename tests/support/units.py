"""What workers compute in tests of engines: a file for each unit."""

import subprocess
import sys
import time
from pathlib import Path

from steppe import InputError, extensions


def write(units, folder, watcher):
    """Write a file for each unit; its name says what happens to it."""
    for unit in units:
        watcher.stage(unit)
        tries = Path(folder) / f"{unit}.tries"
        tries.write_text(f"{tries.read_text() if tries.exists() else ''}x")
        if unit.startswith("refused"):
            raise InputError("write: this cannot be done.") from ValueError("of the user's own")
        if unit.startswith("broken"):
            raise OSError("no luck")
        if unit.startswith("flaky") and len(tries.read_text()) < 2:
            sys.exit("no luck")
        watcher.epoch(0.5, 2.0)
        while unit.startswith("long") and not (Path(folder) / "enough").exists():  # until it is killed, or told
            time.sleep(0.05)
        if unit.startswith("users"):
            extensions.function("write", "name", f"{__name__}:missing")
        if unit.startswith("greedy"):  # it reads all there is, and leaves a process
            subprocess.run(["cat"], check=True)
            with (Path(folder) / "held").open("w") as held:
                subprocess.Popen(["sleep", "3600"], stdout=held)
        watcher.skip(1)
        (Path(folder) / unit).write_text(unit)
    watcher.say("Some words.")


def missing(folder):
    """What of a task is not there."""
    return lambda task: [unit for unit in task.units if not (Path(folder) / unit).is_file()]

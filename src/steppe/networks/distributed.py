"""Measures and landscapes computed by workers, wherever an engine carries them.

A worker keeps what it measures in a folder of its own, ``FOLDER/measuring/<run>/``, because a table has one writer; the
command puts it into the table. Points of a landscape lie where a killed command leaves them, to be gone on with.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from steppe.core import checks
from steppe.engines.base import Engine, Task
from steppe.engines.pool import Lost, Pool
from steppe.engines.progress import Watcher
from steppe.measures.table import Table, read
from steppe.networks import exploration, landscapes
from steppe.networks.landscapes import Question
from steppe.networks.measurement import Session
from steppe.networks.settings import Settings, UserNetwork
from steppe.networks.targets import Runs
from steppe.networks.user import Files
from steppe.storage import files

PARTS, DONE = "measuring", "done"
"""The folder of what workers measured, and what marks a run of which all is measured."""


def measure(targets: Runs | Files, settings: Settings, engine: Engine, watcher: Watcher) -> list[Lost]:
    """Measure by workers what single runs are asked, and put it into the table; the runs that were lost.

    What compares two networks is left to the command, which finds all else in the table.

    Raises
    ------
    InputError : networks of a user's own, of which nothing says where their functions are on another machine; see
        `Pool.run`.
    """
    home = _home(targets)
    units = [os.path.abspath(folder) for folder in targets.folders] if isinstance(targets, Runs) else []
    watcher.begin(len(units) * len(settings.measures))
    arguments = {"settings": asdict(settings), "out": targets.out and str(targets.out), "home": os.path.abspath(home)}
    pool = Pool(engine, lambda task: [unit for unit in task.units if not (_part(home, unit) / DONE).is_file()], watcher)
    lost = pool.run(home, [_task(measure_runs, arguments, part) for part in _split(units, engine.parts(len(units)))])
    _collect(home)
    return lost


def _home(targets: Runs | Files) -> Path:
    """The folder that holds the rows of runs."""
    if not isinstance(targets, Runs):
        checks.fail("measure", "--on", "left out for parameters of your own", "given", "It is for runs of a study.")
    homes = {targets.out or folder.resolve().parent.parent for folder in targets.folders}
    if len(homes) > 1:
        checks.fail("measure", "--on", "given with runs of one study, or with --out", f"those of {len(homes)} studies")
    home = homes.pop()
    return home if (home / "study.toml").is_file() else files.begin(home, "measure")


def measure_runs(
    units: Sequence[str], settings: Mapping[str, Any], out: str | None, home: str, watcher: Watcher
) -> None:
    """Measure some runs, each into a folder of its own; what the table holds is not measured again."""
    asked = Settings(**{**settings, "measures": tuple(settings["measures"])})
    session = Session(asked, watcher, lambda plan: None)
    missing = [unit for unit in units if not (_part(Path(home), unit) / DONE).is_file()]
    known = set(read(Path(home))["fingerprint"])
    with asked.precision():
        for unit, target in zip(
            missing, Runs(list(map(Path, missing)), asked, Path(out) if out else None), strict=True
        ):
            part = files.make(_part(Path(home), unit), Path(home))
            with contextlib.closing(Table(part)) as table:
                table.known |= known
                session.ask(target, table)
            files.write(part / DONE, "")


def _part(home: Path, unit: str) -> Path:
    return home / PARTS / f"{Path(unit).parents[1].name}-{Path(unit).name}"


def _collect(home: Path) -> None:
    """Put what workers measured into the table, and remove their folders."""
    place = home / PARTS
    parts = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    with contextlib.closing(Table(home)) as table:
        table.take(parts)
    shutil.rmtree(place, ignore_errors=True)


def explore(question: Question, targets: Sequence[Path], user: UserNetwork, directory: Path, engine: Engine,
            watcher: Watcher) -> list[Lost]:  # fmt: skip
    """Compute a landscape by workers: each network's part of it by one, and then the whole; what was lost.

    Raises
    ------
    InputError : see `exploration.explore` and `Pool.run`.
    """
    if landscapes.stored_landscape(question, directory) is not None:
        return []
    exploration.begin(question, directory)
    arguments = {"settings": asdict(question.settings), "user": _plain(user), "directory": os.path.abspath(directory)}
    paths = [os.path.abspath(path) for path in targets]
    lost: list[Lost] = []
    if len(paths) > 1 and not question.is_path:
        place = directory / "unfinished"
        missing = lambda task: [unit for unit in task.units if not (place / _mark(unit)).is_file()]  # noqa: E731
        tasks = [_task(explore_one, arguments, [path]) for path in paths]
        lost = Pool(engine, missing, watcher).run(directory, tasks)
    there = lambda task: [] if landscapes.stored_landscape(question, directory) else list(task.units)  # noqa: E731
    whole = _task(explore_all, {**arguments, "targets": paths}, ["landscape"])
    return lost or Pool(engine, there, watcher).run(directory, [whole])


def explore_one(
    units: Sequence[str], settings: Mapping[str, Any], user: Mapping[str, Any], directory: str, watcher: Watcher
) -> None:
    """Compute what a landscape of several networks needs of one, and leave it where the whole finds it."""
    place = files.make(Path(directory) / "unfinished", Path(directory))
    for unit in units:
        question = landscapes.read_question([Path(unit)], landscapes.Settings(**settings), _user(user))
        explorer = exploration.Explorer(question, partial(files.make, place, Path(directory)), watcher)
        explorer.around(question.networks[0])
        files.write(place / _mark(unit), "")


def explore_all(
    units: Sequence[str], targets: Sequence[str], settings: Mapping[str, Any], user: Mapping[str, Any], directory: str,
    watcher: Watcher,
) -> None:  # fmt: skip
    """Compute a whole landscape."""
    question = landscapes.read_question(list(map(Path, targets)), landscapes.Settings(**settings), _user(user))
    exploration.explore(question, Path(directory), watcher)


def _mark(unit: str) -> str:
    return f"{Path(unit).parents[1].name}-{Path(unit).name}.{DONE}"


def _task(function: Any, arguments: Mapping[str, Any], units: Sequence[str]) -> Task:
    return Task(f"{__name__}:{function.__name__}", arguments, tuple(units))


def _split(units: Sequence[str], parts: int) -> list[Sequence[str]]:
    """Neighbours together, in so many parts at most: runs of one condition share compiled programs."""
    ends = [len(units) * i // max(1, parts) for i in range(max(1, parts) + 1)]
    found = [units[a:b] for a, b in itertools.pairwise(ends)]
    return [part for part in found if part]


def _plain(user: UserNetwork) -> dict[str, Any]:
    """What a user says, as JSON takes it."""
    return {**asdict(user), "initial": user.initial and str(user.initial), "settings": dict(user.settings)}


def _user(plain: Mapping[str, Any]) -> UserNetwork:
    initial = Path(plain["initial"]) if plain["initial"] else None
    return UserNetwork(**{**plain, "initial": initial, "exclude": tuple(plain["exclude"])})

"""What is known of a study while it runs, read from its folder, whichever machine writes there.

Finished runs say what they measured; runs in training say it by their last checkpoint, and workers of an engine tell
which runs they train, and how far these are. Nothing is written.
"""

import contextlib
import io
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars

from steppe.analysis.quantities import QUANTITIES, TR_H2, TRACED
from steppe.engines import tasks
from steppe.measures.table import heading
from steppe.storage import files
from steppe.study import records
from steppe.study.history import ITSELF
from steppe.study.spec.conditions import Condition, conditions
from steppe.study.spec.ranges import ranges_of
from steppe.study.store import ROWS, SUMS, Store
from steppe.study.tuning.search import FOLDER, trial_name

SHOWN = 8
"""Conditions whose curves are drawn, unless others are asked for."""

RUNS_DRAWN = 60
"""Curves of single runs; of more runs the mean over those of a condition is drawn."""

POINTS = 300
"""Of a curve, at most."""

READING_SECONDS = 1.0
"""Of one look: a folder of thousands of runs is read in several."""

FINAL = ("test_accuracy", "test_r_squared", "test_loss", "train_loss", TR_H2)
"""What the table shows of finished runs, where they have it."""

ABOUT_TIME = ("seconds", "limit")
"""Ends of names that no curve is drawn of."""

Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""Quantity -> epochs and values."""


class RunView(NamedTuple):
    """What is known of one run.

    Attributes
    ----------
    status : one of `STATUSES`.
    epochs : trained so far.
    series : what was measured in training.
    final : what is known of its last epoch.
    changed : when its files were written, in seconds since 1970.
    """

    status: str
    epochs: int = 0
    series: Series = {}  # noqa: RUF012  # never changed
    final: dict[str, float] = {}  # noqa: RUF012
    changed: float = 0.0


class StudyReader:
    """Looks at the folder of a study again and again; what has not changed is read once.

    Parameters
    ----------
    directory : Path
        The folder, which may not hold a study yet.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._mark: Any = None
        self._store: Store | None = None
        self._columns: list[Condition] = []
        self._known: dict[str, tuple[Any, RunView]] = {}

    def snapshot(self, shown: Sequence[int] | None = None) -> dict[str, Any]:
        """The state of the study, as JSON has it.

        Parameters
        ----------
        shown : Sequence of int, optional
            Places of the conditions whose curves are wanted; the first ones unless said otherwise.
        """
        try:
            store = self._read_store()
        except (ValueError, OSError) as error:  # damaged, or not there any more
            return {"stage": "unreadable", "why": str(error)}
        if store is None:
            return {"stage": "begins"}
        found, unread = self._runs(store)
        places = [place for place in (range(SHOWN) if shown is None else shown) if 0 <= place < len(self._columns)]
        planned = len(self._columns) * store.spec.seeds
        counts = {kind: sum(view.status == kind for view in found.values()) for kind in STATUSES}
        report = self._report(found.values())
        ended = counts["finished"] + counts["diverged"] == planned and not unread
        return {
            "stage": "finished" if ended and report else "runs",
            "name": store.spec.name,
            "title": store.spec.title or store.spec.name,
            "folder": str(self.directory.absolute()),
            "seeds": store.spec.seeds,
            "planned": planned,
            "counts": counts,
            "trials": self._trials(store),
            "unread": unread,
            "silent": _seconds_since(found.values()),
            "report": report,
            "conditions": [self._row(column, store.spec.seeds, found) for column in self._columns],
            "labels": {name: _label(name) for name in FINAL},
            "shown": places,
            "charts": self._charts(places, store.spec.seeds, found),
        }

    def _read_store(self) -> Store | None:
        """The study, read again when its study.toml was written again."""
        path = self.directory / "study.toml"
        try:
            mark = _mark(path)
        except FileNotFoundError:
            return None
        if mark != self._mark:
            self._store = Store.read(self.directory)
            self._columns = conditions(self._store.spec, run_code=False)
            self._mark = mark
        return self._store

    def _runs(self, store: Store) -> tuple[dict[str, RunView], int]:
        """Run -> what is known of it, of those that have begun; and how many are there that were not read yet."""
        there, begun = (_names(self.directory / folder) for folder in ("runs", "checkpoints"))
        told = _told(self.directory)
        found: dict[str, RunView] = {}
        unread, until = 0, time.monotonic() + READING_SECONDS
        for seed in range(store.spec.seeds):
            for column in self._columns:
                name = records.run_name(column.name, seed)
                word = told.get(records.stage_name(column.name, seed)) if name not in there else None
                if name not in there and name not in begun and word is None:
                    self._known.pop(name, None)
                    continue
                view = self._view(store, column.name, seed, there.get(name), read=time.monotonic() < until)
                if view is None:
                    unread += 1
                else:
                    found[name] = view if word is None else _later(view, word)
        return found, unread

    def _view(self, store: Store, condition: str, seed: int, node: int | None, *, read: bool) -> RunView | None:
        """What is known of a run, whose folder is `node` once it is finished; None where there is no time to read it.

        A finished run appears by one rename, so that the listing of the folder says whether it is another one.
        """
        folder = store.run_folder(condition, seed)
        path = None if node is not None else _checkpoint(store.directory / "checkpoints" / folder.name)
        try:
            mark: Any = node if path is None else _mark(path)
        except OSError:  # the run was finished meanwhile
            mark = None
        before, view = self._known.get(folder.name, (None, None))
        if view is not None and (before == mark or not read):
            return view
        if not read:
            return None
        view = _in_training(path) if node is None else _finished(store, condition, seed)
        self._known[folder.name] = mark, view
        return view

    def _trials(self, store: Store) -> list[int] | None:
        """How many trials are done, and how many there are to be; None once all settings are chosen."""
        plan, chosen = store.spec.tune, store.spec.chosen or {}
        left = [c for c in self._columns if c.name not in chosen and ranges_of(c.spec)] if plan else []
        if plan is None or not left:
            return None
        rounds = _names(self.directory / FOLDER)
        names = [name for round_ in rounds for name in _names(self.directory / FOLDER / round_ / "runs")]
        mine = tuple(trial_name(column.name, 0)[:-1] for column in left)
        done = sum(name.startswith(mine) for name in names)
        return [done, len(left) * plan.trials * plan.seeds]

    def _row(self, column: Condition, seeds: int, found: dict[str, RunView]) -> dict[str, Any]:
        """The line of the table of one condition."""
        views = [found.get(records.run_name(column.name, seed)) for seed in range(seeds)]
        known = [view for view in views if view is not None]
        training = [view for view in known if view.status == "training"]
        return {
            "name": column.name,
            "epochs": column.spec.train.epochs,
            "counts": {kind: sum(view.status == kind for view in known) for kind in STATUSES},
            "training": [view.epochs for view in training],
            "final": {name: value for name in FINAL if (value := _mean_of(known, name)) is not None},
        }

    def _charts(self, places: list[int], seeds: int, found: dict[str, RunView]) -> list[dict[str, Any]]:
        """Every quantity that was followed, with the curves of the conditions that are shown."""
        views = {
            place: [
                view
                for seed in range(seeds)
                if (view := found.get(records.run_name(self._columns[place].name, seed))) is not None
            ]
            for place in places
        }
        names = dict.fromkeys(name for group in views.values() for view in group for name in view.series)
        single = sum(map(len, views.values())) <= RUNS_DRAWN
        return [
            {
                "name": name,
                "label": _label(name),
                "log": name in (*QUANTITIES, *TRACED) and (QUANTITIES | TRACED)[name].log,
                "lines": [
                    {"condition": place, "points": points}
                    for place, group in views.items()
                    for points in (_single(group, name) if single else _mean(group, name))
                ],
            }
            for name in names
        ]

    def _report(self, views: Iterable[RunView]) -> bool:
        """Whether a report is there that was written after the last run."""
        try:
            written = (self.directory / "report.html").stat().st_mtime
        except OSError:
            return False
        return all(written >= view.changed for view in views if view.status in ("finished", "diverged"))


STATUSES = ("finished", "diverged", "training", "damaged")
"""Of runs that have begun."""


def _finished(store: Store, condition: str, seed: int) -> RunView:
    """A run that lies in the study's folder; its parameters are not looked at."""
    folder = store.run_folder(condition, seed)
    try:
        changed = (folder / "run.json").stat().st_mtime
        if (folder / ROWS).is_file():
            sums = folder / SUMS
            record = files.read(folder / "run.json", records.record, sums=sums)
            rows = files.read(folder / ROWS, lambda stream: records.rows(stream, record["epochs"]), sums=sums)
        else:  # of an older version
            record, rows = store.load(condition, seed)
    except (OSError, ValueError):
        return RunView("damaged")
    series = _series(rows)
    ends = {
        **series,
        **dict(_headed(rows.filter(polars.col("stage") == "end"))),
    }  # what is asked in training ends there
    final = {name: float(values[-1]) for name, (_, values) in ends.items()}
    return RunView(record["status"], record["epochs"], series, final, changed)


def _in_training(path: Path | None) -> RunView:
    """A run that has a checkpoint, or has just begun; the parameters in it are not read."""
    if path is None:
        return RunView("training")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows = polars.read_parquet(io.BytesIO(arrays["rows"].tobytes()))
        return RunView("training", int(rows["epoch"].max() or 0), _series(rows), {}, path.stat().st_mtime)  # type: ignore[arg-type]  # a whole number
    except Exception:  # replaced meanwhile, or of another version: the next look tells more
        return RunView("training")


class Told(NamedTuple):
    """What a worker tells of the run that it trains: epochs that are done, and when it said so."""

    epochs: int
    when: float


def _told(directory: Path) -> dict[str, Told]:
    """What workers of an engine tell, by what their watchers were told when the run began."""
    found = {}
    for name in _names(directory / tasks.FOLDER):
        path = directory / tasks.FOLDER / name / tasks.PROGRESS
        content = tasks.read(path)
        with contextlib.suppress(OSError):  # the task has ended meanwhile
            if at := content.get("at"):
                found[at] = Told(content["done"].get(at, 0), path.stat().st_mtime)
    return found


def _later(view: RunView, word: Told) -> RunView:
    """A run in training, as far as its checkpoint or its worker says."""
    return view._replace(epochs=max(view.epochs, word.epochs), changed=max(view.changed, word.when))


def _series(rows: polars.DataFrame) -> Series:
    """What was measured in training, but for times."""
    asked = rows.filter(polars.col("stage") == "training", polars.col("update").is_null())
    return {name: values for name, values in _headed(asked) if not name.endswith(ABOUT_TIME)}


def _headed(rows: polars.DataFrame) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Each quantity under the name that tables have for it, with its epochs and values."""
    for (measure, quantity, split), group in rows.group_by("measure", "quantity", "split", maintain_order=True):
        name = str(quantity) if measure == ITSELF else heading(str(measure), str(quantity), str(split))
        yield name, (group["epoch"].to_numpy(), group["value"].to_numpy())


def _single(views: list[RunView], name: str) -> Iterator[list[list[float | None]]]:
    """The curve of each run."""
    for view in views:
        if name in view.series:
            yield _points(*view.series[name])


def _mean(views: list[RunView], name: str) -> Iterator[list[list[float | None]]]:
    """The mean over the runs that have come so far, epoch by epoch."""
    sums: dict[int, list[float]] = {}
    for view in views:
        for epoch, value in zip(*view.series.get(name, ((), ())), strict=True):
            sums.setdefault(int(epoch), []).append(float(value))
    if sums:
        epochs = np.array(sorted(sums))
        yield _points(epochs, np.array([np.mean(sums[int(epoch)]) for epoch in epochs]))


def _points(epochs: np.ndarray, values: np.ndarray) -> list[list[float | None]]:
    """A curve as pairs, thinned where it has more points than a chart shows; None where there is no number."""
    places = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), POINTS)).astype(int))
    return [[int(epochs[place]), _number(values[place])] for place in places]


def _mean_of(views: list[RunView], name: str) -> float | None:
    """The mean of a quantity over finished runs, geometric where ratios are what is compared."""
    values = np.array([view.final[name] for view in views if view.status == "finished" and name in view.final])
    if not len(values):
        return None
    log = QUANTITIES[name].log and bool((values > 0).all())
    return _number(np.exp(np.log(values).mean()) if log else values.mean())


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _label(name: str) -> str:
    """A quantity in words, as after any epoch."""
    known = (QUANTITIES | TRACED).get(name)
    words = known.label.removeprefix("Final ") if known else NAMES.get(name, name.replace("_", " "))
    return words if words.startswith(("tr(", "tr ", "λ")) else words[:1].upper() + words[1:]


NAMES = {"objective": "Mean loss of the updates"}
"""Of what is no quantity of the results."""


def _names(folder: Path) -> dict[str, int]:
    """What lies in a folder, if it is there: name -> its node, which the system lists beside it."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def _checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a run, if it has one."""
    try:
        return max(folder.glob("*/progress*.npz"), key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def _mark(path: Path) -> tuple[int, int, int]:
    """What changes with every write."""
    known = path.stat()
    return known.st_ino, known.st_size, known.st_mtime_ns


def _seconds_since(views: Iterable[RunView]) -> float | None:
    """How long ago the last file of a run was written; clocks of two machines may differ."""
    last = max((view.changed for view in views), default=0.0)
    return max(0.0, time.time() - last) if last else None

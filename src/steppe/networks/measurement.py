"""Measuring targets: what is not on disk yet, measure by measure, each kept as soon as it is known."""

import contextlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import polars

from steppe.core import checks
from steppe.core.batches import Batches
from steppe.core.types import Params
from steppe.data.dataset import fingerprint
from steppe.engines.progress import Watcher
from steppe.measures.answers import Answer, ask
from steppe.measures.memory import Plan, planned
from steppe.measures.registry import Measure, lookup
from steppe.measures.subject import Quantity, Subject
from steppe.measures.table import SCHEMA, Table, columns, fingerprinted
from steppe.networks.settings import Settings
from steppe.networks.targets import Runs, Target, identity, is_of_a_study, run_folders
from steppe.networks.user import Files, UserNetwork
from steppe.storage import provenance
from steppe.study import measurements
from steppe.study.store import Store
from steppe.study.table import read_runs


@dataclass(frozen=True)
class MeasurementResult:
    """What came of a command.

    Attributes
    ----------
    rows : of what was asked, in the order of targets and measures; see `measures.SCHEMA`.
    folders : that hold them.
    notes : sentences: what could not be measured, and why; what was left out.
    """

    rows: polars.DataFrame
    folders: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def infinite(self) -> polars.DataFrame:
        """The rows whose value is NaN or infinite."""
        return self.rows.filter(~polars.col("value").is_finite().fill_null(False))


def read_targets(paths: Sequence[Path], user: UserNetwork, settings: Settings, out: Path | None = None) -> Runs | Files:
    """What paths name, ready to be measured: runs, whose rows go to their studies, or a user's own parameters.

    Raises
    ------
    InputError : both at once; a run, a study or a file that cannot be used; the same one twice.
    """
    settings.checked()
    studies = [path for path in paths if is_of_a_study(path)]
    if not studies:
        folder = out or Path("out") / paths[0].stem
        _check_free(folder)
        with settings.precision():
            return Files(paths, user, settings, folder)
    if len(studies) < len(paths):
        other = next(path for path in paths if path not in studies)
        checks.fail("measure", "TARGET", "runs and studies, or else parameters of your own", f"both: {other}",
                    "Measure them one after the other.")  # fmt: skip
    if user.is_given:
        checks.fail("measure", "--network, --loss, --apply, --data", "left out for runs, which know theirs", "given")
    if out is not None:
        _check_free(out)
    found = [run_folders(path) for path in paths]
    runs = Runs([folder for folders, _ in found for folder in folders], settings, out)
    runs.notes += [note for _, notes in found for note in notes]
    return runs


def _check_free(folder: Path) -> None:
    """A folder for rows alone: a study's own rows lie beside its runs."""
    if (folder / "study.toml").is_file():
        checks.fail("measure", "--out", "another folder than a study's", checks.shown(str(folder)),
                    "Its own rows go there without --out.")  # fmt: skip


def measure(
    targets: Runs | Files,
    settings: Settings,
    *,
    watcher: Watcher | None = None,
    announce: Callable[[Plan], None] = lambda plan: None,
) -> MeasurementResult:
    """Measure what is not on disk yet, and return all that was asked.

    The unit is one measure of one network: an interrupted command goes on with the next one. `announce` is told the
    memory that is planned, before the first network and whenever another one is larger.

    Raises
    ------
    InputError : networks, data or settings that cannot be used; nothing that could be measured; another process that
        measures into the same folder.
    OSError : the folder cannot be written; what was measured is kept.
    """
    settings.checked()
    watcher = watcher or Watcher()
    session, rows, failed = Session(settings, watcher, announce), [], []
    pairs = targets.pairs if session.of_pairs else []
    watcher.begin(len(targets) * len(session.measures) + len(pairs) * len(session.of_pairs))
    if session.of_pairs and not pairs:
        failed += [_Failure("", name, NO_PAIR) for name in session.of_pairs]
    with settings.precision(), contextlib.ExitStack() as stack:
        kept = []
        for target in targets:
            found, reasons = session.ask(target, session.table(target.folder, stack))
            rows += found
            failed += reasons
            kept += [target] if pairs else []
        for one, other in pairs:
            found, reasons = session.compare(kept[one], kept[other], session.table(kept[one].folder, stack))
            rows += found
            failed += reasons
    if not rows:
        raise failed[0].error
    order = polars.DataFrame({"fingerprint": rows}, schema={"fingerprint": polars.String})
    known = polars.concat([table.rows for table in session.tables.values()])
    frame = order.join(known, on="fingerprint", how="inner", maintain_order="left_right").select(list(SCHEMA))
    return MeasurementResult(
        frame, tuple(session.tables), (*targets.notes, *session.notes, *_reasons(failed, len(targets)))
    )


NO_PAIR = checks.InputError("it compares two networks, and there are no two seeds of a condition, and no two files.")


class _Failure(NamedTuple):
    """A measure that could not be taken of a run."""

    run: str
    measure: str
    error: Exception


class Session:
    """What all targets of one command share."""

    def __init__(self, settings: Settings, watcher: Watcher, announce: Callable[[Plan], None]):
        self.settings, self.watcher, self.announce = settings, watcher, announce
        self.tables: dict[Path, Table] = {}
        self.largest = 0
        self.notes: list[str] = []
        self.subjects: dict[str, Subject] = {}
        every = {name: lookup(name) for name in settings.measures}
        self.measures = {name: known for name, known in every.items() if known.networks == 1}
        self.of_pairs = {name: known for name, known in every.items() if known.networks > 1}
        self.versions = {f"{name}_version": importlib.metadata.version(name) for name in ("steppe", "jax")}

    def table(self, folder: Path, stack: contextlib.ExitStack) -> Table:
        """The table in a folder, held by this process alone until all is measured."""
        if folder not in self.tables:
            opened = self.tables[folder] = stack.enter_context(contextlib.closing(Table(folder)))
            if (folder / "study.toml").is_file():  # its table may be older than its runs
                gone = opened.unite(read_runs(Store.read(folder)).rows)
                self.notes += [measurements.replaced(gone)] if gone else []
        return self.tables[folder]

    def ask(self, target: Target, table: Table) -> tuple[list[str], list["_Failure"]]:
        """The fingerprints of a target's rows, measured now or before; and what could not be measured."""
        settings = self.settings
        base, begin = identity(target, settings), None
        if target.initial and any(known.begins for known in self.measures.values()):
            begin = target.initial()
        began = fingerprint(jax.tree.map(np.asarray, begin))
        marks = {
            name: fingerprinted(base, name, settings.of(known), began if known.begins else "", *_marks(known, target))
            for name, known in self.measures.items()
        }
        missing = [self.measures[name] for name, mark in marks.items() if mark not in table.known]
        self.watcher.skip(len(marks) - len(missing))
        failed = []
        subject: Any = self._subject(target, begin, missing) if missing else None
        for known in missing:
            name = known.name
            self.watcher.stage(f"{target.run}: {name}")
            answer = ask(subject, known, settings.of(known))
            if answer.error is None:
                curve = next((q.curve for q in answer.quantities if q.curve is not None), None)
                table.add([self._row(target, answer, q, marks[name]) for q in answer.quantities], curve)
            elif name in settings.options:
                raise answer.error
            else:
                failed.append(_Failure(target.run, name, answer.error))
                del marks[name]
            self.watcher.points(1)
        return list(marks.values()), failed

    def compare(self, one: Target, other: Target, table: Table) -> tuple[list[str], list["_Failure"]]:
        """As `ask`, of two networks together."""
        settings, rows, failed = self.settings, [], []
        bases = [identity(target, settings) for target in (one, other)]
        for name, known in self.of_pairs.items():
            mark = fingerprinted(*bases, name, settings.of(known), *_marks(known, one))
            rows.append(mark)
            if mark in table.known:
                self.watcher.skip(1)
                continue
            self.watcher.stage(f"{one.run} and {other.run}: {name}")
            answer = ask(self._whole(one), known, settings.of(known), self._whole(other))
            if answer.error is None:
                both = {"partner": other.run, "condition": _condition(one, other)}
                found = [self._row(one, answer, q, mark) | both for q in answer.quantities]
                table.add(found, None)
            elif name in settings.options:
                raise answer.error
            else:
                failed.append(_Failure(f"{one.run} and {other.run}", name, answer.error))
                rows.remove(mark)
            self.watcher.points(1)
        return rows, failed

    def _whole(self, target: Target) -> Subject:
        """A target as a subject, made once for all its pairs."""
        if target.run not in self.subjects:
            self.subjects[target.run] = self._of(target, target.batches, None)
            self.subjects[target.run].check_loss()
        return self.subjects[target.run]

    def _subject(self, target: Target, initial: Params | None, missing: list[Measure]) -> Subject:
        """A target as a subject; says what memory it will take."""
        subject = self._of(target, target.batches, initial)
        subject.check_loss()

        def part(name: str) -> Subject | None:
            batches = target.parts(name)
            return None if batches is None else self._of(target, batches, initial)

        subject.parts, subject.variables = part, target.variables
        if subject.size > self.largest:
            self.largest = subject.size
            self.announce(planned(subject, missing))
        return subject

    def _of(self, target: Target, batches: Batches, initial: Params | None) -> Subject:
        return Subject(
            loss=target.loss,
            apply=target.apply,
            criterion=target.criterion,
            params=target.params,
            batches=batches,
            initial=initial,
            key=self.settings.seed,
        )

    def _row(self, target: Target, answer: Answer, found: Quantity, mark: str) -> dict[str, Any]:
        row = columns(answer, found) | {
            "run": target.run,
            "condition": target.condition,
            "seed": target.seed,
            "partner": "",
            "epoch": target.epoch,
            "update": None,
            "stage": "later",
            "remark": target.remark,
            "dataset": target.dataset,
            "split": target.split,
            "examples": target.batches.examples,
            "batch_size": target.batch_size,
            "dtype": self.settings.dtype,
            "draw_seed": self.settings.seed,
            "source": target.source,
            "network": target.network,
            "fingerprint": mark,
            **self.versions,
            "host": provenance.host(),
        }
        return {name: row[name] for name in SCHEMA}


def _condition(one: Target, other: Target) -> str:
    """That of two runs of one condition, or the names of two files."""
    return one.condition if one.condition == other.condition else f"{one.condition} and {other.condition}"


def _marks(known: Measure, target: Target) -> tuple[str, ...]:
    """What else makes the question of a measure what it is."""
    return (*known.marks, target.data) if known.parts and target.data else known.marks


def _reasons(failed: list[_Failure], targets: int) -> list[str]:
    """What could not be measured, and why: one sentence for each reason."""
    by: dict[str, list[_Failure]] = {}
    for failure in failed:
        by.setdefault(str(failure.error).removeprefix(f"{failure.measure}: "), []).append(failure)
    sentences = []
    for reason, those in by.items():
        names, runs = (list(dict.fromkeys(found)) for found in zip(*((f.measure, f.run) for f in those), strict=True))
        where = f" of {', '.join(runs) if len(runs) <= 3 else f'{len(runs)} networks'}" if targets > 1 else ""
        sentences.append(f"Not measured: {', '.join(names)}{where}, because {reason}")
    return sentences

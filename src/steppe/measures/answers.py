"""One question that is asked of one subject, and its answer, checked where the measure is a user's own."""

import copy
import fnmatch
import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from steppe.core import checks, programs
from steppe.measures.registry import MEASURES, Measure, lookup
from steppe.measures.subject import Quantity, Subject

MOST = 1000
"""Quantities of one answer."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
"""What a quantity may be called: a column of tables."""

PREFIXES = ("train_", "validation_", "test_")
"""Of columns of results: the part of the data that a quantity is of."""

SUFFIXES = ("_sem", "_residual", "_converged")
"""Of columns of results and histories: what belongs to the quantity before them."""

RESERVED = {
    "average_batch_frobenius_squared", "batch_frobenius_squared_sem", "best_test_accuracy", "compile_seconds",
    "condition", "critical_learning_rate", "critical_sharpness", "epoch", "epochs", "first_seconds", "host", "lam",
    "measure_seconds", "objective", "parameters", "preconditioned_limit",
    "preconditioned_sharpness", "seed", "selected_epoch", "selected_test_accuracy", "stability_limit",
    "status", "step_memory_mb", "steps", "train_seconds",
}  # fmt: skip
"""What a study says of its runs itself, and no quantity is called."""


class Answer(NamedTuple):
    """What came of asking a subject one question.

    Attributes
    ----------
    measure, settings : what was asked.
    quantities : the numbers; none where it could not be measured.
    seconds : how long it took.
    error : why it could not be measured.
    source : a digest of the source of a user's own measure.
    question : of the measure, in words.
    """

    measure: str
    settings: Mapping[str, Any]
    quantities: list[Quantity]
    seconds: float
    error: checks.InputError | None = None
    source: str = ""
    question: str = ""

    @property
    def rows(self) -> list[Quantity]:
        """The numbers, or a line that says why there are none."""
        return self.quantities if self.error is None else [not_measured(self.measure, self.error)]


def ask(subject: Subject, measure: str | Measure, settings: Mapping[str, Any], other: Subject | None = None) -> Answer:
    """Ask a subject one question, or it and another one: by whom and whenever, this is how."""
    began, known = time.perf_counter(), lookup(measure)
    try:
        quantities, error = evaluate(known, subject, settings, other), None
    except checks.InputError as reason:
        quantities, error = [], reason
    return Answer(known.name, settings, quantities, time.perf_counter() - began, error, known.source, known.question)


def evaluate(
    measure: str | Measure, subject: Subject, settings: Mapping[str, Any], other: Subject | None = None
) -> list[Quantity]:
    """What a measure gives for a subject, or for it and another one.

    Raises
    ------
    InputError : the subject lacks what it needs, or it cannot be computed with these settings; a measure of one's own
        that gives something else than quantities. It says why.
    """
    known = lookup(measure)
    if known.networks > 1 and other is None:
        checks.fail(known.name, "other", "given: it compares two networks", "nothing")
    asked = [subject] if known.networks == 1 or other is None else [subject, other]
    for one in asked:
        known.check(one)
    with programs.user_errors(programs.label_of(subject.loss)):  # what is computed may fail when its value is read
        answer = list(known.function(*asked, **settings)) if known.ships else _of_users(known, asked, settings)
    touched = known.needs != "initial" and (subject.batches.several or known.needs in ("outputs", "targets"))
    return [_settled(quantity, subject.note if touched else "") for quantity in answer]


def not_measured(name: str, error: Exception) -> Quantity:
    """A line in the place of a number."""
    return Quantity(name.rpartition(":")[2], math.nan, math.nan, f"not measured: {error}", converged=False)


def join_notes(*notes: str) -> str:
    """Several notes as one."""
    return "; ".join(filter(None, notes))


def _settled(quantity: Quantity, note: str) -> Quantity:
    """The same with one more note; what is NaN or infinite is never said to have come to its end.

    Where a measure itself says that it did not, its note is the reason.
    """
    if not math.isfinite(quantity.value) and (quantity.converged or not quantity.note):
        quantity = quantity._replace(sem=math.nan, note=join_notes("not finite", quantity.note), converged=False)
    return quantity._replace(note=join_notes(quantity.note, note))


def _of_users(known: Measure, asked: list[Subject], settings: Mapping[str, Any]) -> list[Quantity]:
    """The quantities of a user's own measure, each checked."""
    try:
        subjects = map(copy.copy, asked)  # it may change what it gets
        given: Any = known.function(*subjects, **copy.deepcopy(dict(settings)))
        if isinstance(given, Quantity) or not isinstance(given, Iterator | list | tuple):
            given = [given]
        answer = list(itertools.islice(given, MOST + 1))
    except (checks.InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also sys.exit()
        programs.explain(error, programs.Label(known.name, "function"))
        checks.fail(known.name, "function", "a function of a subject and settings that yields quantities",
                    f"one that fails: {programs.line(error)}")  # fmt: skip
    if not answer:
        checks.fail(known.name, "function", "a function that yields a Quantity at least", "one that yields nothing")
    if len(answer) > MOST:
        checks.fail(known.name, "function", f"a function that yields at most {MOST} quantities", "one that yields more")
    checked = [_checked(known, quantity) for quantity in answer]
    names = [quantity.name for quantity in checked]
    for name in names:
        if names.count(name) > 1:
            checks.fail(known.name, "quantities", "of different names", f"{checks.shown(name)} twice")
    return checked


def _checked(known: Measure, quantity: Any) -> Quantity:
    """A quantity as plain numbers of Python.

    Raises
    ------
    InputError : none; a field of another kind; a name that a table of results has already.
    """
    if not isinstance(quantity, Quantity):
        checks.fail(known.name, "function", "a function that yields quantities", _returned(quantity),
                    "Yield Quantity(name, value), from steppe.measures.")  # fmt: skip
    _check_name(known, quantity.name)

    def refuse(field: str, what: str) -> NoReturn:
        checks.fail(known.name, f"{field} of {quantity.name!r}", what, _returned(getattr(quantity, field)))

    value, sem = _number(quantity.value), _number(quantity.sem)
    if value is None:
        refuse("value", "one real number")
    if sem is None or sem < 0:
        refuse("sem", "a number of at least 0, or NaN where unknown")
    if not isinstance(quantity.note, str):
        refuse("note", "text")
    for field in ("converged", "log"):
        if np.shape(getattr(quantity, field)) or np.asarray(getattr(quantity, field)).dtype.kind != "b":
            refuse(field, "True or False")
    curve = None if quantity.curve is None else _curve(quantity.curve)
    if curve == {}:
        refuse("curve", "a dict of text to arrays of numbers")
    note = " ".join(quantity.note.split())
    return Quantity(quantity.name, value, sem, note, bool(quantity.converged), bool(quantity.log), curve)


def _returned(value: Any) -> str:
    return checks.shown(value) if isinstance(value, str | int | float) else checks.returned(value)


def _check_name(known: Measure, name: Any) -> None:
    """Fail for a name that cannot be a column of results, or is one already."""
    what = "a name of letters, digits, '_', '.' and '-', a letter first, at most 60"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        checks.fail(known.name, "the name of a quantity", what, _returned(name))
    if name.startswith(PREFIXES):
        checks.fail(known.name, "the name of a quantity", "one without train_, validation_ and test_, which Steppe "
                    "puts before it", checks.shown(name))  # fmt: skip
    if name.endswith(SUFFIXES):
        checks.fail(known.name, "the name of a quantity", "one without _sem, _residual and _converged at its end, "
                    "which Steppe puts there", checks.shown(name))  # fmt: skip
    of = next((m.name for m in MEASURES.values() for pattern in m.quantities or (m.name,)
               if fnmatch.fnmatchcase(name, pattern)), "")  # fmt: skip
    if of or name in RESERVED:
        got = f"{name!r}, which {f'the measure {of} gives' if of else 'is a column of a study’s own'}"
        checks.fail(known.name, "the name of a quantity", "a new one", got, "Give it another.")


def _number(value: Any) -> float | None:
    """One real number, NaN and infinity among them; None for anything else."""
    if isinstance(value, bool | np.bool) or not isinstance(value, int | float | np.generic | np.ndarray | jax.Array):
        return None
    if np.ndim(value) or (hasattr(value, "dtype") and not jax.numpy.issubdtype(value.dtype, np.number)):
        return None
    if isinstance(value, complex | np.complexfloating) or np.iscomplexobj(value):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of Python
        return -math.inf if isinstance(value, int) and value < 0 else math.inf


def _curve(curve: Any) -> dict[str, np.ndarray]:
    """Arrays of numbers by their names; nothing for anything else."""
    if not isinstance(curve, Mapping) or not all(isinstance(name, str) and NAME.fullmatch(name) for name in curve):
        return {}
    arrays = {name: np.asarray(array) for name, array in curve.items()}
    return arrays if all(np.issubdtype(array.dtype, np.number) for array in arrays.values()) else {}

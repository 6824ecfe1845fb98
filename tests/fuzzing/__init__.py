"""Fuzzers: each file tries inputs of one kind on Steppe, and says how each of them ended.

A fuzzer is a module with `CASES`, a hypothesis strategy; `attempt(case)`, which gives a `Verdict`; and `LARGE`, how
many cases `make fuzz` tries. The test suite tries a few of each (``test_fuzzing.py``).
"""

import atexit
import enum
import importlib
import re
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis

from steppe import InputError

FUZZERS = ("command_lines", "damage", "data_files", "functions", "interrupts", "kills", "specs")
"""The modules here that hold a fuzzer."""

LONGEST = 600
"""Characters that one sentence may have: an error that lists a thousand names is not clear."""


class Ending(enum.Enum):
    """How one case ended. Only the first two are as they should be."""

    ACCEPTED = "accepted"
    CLEAR = "refused clearly"
    UNCLEAR = "refused unclearly"
    WRONG = "wrong"
    TRACEBACK = "traceback"

    @property
    def good(self) -> bool:
        return self in (Ending.ACCEPTED, Ending.CLEAR)


@dataclass(frozen=True)
class Verdict:
    """How a case ended, and the words or the traceback that tell it."""

    ending: Ending
    words: str = ""


@dataclass
class Count:
    """How often cases ended in which way, and an example of each bad way, told apart by the start of its last line."""

    endings: Counter = field(default_factory=Counter)
    examples: dict[tuple[Ending, str], tuple[Any, Verdict]] = field(default_factory=dict)

    def add(self, case: Any, verdict: Verdict) -> None:
        self.endings[verdict.ending] += 1
        if not verdict.ending.good:
            self.examples.setdefault((verdict.ending, verdict.words.strip().rpartition("\n")[2][:40]), (case, verdict))


def judged(function: Callable[[], Any]) -> Verdict:
    """Call a function: whatever it returns is accepted, an InputError is read, and anything else is a traceback."""
    try:
        function()
    except InputError as error:
        return read(str(error))
    except Exception:
        return Verdict(Ending.TRACEBACK, traceback.format_exc())
    return Verdict(Ending.ACCEPTED)


def read(sentence: str) -> Verdict:
    """Whether an error is clear: on one line, printable, not long, a sentence, and without a program's inner words."""
    odd = re.search(r"Traceback|Error\b.*Error\b|<object|0x[0-9a-f]{6}|\bpydantic\b|errors\.pydantic", sentence)
    clear = sentence.isprintable() and 10 < len(sentence) <= LONGEST and sentence.endswith((".", "?")) and not odd
    return Verdict(Ending.CLEAR if clear else Ending.UNCLEAR, sentence)


def scratch() -> Path:
    """A new folder, for what several cases share; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fuzzer(name: str) -> ModuleType:
    """The module of a fuzzer."""
    return importlib.import_module(f"fuzzing.{name}")


def counted(module: ModuleType, cases: int, seed: int = 0) -> Count:
    """Try many cases; nothing is raised and nothing is shrunk, everything is counted."""
    count = Count()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(module.CASES)
    def attempts(case: Any) -> None:
        count.add(case, module.attempt(case))

    attempts()
    return count

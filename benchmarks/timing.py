"""Timings that can be compared, compiled memory, and tables of both."""

import math
import resource
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

LONG_ENOUGH = 0.02
"""Seconds that one timing lasts at least; a quick function is called so often."""

Times = dict[Any, list[float]]
"""Way -> milliseconds a call, one figure a round."""


class Spread(NamedTuple):
    """The median over rounds, and the lowest and the highest round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"


@dataclass(frozen=True)
class Table:
    """Rows of one table, all with the same columns, and a sentence that belongs to them."""

    title: str
    rows: list[dict[str, Any]]
    note: str = ""

    def markdown(self) -> str:
        columns = list(self.rows[0]) if self.rows else []
        lines = [columns, ["---"] * len(columns), *([shown(row[c]) for c in columns] for row in self.rows)]
        parts = [f"### {self.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines if line), self.note]
        return "\n\n".join(part for part in parts if part) + "\n"


def interleaved(
    ways: Mapping[Any, Callable[[], Any]], rounds: int, *, settle: bool = False, warm: bool = False
) -> Times:
    """Times of functions without arguments, one after another in each round.

    A machine whose speed drifts bends all ways of a round alike. The first two calls of each are not timed: they
    compile (unless the ways are `warm`, called before), and say how many calls make one timing. With `settle`, no
    timing follows another way's directly: an untimed call of its own comes between, so that caches and waiting threads
    of the other way are gone.
    """
    calls = {way: calls_for((warm or seconds(run)) and seconds(run)) for way, run in ways.items()}
    times: Times = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            if settle:
                seconds(run)
            times[way].append(seconds(run, calls[way]) * 1e3)
    return times


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """How long one call lasts, its results waited for."""
    began = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - began) / calls


def new_pages(run: Callable[[], Any]) -> int:
    """Pages of memory that the system hands out anew during one call: each is filled with zeros first."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds(run)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def calls_for(duration: float) -> int:
    """Calls of that duration that make a timing long enough."""
    return min(max(1, math.ceil(LONG_ENOUGH / duration)), 1000)


def median(times: Times, way: Hashable) -> float:
    """Milliseconds a call."""
    return statistics.median(times[way])


def ratio(times: Times, way: Hashable, base: Hashable) -> Spread:
    """How many times longer than `base`: each round's own pair, so that drift does not enter."""
    return mean_ratio(times, [(way, base)])


def mean_ratio(times: Times, pairs: Iterable[tuple[Hashable, Hashable]]) -> Spread:
    """The geometric mean over pairs of how many times longer the first takes than the second, formed in each round."""
    logs = [[math.log(a / b) for a, b in zip(times[way], times[base], strict=True)] for way, base in pairs]
    ratios = [math.exp(statistics.mean(of_round)) for of_round in zip(*logs, strict=True)]
    return Spread(statistics.median(ratios), min(ratios), max(ratios))


class Memory(NamedTuple):
    """What the compiler plans for one call, in MB (10⁶ bytes).

    Attributes
    ----------
    peak : arguments + outputs + temporaries − what outputs share with arguments.
    temporaries : what is neither argument nor output.
    """

    peak: float
    temporaries: float


def memory(function: Any, *arguments: Any) -> Memory:
    """The memory of a jitted function's compiled program."""
    plan = function.lower(*arguments).compile().memory_analysis()
    total = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return Memory((total - plan.alias_size_in_bytes) / 1e6, plan.temp_size_in_bytes / 1e6)


def shown(value: Any) -> str:
    """A table's cell."""
    if value is None:
        return ""
    return digits(value) if isinstance(value, float) else str(value)


def digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if not math.isfinite(value) or value == 0:
        return str(value)
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"

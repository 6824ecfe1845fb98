"""Any quantity of several conditions: summarised, and compared with what its condition is compared with."""

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from steppe.analysis.judgement.comparison import Comparison, compare, correct
from steppe.analysis.judgement.plan import PLAN, Plan
from steppe.analysis.quantities import Quantity
from steppe.analysis.results import LateMargin
from steppe.analysis.statistics.blocks import RankComparison, friedman
from steppe.analysis.statistics.differences import PValue
from steppe.analysis.statistics.effects import Effect
from steppe.analysis.statistics.samples import Summary, summary
from steppe.analysis.verdict import LARGEST_LOG, Verdict, exponential


class Interval(NamedTuple):
    """A mean and its confidence interval; NaN where there is none."""

    mean: float
    low: float
    high: float


class Role(enum.Enum):
    """What a study declared a quantity to be before its runs."""

    PRIMARY = "primary"
    FAMILY = "family"
    EXPLORATORY = "exploratory"


@dataclass(frozen=True)
class QuantityComparison:
    """All that is known of one quantity of several conditions.

    Attributes
    ----------
    quantity : Quantity
        What it is.
    values : Mapping
        condition -> seed -> value, all finite.
    summaries : Mapping
        condition -> mean, standard deviation and interval over seeds.
    scaled : Mapping
        condition -> the same on the scale that is compared: of logarithms of positive values, where `quantity.log`.
    bounds : Mapping
        condition -> how many of its values are only bounds: censored, or not converged.
    references : Mapping
        condition -> the condition that it is compared with.
    comparisons : Mapping
        condition -> the condition against its reference.
    confidence : float
        Of all intervals.
    late_margin : LateMargin or None
        The margin, where it did not stand when all runs were trained.
    role : Role or None
        What the study declared it to be; None where it declared nothing.
    together : int
        How many tests of a difference are corrected together; 0 where none could be done.
    """

    quantity: Quantity
    values: Mapping[str, Mapping[int, float]]
    summaries: Mapping[str, Summary]
    scaled: Mapping[str, Summary]
    bounds: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    confidence: float = 0.95
    late_margin: LateMargin | None = None
    role: Role | None = None
    together: int = 0

    @property
    def margin(self) -> float:
        """The smallest difference that matters, on the scale compared; NaN where none is declared."""
        return next((comparison.margin for comparison in self.comparisons.values()), math.nan)

    @property
    def plan(self) -> Plan:
        """How its conditions are compared."""
        return next((comparison.plan for comparison in self.comparisons.values()), PLAN)

    def center(self, condition: str) -> Interval:
        """A condition's mean and its interval; those of the geometric mean where logarithms are compared."""
        if not self.quantity.log:
            found = self.summaries[condition]
            return Interval(found.mean, found.low, found.high)
        found = self.scaled[condition]
        low, high = (math.exp(log) if abs(log) < LARGEST_LOG else math.nan for log in (found.low, found.high))
        return Interval(exponential(found.mean), low, high)

    @property
    def without_logarithm(self) -> tuple[str, ...]:
        """Conditions with values that are 0 or less where logarithms are compared."""
        return tuple(c for c, by in self.values.items() if self.quantity.log and any(v <= 0 for v in by.values()))

    def verdict(self, condition: str) -> Verdict:
        """A condition's verdict; UNTESTABLE where it is compared with nothing."""
        return self.comparisons[condition].verdict if condition in self.comparisons else Verdict.UNTESTABLE


def compare_quantity(
    quantity: Quantity,
    values: Mapping[str, Mapping[int, float | None]],
    references: Mapping[str, str],
    *,
    bounds: Mapping[str, int] | None = None,
    confidence: float = 0.95,
    margin: float | None = None,
    plan: Plan = PLAN,
) -> QuantityComparison:
    """One quantity, summarised for every condition and compared between some; the plan's correction over the latter.

    Parameters
    ----------
    quantity : Quantity
        What it is, and on which scale it is compared.
    values : Mapping
        condition -> seed -> value; what is None or not finite is left out.
    references : Mapping
        condition -> the condition that it is compared with; those that are no keys are only summarised.
    bounds : Mapping, optional
        condition -> how many of its values are only bounds. A comparison with one is not tested.
    confidence : float
        Of intervals; tests are done at level 1 − confidence.
    margin : float, optional
        The smallest difference that matters, as it is declared: a factor where logarithms are compared.
    plan : Plan
        How conditions are compared.
    """
    known, bounds = {c: _finite(by) for c, by in values.items()}, dict(bounds or {})
    scaled = {c: {s: math.log(v) for s, v in by.items() if v > 0} if quantity.log else by for c, by in known.items()}
    found = {
        condition: compare(
            scaled[other], scaled[condition], confidence=confidence, margin=quantity.margin(margin), plan=plan
        )
        for condition, other in references.items()
    }
    for condition, other in references.items():
        if bounds.get(condition) or bounds.get(other):
            found[condition] = _untested(found[condition])
    comparisons = correct(found)
    return QuantityComparison(
        quantity=quantity,
        values=known,
        summaries={c: _summary(quantity.unit, by.values(), confidence) for c, by in known.items()},
        scaled={c: summary(by.values(), confidence=confidence) for c, by in scaled.items()},
        bounds=bounds,
        references=references,
        comparisons=comparisons,
        confidence=confidence,
        together=_tested(comparisons.values()),
    )


def correct_family(found: Mapping[str, QuantityComparison], family: Iterable[str]) -> dict[str, QuantityComparison]:
    """Quantities of which those of a family have their p-values corrected over all of its comparisons together."""
    members = [name for name in dict.fromkeys(family) if name in found]
    flat = {(name, c): comparison for name in members for c, comparison in found[name].comparisons.items()}
    corrected = correct(flat)
    count = _tested(corrected.values())
    changed = {
        name: replace(found[name], comparisons={c: corrected[name, c] for c in found[name].comparisons}, together=count)
        for name in members
    }
    return {**found, **changed}


def _tested(comparisons: Iterable[Comparison]) -> int:
    """How many tests of a difference could be done."""
    return sum(not math.isnan(comparison.test.p) for comparison in comparisons)


def _finite(values: Mapping[int, float | None]) -> dict[int, float]:
    """Seed -> value, without what is missing or not finite."""
    return {seed: float(value) for seed, value in values.items() if value is not None and math.isfinite(value)}


def _summary(unit: str, values: Iterable[float], confidence: float) -> Summary:
    """Mean, sd and interval, which ends where a mean cannot lie: at 0 and 1 of a share, at 0 of time and memory."""
    found = summary(values, confidence=confidence)
    if unit not in ("share", "s", "MB") or not math.isfinite(found.low):
        return found
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0) if unit == "share" else found.high)


def _untested(comparison: Comparison) -> Comparison:
    """A comparison with values that are only bounds: nothing is said of their means."""
    nothing, unknown = PValue(math.nan, "bounds"), Effect(math.nan, math.nan, math.nan)
    return comparison._replace(
        difference=math.nan, low=math.nan, high=math.nan, bound=math.nan, test=nothing, welch=nothing, paired=nothing,
        equivalence=nothing, hedges_g=unknown, d_z=math.nan, rank_biserial=math.nan, improvement=math.nan,
    )  # fmt: skip


class Ranks(NamedTuple):
    """How treatments rank over data sets.

    Attributes
    ----------
    quantity : Quantity
        By which they are ranked: its mean over seeds, rank 1 the best.
    treatments : tuple of str
        What varies but the data, k of them, the baseline's first.
    data : tuple of str
        The data sets, N of them.
    means : tuple of tuple of float
        (N, k).
    comparison : RankComparison
        Friedman's test, the average ranks, and what cannot be told apart.
    against : tuple of float
        p of each treatment against the first, by ranks, with Holm's correction.
    confidence : float
        1 − the level of the critical difference.
    """

    quantity: Quantity
    treatments: tuple[str, ...]
    data: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    comparison: RankComparison
    against: tuple[float, ...]
    confidence: float

    @property
    def best(self) -> str:
        """What rank 1 is."""
        return "flattest" if self.quantity.is_sharpness else "best"


def ranks_of(
    found: QuantityComparison, settings: Mapping[str, Mapping[str, Any]], baseline: str, confidence: float
) -> Ranks | None:
    """Treatments ranked over the data sets of a study; None unless there are two data sets and three treatments, each
    on each with finished runs.

    Parameters
    ----------
    found : QuantityComparison
        Of all conditions.
    settings : Mapping
        condition -> dotted path -> value, of the settings that vary between conditions.
    baseline : str
        Whose treatment comes first.
    confidence : float
        1 − the level.
    """
    data = _labels({c: {k: v for k, v in by.items() if k.startswith("data.")} for c, by in settings.items()})
    rest = _labels({c: {k: v for k, v in by.items() if not k.startswith("data.")} for c, by in settings.items()})
    cells = {(data[c], rest[c]): found.summaries[c].mean for c in settings if found.summaries[c].count}
    blocks = tuple(dict.fromkeys(data.values()))
    treatments = tuple(dict.fromkeys((*((rest[baseline],) if baseline in rest else ()), *rest.values())))
    whole = len(cells) == len(settings) == len(blocks) * len(treatments)
    if not whole or len(blocks) < 2 or len(treatments) < 3:
        return None
    means = tuple(tuple(cells[block, treatment] for treatment in treatments) for block in blocks)
    ranked = friedman(means, confidence=confidence, higher_is_better=not found.quantity.lower_is_better)
    return Ranks(found.quantity, treatments, blocks, means, ranked, ranked.against(0), confidence)


def _labels(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A name for each condition of the settings that tell conditions apart: names of parts first, then what else is
    needed.
    """
    paths = sorted({path for by in settings.values() for path in by}, key=lambda path: not path.endswith(".name"))
    kept: list[str] = []

    def classes(chosen: list[str]) -> int:
        return len({repr([by.get(path) for path in chosen]) for by in settings.values()})

    for path in paths:
        if classes([*kept, path]) > classes(kept):
            kept.append(path)

    def text(path: str, value: Any) -> str:
        return str(value) if path.endswith(".name") else f"{path.rpartition('.')[2]}={value}"

    return {c: ", ".join(text(path, by[path]) for path in kept if by.get(path) is not None) or "all"
            for c, by in settings.items()}  # fmt: skip

"""What a study came to, as one value: everything that a report draws, and no sentence."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars

from steppe.analysis.comparison import QuantityComparison, Ranks, Role, compare_quantity, correct_family, ranks_of
from steppe.analysis.correlation.studies import Correlations, correlations
from steppe.analysis.curves import (
    CURVES,
    TRACKED,
    Curve,
    TrackedCurve,
    Trajectory,
    curve,
    histories,
    tracked_curve,
    trajectory,
)
from steppe.analysis.equal_loss import QUANTITIES as AT_EQUAL_LOSS
from steppe.analysis.equal_loss import EqualLossRatio, equal_loss_ratios
from steppe.analysis.frames import final_rows
from steppe.analysis.measurements import Measurements, bounds, compare_measurements, described, of_pairs
from steppe.analysis.power import Power, power_of
from steppe.analysis.protocols.claims import ProtocolResult, protocol_results
from steppe.analysis.quantities import CONTROLLED, OPTIONAL, QUANTITIES, TR_H2
from steppe.analysis.results import Results
from steppe.analysis.times import time_ratio
from steppe.analysis.verdict import Ratio


@dataclass(frozen=True)
class Analysis:
    """What the results of a study say.

    Attributes
    ----------
    results : Results
        What it rests on.
    confidence : float
        Of the intervals.
    seeds : Mapping
        condition -> seeds of its finished runs.
    diverged : Mapping
        condition -> seeds of runs that diverged, which are left out of everything else; conditions that have some.
    quantities : Mapping
        name -> the quantity, summarised for every condition, and compared with the baseline where it is tested: where
        it is one of `TESTED`, or a margin is declared for it.
    controls : Mapping
        name -> the quantity, compared with the control of each condition that has one; empty where none has.
    equal_loss : Mapping
        name -> condition -> its value over the baseline's at equal training loss.
    cost : Mapping
        condition -> its training time over the baseline's.
    control_cost : Mapping
        condition -> its training time over its control's, where it has one.
    power : Power or None
        Which differences in test accuracy these tests find; None where none could be tested.
    looks : Mapping
        condition -> measured epochs in a run, at most: the best test accuracy is the highest of as many.
    lambdas : Mapping
        condition -> its penalty strength, where each condition has one of its own; otherwise nothing.
    curves : Mapping
        name -> condition -> the quantity over epochs.
    trajectories : Mapping
        condition -> tr(H²) over training loss.
    tracked : Mapping
        name -> condition -> the curvature over epochs; no epochs where the study does not track it.
    measurements : Measurements or None
        What was asked of the networks besides, by the study and by `steppe measure`.
    correlations : Correlations or None
        How measures go with outcomes, where there are at least 20 finished networks of four conditions.
    ranks : Ranks or None
        How treatments rank over data sets by the primary quantity, where each is trained on each of several.
    protocols : tuple of ProtocolResult
        Others' claims, by their tests and by the study's own.
    """

    results: Results
    confidence: float
    seeds: Mapping[str, tuple[int, ...]]
    diverged: Mapping[str, tuple[int, ...]]
    quantities: Mapping[str, QuantityComparison]
    controls: Mapping[str, QuantityComparison]
    equal_loss: Mapping[str, Mapping[str, EqualLossRatio]]
    cost: Mapping[str, Ratio]
    control_cost: Mapping[str, Ratio]
    power: Power | None
    looks: Mapping[str, int]
    lambdas: Mapping[str, float]
    curves: Mapping[str, Mapping[str, Curve]]
    trajectories: Mapping[str, Trajectory]
    tracked: Mapping[str, Mapping[str, TrackedCurve]]
    measurements: Measurements | None
    correlations: Correlations | None = None
    ranks: Ranks | None = None
    protocols: tuple[ProtocolResult, ...] = ()

    @property
    def alpha(self) -> float:
        """The level of the tests, 1 − confidence."""
        return round(1 - self.confidence, 12)

    @property
    def tested(self) -> tuple[QuantityComparison, ...]:
        """The quantities that are compared with the baseline, the declared ones first."""
        return self.chosen(dict.fromkeys((*self.results.family, *self.results.tested, *self.results.margins)))

    @property
    def primary(self) -> QuantityComparison:
        """The quantity by which the study said it would be judged, or that by which predictions are."""
        return self.quantities.get(self.results.primary, self.judged)

    @property
    def outcome(self) -> QuantityComparison:
        """By what it is told whether a condition helped: the primary quantity where that is an outcome, or else the
        first outcome of the declared family, or that by which predictions are judged.
        """
        declared = self.chosen((self.primary.quantity.name, *self.results.family))
        return next((by for by in declared if by.quantity.is_outcome), self.judged)

    @property
    def sharpness(self) -> QuantityComparison:
        """By what it is told whether minima are flatter: the primary quantity where that is one of sharpness, or else
        tr(H²).
        """
        return self.primary if self.primary.quantity.is_sharpness else self.quantities[TR_H2]

    @property
    def judged(self) -> QuantityComparison:
        """By what predictions are judged: the test accuracy, or the test loss of a regression."""
        return self.quantities[self.results.judged]

    def chosen(self, names: Iterable[str]) -> tuple[QuantityComparison, ...]:
        """Some of the quantities, as far as the study has them."""
        return tuple(self.quantities[name] for name in names if name in self.quantities)


def analyse(results: Results, *, confidence: float = 0.95) -> Analysis:
    """Summaries, comparisons and verdicts from a study's results, whole or partial.

    Runs that diverged are left out of all statistics, and so are values that are missing or not finite. A condition
    without a finished run has summaries of count 0. See `comparison` for the tests.

    Parameters
    ----------
    results : Results
        What the study left.
    confidence : float
        Of the intervals; tests are done at level 1 − confidence.

    Raises
    ------
    InputError
        If `confidence` is not within (0, 1).
    """
    conditions, baseline, margins = results.conditions, results.baseline, results.margins
    is_finished = polars.col("status") == "finished"
    finished = results.runs.filter(is_finished)
    seeds = _seeds(finished, conditions)
    others = {c: baseline for c in conditions if c != baseline and baseline in conditions}
    history = histories(results.history, seeds)
    ends = final_rows(
        results.measurements.join(finished.select("condition", "seed"), on=["condition", "seed"], how="semi")
    )
    claimed = _claimed(results)
    named = (*margins, *results.late_margins, *results.family, *claimed)
    pairs = {name: of_pairs(results.measurements, name, finished) for name in named if name not in finished.columns}
    ends = polars.concat([ends, *(rows.select(ends.columns) for rows in pairs.values())])
    known = QUANTITIES | {name: described(ends, name) for name in named}

    def compared(name: str, references: Mapping[str, str]) -> QuantityComparison:
        values = {c: _values(finished, c, name, pairs.get(name)) for c in conditions}
        found = compare_quantity(
            known[name]._replace(unit="") if not results.loss_unit and known[name].unit == "nats" else known[name],
            values,
            references,
            bounds=bounds(ends, name) if name not in results.tested else None,
            confidence=confidence,
            margin=margins.get(name),
            plan=results.plan,
        )
        return replace(found, late_margin=results.late_margins.get(name), role=_role(results, name))

    there = [name for name in known if name not in OPTIONAL or name in results.runs.columns]
    tested = {*results.tested, *margins, *results.family, *claimed}
    quantities = {name: compared(name, others if name in tested else {}) for name in there}
    quantities = correct_family(quantities, results.family)
    judged = quantities.get(results.primary, quantities[results.judged])
    controlled = dict.fromkeys((*CONTROLLED, *results.family)) if results.controls else {}
    declared = {name: quantities[name] for name in results.family if name in quantities}
    measurements = compare_measurements(results, seeds, confidence=confidence, declared=declared)
    return Analysis(
        results=results,
        confidence=confidence,
        seeds=seeds,
        diverged={c: some for c, some in _seeds(results.runs.filter(~is_finished), conditions).items() if some},
        quantities=quantities,
        controls={name: compared(name, results.controls) for name in controlled if name in there},
        equal_loss=_at_equal_loss(results, seeds, confidence, [name for name in known if known[name].log]),
        cost={c: time_ratio(finished, c, baseline, confidence=confidence) for c in conditions},
        control_cost={c: time_ratio(finished, c, d, confidence=confidence) for c, d in results.controls.items()},
        power=power_of(judged, round(1 - confidence, 12)),
        looks=_looks(results.history),
        lambdas=_lambdas(results.runs, conditions),
        curves=_curves(history),
        trajectories={c: trajectory(rows) for c, rows in history.items()},
        tracked={name: {c: tracked_curve(rows, name) for c, rows in history.items()} for name in TRACKED},
        measurements=measurements,
        correlations=correlations([results], confidence=confidence, plan=results.correlation)
        if _are_many(seeds)
        else None,
        ranks=ranks_of(judged, results.settings, baseline, confidence),
        protocols=protocol_results(results, quantities, measurements),
    )


def _claimed(results: Results) -> list[str]:
    """The columns of results that others' claims are of; what is asked of two networks is no column."""
    return [name for each in results.protocols for name in each.claims if name in results.runs.columns]


def _at_equal_loss(
    results: Results, seeds: Mapping[str, Sequence[int]], confidence: float, logs: Collection[str]
) -> dict[str, Mapping[str, EqualLossRatio]]:
    """What is compared at equal training loss, as far as it can be; the margins of `logs` are factors."""
    found = {}
    declared = [name for name in results.family if name not in QUANTITIES and name in results.history.columns]
    for name in dict.fromkeys((*AT_EQUAL_LOSS, *declared)):
        margin = results.margins.get(name) if name in logs else None
        found[name] = equal_loss_ratios(
            results.history, seeds, results.baseline, name, confidence=confidence, margin=margin
        )
    return {name: ratios for name, ratios in found.items() if ratios}


def _curves(history: Mapping[str, polars.DataFrame]) -> dict[str, dict[str, Curve]]:
    """Quantity -> condition -> its curve over epochs."""
    return {
        name: {c: curve(rows, name, geometric=geometric) for c, rows in history.items()}
        for name, geometric in CURVES.items()
    }


def _are_many(seeds: Mapping[str, Sequence[int]]) -> bool:
    """Whether there are networks enough to correlate their measures with their outcomes."""
    return sum(map(len, seeds.values())) >= 20 and sum(bool(some) for some in seeds.values()) >= 4


def _role(results: Results, name: str) -> Role | None:
    """What the study declared a quantity to be."""
    if not results.primary:
        return Role.EXPLORATORY if results.correlation else None
    return Role.PRIMARY if name == results.primary else Role.FAMILY if name in results.family else Role.EXPLORATORY


def _seeds(runs: polars.DataFrame, conditions: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Condition -> seeds of these runs."""
    return {c: tuple(sorted(_of(runs, c)["seed"].to_list())) for c in conditions}


def _values(
    runs: polars.DataFrame, condition: str, name: str, pairs: polars.DataFrame | None = None
) -> dict[int, float | None]:
    """Seed -> value, of a number of two seeds its part; nothing where there is no such column."""
    if pairs is not None:
        return dict(_of(pairs, condition).select("seed", "value").rows())
    return dict(_of(runs, condition).select("seed", name).rows()) if name in runs.columns else {}


def _looks(history: polars.DataFrame) -> dict[str, int]:
    """The largest number of measured epochs in a run of each condition."""
    if not len(history):
        return {}
    counts = history.group_by("condition", "seed").len().group_by("condition").agg(polars.col("len").max())
    return dict(counts.iter_rows())


def _lambdas(runs: polars.DataFrame, conditions: Sequence[str]) -> dict[str, float]:
    """Condition -> lambda, where each condition has one of its own; otherwise nothing."""
    if "lam" not in runs.columns:
        return {}
    found = dict(runs.select("condition", "lam").unique().drop_nulls().iter_rows())
    known = {c: float(found[c]) for c in conditions if c in found}
    seen = set(runs["condition"].to_list())
    distinct = len(set(known.values())) == len(known) == len(seen & set(conditions))
    return known if distinct and any(known.values()) else {}


def _of(runs: polars.DataFrame, condition: str) -> polars.DataFrame:
    """One condition's rows."""
    return runs.filter(polars.col("condition") == condition)

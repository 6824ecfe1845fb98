"""What a study's results say: summaries, tests against the baseline, and a conclusion in plain words.

Which metrics are tested is declared in `metrics`; `wording` puts the numbers into sentences.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars

from steppe.analysis import statistics
from steppe.analysis.equal_loss import QUANTITIES, Matched, matched
from steppe.analysis.metrics import METRICS, RIVALRY, TESTED
from steppe.analysis.results import Results
from steppe.analysis.statistics import Comparison, Summary
from steppe.analysis.times import Times, compared
from steppe.analysis.wording import conclude, disagreements, joined, power_note, verdict


@dataclass(frozen=True)
class Analysis:
    """What the results say; every text is one or more plain sentences.

    Attributes
    ----------
    alpha, confidence : the level of the tests, and of the intervals (1 − alpha).
    seeds : condition -> seeds of its finished runs.
    summaries : metric -> condition -> mean, sd and interval over seeds.
    log_summaries : the same of the natural logarithm, for the metrics compared that way.
    comparisons : tested metric -> condition -> the condition against the baseline.
    verdicts : tested metric -> condition -> the outcome in words.
    disagreements : where the paired test comes out differently, one sentence each.
    matched : quantity -> condition -> its value over the baseline's at equal training loss (see `matched`).
    rivals : metric -> condition -> the condition against its rival; empty where no condition has one.
    cost : condition -> its training time over the baseline's.
    rival_cost : condition -> its training time over its rival's, where it has one.
    power : what this number of seeds can and cannot show.
    conclusion : the study in one paragraph.
    notes : what a reader must know first: missing or diverged runs, values left out.
    """

    alpha: float
    confidence: float
    seeds: Mapping[str, tuple[int, ...]]
    summaries: Mapping[str, Mapping[str, Summary]]
    log_summaries: Mapping[str, Mapping[str, Summary]]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    verdicts: Mapping[str, Mapping[str, str]]
    disagreements: tuple[str, ...]
    matched: Mapping[str, Mapping[str, Matched]]
    rivals: Mapping[str, Mapping[str, Comparison]]
    cost: Mapping[str, Times]
    rival_cost: Mapping[str, Times]
    power: str
    conclusion: str
    notes: tuple[str, ...]


def analyse(results: Results, *, confidence: float = 0.95) -> Analysis:
    """Summaries, tests and a conclusion from a study's results, whole or partial.

    Runs that diverged are left out of all statistics, and `Analysis.notes` says so; so are values that are missing or
    not finite. A condition without a finished run has summaries of count 0. See `statistics` for the tests.

    Parameters
    ----------
    results : what the study left, see `Results`.
    confidence : of the intervals; tests are done at level 1 − confidence.

    Raises
    ------
    InputError : if `confidence` is not within (0, 1).
    """
    alpha = round(1 - confidence, 12)
    finished = results.runs.filter(polars.col("status") == "finished")
    values = {m: {c: _values(finished, c, m) for c in results.conditions} for m in METRICS}
    logs = {m: {c: _logs(v) for c, v in values[m].items()} for m in METRICS if METRICS[m].log}
    comparisons = {m: _compare(logs.get(m, values[m]), results.baseline, confidence) for m in TESTED}
    verdicts = {m: {c: verdict(m, found, alpha=alpha) for c, found in by.items()} for m, by in comparisons.items()}
    summaries = _summaries(values, confidence)
    seeds = {c: tuple(sorted(_of(finished, c)["seed"].to_list())) for c in results.conditions}
    cost = {c: compared(finished, c, results.baseline, confidence=confidence) for c in results.conditions}
    equal_loss = {q: found for q in QUANTITIES if (found := matched(results, seeds, q, confidence=confidence))}
    rivals = {m: _against_rivals(values[m], results.rivals, confidence) for m in RIVALRY if results.rivals}
    power = power_note(summaries["test_accuracy"], comparisons["test_accuracy"], alpha)
    return Analysis(
        alpha=alpha,
        confidence=confidence,
        seeds=seeds,
        summaries=summaries,
        log_summaries=_summaries(logs, confidence),
        comparisons=comparisons,
        verdicts=verdicts,
        disagreements=tuple(disagreements(comparisons, alpha)),
        matched=equal_loss,
        rivals=rivals,
        cost=cost,
        rival_cost={c: compared(finished, c, other, confidence=confidence) for c, other in results.rivals.items()},
        power=power,
        conclusion=conclude(results, comparisons, equal_loss, rivals, cost=cost, seeds=seeds, alpha=alpha),
        notes=(*results.notes, *_own_notes(results, finished, seeds, values)),
    )


def _own_notes(
    results: Results, finished: polars.DataFrame, seeds: Mapping[str, tuple[int, ...]], values: Mapping
) -> Iterable[str]:
    """What is missing or left out, one sentence each."""
    missing = results.planned - len(results.runs)
    if missing > 0:
        yield f"This report is partial: {len(results.runs)} of {results.planned} planned runs are done."
        empty = [c for c in results.conditions if not len(_of(results.runs, c))]
        if empty:
            yield f"No run yet under {joined(empty)}."
    diverged = results.runs.filter(polars.col("status") != "finished")
    if len(diverged):
        where = [
            f"{c} (seed{'s' if len(rows) > 1 else ''} {joined(map(str, sorted(rows['seed'].to_list())))})"
            for c in results.conditions
            if len(rows := _of(diverged, c))
        ]
        plural = "Runs that diverged are" if len(diverged) > 1 else "A run that diverged is"
        yield f"{plural} left out of all means, intervals, tests and curves: {joined(where)}."
    if len(finished) and max(map(len, seeds.values())) == 1:
        yield "There is one seed per condition: the spread between seeds is unknown, and nothing can be tested."
    for metric in TESTED:
        lost = sum(map(len, seeds.values())) - sum(map(len, values[metric].values()))
        if lost:
            yield f"{METRICS[metric].label} is missing or not finite in {lost} finished run{'s' if lost > 1 else ''}."
    looks = _looks(results)
    if len(set(looks.values())) > 1:
        yield (
            f"Conditions were tested after {min(looks.values())} to {max(looks.values())} epochs of a run, and the "
            "best test accuracy is the highest of as many: where more were looked at, it is higher by chance."
        )
    zeros = [c for c, v in values["flatness"].items() if any(x <= 0 for x in v.values())]
    if zeros:
        yield f"A flatness of 0 has no logarithm; such runs are left out where flatness is tested: {joined(zeros)}."


def _looks(results: Results) -> dict[str, int]:
    """The largest number of measured epochs in a run of each condition."""
    if not len(results.history):
        return {}
    counts = results.history.group_by("condition", "seed").len().group_by("condition").agg(polars.col("len").max())
    return dict(counts.iter_rows())


def _of(runs: polars.DataFrame, condition: str) -> polars.DataFrame:
    """One condition's rows."""
    return runs.filter(polars.col("condition") == condition)


def _values(runs: polars.DataFrame, condition: str, metric: str) -> dict[int, float]:
    """Seed -> value, without what is missing or not finite."""
    if metric not in runs.columns:
        return {}
    rows = zip(*(_of(runs, condition)[name].to_list() for name in ("seed", metric)), strict=True)
    return {seed: float(value) for seed, value in rows if value is not None and math.isfinite(value)}


def _logs(values: Mapping[int, float]) -> dict[int, float]:
    """Natural logarithms of the positive values."""
    return {seed: math.log(value) for seed, value in values.items() if value > 0}


def _summaries(values: Mapping[str, Mapping[str, Mapping[int, float]]], confidence: float) -> dict:
    """A Summary for each metric and condition."""
    return {metric: {c: _summary(metric, v, confidence) for c, v in by.items()} for metric, by in values.items()}


def _summary(metric: str, values: Mapping[int, float], confidence: float) -> Summary:
    """Mean, sd and interval; a share's interval ends at 0 and 1, outside of which its mean cannot lie."""
    found = statistics.summary(values.values(), confidence=confidence)
    if METRICS[metric].unit != "share" or not math.isfinite(found.low):
        return found
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def _compare(values: Mapping[str, Mapping[int, float]], baseline: str, confidence: float) -> dict[str, Comparison]:
    """Every other condition against the baseline."""
    others = {c: v for c, v in values.items() if c != baseline}
    return statistics.compare_all(values.get(baseline, {}), others, confidence=confidence)


def _against_rivals(
    values: Mapping[str, Mapping[int, float]], rivals: Mapping[str, str], confidence: float
) -> dict[str, Comparison]:
    """Every condition that has a rival against that."""
    pairs = {c: statistics.compare(values[rival], values[c], confidence=confidence) for c, rival in rivals.items()}
    return statistics.family(pairs)

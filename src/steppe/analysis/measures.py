"""What a study's measures say: summaries over seeds, tests against the baseline, densities of whole conditions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import polars

from steppe import curvature
from steppe.analysis import statistics
from steppe.analysis.results import Results
from steppe.analysis.statistics import Comparison, Summary
from steppe.analysis.wording import factor, joined
from steppe.curvature import Quadrature
from steppe.measures import MEASURES
from steppe.measures import table as measures
from steppe.measures.table import ASKED


@dataclass(frozen=True)
class Density:
    """The spectral density of one condition, its runs together.

    Attributes
    ----------
    grid, density : (P,) eigenvalues, and how many of them there are per unit.
    width : the resolution.
    runs : how many.
    """

    grid: np.ndarray
    density: np.ndarray
    width: float
    runs: int


@dataclass(frozen=True)
class Compared:
    """What the measures of a study say; every text is one or more plain sentences.

    Attributes
    ----------
    baseline : the condition that others are compared to.
    conditions : that were measured, in the study's order.
    quantities : name -> the measure that gives it, in the registry's order.
    log : the quantities whose logarithms are compared.
    counts : condition -> measured runs.
    summaries : quantity -> condition -> mean, sd and interval over seeds.
    open : quantity -> condition -> values that are only bounds: censored, or not converged.
    comparisons, verdicts : quantity -> condition -> the condition against the baseline, and in words.
    remarks : quantity -> what to know of it, where that is the same for all runs.
    densities : condition -> its spectral density.
    rows : what it rests on.
    about : what was measured, on which data.
    notes : what a reader must know first.
    """

    baseline: str
    conditions: tuple[str, ...]
    quantities: Mapping[str, str]
    log: frozenset[str]
    counts: Mapping[str, int]
    summaries: Mapping[str, Mapping[str, Summary]]
    open: Mapping[str, Mapping[str, int]]
    comparisons: Mapping[str, Mapping[str, Comparison]]
    verdicts: Mapping[str, Mapping[str, str]]
    remarks: Mapping[str, str]
    densities: Mapping[str, Density]
    rows: polars.DataFrame
    about: str
    notes: tuple[str, ...]


def compared(results: Results, directory: Path, *, confidence: float = 0.95) -> Compared | None:
    """What the measures beside a study's results say; None where there are none.

    Of several measurements by one measure, with different settings or examples, the last one counts. Welch's test of
    each condition against the baseline, with Holm's correction over the conditions of one quantity; a quantity that is
    only a bound in some run is not tested.

    Raises
    ------
    InputError : a table that cannot be read.
    """
    everything = measures.read(directory).filter(polars.col("stage") != "training")  # the study's own tables have those
    rows = latest(everything.filter(polars.col("condition").is_in(results.conditions)))
    if not len(rows):
        return None
    alpha = round(1 - confidence, 12)
    conditions = tuple(c for c in results.conditions if c in set(rows["condition"]))
    quantities = in_order(rows)
    log = frozenset(rows.filter(polars.col("scale") == "log")["quantity"])
    values = {q: {c: _values(rows, q, c) for c in conditions} for q in quantities}
    bounds = {q: {c: _bounds(rows, q, c) for c in conditions} for q in quantities}
    comparisons = {q: _against(values[q], bounds[q], results.baseline, q in log, confidence) for q in quantities}
    return Compared(
        baseline=results.baseline,
        conditions=conditions,
        quantities=quantities,
        log=log,
        counts={c: rows.filter(polars.col("condition") == c)["seed"].n_unique() for c in conditions},
        summaries={q: {c: statistics.summary(v.values()) for c, v in by.items()} for q, by in values.items()},
        open=bounds,
        comparisons=comparisons,
        verdicts={q: {c: _verdict(found, q in log, alpha) for c, found in by.items()} for q, by in comparisons.items()},
        remarks=remarks(rows),
        densities=densities(rows, "condition", conditions, directory),
        rows=rows,
        about=about(rows),
        notes=tuple(_notes(rows, everything, comparisons, values, log, alpha)),
    )


def latest(rows: polars.DataFrame) -> polars.DataFrame:
    """For each measure the rows of the question that was asked last, and of each run the last ones."""
    last = rows.group_by("measure").agg(polars.col(name).last() for name in ASKED if name != "measure")
    rows = rows.join(last, on=list(ASKED), how="semi")
    return rows.unique(["run", "quantity"], keep="last", maintain_order=True)


def in_order(rows: polars.DataFrame) -> dict[str, str]:
    """Quantity -> measure, in the registry's order; those of older versions last."""
    place = {name: i for i, name in enumerate(MEASURES)}
    pairs = rows.select("quantity", "measure").unique(maintain_order=True).rows()
    return dict(sorted(pairs, key=lambda pair: place.get(pair[1], len(place))))


def _of(rows: polars.DataFrame, quantity: str, condition: str) -> polars.DataFrame:
    return rows.filter((polars.col("quantity") == quantity) & (polars.col("condition") == condition))


def _values(rows: polars.DataFrame, quantity: str, condition: str) -> dict[int, float]:
    """Seed -> value, without what is not finite."""
    pairs = _of(rows, quantity, condition).sort("seed").select("seed", "value").rows()
    return {seed: value for seed, value in pairs if value is not None and math.isfinite(value)}


def _bounds(rows: polars.DataFrame, quantity: str, condition: str) -> int:
    """How many values are only bounds."""
    return int((~_of(rows, quantity, condition)["converged"]).sum())


def _against(
    values: Mapping[str, Mapping[int, float]], bounds: Mapping[str, int], baseline: str, log: bool, confidence: float
) -> dict[str, Comparison]:
    """Every other condition against the baseline, on the quantity's scale, where no value is only a bound."""
    if bounds.get(baseline, 1):
        return {}
    scaled = {c: {s: math.log(v) for s, v in by.items() if v > 0} if log else by for c, by in values.items()}
    others = {c: by for c, by in scaled.items() if c != baseline and not bounds[c]}
    return statistics.compare_all(scaled[baseline], others, confidence=confidence)


def _verdict(found: Comparison, log: bool, alpha: float) -> str:
    """The outcome in words; logarithms as factors."""
    size = (lambda d: factor(math.exp(min(abs(d), 700.0)))) if log else (lambda d: f"{abs(d):.3g}")
    return statistics.verdict(found, alpha=alpha, size=size)


def remarks(rows: polars.DataFrame) -> dict[str, str]:
    """Notes that all converged values of a quantity share."""
    found = rows.filter("converged").group_by("quantity").agg(polars.col("note").unique())
    return {quantity: notes[0] for quantity, notes in found.rows() if len(notes) == 1 and notes[0]}


def densities(rows: polars.DataFrame, by: str, names: Sequence[str], folder: Path) -> dict[str, Density]:
    """The spectral density of each condition or run (a column and its values), from all of its quadratures."""
    arrays, found = measures.curves(folder), {}
    for name in names:
        marks = rows.filter((polars.col("quantity") == "negative_share") & (polars.col(by) == name))["fingerprint"]
        parts = [(arrays[f"{m}/nodes"], arrays[f"{m}/weights"]) for m in marks if f"{m}/nodes" in arrays]
        if parts:
            found[name] = density_of(parts, int(arrays[f"{marks[0]}/size"]))
    return found


def density_of(parts: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Density:
    """The density of several networks of one size together, from the nodes and weights of each."""
    nodes, weights = (jnp.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))
    density = curvature.smoothed(Quadrature(nodes, weights))
    return Density(np.asarray(density.grid), size * np.asarray(density.density), float(density.width), len(parts))


def about(rows: polars.DataFrame) -> str:
    """Which data, in which precision."""

    def kinds(name: str) -> str:
        return joined(str(value) for value in rows[name].unique(maintain_order=True))

    split = {"train": "training examples", "test": "test examples", "given": "examples"}
    parts = joined(split.get(part, part) for part in rows["split"].unique(maintain_order=True))
    same = ", the same examples and random vectors for all networks" if rows["run"].n_unique() > 1 else ""
    quiet = " without dropout" if "given" not in rows["split"] else ""
    size = f"in batches of {kinds('batch_size')}, in {kinds('dtype')}"
    return f"Measured on {kinds('examples')} {parts} of {kinds('dataset')}{quiet}, {size}{same}."


def of_networks(rows: polars.DataFrame) -> list[str]:
    """What is to know of whole networks: each remark, with those that it is of."""
    by = rows.filter(polars.col("remark") != "").group_by("remark", maintain_order=True)
    found = by.agg(polars.col("run").unique(maintain_order=True))
    return [f"{joined(runs)}: {remark}" for remark, runs in found.rows()]


def _notes(
    rows: polars.DataFrame,
    everything: polars.DataFrame,
    comparisons: Mapping[str, Mapping[str, Comparison]],
    values: Mapping[str, Mapping[str, Mapping[int, float]]],
    log: frozenset[str],
    alpha: float,
) -> list[str]:
    """What a reader must know first."""
    notes = []
    loss = comparisons.get("loss", {})
    apart = [c for c, found in loss.items() if _verdict(found, "loss" in log, alpha).startswith("significantly")]
    if apart:
        notes.append(
            f"The loss itself differs significantly from the baseline's under {joined(apart)}: some of the differences "
            "below tell of more or less training. Compare networks at equal loss before calling one flatter."
        )
    counts = rows.group_by("condition", maintain_order=True).agg(polars.col("seed").n_unique())["seed"]
    if counts.max() == 1:
        notes.append("One network of each condition was measured: nothing can be tested.")
    lost = [q for q in log if any(v <= 0 for by in values[q].values() for v in by.values())]
    if lost:
        notes.append(f"Values of 0 or less have no logarithm and are left out of tests: {joined(sorted(lost))}.")
    if everything["fingerprint"].n_unique() > rows["fingerprint"].n_unique():
        notes.append("Other measurements, with other settings or examples, are in measurements.parquet.")
    return notes + of_networks(rows)

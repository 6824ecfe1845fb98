"""Rank correlation as what pairs of networks say: Kendall's τ over all pairs, or over some that are worth a look.

Of two networks a measure m says which has the larger value, and an outcome o, too. Over a set of pairs

    τ = Σ sign(mᵢ − mⱼ) sign(oᵢ − oⱼ) / √(Σ sign(mᵢ − mⱼ)² Σ sign(oᵢ − oⱼ)²),

which is Kendall's τ_b where these are all pairs. Pairs of one condition tell whether the correlation is more than a
difference between conditions (Simpson's paradox), pairs at the same training accuracy whether it is more than how well
networks fit, pairs that differ in one hyperparameter whether it is more than that of others.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from steppe.analysis.statistics.samples import share
from steppe.core import checks

RESAMPLES = 1_000
"""Of clusters, for an interval."""


class Tau(NamedTuple):
    """A rank correlation with its interval; NaN where there are no pairs, or clusters, to take it from."""

    value: float
    low: float = math.nan
    high: float = math.nan


class Correlation(NamedTuple):
    """How a measure goes with an outcome.

    Attributes
    ----------
    overall : Tau
        Kendall's τ_b over all networks.
    within : Tau
        Over pairs of one condition: where its sign is another, the correlation overall is Simpson's paradox.
    matched : Tau
        Over pairs that are alike in another quantity, such as training accuracy.
    axes : Mapping
        Hyperparameter -> Jiang's (2020) ψ: τ over networks that differ in it alone, averaged over the others; those
        that vary alone somewhere.
    informations : tuple of float
        Jiang's K, I(sign Δm; sign Δo | S) / H(sign Δo | S), the least over sets S of 0, of 1 and of 2 hyperparameters
        whose values are known; NaN where nothing varies.
    networks, configurations : int
        How many, and of how many different settings.
    """

    overall: Tau
    within: Tau
    matched: Tau
    axes: Mapping[str, float]
    informations: tuple[float, ...]
    networks: int
    configurations: int

    @property
    def granulated(self) -> float:
        """Jiang's Ψ: the mean of ψ over hyperparameters; NaN where none varies alone."""
        return float(np.mean(list(self.axes.values()))) if self.axes else math.nan

    @property
    def information(self) -> float:
        """The least K of all. Near 0 the measure says nothing that two hyperparameters do not say."""
        return min((k for k in self.informations if not math.isnan(k)), default=math.nan)

    @property
    def is_paradoxical(self) -> bool:
        """Whether the correlation overall and that within conditions have opposite signs for sure."""
        return (self.overall.low > 0 and self.within.high < 0) or (self.overall.high < 0 and self.within.low > 0)


def correlate(
    measure: Sequence[float],
    outcome: Sequence[float],
    *,
    configurations: Sequence[Any],
    factors: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[Any] | None = None,
    matched: Sequence[float] | None = None,
    tolerance: float = 0.01,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """How a measure of networks goes with an outcome; one entry a network in every argument.

    Parameters
    ----------
    measure, outcome : sequence of float
        Values; networks where either is not finite are left out.
    configurations : sequence
        Of each network what it was trained with: networks of one configuration differ by their seed alone.
        Intervals come from resampling whole configurations.
    factors : Mapping, optional
        Name of a hyperparameter -> its value for each network; those that vary count.
    seeds : sequence, optional
        Of each network the seed; networks that differ in one hyperparameter are compared at the same seed.
    matched : sequence of float, optional
        What networks must be alike in, such as training accuracy.
    tolerance : float
        How far apart two networks may be in it.
    confidence : float
        Of the intervals.
    seed : int
        Of the resampling.

    Returns
    -------
    Correlation

    Raises
    ------
    InputError
        Arguments of different lengths.

    Examples
    --------
    >>> found = correlate([1, 2, 3, 4], [4, 3, 2, 1], configurations=["a", "a", "b", "b"])
    >>> found.overall.value, found.within.value
    (-1.0, -1.0)
    """
    level = share("correlate", "confidence", confidence)
    given = {"measure": measure, "outcome": outcome, "configurations": configurations, **(factors or {})}
    given |= {"seeds": seeds} if seeds is not None else {}
    given |= {"matched": matched} if matched is not None else {}
    for name, column in given.items():
        if len(column) != len(measure):
            checks.fail("correlate", name, f"of {len(measure)} entries, one for each network", f"{len(column)}")
    x, y = np.asarray(measure, float), np.asarray(outcome, float)
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    of = codes(configurations)[there]
    same = of[:, None] == of[None, :]
    alike = np.zeros_like(same)
    if matched is not None:
        level_of = np.asarray(matched, float)[there]
        alike = np.abs(level_of[:, None] - level_of[None, :]) <= tolerance * (1 + 1e-9)
    signs = _signs(x), _signs(y)
    draws = _draws(of, seed)
    settings = {name: codes(column)[there] for name, column in (factors or {}).items()}
    settings = {name: column for name, column in settings.items() if len(set(column.tolist())) > 1}
    run = codes(seeds)[there] if seeds is not None else np.zeros(len(x), int)
    return Correlation(
        overall=_tau(signs, np.ones_like(same), same, draws, level),
        within=_tau(signs, same, same, draws, level),
        matched=_tau(signs, alike, same, draws, level),
        axes=granulated(x, y, settings, run),
        informations=information(signs, settings),
        networks=len(x),
        configurations=len(set(of.tolist())),
    )


def granulated(x: np.ndarray, y: np.ndarray, factors: Mapping[str, np.ndarray], seeds: np.ndarray) -> dict[str, float]:
    """Jiang's ψ: for each hyperparameter the mean of τ over networks that are alike in all others and in the seed."""
    axes = {}
    for name in factors:
        rest = np.stack([seeds, *(column for other, column in factors.items() if other != name)])
        _, group = np.unique(rest, axis=1, return_inverse=True)
        members = [np.flatnonzero(group.ravel() == g) for g in range(int(group.max(initial=-1)) + 1)]
        found = [stats.kendalltau(x[some], y[some]).statistic for some in members if _varies(x[some], y[some])]
        if found:
            axes[name] = float(np.mean(found))
    return axes


def information(signs: tuple[np.ndarray, np.ndarray], factors: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Jiang's K over sets of 0, 1 and 2 hyperparameters, of ordered pairs of networks that differ in the outcome and in
    the measure.
    """
    of_x, of_y = signs
    rows, columns = np.nonzero((of_x != 0) & (of_y != 0))
    v, g = (of_x[rows, columns] > 0).astype(int), (of_y[rows, columns] > 0).astype(int)
    return tuple(_least_information(v, g, rows, columns, factors, size) for size in range(3))


def _least_information(
    v: np.ndarray, g: np.ndarray, rows: np.ndarray, columns: np.ndarray, factors: Mapping[str, np.ndarray], size: int
) -> float:
    """The least of I(v; g | S) / H(g | S) over sets of so many hyperparameters; NaN where nothing is left to say."""
    found = []
    for names in itertools.combinations(factors, size) if len(rows) else ():
        known = np.zeros(len(rows), int)
        for column in (factors[n][i] for n in names for i in (rows, columns)):
            known = known * (int(column.max()) + 1) + column
        _, condition = np.unique(known, return_inverse=True)
        found.append(_normalised(condition, v, g))
    return min((k for k in found if not math.isnan(k)), default=math.nan)


def independent(factors: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Hyperparameters that can vary alone: settings of a part whose name varies are one with it, and so are settings
    that vary only together.

    Parameters
    ----------
    factors : Mapping
        Dotted name -> its value for each network.

    Examples
    --------
    >>> found = independent({"method.name": ["none", "sam"], "method.rho": [None, 0.05], "train.epochs": [1, 1]})
    >>> list(found), found["method"]
    (['method', 'train.epochs'], [('none', None), ('sam', 0.05)])
    """
    parts: dict[str, list[Sequence[Any]]] = {}
    for name, column in factors.items():
        part = name.rpartition(".")[0]
        parts.setdefault(part if f"{part}.name" in factors else name, []).append(column)
    merged = {name: list(zip(*columns, strict=True)) if len(columns) > 1 else list(columns[0])
              for name, columns in parts.items()}  # fmt: skip
    seen: dict[tuple[int, ...], str] = {}
    for name, column in merged.items():
        seen.setdefault(tuple(codes(column).tolist()), name)
    return {name: merged[name] for name in seen.values()}


def codes(values: Sequence[Any]) -> np.ndarray:
    """A whole number for each different value."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(repr(value), len(known)) for value in values], int)


def _normalised(condition: np.ndarray, v: np.ndarray, g: np.ndarray) -> float:
    """I(v; g | condition) / H(g | condition) of two bits; NaN where nothing is left to say of g."""
    counts = np.bincount(4 * condition + 2 * v + g, minlength=4 * (int(condition.max()) + 1)).reshape(-1, 2, 2)
    weight = counts.sum(axis=(1, 2)) / counts.sum()
    of_g, of_v, both = (stats.entropy(c, axis=1) for c in (counts.sum(1), counts.sum(2), counts.reshape(-1, 4)))
    uncertain = float(weight @ of_g)
    return max(float(weight @ (of_v + of_g - both)), 0.0) / uncertain if uncertain > 1e-12 else math.nan


def _signs(values: np.ndarray) -> np.ndarray:
    """Which of two networks has the larger value."""
    found: np.ndarray = np.sign(values[:, None] - values[None, :])
    return found


def _draws(of: np.ndarray, seed: int) -> np.ndarray:
    """(resamples, networks) how often each network's configuration was drawn."""
    count = len(set(of.tolist()))
    if count < 2:
        return np.zeros((0, len(of)))
    _, place = np.unique(of, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn[:, place].astype(float)


def _tau(
    signs: tuple[np.ndarray, np.ndarray], pairs: np.ndarray, same: np.ndarray, draws: np.ndarray, level: float
) -> Tau:
    """τ over some pairs, and the percentiles of what resampled configurations give.

    A configuration that is drawn twice counts as two: its own pairs count twice, those with another as often as both.
    """
    x, y = signs
    sums, resampled = [], []
    for product in (x * y, x * x, y * y):
        weights = np.where(pairs, product, 0.0)
        sums.append(float(weights.sum()))
        between, own = np.where(same, 0.0, weights), np.where(same, weights, 0.0).sum(axis=1)
        resampled.append(((draws @ between) * draws).sum(axis=1) + draws @ own)
    if not sums[1] * sums[2] > 0:
        return Tau(math.nan)
    top, *bottom = resampled
    scale = np.sqrt(bottom[0] * bottom[1])
    found = top[scale > 0] / scale[scale > 0]
    value = sums[0] / math.sqrt(sums[1] * sums[2])
    if len(found) < RESAMPLES / 2:
        return Tau(value)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Tau(value, float(low), float(high))


def _varies(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether there is a rank correlation to speak of."""
    return len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0

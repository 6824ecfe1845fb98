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
from scipy import special

from steppe.analysis.correlation.counts import RESAMPLES, Sums, count_pairs
from steppe.analysis.statistics.samples import numbers, share
from steppe.core import checks


class Tau(NamedTuple):
    """A rank correlation with its interval; NaN where there are no pairs, or too few configurations, to take it from.

    The interval is the wider, at each end, of two: percentiles where whole configurations are drawn anew, and Wilson's
    for as many independent pairs as there are facts. There is none where an exact test of so many configurations could
    not give a p at or below 1 − confidence either (see `smallest_p`): at 95 % below five configurations.
    """

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
        Intervals come from resampling whole configurations; below five there is none at 95 % (see `Tau`).
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
        Arguments that are no sequences of one length, or hold what is no number where numbers are expected.

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
        if not hasattr(column, "__len__") or isinstance(column, Mapping):
            checks.fail("correlate", name, "a sequence with an entry for each network", checks.shown(column))
        if len(column) != len(measure):
            checks.fail("correlate", name, f"of {len(measure)} entries, one for each network", f"{len(column)}")
    what = "a sequence of numbers, one for each network"
    x, y = (numbers("correlate", name, given[name], what, missing=True) for name in ("measure", "outcome"))
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    of = codes(configurations)[there]
    level_of = None if matched is None else numbers("correlate", "matched", matched, what, missing=True)[there]
    found = count_pairs(x, y, of, level_of, tolerance, seed)
    settings = {name: codes(column)[there] for name, column in (factors or {}).items()}
    settings = {name: column for name, column in settings.items() if len(set(column.tolist())) > 1}
    run = codes(seeds)[there] if seeds is not None else np.zeros(len(x), int)
    return Correlation(
        overall=_tau(found.overall, level),
        within=_tau(found.within, level),
        matched=_tau(found.matched, level),
        axes=granulated(x, y, settings, run),
        informations=information(found.answers, _of_configurations(settings, of)),
        networks=len(x),
        configurations=len(found.answers),
    )


def _of_configurations(factors: Mapping[str, np.ndarray], of: np.ndarray) -> dict[str, np.ndarray]:
    """The value of each hyperparameter for each configuration.

    Raises
    ------
    InputError : networks of one configuration that differ in one.
    """
    _, first, of = np.unique(of, return_index=True, return_inverse=True)
    found = {name: column[first] for name, column in factors.items()}
    for name, column in factors.items():
        if (found[name][of] != column).any():
            what = "the same for all networks of a configuration"
            checks.fail("correlate", f"the factor {name!r}", what, "several values")
    return found


def granulated(x: np.ndarray, y: np.ndarray, factors: Mapping[str, np.ndarray], seeds: np.ndarray) -> dict[str, float]:
    """Jiang's ψ: for each hyperparameter the mean of τ over networks that are alike in all others and in the seed."""
    axes = {}
    for name in factors:
        rest = np.stack([seeds, *(column for other, column in factors.items() if other != name)])
        found = _taus(x, y, np.unique(rest, axis=1, return_inverse=True)[1].ravel())
        if len(found):
            axes[name] = float(np.mean(found))
    return axes


def _taus(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Kendall's τ_b of each group in which both vary: every network against the next of its group, and so on."""
    order = np.argsort(group, kind="stable")
    x, y, group = x[order], y[order], group[order]
    sizes = np.bincount(group)
    sums = np.zeros((3, len(sizes)))
    for step in range(1, int(sizes.max(initial=0))):
        same = np.flatnonzero(group[step:] == group[:-step])
        of_x, of_y = (np.sign(values[same + step] - values[same]) for values in (x, y))
        for place, term in enumerate((of_x * of_y, of_x**2, of_y**2)):
            sums[place] += np.bincount(group[same], term, len(sizes))
    scale = np.sqrt(sums[1] * sums[2])
    taus: np.ndarray = sums[0, scale > 0] / scale[scale > 0]
    return taus


def information(answers: np.ndarray, factors: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Jiang's K over sets of 0, 1 and 2 hyperparameters, of ordered pairs of networks that differ in the outcome and in
    the measure.

    Parameters
    ----------
    answers : array
        See `counts.Counts`.
    factors : Mapping
        Hyperparameter -> its value for each configuration.
    """
    return tuple(_least_information(answers, factors, size) for size in range(3))


def _least_information(answers: np.ndarray, factors: Mapping[str, np.ndarray], size: int) -> float:
    """The least of I(v; g | S) / H(g | S) over sets of so many hyperparameters; NaN where nothing is left to say."""
    found = []
    for names in itertools.combinations(factors, size) if answers.any() else ():
        known = np.zeros(len(answers), int)
        for name in names:
            known = known * (int(factors[name].max()) + 1) + factors[name]
        found.append(_normalised(answers, known))
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


def _normalised(answers: np.ndarray, known: np.ndarray) -> float:
    """I(v; g | S) / H(g | S) of the two answers, where S is what is known of both configurations; NaN where nothing is
    left to say of g.
    """
    order = np.argsort(known, kind="stable")
    begins = np.flatnonzero(np.diff(known[order], prepend=-1))
    told = uncertain = total = 0.0
    for begin, end in itertools.pairwise([*begins.tolist(), len(order)]):
        row = answers[order[begin:end]].sum(axis=0, dtype=float)[order]
        counts = np.add.reduceat(row, begins, axis=0).reshape(-1, 2, 2)
        of_v, of_g = (_surprise(counts.sum(axis)) for axis in (2, 1))
        every = _surprise(counts.sum(axis=(1, 2))[:, None])
        told += float((every + _surprise(counts.reshape(-1, 4)) - of_v - of_g).sum())
        uncertain += float((every - of_g).sum())
        total += float(counts.sum())
    return max(told, 0.0) / uncertain if uncertain > 1e-12 * total else math.nan


def _surprise(counts: np.ndarray) -> np.ndarray:
    """Σ n log n over the last axis: n H = n log n − Σ nᵢ log nᵢ."""
    found: np.ndarray = special.xlogy(counts, counts).sum(axis=-1)
    return found


def _tau(sums: Sums, level: float) -> Tau:
    """τ over some pairs, and its interval: what resampled configurations give and Wilson's, whichever is wider."""
    if not sums.all[1] * sums.all[2] > 0:
        return Tau(math.nan)
    top, *bottom = sums.resampled
    scale = np.sqrt(bottom[0] * bottom[1])
    found = top[scale > 0] / scale[scale > 0]
    value = float(sums.all[0]) / math.sqrt(sums.all[1] * sums.all[2])
    if len(found) < RESAMPLES / 2 or not may_be_bounded(*_facts(sums), level):
        return Tau(value)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    least, most = _score_interval(value, *_facts(sums), level)
    return Tau(value, min(float(low), least), max(float(high), most))


def _facts(sums: Sums) -> tuple[int, int]:
    """How many configurations have a say, and how many pairs of them."""
    return int((sums.decided.any(axis=0) | sums.decided.any(axis=1)).sum()), int(sums.decided.sum())


def may_be_bounded(configurations: int, pairs: int, level: float) -> bool:
    """Whether there are enough of both for an interval of that level: an exact test could give a p as small."""
    return smallest_p(configurations, pairs) <= 1 - level + 1e-12  # 1 − level is rounded


def smallest_p(configurations: int, pairs: int) -> float:
    """The smallest p that an exact two-sided test of a rank correlation could give: max(2 / k!, 2 / 2ᵐ).

    A perfect order is one of k! orders of k configurations, and one of 2ᵐ answers of m pairs of them.

    Examples
    --------
    >>> round(smallest_p(4, 6), 3), round(smallest_p(5, 10), 3), smallest_p(5, 5)
    (0.083, 0.017, 0.0625)
    """
    return min(1.0, max(2 / math.factorial(min(configurations, 100)), 2.0 ** (1 - pairs)))


def _score_interval(tau: float, configurations: int, pairs: int, level: float) -> tuple[float, float]:
    """Wilson's (1927) interval of (1 + τ) / 2, the share of pairs that agree, among as many independent pairs as have
    the variance of τ between unrelated quantities, 2 (2k + 5) / (9k (k − 1)) for k configurations (Kendall 1938).

    It is wide where the bootstrap is not: resamples of a perfect order are all in perfect order.
    """
    k, share, z = configurations, (1 + tau) / 2, float(special.ndtri((1 + level) / 2))
    many = min(9 * k * (k - 1) / (2 * (2 * k + 5)), pairs)
    middle = (share + z * z / (2 * many)) / (1 + z * z / many)
    half = z / (1 + z * z / many) * math.sqrt(share * (1 - share) / many + (z / (2 * many)) ** 2)
    return 2 * (middle - half) - 1, min(2 * (middle + half) - 1, 1.0)

"""Several data sets as blocks: conditions ranked within each, and bootstraps that resample whole blocks."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from steppe.analysis.statistics.corrections import holm
from steppe.analysis.statistics.differences import EXACT
from steppe.analysis.statistics.intervals import BootstrapInterval
from steppe.analysis.statistics.samples import random, share
from steppe.core import checks


class RankComparison(NamedTuple):
    """Average ranks of conditions over data sets, and which of them cannot be told apart.

    Attributes
    ----------
    ranks : tuple of float
        The average rank of each condition, 1 for the highest values.
    p : float
        Friedman's: that no condition ranks higher than another.
    critical_difference : float
        Nemenyi's: two average ranks that lie further apart differ.
    groups : tuple of tuple of int
        The largest sets of conditions, two or more, within the critical difference of each other, in order of rank:
        the bars of Demšar's (2006) diagram.
    blocks : int
        How many data sets.
    nemenyi : tuple of tuple of float
        The p-value of every two conditions, for all pairs together (Nemenyi 1963).
    exact : bool
        Whether p is that of all ways to deal the ranks, and not of F.
    """

    ranks: tuple[float, ...]
    p: float
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]
    blocks: int
    nemenyi: tuple[tuple[float, ...], ...]
    exact: bool = False

    def against(self, reference: int) -> tuple[float, ...]:
        """The p-value of each condition against one of them, with Holm's correction over the others (Demšar 2006).

        Examples
        --------
        >>> found = friedman([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.6, 0.5], [0.9, 0.8, 0.6]])
        >>> [round(p, 3) for p in found.against(0)]
        [1.0, 0.157, 0.009]
        """
        count = len(self.ranks)
        error = math.sqrt(count * (count + 1) / (6 * self.blocks))
        others = [i for i in range(count) if i != reference]
        single = [float(2 * stats.norm.sf(abs(self.ranks[i] - self.ranks[reference]) / error)) for i in others]
        corrected = dict(zip(others, holm(single), strict=True))
        return tuple(float(corrected.get(i, 1.0)) for i in range(count))


def friedman(values: Any, *, confidence: float = 0.95, higher_is_better: bool = True) -> RankComparison:
    """Friedman's (1937) test over data sets with Nemenyi's critical difference q √(k (k + 1) / 6N).

    p is exact, over all ways to deal the ranks within data sets, where there are at most 200,000, (k!)ᴺ⁻¹: up to seven
    data sets of three conditions, or four of four. Beyond, Iman and Davenport's (1980) F is used, F = (N − 1) χ² /
    (N (k − 1) − χ²), with k − 1 and (k − 1)(N − 1) degrees of freedom; p is never below the smallest exact one.

    Parameters
    ----------
    values : array of shape (N, k)
        One row a data set (its mean over seeds), one column a condition.
    confidence : float
        1 − the level of the critical difference.
    higher_is_better : bool
        Whether rank 1 is that of the highest value.

    Returns
    -------
    RankComparison

    Raises
    ------
    InputError
        Fewer than two data sets or three conditions, or values that are not finite.

    Examples
    --------
    >>> found = friedman([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.6, 0.5], [0.9, 0.8, 0.6]])
    >>> found.ranks, round(found.critical_difference, 2), found.groups
    ((1.0, 2.0, 3.0), 1.66, ((0, 1), (1, 2)))
    """
    level = share("friedman", "confidence", confidence)
    table = _table(values)
    rows, columns = table.shape
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    average = ranks.mean(axis=0)
    exact = math.factorial(columns) ** (rows - 1) <= EXACT
    p = _p_of_all(ranks) if exact else _p_of_f(ranks)
    quantile = float(stats.studentized_range.ppf(level, columns, np.inf)) / math.sqrt(2)
    reach = quantile * math.sqrt(columns * (columns + 1) / (6 * rows))
    apart = np.abs(average[:, None] - average[None, :]) / math.sqrt(columns * (columns + 1) / (12 * rows))
    pairs = np.clip(stats.studentized_range.sf(apart, columns, np.inf), 0, 1)
    nemenyi = tuple(tuple(map(float, row)) for row in pairs)
    return RankComparison(tuple(map(float, average)), p, reach, _groups(average, reach), rows, nemenyi, exact)


def _p_of_all(ranks: np.ndarray) -> float:
    """The share of ways to deal the ranks within rows, the first as it is, whose rank sums are as far apart."""
    ways = np.array(list(itertools.permutations(range(ranks.shape[1]))))
    sums = ranks[:1]
    for row in ranks[1:]:
        sums = (sums[:, None] + row[ways][None]).reshape(-1, ranks.shape[1])
    apart = sums.var(axis=1)
    return float(np.mean(apart >= ranks.sum(axis=0).var() - 1e-9))  # ranks are multiples of ½


def _p_of_f(ranks: np.ndarray) -> float:
    """Iman and Davenport's p, at least that of rows which all rank alike."""
    rows, columns = ranks.shape
    middle = (columns + 1) / 2
    spread = float(((ranks - middle) ** 2).sum())
    if spread == 0:
        return 1.0  # every data set ties all conditions
    between = rows * float(((ranks.mean(axis=0) - middle) ** 2).sum())
    rest = spread - between
    freedom = (columns - 1, (columns - 1) * (rows - 1))
    p = float(stats.f.sf(between * freedom[1] / (rest * freedom[0]), *freedom)) if rest > 1e-12 * spread else 0.0
    logs = [special.gammaln(columns + 1) - special.gammaln(np.unique(row, return_counts=True)[1] + 1).sum()
            for row in ranks]  # fmt: skip
    return max(p, math.exp(max(logs) - sum(logs)))


def cluster_bootstrap(
    statistic: Callable[..., float],
    clusters: Sequence[Any],
    *columns: Any,
    confidence: float = 0.95,
    resamples: int = 1_999,
    seed: int = 0,
) -> BootstrapInterval:
    """Percentile interval of a statistic of rows, of which those of one cluster are drawn together.

    Rows of one cluster (seeds of one configuration, runs on one data set) are no independent facts: whole clusters are
    drawn with replacement. Resamples without a finite statistic are left out; where that of all rows is not finite,
    there is no interval.

    Parameters
    ----------
    statistic : callable
        Of the columns, arrays of the drawn rows; it gives a number.
    clusters : sequence
        Of each row the cluster.
    *columns : array
        What the statistic takes, one row each.
    confidence, resamples, seed
        As in `bootstrap`.

    Returns
    -------
    BootstrapInterval
        NaN with fewer than two clusters.

    Raises
    ------
    InputError
        Columns of other lengths than `clusters`.

    Examples
    --------
    >>> found = cluster_bootstrap(lambda x: x.mean(), ["a", "a", "b", "b", "c", "c"], [1, 1, 2, 2, 3, 3])
    >>> found.low, found.high
    (1.0, 3.0)
    """
    level, count = (
        share("cluster_bootstrap", "confidence", confidence),
        checks.whole("cluster_bootstrap", "resamples", resamples),
    )
    arrays = [np.asarray(column) for column in columns]
    try:
        known = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    except TypeError:
        checks.fail("cluster_bootstrap", "clusters", "a sequence of labels, one for each row", checks.shown(clusters))
    of = np.array([known[label] for label in clusters], int)
    if not arrays or any(a.ndim == 0 or len(a) != len(of) for a in arrays):
        checks.fail("cluster_bootstrap", "columns", f"of {len(of)} rows, as clusters", "others")
    rng = random("cluster_bootstrap", seed)
    if len(known) < 2:
        return BootstrapInterval(math.nan, math.nan, "too few")
    try:
        point = float(statistic(*arrays))
    except (TypeError, ValueError) as error:
        what = "a function of the columns that gives a number"
        checks.fail("cluster_bootstrap", "statistic", what, f"{type(error).__name__}: {error}")
    if not math.isfinite(point):
        return BootstrapInterval(math.nan, math.nan, "percentile")
    rows = [np.flatnonzero(of == i) for i in range(len(known))]
    found = []
    for _ in range(count):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        found.append(float(statistic(*(a[drawn] for a in arrays))))
    finite = np.array(found)[np.isfinite(found)]
    if not finite.size:
        return BootstrapInterval(math.nan, math.nan, "percentile")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(float(low), float(high), "percentile")


def _table(values: Any) -> np.ndarray:
    try:
        table = np.asarray(values)
        table = table.astype(float, casting="unsafe" if table.dtype.kind == "O" else "same_kind")
    except (TypeError, ValueError, OverflowError):
        checks.fail("friedman", "values", "an array of data sets × conditions", checks.shown(values))
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        shape = " × ".join(map(str, table.shape)) or "a number"
        checks.fail("friedman", "values", "of two data sets × three conditions or more", shape,
                    "Compare two conditions with judge.")  # fmt: skip
    if not np.isfinite(table).all():
        checks.fail("friedman", "values", "finite", float(table[~np.isfinite(table)][0]),
                    "Leave out data sets that lack a condition.")  # fmt: skip
    return table


def _groups(ranks: np.ndarray, reach: float) -> tuple[tuple[int, ...], ...]:
    """Maximal sets of two or more neighbours in rank, the first and last of which are at most `reach` apart."""
    order = [int(i) for i in np.argsort(ranks, kind="stable")]
    found: list[tuple[int, ...]] = []
    last = -1
    for start in range(len(order)):
        end = max(i for i in range(start, len(order)) if ranks[order[i]] - ranks[order[start]] <= reach)
        if end > max(last, start):
            found.append(tuple(order[start : end + 1]))
            last = end
    return tuple(found)

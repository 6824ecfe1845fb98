"""Tests of a difference between two samples: Student's, by ranks, and by permutation.

Nothing here returns a silent NaN: what cannot be tested carries the reason in its `PValue.status`.
"""

import functools
import itertools
import math
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from steppe.analysis.statistics.samples import RESOLUTION, Pairs, Summary, random, unit
from steppe.core import checks

Status = Literal["tested", "identical", "no spread", "too few", "bounds", "no margin", "unpaired"]
"""Why a p-value is what it is.

``"tested"``: it comes from the test. ``"identical"``: nothing differs, p = 1 by convention. ``"no spread"``: the values
do not vary, so that the test is undefined. ``"too few"``: there are not two values to take a spread from. ``"bounds"``:
some value is only a bound, so that its sample has no known mean. ``"no margin"``: nobody said which differences matter.
"""

Alternative = Literal["two-sided", "greater", "less"]
"""What is tested for: any difference, a positive one, or a negative one."""

ALTERNATIVES: tuple[Alternative, ...] = ("two-sided", "greater", "less")

EXACT = 200_000
"""Up to so many rearrangements are all looked at: 10 values against 10, or 17 pairs."""

UNTIED = 100
"""Up to so many values without ties SciPy knows the distribution of the rank sum without looking at all."""

DRAWN = 9_999
"""How many are drawn where there are more; p is then no smaller than 1 in 10,000."""


class PValue(NamedTuple):
    """A test's p, p after correction in its family (NaN before it), and whether it could be done at all."""

    p: float
    status: Status
    corrected: float = math.nan

    @property
    def decisive(self) -> float:
        """The p that decides: the corrected one where the test stands in a family; NaN where there is none."""
        return self.p if math.isnan(self.corrected) else self.corrected


def welch_error(x: Summary, y: Summary) -> tuple[float, float]:
    """The standard error of the difference of means, and its degrees of freedom; no square of either underflows."""
    a, b = x.sd / math.sqrt(x.count), y.sd / math.sqrt(y.count)
    error = math.hypot(a, b)
    share = (a / error) ** 2
    return error, 1 / (share**2 / (x.count - 1) + (1 - share) ** 2 / (y.count - 1))


def without_spread(difference: float, scale: float) -> PValue:
    """Neither side varies: either all is equal, or the test is undefined."""
    return PValue(1.0, "identical") if abs(difference) <= RESOLUTION * scale else PValue(math.nan, "no spread")


def welch(x: Summary, y: Summary, alternative: Alternative = "two-sided") -> PValue:
    """Welch's (1947) t-test: t = (ȳ − x̄) / √(s²ₓ/n + s²ᵧ/m), with Welch and Satterthwaite's degrees of freedom."""
    if min(x.count, y.count) < 2:
        return PValue(math.nan, "too few")
    if x.sd == y.sd == 0:
        return without_spread(y.mean - x.mean, max(abs(x.mean), abs(y.mean)))
    error, freedom = welch_error(x, y)
    return PValue(_tail((y.mean - x.mean) / error, freedom, alternative), "tested")


def paired(pairs: Pairs, alternative: Alternative = "two-sided") -> PValue:
    """The t-test on differences of common seeds: t = d̄ / (s_d / √k)."""
    count = len(pairs.differences)
    if count < 2:
        return PValue(math.nan, "too few")
    if pairs.sd == 0:
        return without_spread(pairs.mean, pairs.scale)
    t = pairs.mean / (pairs.sd / math.sqrt(count))
    return PValue(_tail(t, count - 1, alternative), "tested")


def mann_whitney(x: np.ndarray, y: np.ndarray, alternative: Alternative = "two-sided") -> PValue:
    """The rank-sum test of Wilcoxon, Mann and Whitney: whether values of y tend to be above those of x.

    Exact up to 100 values without ties, and with ties over all ways to deal the ranks where there are at most `EXACT`;
    otherwise asymptotic.
    """
    if min(len(x), len(y)) < 2:
        return PValue(math.nan, "too few")
    x, y = _level(x, y)
    if np.ptp(np.concatenate([x, y])) == 0:
        return PValue(1.0, "identical")
    ranks = stats.rankdata(np.concatenate([x, y]))
    ties = len(np.unique(ranks)) < len(ranks)
    if (len(ranks) <= UNTIED and not ties) or math.comb(len(ranks), len(x)) > EXACT:
        method = "asymptotic" if ties or len(ranks) > UNTIED else "exact"
        return PValue(float(stats.mannwhitneyu(y, x, alternative=alternative, method=method).pvalue), "tested")
    return PValue(_permuted(ranks[: len(x)], ranks[len(x) :], alternative), "tested")


def wilcoxon(pairs: Pairs, alternative: Alternative = "two-sided") -> PValue:
    """Wilcoxon's signed-rank test of differences of common seeds; differences of 0 are left out, as he did.

    Exact over all signs, ties included, where there are at most `EXACT`; otherwise asymptotic.
    """
    if len(pairs.differences) < 2:
        return PValue(math.nan, "too few")
    differences = pairs.rounded[pairs.rounded != 0]
    if not len(differences):
        return PValue(1.0, "identical")
    if 2 ** len(differences) > EXACT:
        return PValue(float(stats.wilcoxon(differences, alternative=alternative).pvalue), "tested")
    ranks = stats.rankdata(_merged(np.abs(differences), RESOLUTION * pairs.scale)) * np.sign(differences)
    return PValue(_flipped(ranks, alternative), "tested")


def permutation(x: np.ndarray, y: np.ndarray, alternative: Alternative = "two-sided", *, seed: int = 0) -> PValue:
    """Whether the difference of means is one that relabelling gives: all labels are equally likely if none matters.

    Exact where there are at most `EXACT` ways to deal the values, from 9,999 drawn ones with `seed` otherwise. What is
    tested is that both come from one distribution, so that a difference in spread counts, too.
    """
    if min(len(x), len(y)) < 2:
        return PValue(math.nan, "too few")
    x, y = _level(x, y)
    if np.ptp(np.concatenate([x, y])) == 0:
        return PValue(1.0, "identical")
    return PValue(_permuted(x, y, alternative, seed), "tested")


def sign_flips(pairs: Pairs, alternative: Alternative = "two-sided", *, seed: int = 0) -> PValue:
    """Whether the mean difference of common seeds is one that swapping the two runs of a seed gives.

    Exact where there are at most `EXACT` ways to swap them, from 9,999 drawn ones with `seed` otherwise.
    """
    if len(pairs.differences) < 2:
        return PValue(math.nan, "too few")
    if not pairs.rounded.any():
        return PValue(1.0, "identical")
    return PValue(_flipped(pairs.rounded, alternative, seed), "tested")


def smallest_p(x: int, y: int, *, pairs: bool, two_sided: bool = True) -> float:
    """The smallest p that tests by ranks and by permutation can give, whatever the data: 1 over the number of labels.

    Doubled for a two-sided test. Where that is above the level, so few seeds show nothing however far apart they are.

    Parameters
    ----------
    x, y : int
        How many values; of pairs `y` counts.
    pairs : bool
        Whether the two runs of a seed are swapped, 2^y labels, or values are dealt anew, (x + y choose x).
    two_sided : bool
        Whether a difference in either direction counts.

    Examples
    --------
    >>> smallest_p(3, 3, pairs=True), smallest_p(3, 3, pairs=False), smallest_p(6, 6, pairs=True)
    (0.25, 0.1, 0.03125)
    """
    checks.whole("smallest_p", "x", x)
    checks.whole("smallest_p", "y", y)
    labels = 2**y if pairs else math.comb(x + y, x)
    return min((1 + two_sided) / labels, 1.0)


def _tail(t: float, freedom: float, alternative: Alternative) -> float:
    """The p of a value of Student's t."""
    match alternative:
        case "greater":
            return float(stats.t.sf(t, freedom))
        case "less":
            return float(stats.t.cdf(t, freedom))
    return float(2 * stats.t.sf(abs(t), freedom))


def _permuted(x: np.ndarray, y: np.ndarray, alternative: Alternative, seed: int = 0) -> float:
    """The share of ways to deal the values whose difference of means is as large."""
    both, count = np.concatenate([x, y]), len(y)
    if math.comb(len(both), count) <= EXACT:
        sums = both[_choices(len(both), count)].sum(axis=1)
        return _share(sums, float(y.sum()), alternative)
    found = stats.permutation_test(
        (y, x),
        lambda first, second, axis: first.mean(axis) - second.mean(axis),
        vectorized=True,
        alternative=alternative,
        n_resamples=DRAWN,
        rng=random("judge", seed),
    )
    return float(found.pvalue)


def _flipped(values: np.ndarray, alternative: Alternative, seed: int = 0) -> float:
    """The share of signs of some values whose sum is as large."""
    if 2 ** len(values) <= EXACT:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
        return _share(signs @ values, float(values.sum()), alternative)
    signs = 2.0 * random("judge", seed).integers(2, size=(DRAWN, len(values))) - 1
    return _share(np.append(signs @ values, values.sum()), float(values.sum()), alternative)


@functools.lru_cache(maxsize=8)
def _choices(total: int, count: int) -> np.ndarray:
    """All ways to choose so many of so many, one a row."""
    ways = math.comb(total, count)
    flat = itertools.chain.from_iterable(itertools.combinations(range(total), count))
    return np.fromiter(flat, np.intp, ways * count).reshape(ways, count)


def _share(sums: np.ndarray, observed: float, alternative: Alternative) -> float:
    """The share of sums beyond the observed one, which is among them; twice the smaller tail where both sides count."""
    slack = 1e-12 * float(np.max(np.abs(sums)))  # equal sums differ by the order of their terms
    above, below = float(np.mean(sums >= observed - slack)), float(np.mean(sums <= observed + slack))
    return {"greater": above, "less": below, "two-sided": min(2 * min(above, below), 1.0)}[alternative]


def _level(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two samples from which their common mean is taken, in a unit of their size; what differs by rounding is equal."""
    both = np.concatenate([x, y])
    scaled = both / unit(both)
    level = _merged(scaled - np.mean(scaled), RESOLUTION * float(np.max(np.abs(scaled))))
    return level[: len(x)], level[len(x) :]


def _merged(values: np.ndarray, width: float) -> np.ndarray:
    """Values of which those that follow each other within `width` are the same."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.concatenate([[True], np.diff(ordered) > width])
    found = np.empty_like(values)
    found[order] = ordered[starts][np.cumsum(starts) - 1]
    return found

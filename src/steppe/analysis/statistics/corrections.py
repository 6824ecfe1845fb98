"""Corrections of several p-values; NaN marks a test that was not done, stays NaN, and does not count."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from steppe.analysis.statistics.samples import numbers
from steppe.core import checks


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's (1979) step-down correction: p₍ᵢ₎ becomes max over j ≤ i of (m − j + 1) p₍ⱼ₎, at most 1.

    Rejecting where the result is at most α keeps the chance of any false rejection at α, whatever the dependence
    between the tests (they share a baseline). NaN marks a test that was not done; it stays NaN, and m leaves it out.

    Examples
    --------
    >>> holm([0.01, 0.04, float("nan")])
    array([0.02, 0.04,  nan])
    """
    raw = _shares("holm", p_values)
    corrected = np.full(raw.shape, np.nan)
    order = np.argsort(raw, kind="stable")[: np.count_nonzero(~np.isnan(raw))]  # NaN sorts last
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * raw[order]), 1.0)
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's (1995) step-up correction: p₍ᵢ₎ becomes min over j ≥ i of m p₍ⱼ₎ / j.

    Keeps the expected share of false ones among all rejections at α, where tests are independent or depend positively.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, float("nan")])
    array([0.02, 0.04,  nan])
    """
    return _discoveries("benjamini_hochberg", p_values, "bh")


def benjamini_yekutieli(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini and Yekutieli's (2001): Benjamini and Hochberg's times 1 + 1/2 + … + 1/m, under any dependence.

    Examples
    --------
    >>> benjamini_yekutieli([0.01, 0.04])
    array([0.03, 0.06])
    """
    return _discoveries("benjamini_yekutieli", p_values, "by")


CORRECTIONS: dict[str, Callable[[Sequence[float]], np.ndarray]] = {
    "holm": holm,
    "benjamini_hochberg": benjamini_hochberg,
    "benjamini_yekutieli": benjamini_yekutieli,
}
"""Corrections by their names in a study."""


def strictest(correction: str, count: int) -> float:
    """What the smallest of `count` p-values is multiplied by where all others are 1.

    Examples
    --------
    >>> [round(strictest(name, 3), 6) for name in ("holm", "benjamini_hochberg", "benjamini_yekutieli")]
    [3.0, 3.0, 5.5]
    """
    tiny = 1e-12
    return float(CORRECTIONS[correction]([tiny, *[1.0] * (count - 1)])[0]) / tiny


def _discoveries(function: str, p_values: Sequence[float], method: str) -> np.ndarray:
    """SciPy's correction of what is not NaN."""
    raw = _shares(function, p_values)
    done = ~np.isnan(raw)
    corrected = np.full(raw.shape, np.nan)
    if done.any():
        corrected[done] = stats.false_discovery_control(raw[done], method=method)
    return corrected


def _shares(function: str, p_values: Sequence[float]) -> np.ndarray:
    """p-values as an array."""
    raw = numbers(function, "p_values", p_values, "a sequence of numbers", missing=True)
    wrong = raw[(raw < 0) | (raw > 1)]
    if wrong.size:
        checks.fail(function, "p_values", "between 0 and 1", float(wrong[0]))
    return raw

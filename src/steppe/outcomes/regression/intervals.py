"""Whether intervals that are predicted for real targets hold what they promise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from steppe.core import checks
from steppe.outcomes.forecasts import as_matrix

LEVELS = tuple(k / 20 for k in range(1, 20))
"""Of the intervals whose coverage is looked at: 5 % to 95 %."""


class IntervalCalibration(NamedTuple):
    """How often targets lie in central intervals, one number a level.

    Attributes
    ----------
    level : np.ndarray
        What an interval promises.
    coverage : np.ndarray
        The share of the targets that lie in it.
    lower, upper : np.ndarray
        Wilson's interval of that share, at 95 %.
    """

    level: np.ndarray
    coverage: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def error(self) -> float:
        """The mean of |coverage − level| over the levels."""
        return float(np.mean(np.abs(self.coverage - self.level)))


def normal_interval(mean: Any, scale: Any, *, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The central intervals of normal distributions, μ ∓ σ Φ⁻¹(½ + level/2).

    Parameters
    ----------
    mean, scale : array
        (N,) or (N, K): μ, and σ > 0.
    level : float
        Between 0 and 1.

    Returns
    -------
    tuple of np.ndarray
        Lower and upper ends, of that shape.

    Raises
    ------
    InputError
        Arrays of different or other shapes; a scale that is not positive; a level out of range.

    Examples
    --------
    >>> normal_interval([0.0], [2.0], level=0.5)
    (array([-1.34...]), array([1.34...]))
    """
    both = _arrays("normal_interval", mean=mean, scale=scale)
    _check_scale("normal_interval", both[1])
    away = both[1] * stats.norm.ppf(0.5 + _level("normal_interval", level) / 2)
    lower, upper = both[0] - away, both[0] + away
    return (lower[:, 0], upper[:, 0]) if np.ndim(mean) == 1 else (lower, upper)


def interval_coverage(lower: Any, upper: Any, targets: Any) -> float:
    """The share of targets within their intervals, ends included.

    Parameters
    ----------
    lower, upper, targets : array
        (N,) or (N, K).

    Returns
    -------
    float
        Of all N K numbers.

    Raises
    ------
    InputError
        Arrays of different or other shapes, or that are not finite; a lower end above its upper end.

    Examples
    --------
    >>> interval_coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    0.5
    """
    low, high, y = _ends("interval_coverage", lower, upper, targets)
    return float(np.mean((low <= y) & (y <= high)))


def interval_score(lower: Any, upper: Any, targets: Any, *, level: float = 0.95) -> float:
    """The interval score: how wide intervals are, and how far targets lie outside; lower is better.

        (u − l) + 2/α · (l − y)₊ + 2/α · (y − u)₊,     α = 1 − level

    Parameters
    ----------
    lower, upper, targets : array
        (N,) or (N, K).
    level : float
        What the intervals promise.

    Returns
    -------
    float
        The mean over all N K numbers, in the units of the targets.

    Raises
    ------
    InputError
        As `interval_coverage`; a level out of range.

    Notes
    -----
    Gneiting and Raftery 2007, equation 43. Proper: in the mean it is lowest for the true quantiles α/2 and 1 − α/2.

    Examples
    --------
    >>> interval_score([0.0, 0.0], [1.0, 1.0], [0.5, 2.0], level=0.5)
    3.0
    """
    low, high, y = _ends("interval_score", lower, upper, targets)
    alpha = 1 - _level("interval_score", level)
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return float(np.mean(high - low + 2 / alpha * outside))


def interval_calibration(
    mean: Any, scale: Any, targets: Any, *, levels: Sequence[float] = LEVELS
) -> IntervalCalibration:
    """How often targets lie in the central intervals of the normal distributions that are predicted, level by level.

    Parameters
    ----------
    mean, scale, targets : array
        (N,) or (N, K): μ, σ > 0, and y.
    levels : sequence of float
        Of the intervals, each between 0 and 1.

    Returns
    -------
    IntervalCalibration
        Its `error` is the mean of |coverage − level|. Of N K targets that follow the forecasts it is above 0 by chance,
        about 0.33/√(N K) for the levels by default.

    Raises
    ------
    InputError
        Arrays of different or other shapes, or that are not finite; a scale that is not positive; levels out of range.

    Notes
    -----
    Kuleshov, Fenner and Ermon 2018, of central intervals instead of quantiles: a forecast that is off to one side may
    be calibrated in its intervals.

    Examples
    --------
    >>> found = interval_calibration([0.0, 0.0], [1.0, 1.0], [0.1, 3.0], levels=[0.5, 0.9])
    >>> found.coverage.tolist(), round(found.error, 3)
    ([0.5, 0.5], 0.2)
    """
    mu, sigma, y = _arrays("interval_calibration", mean=mean, scale=scale, targets=targets)
    _check_scale("interval_calibration", sigma)
    if not isinstance(levels, Sequence | np.ndarray) or not len(levels):
        checks.fail("interval_calibration", "levels", "a list of numbers between 0 and 1", checks.shown(levels))
    level = np.array([_level("interval_calibration", one) for one in levels])
    within = np.sort(2 * stats.norm.cdf(np.abs(y - mu) / sigma) - 1, axis=None)  # the least level that holds a target
    inside = np.searchsorted(within, level, side="right")
    ends = [stats.binomtest(int(k), within.size).proportion_ci(method="wilson") for k in inside]
    lower, upper = (np.array(part) for part in zip(*ends, strict=True))
    return IntervalCalibration(level, inside / within.size, lower, upper)


def _level(function: str, level: Any) -> float:
    found = float(checks.real(function, "level", level))
    if not 0 < found < 1:
        checks.fail(function, "level", "between 0 and 1", level)
    return found


def _check_scale(function: str, scale: np.ndarray) -> None:
    if not scale.min() > 0:
        checks.fail(function, "scale", "positive", f"{scale.min():g}")


def _ends(function: str, lower: Any, upper: Any, targets: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, y = _arrays(function, lower=lower, upper=upper, targets=targets)
    if (low > high).any():
        checks.fail(function, "lower", "at most upper", f"{low[low > high][0]:g} above {high[low > high][0]:g}")
    return low, high, y


def _arrays(function: str, **given: Any) -> list[np.ndarray]:
    """Arrays of one shape, (N, K), in float64."""
    found = [as_matrix(function, name, np.asarray(v)[:, None] if np.ndim(v) == 1 else v) for name, v in given.items()]
    for name, one in zip(given, found, strict=True):
        if one.shape != found[0].shape:
            checks.fail(function, name, f"of shape {found[0].shape}, as {next(iter(given))}", f"{one.shape}")
    return found

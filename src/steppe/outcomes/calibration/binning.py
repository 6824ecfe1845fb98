"""Calibration in bins: whether predictions made with a confidence of 90 % are right in 90 % of all cases."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy import stats

from steppe.core import checks
from steppe.outcomes.forecasts import TopLabel, forecasts, top_label

Binning = Literal["width", "mass"]

BINNINGS = get_args(Binning)

NORMS = (1, 2, math.inf)

Event = tuple[np.ndarray, np.ndarray]
"""Forecasts of an event, (N,), and whether it came."""


class Bins(NamedTuple):
    """Forecasts gathered by their size, those bins that hold some.

    Attributes
    ----------
    count : np.ndarray
        Forecasts in each.
    forecast : np.ndarray
        Their mean.
    frequency : np.ndarray
        How often what was forecast is so.
    """

    count: np.ndarray  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    forecast: np.ndarray
    frequency: np.ndarray


class Reliability(NamedTuple):
    """A reliability diagram as data: one number a bin, of the bins that hold examples.

    Attributes
    ----------
    left, right : np.ndarray
        The smallest and the largest confidence that could lie in the bin, for bins of one width; that do lie there, for
        bins of one mass.
    count : np.ndarray
        Examples in it.
    confidence : np.ndarray
        Their mean confidence.
    accuracy : np.ndarray
        The share of them that is predicted right.
    lower, upper : np.ndarray
        Wilson's interval of the accuracy.
    """

    left: np.ndarray
    right: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    confidence: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def calibration_error(
    probabilities: Any,
    labels: Any,
    *,
    bins: int = 15,
    norm: float = 1,
    binning: Binning = "width",
    classwise: bool = False,
    debiased: bool = False,
) -> float:
    """The expected calibration error, and its kin: how far confidences are from how often predictions are right.

        ECE_p = ( Σ_b (n_b / N) |accuracy_b − confidence_b|^p )^(1/p),     ECE_∞ = max_b |accuracy_b − confidence_b|

    over bins b of the confidence, the probability of the predicted class. Empty bins count for nothing.

    Parameters
    ----------
    probabilities : array
        (N, K), rows that sum to 1; or (N,), those of the second of two classes. Of any library.
    labels : array
        (N,) whole numbers from 0 to K − 1.
    bins : int
        Their number B.
    norm : {1, 2, inf}
        p: 1 is the expected calibration error, 2 its root mean square, inf the maximum calibration error.
    binning : {"width", "mass"}
        Whether bins are of equal width, ((b − 1)/B, b/B], the first one with its left end, or of equal mass: bin b ends
        with the ⌊bN/B⌋-th smallest confidence, so that their sizes are ⌊N/B⌋ or ⌈N/B⌉ (`numpy.array_split` has the
        same sizes, the larger ones first). Equal confidences are never parted: they all lie in the first bin that one
        of them would lie in, and sizes differ more where there are ties.
    classwise : bool
        Whether all probabilities count and not the largest alone: for each class k its p_k are binned against how often
        it is the label; the result is the power mean over classes, (1/K Σ_k ECE_k^p)^(1/p), or the largest for p = ∞.
    debiased : bool
        Whether the part that chance adds is taken off, bin by bin; of the norms 1 and 2. See Notes.

    Returns
    -------
    float
        From 0 to 1. Cost: a sort.

    Raises
    ------
    InputError
        Probabilities outside [0, 1], NaN, or of rows that do not sum to 1; labels that are no classes; no example at
        all; an unknown setting.

    Notes
    -----
    Naeini et al. 2015; Guo et al. 2017. Of classes: Kull et al. 2019. A forecaster that is calibrated has an error
    above 0 by chance, about Σ_b (n_b/N) (2 c_b (1 − c_b)/(π n_b))^½ for p = 1. Of the square, Σ_b (n_b/N)
    a_b (1 − a_b)/(n_b − 1) is an unbiased estimate of what chance adds (Kumar et al. 2019), and a bin of one example
    counts for nothing; the square is set to 0 where it is below. For p = 1 what is taken off is
    E|X| − |a_b − c_b|, X normal with mean a_b − c_b and variance a_b (1 − a_b)/n_b; some bias stays, since a_b stands
    for the true frequency.

    Examples
    --------
    >>> round(calibration_error([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.2]], [0, 1, 0, 1]), 4)
    0.05
    >>> calibration_error([[1.0, 0.0], [1.0, 0.0]], [1, 0])
    0.5
    """
    p, y = forecasts("calibration_error", probabilities, labels)
    checks.one_of("calibration_error", "classwise", classwise, (True, False))
    events: Sequence[Event] = [(p[:, k], y == k) for k in range(p.shape[1])] if classwise else [top_label(p, y)]
    return event_error(events, bins=bins, norm=norm, binning=binning, debiased=debiased)


def event_error(
    events: Sequence[Event],
    *,
    bins: int = 15,
    norm: float = 1,
    binning: Binning = "width",
    debiased: bool = False,
) -> float:
    """The calibration error of forecasts of events, (forecast, outcome) each: their power mean."""
    check_binning("calibration_error", bins, binning)
    checks.one_of("calibration_error", "debiased", debiased, (True, False))
    if isinstance(norm, bool) or norm not in NORMS:
        checks.fail("calibration_error", "norm", "1, 2 or math.inf", norm)
    if debiased and norm == math.inf:
        checks.fail("calibration_error", "debiased", "False for the largest error of a bin", True, "Take norm 1 or 2.")
    powers = np.array([_power(gather(*event, bins, binning), norm, debiased=debiased) for event in events])
    return float(powers.max() if norm == math.inf else max(powers.mean(), 0.0) ** (1 / norm))


def reliability(
    probabilities: Any, labels: Any, *, bins: int = 15, binning: Binning = "width", confidence: float = 0.95
) -> Reliability:
    """A reliability diagram as data: for each bin of the confidence, how often its predictions are right.

    Parameters
    ----------
    probabilities, labels, bins, binning
        See `calibration_error`.
    confidence : float
        Of the intervals, between 0 and 1.

    Returns
    -------
    Reliability
        Arrays of one number for each bin that holds examples. `sum(count · |accuracy − confidence|) / N` is the
        calibration error.

    Raises
    ------
    InputError
        As `calibration_error`; a confidence outside (0, 1).

    Examples
    --------
    >>> found = reliability([[0.7, 0.3], [0.7, 0.3], [0.1, 0.9]], [0, 1, 1], bins=10)
    >>> found.left.round(1).tolist(), found.count.tolist(), found.accuracy.tolist(), found.lower.round(2).tolist()
    ([0.6, 0.8], [2, 1], [0.5, 1.0], [0.09, 0.21])
    """
    top = top_label(*forecasts("reliability", probabilities, labels))
    check_binning("reliability", bins, binning)
    checks.positive("reliability", "confidence", checks.real("reliability", "confidence", confidence, most=1 - 1e-12))
    return diagram(top, bins, binning, confidence)


def diagram(top: TopLabel, bins: int, binning: Binning, confidence: float = 0.95) -> Reliability:
    """The reliability diagram of predictions; see `reliability`."""
    found, place = gather(*top, bins, binning), _places(top.confidence, bins, binning)
    left, right = np.unique(place) / bins, (np.unique(place) + 1) / bins
    if binning == "mass":
        inside = [top.confidence[place == b] for b in np.unique(place)]
        left, right = (np.array([end(part) for part in inside]) for end in (np.min, np.max))
    wins = np.rint(found.frequency * found.count).astype(int)
    tests = (stats.binomtest(int(k), int(n)) for k, n in zip(wins, found.count, strict=True))
    lower, upper = np.array([tuple(test.proportion_ci(confidence, method="wilson")) for test in tests]).T
    return Reliability(left, right, found.count, found.forecast, found.frequency, lower, upper)


def check_binning(function: str, bins: int, binning: Binning) -> None:
    """Fail for a number of bins or a rule that is none."""
    checks.whole(function, "bins", bins)
    checks.one_of(function, "binning", binning, BINNINGS)


def gather(forecast: np.ndarray, outcome: np.ndarray, bins: int, binning: Binning) -> Bins:
    """The bins that hold forecasts."""
    place = _places(forecast, bins, binning)
    count = np.bincount(place, minlength=bins)
    there = count > 0
    mean = lambda values: np.bincount(place, values, minlength=bins)[there] / count[there]  # noqa: E731
    return Bins(count[there], mean(forecast), mean(outcome.astype(np.float64)))


def _places(forecast: np.ndarray, bins: int, binning: Binning) -> np.ndarray:
    """The bin of each forecast. A forecast at an edge lies in the bin to its left."""
    if binning == "width":
        edges = _rounded_alike(np.arange(1, bins) / bins, forecast)
    else:
        last = np.arange(1, bins) * len(forecast) // bins - 1  # the last example of each bin but the last one
        edges = np.sort(forecast)[last[last >= 0]]
    return np.searchsorted(edges, forecast, side="left")


def _rounded_alike(edges: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Edges in the precision of the forecasts: 0.4 of float32 is above 0.4 of float64, and lies at the edge 0.4."""
    coarser = (dtype for dtype in (np.float16, np.float32) if np.array_equal(forecast.astype(dtype), forecast))
    return edges.astype(next(coarser, np.float64)).astype(np.float64)


def _power(bins: Bins, norm: float, *, debiased: bool) -> float:
    """The norm's power of the calibration error, before its root."""
    gap, share = np.abs(bins.frequency - bins.forecast), bins.count / bins.count.sum()
    if norm == math.inf:
        return float(gap.max())
    if not debiased:
        return float(share @ gap**norm)
    chance = bins.frequency * (1 - bins.frequency)
    if norm == 2:
        several = bins.count > 1
        return float(share[several] @ (gap**2 - chance / np.maximum(bins.count - 1, 1))[several])
    spread = np.sqrt(chance / bins.count)
    expected = np.where(spread > 0, stats.foldnorm.mean(gap / np.where(spread > 0, spread, 1)) * spread, gap)
    return float(share @ (2 * gap - expected))

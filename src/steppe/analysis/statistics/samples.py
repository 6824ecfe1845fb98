"""Samples over seeds: checked, summarised, and compared with rounding in float32."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from steppe.core import checks

RESOLUTION = 4 * float(np.finfo(np.float32).eps)
"""Spread below this share of the largest value is rounding: what is compared was computed in float32."""


class Summary(NamedTuple):
    """What `count` values say about their mean: it, their standard deviation, and the interval [low, high] for it."""

    count: int  # type: ignore[assignment]  # a tuple's method of that name is not used
    mean: float
    sd: float
    low: float
    high: float


def summary(values: Iterable[float], *, confidence: float = 0.95) -> Summary:
    """Mean, standard deviation and Student's interval for the mean: x̄ ± t₍ₙ₋₁₎ s / √n.

    s has n − 1 in its denominator. One value has a mean and no known spread (NaN); no values have neither.
    Values that differ by less than float32 can tell apart count as equal, with s = 0.

    Raises
    ------
    InputError
        If a value is not finite (leave such runs out, and say so) or `confidence` is not within (0, 1).

    Examples
    --------
    >>> s = summary([0.90, 0.92, 0.94])
    >>> s.count, round(s.mean, 2), round(s.sd, 2), round(s.low, 3), round(s.high, 3)
    (3, 0.92, 0.02, 0.87, 0.97)
    """
    known = sample("summary", values)
    level = share("summary", "confidence", confidence)
    if known.size == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    center = mean(known)
    if known.size == 1:
        return Summary(1, center, math.nan, math.nan, math.nan)
    sd = deviation(known)
    half = student_quantile(level, known.size - 1) * sd / math.sqrt(known.size)
    return Summary(known.size, center, sd, center - half, center + half)


def pooled_sd(summaries: Iterable[Summary]) -> float:
    """One spread for several samples: √(Σ (nᵢ − 1) sᵢ² / Σ (nᵢ − 1)), NaN where no sample has two values.

    Examples
    --------
    >>> pooled_sd([summary([1.0, 3.0]), summary([2.0, 4.0])]) == 2**0.5
    True
    """
    known = [s for s in summaries if s.count > 1]
    freedom = sum(s.count - 1 for s in known)
    if not freedom:
        return math.nan
    scale = unit(np.array([s.sd for s in known]))
    return math.sqrt(sum((s.count - 1) * (s.sd / scale) ** 2 for s in known) / freedom) * scale


def sample(function: str, values: Iterable[float], name: str = "values") -> np.ndarray:
    """The values as a float64 vector, all finite.

    Raises
    ------
    InputError
        No sequence of numbers, or some are not finite.
    """
    found = numbers(function, name, values, "a sequence of numbers, one for each seed")
    if not np.isfinite(found).all():
        bad = found[~np.isfinite(found)][0]
        checks.fail(function, name, "finite", float(bad), "Leave diverged runs out, and say so.")
    return found


def numbers(function: str, name: str, values: Iterable[Any], what: str, *, missing: bool = False) -> np.ndarray:
    """Numbers of any library as a float64 vector; NaN is one, and so is None where values may be missing.

    Raises
    ------
    InputError
        Something else, such as a mapping, whose keys would be taken for its values, or a set, which forgets equal ones.
    """
    if isinstance(values, Mapping):
        checks.fail(function, name, what, "a mapping", "Pass its values.")
    if isinstance(values, (str, bytes, set, frozenset)):
        checks.fail(function, name, what, checks.shown(values))
    if getattr(values, "ndim", 1) != 1:
        checks.fail(function, name, what, f"{getattr(values, 'ndim', 0)}-dimensional values")
    whole = values.detach() if hasattr(values, "detach") else values  # PyTorch warns of what has a gradient
    if isinstance(whole, np.ndarray) and whole.dtype.kind in "iuf" and not np.ma.isMaskedArray(whole):
        return whole.astype(float)
    try:
        items = list(whole)
    except TypeError:
        checks.fail(function, name, what, checks.shown(values))
    items = [math.nan if item is None and missing else item for item in items]
    return np.array([_number(function, name, item, what) for item in items], float)


def _number(function: str, name: str, item: Any, what: str) -> float:
    """One of them."""
    whole = item.detach() if hasattr(item, "detach") else item
    if isinstance(whole, (str, bytes, complex, np.complexfloating)) or whole is np.ma.masked:
        checks.fail(function, name, what, f"{checks.shown(item)} among them")
    try:
        return float(whole)
    except (TypeError, ValueError):
        checks.fail(function, name, what, f"{checks.shown(item)} among them")
    except OverflowError:
        checks.fail(function, name, what, f"{checks.shown(item)} among them, which float64 does not hold")


def require_flag(function: str, name: str, value: Any) -> bool:
    """A bool.

    Raises
    ------
    InputError
        Something that merely counts as true or false.
    """
    if not isinstance(value, (bool, np.bool_)):
        checks.fail(function, name, "True or False", checks.shown(value))
    return bool(value)


def random(function: str, seed: Any) -> np.random.Generator:
    """The random numbers of a seed.

    Raises
    ------
    InputError
        No whole number of at least 0.
    """
    return np.random.default_rng(checks.whole(function, "seed", seed, least=0, most=2**63 - 1))


def seeds_of(function: str, name: str, values: Iterable[float]) -> np.ndarray:
    """A user's values over seeds: a `sample` that is not empty.

    Raises
    ------
    InputError
        Otherwise.
    """
    found = sample(function, values, name)
    if not found.size:
        checks.fail(function, name, "at least one number, one for each seed", "none")
    return found


def require_pairs(function: str, a: np.ndarray, b: np.ndarray) -> None:
    """Fail where two samples are not of one length.

    Raises
    ------
    InputError
        They are not.
    """
    if len(a) != len(b):
        checks.fail(function, "b", f"as long as a, {len(a)} values, for pairs of seeds", f"{len(b)} values",
                    "Leave out the seeds that only one side has.")  # fmt: skip


def share(function: str, name: str, value: float) -> float:
    """A number strictly between 0 and 1."""
    number = float(checks.real(function, name, value))
    if not 0 < number < 1:
        checks.fail(function, name, "between 0 and 1", value)
    return number


def student_quantile(confidence: float, freedom: float) -> float:
    """The quantile of Student's t for a two-sided interval."""
    return float(stats.t.isf((1 - confidence) / 2, freedom))


def unit(values: np.ndarray) -> float:
    """A power of two of a sample's size: in this unit sums and squares stay in range, and no bit is lost."""
    return 2.0 ** min(math.frexp(float(np.max(np.abs(values))))[1], 1023)


def mean(values: np.ndarray) -> float:
    """The mean, also of values near the ends of float64's range."""
    scale = unit(values)
    return float(np.mean(values / scale)) * scale


def deviation(values: np.ndarray, scale: float | None = None) -> float:
    """The standard deviation (n − 1), exactly 0 where the values differ by no more than rounding."""
    size = unit(values)
    scaled = values / size
    scale = float(np.max(np.abs(scaled))) if scale is None else scale / size
    if np.ptp(scaled) <= RESOLUTION * scale:
        return 0.0
    sd = float(np.std(scaled, ddof=1)) * size
    return sd if sd >= sys.float_info.min else 0.0  # smaller ones have lost their digits


class Pairs(NamedTuple):
    """Two samples of the same seeds, in a unit in which squares stay in range.

    Attributes
    ----------
    differences : ndarray
        Second − first of each seed, in units of `unit`.
    scale : float
        The largest of all values, in units of `unit`.
    unit : float
        A power of two.
    """

    differences: np.ndarray
    scale: float
    unit: float

    @property
    def mean(self) -> float:
        """Of the differences, in units of `unit`."""
        return float(np.mean(self.differences))

    @property
    def sd(self) -> float:
        """Of the differences, in units of `unit`; 0 where they differ by no more than rounding."""
        return deviation(self.differences, self.scale)

    @property
    def rounded(self) -> np.ndarray:
        """The differences, exactly 0 where they are rounding."""
        return np.where(np.abs(self.differences) <= RESOLUTION * self.scale, 0.0, self.differences)


def pairs_of(first: np.ndarray, second: np.ndarray) -> Pairs:
    """Two samples of as many values, pair by pair."""
    if not len(first):
        return Pairs(np.zeros(0), 0.0, 1.0)
    size = unit(np.concatenate([first, second]))
    first, second = first / size, second / size
    scale = float(max(np.max(np.abs(first)), np.max(np.abs(second))))
    return Pairs(second - first, scale, size)

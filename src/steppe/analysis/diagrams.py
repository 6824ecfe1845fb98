"""Diagrams of whole conditions, from the curves that their networks left: densities, reliability, coverage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
import polars
from scipy import stats

from steppe import curvature
from steppe.curvature import Quadrature


@dataclass(frozen=True)
class Density:
    """The spectral density of one condition, its runs together.

    Attributes
    ----------
    grid, density : ndarray
        (P,) eigenvalues, and how many of them there are per unit.
    width : float
        The resolution.
    runs : int
        How many.
    """

    grid: np.ndarray
    density: np.ndarray
    width: float
    runs: int


@dataclass(frozen=True)
class ReliabilityDiagram:
    """The reliability diagram of one condition: bins of the confidence, those of all its runs together.

    Attributes
    ----------
    confidence, accuracy, share : ndarray
        (B,) Of the predictions in a bin: their mean confidence, how many are right, and which share they are of all.
    lower, upper : ndarray
        Wilson's interval of the accuracy, of as many predictions as one run has in the bin: the runs of a condition
        predict the same examples, and tell no more of them than one.
    runs : int
        How many.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    runs: int


@dataclass(frozen=True)
class Band:
    """A curve of one condition: over x the mean over its runs, and the lowest and the highest run."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int


@dataclass(frozen=True)
class Diagrams:
    """What is drawn of each condition or run: empty where it was not measured.

    Attributes
    ----------
    densities : Mapping
        Its spectral density.
    reliability : Mapping
        How often its predictions are right at each confidence.
    coverage : Mapping
        The accuracy of the predictions of which it is surest, over their share.
    intervals : Mapping
        Of real targets: the share that lies in predicted intervals, over what these promise.
    """

    densities: Mapping[str, Density] = field(default_factory=dict)
    reliability: Mapping[str, ReliabilityDiagram] = field(default_factory=dict)
    coverage: Mapping[str, Band] = field(default_factory=dict)
    intervals: Mapping[str, Band] = field(default_factory=dict)


SHARES = np.arange(1, 201) / 200
"""Of the predictions, at which accuracy is looked up."""

SMALLEST = 20
"""Predictions without which an accuracy tells nothing."""


def diagrams(rows: polars.DataFrame, by: str, names: Sequence[str], curves: Mapping[str, np.ndarray]) -> Diagrams:
    """The diagrams of each condition or run (a column and its values), from the curves of its rows."""

    def of(quantity: str, prefix: str) -> dict[str, list[dict[str, np.ndarray]]]:
        found = {name: list(_curves(rows, by, name, quantity, prefix, curves)) for name in names}
        return {name: some for name, some in found.items() if some}

    return Diagrams(
        densities(rows, by, names, curves),
        {name: _reliability(some) for name, some in of("reliability", "reliability").items()},
        {name: _coverage(some) for name, some in of("aurc", "coverage").items()},
        {
            name: _band(some[0]["level"], [one["coverage"] for one in some])
            for name, some in of("interval_error", "interval").items()
        },
    )


def _curves(
    rows: polars.DataFrame, by: str, name: str, quantity: str, prefix: str, curves: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """The curves that go with a quantity, run by run."""
    for mark in rows.filter((polars.col("quantity") == quantity) & (polars.col(by) == name))["fingerprint"]:
        start = f"{mark}/{prefix}_"
        found = {key.removeprefix(start): array for key, array in curves.items() if key.startswith(start)}
        if found:
            yield found


def _reliability(parts: Sequence[Mapping[str, np.ndarray]]) -> ReliabilityDiagram:
    """Bins of equal ends together; bins of one mass, whose ends differ between runs, by their order."""
    ends = {(left, right) for part in parts for left, right in zip(part["left"], part["right"], strict=True)}
    alike = len({len(part["left"]) for part in parts}) == 1
    by_order = alike and len(ends) > len(parts[0]["left"])
    sums: dict[object, np.ndarray] = {}
    for part in parts:
        keys = range(len(part["left"])) if by_order else zip(part["left"], part["right"], strict=True)
        for key, count, confidence, accuracy in zip(
            keys, part["count"], part["confidence"], part["accuracy"], strict=True
        ):
            sums[key] = sums.get(key, 0) + count * np.array([1.0, confidence, accuracy])
    count, confidence, accuracy = np.array([sums[key] for key in sorted(sums)]).T  # type: ignore[type-var]
    single = count / len(parts)
    lower, upper = _wilson(accuracy / count, single)
    return ReliabilityDiagram(confidence / count, accuracy / count, count / count.sum(), lower, upper, len(parts))


def _wilson(share: np.ndarray, count: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share of so many, which need be no whole number."""
    z = stats.norm.ppf(0.5 + level / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _coverage(parts: Sequence[Mapping[str, np.ndarray]]) -> Band:
    """Accuracy over the share of predictions, from the share that holds a few of them."""
    least = max(SMALLEST / min(len(part["coverage"]) for part in parts), SHARES[0])
    shares = SHARES[least <= SHARES] if least < 1 else SHARES[-1:]
    return _band(shares, [np.interp(shares, part["coverage"], part["accuracy"]) for part in parts])


def _band(x: np.ndarray, values: Sequence[np.ndarray]) -> Band:
    return Band(x, np.mean(values, axis=0), np.min(values, axis=0), np.max(values, axis=0), len(values))


def densities(
    rows: polars.DataFrame, by: str, names: Sequence[str], curves: Mapping[str, np.ndarray]
) -> Mapping[str, Density]:
    """The spectral density of each condition or run (a column and its values), from all of its quadratures."""
    found = {}
    for name in names:
        marks = rows.filter((polars.col("quantity") == "negative_share") & (polars.col(by) == name))["fingerprint"]
        parts = [(curves[f"{m}/nodes"], curves[f"{m}/weights"]) for m in marks if f"{m}/nodes" in curves]
        if parts:
            found[name] = _density(parts, int(curves[f"{marks[0]}/size"]))
    return found


def _density(parts: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Density:
    """The density of several networks of one size together, from the nodes and weights of each."""
    nodes, weights = (jnp.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))
    density = curvature.smoothed(Quadrature(nodes, weights))
    return Density(np.asarray(density.grid), size * np.asarray(density.density), float(density.width), len(parts))

"""Spectral densities of whole conditions, from the quadratures of their networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import polars

from steppe import curvature
from steppe.curvature import Quadrature
from steppe.measures import table


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


def densities(rows: polars.DataFrame, by: str, names: Sequence[str], folder: Path) -> Mapping[str, Density]:
    """The spectral density of each condition or run (a column and its values), from all of its quadratures."""
    arrays, found = table.curves(folder), {}
    for name in names:
        marks = rows.filter((polars.col("quantity") == "negative_share") & (polars.col(by) == name))["fingerprint"]
        parts = [(arrays[f"{m}/nodes"], arrays[f"{m}/weights"]) for m in marks if f"{m}/nodes" in arrays]
        if parts:
            found[name] = _density(parts, int(arrays[f"{marks[0]}/size"]))
    return found


def _density(parts: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Density:
    """The density of several networks of one size together, from the nodes and weights of each."""
    nodes, weights = (jnp.asarray(np.concatenate(part)) for part in zip(*parts, strict=True))
    density = curvature.smoothed(Quadrature(nodes, weights))
    return Density(np.asarray(density.grid), size * np.asarray(density.density), float(density.width), len(parts))

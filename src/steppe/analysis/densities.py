"""Spectral densities of whole conditions, from the quadratures of their networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import polars

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

"""Quantities over the epochs of training, over all seeds of a condition."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars

from steppe.analysis.quantities import FITTED_LOSS, TR_H2

CURVES = {"test_accuracy": False, "test_loss": False, FITTED_LOSS: False, TR_H2: True}
"""What is followed over epochs, and whether its mean over seeds is the geometric one."""

LIMITS = {"top_eigenvalue": "stability_limit", "preconditioned_sharpness": "preconditioned_limit"}
"""What is followed beside its edge of stability."""

EIGENVALUES = ("top_eigenvalue", "bottom_eigenvalue", "preconditioned_sharpness")
SEARCHED = (*EIGENVALUES, "critical_sharpness")
"""What is searched for, and may not have converged."""

TRACKED = (*SEARCHED, "trace", "frobenius_squared")
"""What a study that tracks curvature follows, if it asks for it."""

NOTHING = np.zeros(0)


class Curve(NamedTuple):
    """One quantity of one condition: epochs, the mean over seeds, and the lowest and the highest seed."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class TrackedCurve(NamedTuple):
    """One curvature of one condition: a `Curve`, with its error and the edge of stability.

    Attributes
    ----------
    epochs, mean, low, high : ndarray
        As in `Curve`.
    error : ndarray
        Of the mean: residuals of eigenvalues, standard errors of estimates.
    limit : ndarray
        The edge of stability, NaN or null where none is known.
    converged : ndarray of bool
        Whether the values of all seeds have converged.
    """

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    limit: np.ndarray
    converged: np.ndarray


class Trajectory(NamedTuple):
    """tr(H²) over training loss, epoch by epoch: geometric means over seeds."""

    loss: np.ndarray
    value: np.ndarray


def curve(history: polars.DataFrame, name: str, *, geometric: bool) -> Curve:
    """One column of a condition's history over epochs; epochs without a usable value are left out."""
    if name not in history.columns:
        return Curve(NOTHING, NOTHING, NOTHING, NOTHING)
    value = polars.col(name).cast(polars.Float64)
    mean = value.log().mean().exp() if geometric else value.mean()
    usable = value.is_finite() & ((value > 0) if geometric else polars.lit(True))
    ends = mean.alias("mean"), value.min().alias("low"), value.max().alias("high")
    rows = history.filter(usable).group_by("epoch").agg(*ends).sort("epoch")
    return Curve(*(rows[column].to_numpy() for column in ("epoch", *Curve._fields[1:])))


def tracked_curve(history: polars.DataFrame, name: str) -> TrackedCurve:
    """One tracked curvature of a condition over epochs; none where the study tracks nothing."""
    if name not in history.columns:
        return TrackedCurve(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING.astype(bool))
    value = polars.col(name).cast(polars.Float64)
    kind = "residual" if name in EIGENVALUES else "sem"
    error = polars.col(f"{name}_{kind}").cast(polars.Float64)
    by_epoch = history.filter(value.is_finite()).group_by("epoch")
    rows = by_epoch.agg(
        value.mean().alias("mean"),
        value.min().alias("low"),
        value.max().alias("high"),
        ((error**2).sum().sqrt() / value.count()).fill_nan(0).alias("error"),
        (polars.col(LIMITS[name]).mean() if name in LIMITS else polars.lit(None)).cast(polars.Float64).alias("limit"),
        (polars.col(f"{name}_converged").all() if name in SEARCHED else polars.lit(True)).alias("converged"),
    ).sort("epoch")
    return TrackedCurve(*(rows[column].to_numpy() for column in ("epoch", *TrackedCurve._fields[1:])))


def trajectory(history: polars.DataFrame) -> Trajectory:
    """A condition's way, at the epochs that have both a loss and tr(H²)."""
    loss, value = (curve(history, name, geometric=True) for name in (FITTED_LOSS, TR_H2))
    common = np.intersect1d(loss.epochs, value.epochs)
    return Trajectory(loss.mean[np.isin(loss.epochs, common)], value.mean[np.isin(value.epochs, common)])


def histories(history: polars.DataFrame, seeds: Mapping[str, tuple[int, ...]]) -> dict[str, polars.DataFrame]:
    """Condition -> the epochs of its runs with these seeds."""
    if not len(history):
        return {c: history for c in seeds}
    condition, seed = polars.col("condition"), polars.col("seed")
    return {c: history.filter((condition == c) & seed.is_in(some)) for c, some in seeds.items()}

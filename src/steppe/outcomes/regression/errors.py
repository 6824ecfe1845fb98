"""Errors of predictions of real numbers."""

import math
from typing import Any

import numpy as np

from steppe.core import checks
from steppe.outcomes.forecasts import as_matrix


def root_mean_squared_error(predictions: Any, targets: Any) -> float:
    """The root mean squared error, (1/(N K) Σ (f − y)²)^½, in the units of the targets.

    Parameters
    ----------
    predictions, targets : array
        (N,) or (N, K).

    Returns
    -------
    float

    Raises
    ------
    InputError
        Arrays of different or other shapes, without examples, or that are not finite.

    Examples
    --------
    >>> root_mean_squared_error([1.0, 2.0], [4.0, 6.0])
    3.535...
    """
    f, y = _both("root_mean_squared_error", predictions, targets)
    return math.sqrt(np.mean((f - y) ** 2))


def r_squared(predictions: Any, targets: Any) -> float:
    """The part of the variance of the targets that is predicted, R² = 1 − Σ (f − y)² / Σ (y − ȳ)².

    Parameters
    ----------
    predictions, targets : array
        (N,) or (N, K), whose K means are taken off, each its own.

    Returns
    -------
    float
        At most 1; 0 for the mean as a constant prediction, NaN where targets do not vary.

    Raises
    ------
    InputError
        As `root_mean_squared_error`.

    Examples
    --------
    >>> r_squared([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.785...
    """
    f, y = _both("r_squared", predictions, targets)
    spread = float(np.sum((y - y.mean(axis=0)) ** 2))
    return 1 - float(np.sum((f - y) ** 2)) / spread if spread else math.nan


def _both(function: str, predictions: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    pair = (("predictions", predictions), ("targets", targets))
    f, y = (as_matrix(function, name, np.asarray(v)[:, None] if np.ndim(v) == 1 else v) for name, v in pair)
    if f.shape != y.shape:
        checks.fail(function, "targets", f"of shape {f.shape}, as the predictions", f"an array of shape {y.shape}")
    return f, y

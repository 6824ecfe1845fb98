"""Calibration without bins: residuals smoothed over the confidence."""

from typing import Any

import numpy as np
from scipy import fft, optimize

from steppe.outcomes.forecasts import forecasts, top_label

CELLS = 4096
"""Of the unit interval, in which residuals are summed up before they are smoothed."""


def smooth_calibration_error(probabilities: Any, labels: Any) -> float:
    """The smooth calibration error: how far confidences are from how often predictions are right, without bins.

    With the confidence c_i of the predicted class and r_i = 1[right] − c_i, residuals are smoothed by a Gaussian of
    width σ that is reflected at 0 and 1,

        smECE_σ = ∫₀¹ | 1/N Σ_i K_σ(t, c_i) r_i | dt,

    and the result is the one σ for which smECE_σ = σ: it needs no choice of bins, and moves little when forecasts do.

    Parameters
    ----------
    probabilities, labels : array
        See `calibration_error`.

    Returns
    -------
    float
        From 0 to 1. Cost: a few cosine transforms of 4,096 numbers.

    Raises
    ------
    InputError
        As `calibration_error`.

    Notes
    -----
    Błasiok and Nakkiran 2023. Confidences are rounded to cells of 1/4096, which moves the result by less than that.
    Of two classes it is asked of the larger probability, as of more.

    Examples
    --------
    >>> smooth_calibration_error([[1.0, 0.0]] * 2, [0, 0])
    0.0
    >>> round(smooth_calibration_error([[0.9, 0.1]] * 4, [0, 1, 0, 1]), 3)
    0.4
    """
    return smooth_error(*top_label(*forecasts("smooth_calibration_error", probabilities, labels)))


def smooth_error(forecast: np.ndarray, outcome: np.ndarray) -> float:
    """The smooth calibration error of forecasts of one event."""
    cells = np.minimum((forecast * CELLS).astype(np.int64), CELLS - 1)
    waves = fft.dct(np.bincount(cells, outcome - forecast, minlength=CELLS) / len(forecast))
    rates = (np.pi * np.arange(CELLS)) ** 2 / 2

    def excess(width: float) -> float:  # a reflected Gaussian damps cosines, and keeps them apart
        return float(np.abs(fft.idct(waves * np.exp(-rates * width**2))).sum()) - width

    return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-9)) if excess(0.0) > 0 else 0.0

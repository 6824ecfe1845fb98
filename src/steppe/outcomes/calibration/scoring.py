"""Proper scores: what a forecast is best served by, if it says what it believes."""

from typing import Any

import numpy as np

from steppe.outcomes.forecasts import forecasts


def brier_score(probabilities: Any, labels: Any) -> float:
    """The mean squared distance of probabilities to what came: 1/N Σ_i Σ_k (p_ik − 1[y_i = k])².

    Parameters
    ----------
    probabilities, labels : array
        See `calibration_error`.

    Returns
    -------
    float
        From 0 to 2. Of two classes it is twice the score of one probability, which some call Brier's.

    Raises
    ------
    InputError
        As `calibration_error`.

    Notes
    -----
    Brier 1950. It is least for the true probabilities.

    Examples
    --------
    >>> round(brier_score([0.9, 0.2], [1, 0]), 4)
    0.05
    """
    return float(np.mean(brier_scores(*forecasts("brier_score", probabilities, labels))))


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The squared distance of each example, (N,)."""
    found: np.ndarray = np.sum((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2, axis=1)
    return found


def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """The mean of −log p of the labels, in nats: cross-entropy.

    Parameters
    ----------
    probabilities, labels : array
        See `calibration_error`.

    Returns
    -------
    float
        At least 0; infinite where a label has the probability 0. Logits lose less, where they are at hand: the loss.

    Raises
    ------
    InputError
        As `calibration_error`.

    Examples
    --------
    >>> round(negative_log_likelihood([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 4)
    0.4904
    """
    return float(np.mean(log_losses(*forecasts("negative_log_likelihood", probabilities, labels))))


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p of each label, (N,)."""
    with np.errstate(divide="ignore"):
        found: np.ndarray = 0.0 - np.log(probabilities[np.arange(len(labels)), labels])
    return found

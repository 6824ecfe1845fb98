"""Temperature scaling: one number by which all logits are divided."""

import math
from typing import Any

import numpy as np
from scipy import optimize, special

from steppe.outcomes.forecasts import as_labels, as_logits, softmax

COLDEST, HOTTEST = 1e-3, 1e3
"""Between which a temperature is looked for."""


def temperature(logits: Any, labels: Any) -> float:
    """The temperature T that makes logits likeliest: T = argmin Σ_i −log softmax(z_i / T)[y_i].

    Fit it on examples that were not trained on, best a validation part, and judge ``probabilities(logits / T)`` on
    others. No prediction changes.

    Parameters
    ----------
    logits : array
        (N, K) of K classes, or (N, 1) of two; of any library.
    labels : array
        (N,) whole numbers.

    Returns
    -------
    float
        Above 1 where the network is too sure of itself. Between 0.001 and 1000, which are the answer where the minimum
        lies beyond: where all predictions are right, or where logits tell less than nothing.

    Raises
    ------
    InputError
        Logits that are not finite or of another shape; labels that are no classes.

    Notes
    -----
    Guo et al. 2017. The likelihood is concave in 1/T, so that the root of its slope, found to rounding, is the answer.

    Examples
    --------
    >>> round(temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]), 3)  # log 3 would be right
    1.82
    """
    found = as_logits("temperature", logits)
    return best_temperature(found, as_labels("temperature", labels, (len(found), found.shape[1])))


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of logits that `as_logits` has read."""
    gains = logits - logits[np.arange(len(logits)), labels][:, None]  # of each class over the label
    if not gains.any():  # no class is preferred: every temperature says the same
        return 1.0

    def slope(log: float) -> float:
        return float(np.mean(np.sum(special.softmax(logits * math.exp(-log), axis=1) * gains, axis=1)))

    ends = math.log(COLDEST), math.log(HOTTEST)
    if slope(ends[0]) <= 0:
        return COLDEST
    if slope(ends[1]) >= 0:
        return HOTTEST
    return math.exp(optimize.brentq(slope, *ends, xtol=1e-12))


def cross_fitted(logits: np.ndarray, labels: np.ndarray, folds: int = 5) -> np.ndarray:
    """Probabilities of each fold of the examples at the temperature of all others: every `folds`-th is one."""
    place = np.arange(len(labels)) % folds
    found = np.empty_like(logits)
    for fold in range(folds):
        own = place == fold
        if own.any():
            rest = ~own if (~own).any() else own
            found[own] = softmax(logits[own] / best_temperature(logits[rest], labels[rest]))
    return found

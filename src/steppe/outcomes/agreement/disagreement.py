"""How much the predictions of two networks differ."""

from typing import Any

import numpy as np
from scipy import special

from steppe.core import checks
from steppe.outcomes.forecasts import as_labels, as_probabilities


def disagreement(probabilities_a: Any, probabilities_b: Any) -> float:
    """How often two networks predict different classes: 1/N Σ_i 1[argmax p_i ≠ argmax q_i].

    Parameters
    ----------
    probabilities_a, probabilities_b : array
        (N, K) of the same examples, rows that sum to 1; or (N,), those of the second of two classes.

    Returns
    -------
    float
        From 0 to 1. Of equal probabilities of a row the first class is predicted.

    Raises
    ------
    InputError
        Arrays that are no probabilities, see `calibration_error`; of different shapes.

    Examples
    --------
    >>> disagreement([0.9, 0.2], [0.6, 0.7])
    0.5
    """
    a, b = _both("disagreement", probabilities_a, probabilities_b)
    return float(np.mean(a.argmax(axis=1) != b.argmax(axis=1)))


def churn(probabilities_a: Any, probabilities_b: Any, labels: Any) -> float:
    """How often just one of two networks is right: 1/N Σ_i 1[(a_i = y_i) ≠ (b_i = y_i)].

    Parameters
    ----------
    probabilities_a, probabilities_b : array
        See `disagreement`.
    labels : array
        (N,) whole numbers.

    Returns
    -------
    float
        From the difference of the two accuracies to 1: what changes for users, though the accuracy may stay.

    Raises
    ------
    InputError
        As `disagreement`; labels that are no classes.

    Examples
    --------
    >>> churn([0.9, 0.2, 0.8], [0.6, 0.7, 0.1], [1, 1, 1])
    0.666...
    """
    a, b = _both("churn", probabilities_a, probabilities_b)
    y = as_labels("churn", labels, (len(a), a.shape[1]))
    return float(np.mean((a.argmax(axis=1) == y) != (b.argmax(axis=1) == y)))


def jensen_shannon(probabilities_a: Any, probabilities_b: Any) -> float:
    """The mean Jensen-Shannon divergence of two networks' probabilities, in nats.

        JS(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m),     m = (p + q)/2

    Parameters
    ----------
    probabilities_a, probabilities_b : array
        See `disagreement`.

    Returns
    -------
    float
        From 0 to log 2. SciPy's ``jensenshannon`` is the root of it.

    Raises
    ------
    InputError
        As `disagreement`.

    Examples
    --------
    >>> round(jensen_shannon([[1.0, 0.0]], [[0.0, 1.0]]), 4)
    0.6931
    """
    a, b = _both("jensen_shannon", probabilities_a, probabilities_b)
    middle = (a + b) / 2
    each = (special.rel_entr(a, middle) + special.rel_entr(b, middle)).sum(axis=1) / 2
    return float(max(np.mean(each), 0.0))


def _both(function: str, a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = (as_probabilities(function, p, f"probabilities_{name}") for name, p in (("a", a), ("b", b)))
    if first.shape != second.shape:
        what = f"of shape {first.shape}, as probabilities_a"
        checks.fail(function, "probabilities_b", what, f"an array of shape {second.shape}")
    return first, second

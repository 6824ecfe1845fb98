"""Accuracy class by class."""

from typing import Any

import numpy as np

from steppe.outcomes.forecasts import forecasts


def class_accuracy(probabilities: Any, labels: Any) -> np.ndarray:
    """The share of the examples of each class that is predicted right, its recall.

    Parameters
    ----------
    probabilities, labels : array
        See `calibration_error`.

    Returns
    -------
    np.ndarray
        (K,), NaN for a class without examples.

    Raises
    ------
    InputError
        As `calibration_error`.

    Examples
    --------
    >>> class_accuracy([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0]], [0, 0, 1]).tolist()
    [0.5, 1.0, nan]
    """
    p, y = forecasts("class_accuracy", probabilities, labels)
    return recalls(p, y)


def worst_class_accuracy(probabilities: Any, labels: Any) -> float:
    """The least of `class_accuracy`, over the classes that have examples.

    Parameters
    ----------
    probabilities, labels : array
        See `calibration_error`.

    Returns
    -------
    float
        From 0 to 1. Of K classes that are served alike it lies below the accuracy by chance, the further the fewer
        examples a class has.

    Raises
    ------
    InputError
        As `calibration_error`.

    Examples
    --------
    >>> worst_class_accuracy([0.9, 0.2, 0.4], [1, 0, 1])
    0.5
    """
    return float(np.nanmin(recalls(*forecasts("worst_class_accuracy", probabilities, labels))))


def recalls(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The accuracy of each class, (K,)."""
    right, classes = probabilities.argmax(axis=1) == labels, probabilities.shape[1]
    count = np.bincount(labels, minlength=classes)
    return np.where(count > 0, np.bincount(labels, right, minlength=classes) / np.maximum(count, 1), np.nan)

"""Accuracy against coverage: what is gained where a network may decline to answer."""

from typing import Any, NamedTuple

import numpy as np

from steppe.core import arrays, checks
from steppe.outcomes.selective.ranking import as_scores


class Coverage(NamedTuple):
    """Accuracy against coverage, one number for each number of answers k = 1 … N.

    Attributes
    ----------
    coverage : np.ndarray
        (N,) k/N.
    accuracy : np.ndarray
        (N,) of the k examples of the highest scores; where scores are equal, in the mean over their orders.
    """

    coverage: np.ndarray
    accuracy: np.ndarray


def coverage_curve(scores: Any, right: Any) -> Coverage:
    """The accuracy of the answers to those examples of which a network is surest, against their share.

    Parameters
    ----------
    scores : array
        (N,) How sure it is, such as `maximum_probability`.
    right : array
        (N,) Whether each prediction is right.

    Returns
    -------
    Coverage

    Raises
    ------
    InputError
        Arrays of other shapes, none, or NaN; what is neither right nor wrong.

    Notes
    -----
    El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017.

    Examples
    --------
    >>> coverage_curve([0.9, 0.6, 0.8], [True, False, True]).accuracy.round(3).tolist()
    [1.0, 1.0, 0.667]
    """
    found, outcome = as_scores("coverage_curve", "scores", scores), as_outcomes("coverage_curve", right)
    if len(outcome) != len(found):
        checks.fail("coverage_curve", "right", f"of shape ({len(found)},), as the scores", checks.returned(outcome))
    _, group, sizes = np.unique(-found, return_inverse=True, return_counts=True)
    means = np.bincount(group, outcome) / sizes
    answers = np.arange(1, len(found) + 1)
    return Coverage(answers / len(found), np.cumsum(np.repeat(means, sizes)) / answers)


def aurc(scores: Any, right: Any) -> float:
    """The area under the risk-coverage curve: the mean, over all numbers of answers, of the share of wrong ones.

    Parameters
    ----------
    scores, right : array
        See `coverage_curve`.

    Returns
    -------
    float
        From 0 to 1; lower is better. A score that tells nothing has the error rate itself.

    Raises
    ------
    InputError
        As `coverage_curve`.

    See Also
    --------
    excess_aurc : without the part that no score could avoid.

    Examples
    --------
    >>> round(aurc([0.9, 0.6, 0.8], [True, False, True]), 3)
    0.111
    """
    return float(np.mean(1 - coverage_curve(scores, right).accuracy))


def excess_aurc(scores: Any, right: Any) -> float:
    """`aurc` less that of the best score of the same predictions, which puts all right ones first.

    Parameters
    ----------
    scores, right : array
        See `coverage_curve`.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    InputError
        As `coverage_curve`.

    Notes
    -----
    Geifman, Uziel and El-Yaniv 2019.

    Examples
    --------
    >>> excess_aurc([0.9, 0.6, 0.8], [True, False, True])
    0.0
    """
    best = as_outcomes("excess_aurc", right).astype(np.float64)
    return max(aurc(scores, right) - aurc(best, right), 0.0)


def as_outcomes(function: str, right: Any) -> np.ndarray:
    """Bools (N,).

    Raises
    ------
    InputError : another shape; what is neither 0 nor 1.
    """
    found = arrays.numbers(function, "right", right)
    if found.ndim != 1 or not np.isin(found, (0, 1)).all():
        checks.fail(function, "right", "bools of shape (N,), whether each prediction is right", checks.returned(found))
    return found.astype(bool)

"""How well a score tells two groups apart."""

from typing import Any

import numpy as np
from scipy import stats

from steppe.core import arrays, checks


def auroc(known: Any, unknown: Any) -> float:
    """The area under the ROC curve: how often an example of the one group scores higher than one of the other.

        P(s > s') + ½ P(s = s'),    s of the known, s' of the unknown

    Parameters
    ----------
    known, unknown : array
        Scores of both groups, (N,) and (M,): of examples that are predicted right and wrong, or that are like the
        training data and not.

    Returns
    -------
    float
        From 0 to 1; ½ where the score tells nothing.

    Raises
    ------
    InputError
        Scores of another shape, none, or NaN.

    Examples
    --------
    >>> auroc([0.9, 0.8, 0.5], [0.5, 0.1])
    0.916...
    """
    a, b = as_scores("auroc", "known", known), as_scores("auroc", "unknown", unknown)
    return float(stats.mannwhitneyu(a, b, method="asymptotic").statistic / (len(a) * len(b)))


def fpr_at_recall(known: Any, unknown: Any, *, recall: float = 0.95) -> float:
    """The false positive rate at a recall of 95 %: how many of the unknown pass where so many of the known do.

    The threshold is the largest at which at least so large a share of the known scores no less.

    Parameters
    ----------
    known, unknown : array
        Scores of both groups, see `auroc`.
    recall : float
        Above 0, at most 1.

    Returns
    -------
    float
        From 0 to 1; lower is better.

    Raises
    ------
    InputError
        As `auroc`; a recall out of range.

    Examples
    --------
    >>> fpr_at_recall([4.0, 3.0, 2.0, 1.0], [2.5, 1.5, 0.5, 0.0], recall=0.75)
    0.25
    """
    a, b = as_scores("fpr_at_recall", "known", known), as_scores("fpr_at_recall", "unknown", unknown)
    checks.positive("fpr_at_recall", "recall", checks.real("fpr_at_recall", "recall", recall, most=1.0))
    needed = int(np.ceil(recall * len(a) - 1e-9))
    return float(np.mean(b >= np.sort(a)[::-1][needed - 1]))


def as_scores(function: str, name: str, values: Any) -> np.ndarray:
    """Scores (N,) in float64.

    Raises
    ------
    InputError : another shape; none; NaN.
    """
    found = arrays.numbers(function, name, values)
    if found.ndim != 1 or not found.size:
        checks.fail(function, name, "numbers of shape (N,), N at least 1", checks.returned(found))
    found = found.astype(np.float64)
    if np.isnan(found).any():
        checks.fail(function, name, "numbers", f"nan in place {int(np.argmax(np.isnan(found)))}")
    return found

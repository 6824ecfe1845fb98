"""Predictions as users hand them in: probabilities, logits and labels, checked once, in float64 from then on."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from scipy import special

from steppe.core import arrays, checks

LOOSE, SLACK = 10.0, 5e-3
"""By how many roundings of its dtype a probability may leave [0, 1]; by how much a row, or more roundings than that,
may miss the sum of 1: files often hold three decimals."""


class TopLabel(NamedTuple):
    """What is said of the predicted class of each example.

    Attributes
    ----------
    confidence : np.ndarray
        (N,) The probability of the predicted class.
    right : np.ndarray
        (N,) Whether it is the label.
    """

    confidence: np.ndarray
    right: np.ndarray


def probabilities(logits: Any) -> np.ndarray:
    """The probabilities of all classes that logits stand for.

        p_k = exp(z_k) / Σ_j exp(z_j),     or of one logit z: (1 − σ(z), σ(z)), σ(z) = 1/(1 + exp(−z))

    Parameters
    ----------
    logits : array
        (N, K) of K classes, or (N, 1) of two; of any library.

    Returns
    -------
    np.ndarray
        (N, K), or (N, 2); float64.

    Raises
    ------
    InputError
        Logits of another shape, none at all, or such that are not finite.

    Examples
    --------
    >>> probabilities([[0.0], [np.log(3.0)]]).round(2).tolist()
    [[0.5, 0.5], [0.25, 0.75]]
    """
    return softmax(as_logits("probabilities", logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits that `as_logits` has read."""
    found: np.ndarray = special.softmax(logits, axis=-1)
    return found


def as_logits(function: str, values: Any, name: str = "logits") -> np.ndarray:
    """Logits (N, K) in float64, K at least 2: one logit z for two classes becomes (0, z).

    Raises
    ------
    InputError : another shape; no example; a value that is not finite.
    """
    found = as_matrix(function, name, values, "(N, K), or (N, 1) for two classes")
    return np.concatenate([np.zeros_like(found), found], axis=1) if found.shape[1] == 1 else found


def as_probabilities(function: str, values: Any, name: str = "probabilities") -> np.ndarray:
    """Probabilities (N, K) in float64, K at least 2: (N,) or (N, 1) are those of the second of two classes.

    Raises
    ------
    InputError : another shape; no example; values outside [0, 1] or NaN; rows that do not sum to 1.
    """
    array = arrays.numbers(function, name, values)
    array = array[:, None] if array.ndim == 1 else array
    found = as_matrix(function, name, array, "(N, K), or (N,) of the second of two classes", finite=False)
    slack = LOOSE * _epsilon(array.dtype)
    wrong = ~((found >= -slack) & (found <= 1 + slack)).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = found[row][~((found[row] >= -slack) & (found[row] <= 1 + slack))][0]
        todo = "" if np.isnan(value) else "Give probabilities, not logits: steppe.outcomes.probabilities(logits)."
        checks.fail(function, name, "numbers from 0 to 1", f"{value:g} in row {row}", todo)
    found = found.clip(0, 1)
    if found.shape[1] == 1:
        return np.concatenate([1 - found, found], axis=1)
    sums = found.sum(axis=1)
    wrong = np.abs(sums - 1) > max(slack * np.sqrt(found.shape[1]), SLACK)
    if wrong.any():
        row = int(np.argmax(wrong))
        todo = "Divide each row by its sum, or make them of logits: steppe.outcomes.probabilities(logits)."
        checks.fail(function, name, "rows that sum to 1", f"a sum of {sums[row]:g} in row {row}", todo)
    return found


def as_labels(function: str, values: Any, shape: tuple[int, int], name: str = "labels") -> np.ndarray:
    """Labels (N,) of K classes, for predictions of shape (N, K).

    Raises
    ------
    InputError : another shape; no whole numbers; a label that is none of the classes.
    """
    found, (count, classes) = arrays.numbers(function, name, values), shape
    if found.dtype == bool:
        found = found.astype(np.int64)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        todo = "Of one-hot labels give y.argmax(axis=-1)." if found.shape == shape else ""
        checks.fail(function, name, f"whole numbers of shape ({count},)", checks.returned(found), todo)
    wrong = (found < 0) | (found >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        checks.fail(function, name, f"classes from 0 to {classes - 1}", f"{found[row]} in row {row}")
    return found.astype(np.int64)


def forecasts(function: str, probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels that belong together, checked."""
    found = as_probabilities(function, probabilities)
    return found, as_labels(function, labels, (len(found), found.shape[1]))


def top_label(probabilities: np.ndarray, labels: np.ndarray) -> TopLabel:
    """The confidence of each prediction, and whether it is right; of equal probabilities the first is predicted."""
    predicted = probabilities.argmax(axis=1)
    return TopLabel(np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0], predicted == labels)


def as_matrix(function: str, name: str, values: Any, shape: str = "(N, D)", *, finite: bool = True) -> np.ndarray:
    """A row of real numbers for each example, in float64.

    Raises
    ------
    InputError : another shape; no example; a number that is not finite, unless that is said not to matter.
    """
    found = arrays.numbers(function, name, values)
    if found.ndim != 2 or found.shape[1] == 0:
        checks.fail(function, name, f"of shape {shape}", checks.returned(found))
    if not len(found):
        checks.fail(function, name, "of one example at least", "none")
    if found.dtype.kind == "c":
        checks.fail(function, name, "real numbers", checks.returned(found))
    found = found.astype(np.float64)
    if finite and not np.isfinite(found).all():
        row = int(np.argmin(np.isfinite(found).all(axis=1)))
        checks.fail(function, name, "finite", f"{found[row][~np.isfinite(found[row])][0]} in row {row}")
    return found


def _epsilon(dtype: np.dtype) -> float:
    """The rounding of a dtype of floats, also of bfloat16; whole numbers are exact."""
    return max(float(ml_dtypes.finfo(dtype).eps), 1e-7) if dtype.kind not in "biu" else 1e-7

"""Scores of how sure a network is of an example: higher where it knows more."""

from typing import Any

import numpy as np
from scipy import special

from steppe.core import checks
from steppe.outcomes.forecasts import as_labels, as_logits, as_matrix, softmax


def maximum_probability(logits: Any) -> np.ndarray:
    """The probability of the predicted class, max_k softmax(z)_k (Hendrycks and Gimpel 2017).

    Parameters
    ----------
    logits : array
        (N, K) of K classes, or (N, 1) of two.

    Returns
    -------
    np.ndarray
        (N,)

    Raises
    ------
    InputError
        Logits of another shape, or that are not finite.

    Examples
    --------
    >>> maximum_probability([[0.0, 0.0], [0.0, 99.0]]).tolist()
    [0.5, 1.0]
    """
    found: np.ndarray = softmax(as_logits("maximum_probability", logits)).max(axis=1)
    return found


def maximum_logit(logits: Any) -> np.ndarray:
    """The largest logit, max_k z_k (Hendrycks et al. 2022). It depends on what is common to all logits of an example.

    Parameters
    ----------
    logits : array
        (N, K) of K classes; one logit z for two classes stands for (0, z).

    Returns
    -------
    np.ndarray
        (N,)

    Raises
    ------
    InputError
        As `maximum_probability`.

    Examples
    --------
    >>> maximum_logit([[1.0, 3.0], [0.0, -1.0]]).tolist()
    [3.0, 0.0]
    """
    found: np.ndarray = as_logits("maximum_logit", logits).max(axis=1)
    return found


def energy(logits: Any, *, temperature: float = 1.0) -> np.ndarray:
    """The negative free energy, T log Σ_k exp(z_k / T): a soft maximum of the logits (Liu et al. 2020).

    Parameters
    ----------
    logits : array
        (N, K) of K classes; one logit z for two classes stands for (0, z).
    temperature : float
        T > 0.

    Returns
    -------
    np.ndarray
        (N,)

    Raises
    ------
    InputError
        As `maximum_probability`; a temperature that is not above 0.

    Examples
    --------
    >>> energy([[0.0, 0.0]]).round(3).tolist()
    [0.693]
    """
    checks.positive("energy", "temperature", temperature)
    found: np.ndarray = temperature * special.logsumexp(as_logits("energy", logits) / temperature, axis=1)
    return found


def mahalanobis(features: Any, train_features: Any, train_labels: Any) -> np.ndarray:
    """Minus the squared distance of features to the nearest class, −min_k (f − μ_k)ᵀ Σ⁺ (f − μ_k) (Lee et al. 2018).

    μ_k are the means of the classes and Σ the covariance within them, all classes together, of training features; Σ⁺ is
    its pseudo-inverse, blind to directions in which training features do not vary.

    Parameters
    ----------
    features : array
        (N, D), such as what enters the last layer.
    train_features : array
        (M, D)
    train_labels : array
        (M,) whole numbers.

    Returns
    -------
    np.ndarray
        (N,) at most 0.

    Raises
    ------
    InputError
        Arrays of other shapes, or that are not finite; labels that are no whole numbers.

    Examples
    --------
    >>> mahalanobis([[1.0], [3.0]], [[-1.0], [1.0], [4.0], [6.0]], [0, 0, 1, 1]).tolist()
    [-1.0, -4.0]
    """
    known = as_matrix("mahalanobis", "train_features", train_features)
    asked = as_matrix("mahalanobis", "features", features)
    if asked.shape[1] != known.shape[1]:
        what = f"of {known.shape[1]} columns, as the training features"
        checks.fail("mahalanobis", "features", what, f"an array of shape {asked.shape}")
    labels = as_labels("mahalanobis", train_labels, (len(known), 2**31 - 1), "train_labels")
    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([known[place == k].mean(axis=0) for k in range(len(classes))])
    within = known - means[place]
    inverse = np.linalg.pinv(within.T @ within / len(known), hermitian=True)
    away = asked[:, None, :] - means[None]
    found: np.ndarray = -np.einsum("nkd,de,nke->nk", away, inverse, away, optimize=True).min(axis=1)
    return found

"""How alike two networks represent the same examples."""

import math
from typing import Any

import numpy as np

from steppe.core import checks
from steppe.outcomes.forecasts import as_matrix


def linear_cka(features_a: Any, features_b: Any, *, debiased: bool = True) -> float:
    """Centred kernel alignment of two representations, with linear kernels K = X Xᵀ and L = Y Yᵀ.

        CKA = HSIC(K, L) / (HSIC(K, K) HSIC(L, L))^½

    Parameters
    ----------
    features_a, features_b : array
        (N, D) and (N, E): what two networks make of the same examples, such as what enters their last layers.
    debiased : bool
        Whether HSIC is Song et al.'s unbiased estimate, which needs 4 examples. The biased one goes to 1 where features
        are many and examples few, whatever they are.

    Returns
    -------
    float
        1 where the representations are one and the same but for a rotation, a shift and a scale; 0 in the mean where
        they have nothing to do with each other, so that a debiased one may be below 0. NaN where one of the two does
        not vary. Cost: N² (D + E) multiplications.

    Raises
    ------
    InputError
        Arrays of other shapes, of different numbers of examples or too few; that are not finite.

    Notes
    -----
    Kornblith et al. 2019; Song et al. 2012; Nguyen, Raghu and Kornblith 2021.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(linear_cka(x, 2 * x[:, ::-1] + 1), 6)
    1.0
    """
    checks.one_of("linear_cka", "debiased", debiased, (True, False))
    a, b = as_matrix("linear_cka", "features_a", features_a), as_matrix("linear_cka", "features_b", features_b)
    least = 4 if debiased else 2
    if len(a) != len(b) or len(a) < least:
        what = f"of one number of examples, {least} at least"
        checks.fail("linear_cka", "features_a, features_b", what, f"{len(a)} and {len(b)}")
    kernels = [x @ x.T for x in map(_centred, (a, b))]
    hsic = _unbiased if debiased else lambda K, L: float(np.sum(K * L))
    same = [hsic(K, K) for K in kernels]
    return hsic(*kernels) / math.sqrt(same[0] * same[1]) if min(same) > 0 else math.nan


def _centred(x: np.ndarray) -> np.ndarray:
    """Features about their mean, in units of the largest, which alignment does not see: squares stay in range."""
    away = x / (np.abs(x).max() or 1.0)
    away = away - away.mean(axis=0)
    centred: np.ndarray = away / (np.abs(away).max() or 1.0)
    return centred


def _unbiased(K: np.ndarray, L: np.ndarray) -> float:
    """Song et al.'s estimate of HSIC, up to the factor n (n − 3) that alignment does not see."""
    n = len(K)
    K, L = (M - np.diag(np.diag(M)) for M in (K, L))
    sums = K.sum(axis=0), L.sum(axis=0)
    return float(np.sum(K * L) + sums[0].sum() * sums[1].sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (sums[0] @ sums[1]))

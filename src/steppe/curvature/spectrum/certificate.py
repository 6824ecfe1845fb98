"""How many eigenvalues can lie beyond a number: what makes a found eigenvalue the k-th, not just any.

A search that has found k eigenvalues cannot see that it missed one. Two facts together can.

*A bound on the rest.* Let b be a random unit vector, and α, β what m steps of Lanczos' method from b give for a
symmetric matrix C. They determine the polynomials p₀ … p_m that are orthonormal under the spectral measure of b, which
puts the weight ⟨u, b⟩² at the eigenvalue of each eigenvector u. No measure with these polynomials has more than
1/Σⱼ pⱼ(x)² at a point x (Christoffel). Above the largest Ritz value this falls with x, and quickly with m.
But ⟨u, b⟩² is small for a direction u only by rare accident, since b is random. So λ_max(C) < x, unless that happened.

*A count.* Let rows Y have A yᵢ = θᵢyᵢ + rᵢ with rᵢ orthogonal to Y, and let C be A on the complement of Y. If
λ_max(C) ≤ x₁ < x, then by the inertia of the Schur complement A has no more eigenvalues above x than the small matrix
diag(θ) − x + RRᵀ/(x − x₁) has above zero.
"""

import math

import numpy as np
import scipy.linalg

MISS = 1e-5
"""The chance that a bound on the rest is wrong: that a random vector is so nearly orthogonal to a direction."""


def rarity(norm_squared: float) -> float:
    """Logarithm of the growth Σⱼ pⱼ(x)² that rules out an eigenvalue at x; a normal vector of this ‖·‖² was normalised.

    The normal vector's part g along a direction has |g| < τ with a chance of at most τ√(2/π).
    """
    return math.log(max(norm_squared, np.finfo(float).tiny)) - 2 * math.log(MISS * math.sqrt(math.pi / 2))


def edge(alpha: np.ndarray, beta: np.ndarray, growth: float, within: float) -> float:
    """The smallest x at which Σⱼ pⱼ(x)² reaches exp(growth), up to `within` beyond the largest Ritz value.

    Parameters
    ----------
    alpha, beta : np.ndarray
        (m,) α₀ … α_{m−1} and β₁ … β_m of Lanczos' method; βₘ is the length of what is left over.
    growth : float
        From `rarity`.
    within : float
        How far to look.

    Returns
    -------
    float
        An upper bound on the eigenvalues, with a chance of `MISS` of being wrong; infinite where there is none.
    """
    top = largest(alpha, beta)
    if not _log_growth(alpha, beta, np.array([top + within]))[0] >= growth:
        return math.inf
    # by ratios: what matters may be many orders of magnitude nearer than `within`
    low, high = 1e-16 * within, within
    for _ in range(3):
        offsets = np.geomspace(low, high, 33)
        first = int(np.argmax(_log_growth(alpha, beta, top + offsets) >= growth))
        low, high = offsets[max(first - 1, 0)], offsets[first]
    return float(top + high)


def largest(alpha: np.ndarray, beta: np.ndarray) -> float:
    """The largest Ritz value."""
    last = len(alpha) - 1
    return float(scipy.linalg.eigvalsh_tridiagonal(alpha, beta[:-1], select="i", select_range=(last, last))[0])


def _log_growth(alpha: np.ndarray, beta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Logarithm of Σⱼ pⱼ(x)² for x above all Ritz values; −∞ elsewhere. Ratios of neighbours, which do not overflow."""
    total, log_p, pivot = np.zeros_like(x), np.zeros_like(x), np.ones_like(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        for j, (a, b) in enumerate(zip(alpha, beta, strict=True)):
            pivot = x - a - (beta[j - 1] ** 2 / pivot if j else 0)
            log_p = log_p + np.log(np.where(pivot > 0, pivot, np.nan)) - np.log(b)
            total = np.logaddexp(total, 2 * log_p)
    return np.where(np.isnan(total), -np.inf, total)


def count_above(x: np.ndarray, values: np.ndarray, coupling: np.ndarray, rest: float) -> np.ndarray:
    """The most eigenvalues that can lie above each x.

    Parameters
    ----------
    x : np.ndarray
        (k,)
    values : np.ndarray
        (c,) θ, the Ritz values of the rows Y.
    coupling : np.ndarray
        (c, c) RRᵀ, inner products of the residuals.
    rest : float
        x₁, an upper bound on the eigenvalues of the complement of Y.

    Returns
    -------
    np.ndarray
        (k,) Infinite where x is not above `rest`.
    """
    distance = np.where(x > rest, x - rest, 1)[:, None, None]
    small = np.diag(values) - x[:, None, None] * np.eye(len(values)) + coupling / distance
    return np.where(x > rest, np.sum(np.linalg.eigvalsh(small) > 0, axis=1), np.inf)

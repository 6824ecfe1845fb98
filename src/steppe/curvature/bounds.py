"""What the first two moments of a spectrum say about its ends."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, trees
from steppe.core.types import Estimate


class SpectrumBounds(NamedTuple):
    """Intervals that hold the smallest and the largest eigenvalue.

    Attributes
    ----------
    min_lower, min_upper : min_lower ≤ λmin ≤ min_upper.
    max_lower, max_upper : max_lower ≤ λmax ≤ max_upper.
    """

    min_lower: jax.Array
    min_upper: jax.Array
    max_lower: jax.Array
    max_upper: jax.Array


def wolkowicz_styan(trace: Any, frobenius_squared: Any, size: int) -> SpectrumBounds:
    """Bounds on the extreme eigenvalues of a symmetric matrix from tr H and tr(H²) (Wolkowicz and Styan 1980, thm 2.1).

    With m = tr H / n and s² = tr(H²) / n − m², the mean and the variance of the n eigenvalues,

        m − s √(n−1) ≤ λmin ≤ m − s / √(n−1),    m + s / √(n−1) ≤ λmax ≤ m + s √(n−1).

    Parameters
    ----------
    trace, frobenius_squared : tr H and tr(H²), sums over all n eigenvalues: numbers, arrays (elementwise) or Estimates,
        whose means are taken.
    size : the number n of rows.

    Returns
    -------
    SpectrumBounds, in at least float32. The outer two are attained if, and only if, the n − 1 other eigenvalues are
    equal; the inner two at the same spectra, from the other side. For n far above the rank, max_upper ≈ √tr(H²).
    Differentiable; at s = 0, where the bounds have a kink, s is held constant. s² below 0, which random moments can
    give, counts as 0. From estimates, s is biased by the square root, and the bounds hold as far as the estimates do.

    Raises
    ------
    InputError : size below 1.

    Examples
    --------
    The eigenvalues 5, 1, 1, 1 attain the upper end:

    >>> [round(float(bound), 4) for bound in wolkowicz_styan(8.0, 28.0, 4)]
    [-1.0, 1.0, 3.0, 5.0]
    """
    checks.whole("wolkowicz_styan", "size", size)
    m, s = _mean_and_deviation(trace, frobenius_squared, size)
    far = s * math.sqrt(size - 1)
    near = s / math.sqrt(size - 1) if size > 1 else far
    return SpectrumBounds(m - far, m - near, m + near, m + far)


def mirsky(trace: Any, frobenius_squared: Any, size: int) -> jax.Array:
    """An upper bound on the width of a symmetric matrix's spectrum from tr H and tr(H²) (Mirsky 1956).

        λmax − λmin ≤ √(2 tr(H²) − 2 (tr H)² / n) = s √(2n),

    s² = tr(H²) / n − (tr H / n)²: narrower by √(n / (2n−2)) than the outer ends of `wolkowicz_styan` are apart.

    Parameters
    ----------
    trace, frobenius_squared, size : as for `wolkowicz_styan`.

    Returns
    -------
    The bound, in at least float32. Attained if, and only if, all eigenvalues but two lie midway between these. The
    width is also at least 2s, a half at each end, and 2s n / √(n²−1) where n is odd. Differentiable as there.

    Raises
    ------
    InputError : size below 1.

    Examples
    --------
    >>> round(float(mirsky(0.0, 8.0, 3)), 4)  # the eigenvalues −2, 0, 2
    4.0
    """
    checks.whole("mirsky", "size", size)
    return _mean_and_deviation(trace, frobenius_squared, size)[1] * math.sqrt(2 * size if size > 1 else 0)


def _mean_and_deviation(trace: Any, frobenius_squared: Any, size: int) -> tuple[jax.Array, jax.Array]:
    """The mean m and the standard deviation s of n eigenvalues, s with a gradient of 0 at 0."""
    first, second = (jnp.asarray(t.mean if isinstance(t, Estimate) else t) for t in (trace, frobenius_squared))
    dtype = trees.accumulator_dtype(first, second)
    m = first.astype(dtype) / size
    variance = second.astype(dtype) / size - m**2
    variance = jnp.where(jnp.isfinite(variance), variance, jnp.nan)  # of moments beyond the dtype nothing is known
    spread = ~(variance <= 0)  # NaN stays NaN
    return m, jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 0)

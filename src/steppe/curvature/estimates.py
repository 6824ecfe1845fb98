"""Hutchinson's estimates of the moments of an operator, each with its standard error."""

from typing import Literal

import jax
import jax.numpy as jnp

from steppe import checks, trees
from steppe.curvature.operators import Operator
from steppe.curvature.probes import DISTRIBUTIONS
from steppe.typing import Estimate, Key, Moments

Distribution = Literal["rademacher", "gaussian"]

UNROLLED = 8
"""Up to so many probes are unrolled (faster on a CPU than a loop or `vmap`); more run in a compiled loop."""


def trace(A: Operator, key: Key, *, probes: int = 32, distribution: Distribution = "rademacher") -> Estimate:
    """The trace of a symmetric operator, tr A = E vᵀAv (Hutchinson 1989, eq. 1).

    Parameters
    ----------
    A : symmetric operator on n parameters.
    key : an int or a JAX key array.
    probes : the number M of random vectors v with E vvᵀ = I.
    distribution : "rademacher" (signs) or "gaussian".

    Returns
    -------
    Estimate of tr A (a sum over all n eigenvalues, not divided by n): the mean over probes, and its standard
    error s/√M, NaN for M = 1. Unbiased. Cost: M products.

    Raises
    ------
    InputError : probes below 1, an unknown distribution, a key that is neither int nor key array.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from steppe import curvature
    >>> diagonal = curvature.Operator(lambda v: jnp.array([1.0, 2.0, 3.0]) * v, jnp.zeros(3))
    >>> float(curvature.trace(diagonal, 0, probes=2).mean)  # exact: signs see a diagonal without noise
    6.0
    """
    return moments(A, key, probes=probes, distribution=distribution).trace


def frobenius_squared(
    A: Operator, key: Key, *, probes: int = 32, distribution: Distribution = "rademacher"
) -> Estimate:
    """The squared Frobenius norm ‖A‖²_F = tr(A²) = E ‖Av‖² of a symmetric operator.

    Parameters
    ----------
    A, key, probes, distribution : see `trace`.

    Returns
    -------
    Estimate of tr(A²) (not divided by n): the mean over probes of ‖Av‖² and its standard error. Unbiased for this
    operator; over a mini-batch, tr(H²) overestimates that of the full data, as E‖H_batch‖² exceeds ‖E H_batch‖².
    Cost: M products. Differentiable in whatever A depends on; the standard error is held constant.

    Raises
    ------
    InputError : as `trace`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from steppe import curvature
    >>> diagonal = curvature.Operator(lambda v: jnp.array([1.0, 2.0, 3.0]) * v, jnp.zeros(3))
    >>> float(curvature.frobenius_squared(diagonal, 0).mean)
    14.0
    """
    return moments(A, key, probes=probes, distribution=distribution).frobenius_squared


def moments(A: Operator, key: Key, *, probes: int = 32, distribution: Distribution = "rademacher") -> Moments:
    """Estimates of tr A and tr(A²) from the same probes, at the cost of one of them.

    Parameters
    ----------
    A, key, probes, distribution : see `trace`.

    Returns
    -------
    Moments(trace, frobenius_squared), two correlated Estimates. Cost: M products.

    Raises
    ------
    InputError : as `trace`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from steppe import curvature
    >>> identity = curvature.Operator(lambda v: v, jnp.zeros(4))
    >>> [float(estimate.mean) for estimate in curvature.moments(identity, 0)]
    [4.0, 4.0]
    """
    checks.whole("curvature.moments", "probes", probes)
    draw = DISTRIBUTIONS[checks.one_of("curvature.moments", "distribution", distribution, DISTRIBUTIONS)]
    keys = jax.random.split(checks.key_array("curvature.moments", key), probes)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        v = draw(key, A.like)
        Av = A.matvec(v)
        return trees.dot(v, Av), trees.norm_squared(Av)

    if probes <= UNROLLED:
        first, second = (jnp.stack(values) for values in zip(*(one(k) for k in keys), strict=True))
    else:
        first, second = jax.lax.map(one, keys)
    return Moments(estimate(first), estimate(second))


def estimate(samples: jax.Array) -> Estimate:
    """The mean of M independent samples, shape (M,), and its standard error, held constant under differentiation."""
    fixed = jax.lax.stop_gradient(samples)
    count = samples.shape[0]
    # two-pass: the spread of large, nearly equal samples survives float32
    spread = jnp.sqrt(jnp.sum((fixed - jnp.mean(fixed)) ** 2) / max(count - 1, 1))
    sem = spread / count**0.5 if count > 1 else jnp.full((), jnp.nan, samples.dtype)
    return Estimate(jnp.mean(samples), sem)

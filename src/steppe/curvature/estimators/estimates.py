"""Hutchinson's estimates of the moments of an operator, each with its standard error."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from steppe.core import checks, trees
from steppe.core.types import Estimate, Key, Moments, Params
from steppe.curvature import operators
from steppe.curvature.estimators import averages
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from steppe.curvature.operators import Operator

Distribution = Literal["rademacher", "gaussian"]
Differentiated = Literal["both", "trace", "frobenius_squared"]


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
    return moments(A, key, probes=probes, distribution=distribution, differentiate="trace").trace


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
    found = moments(A, key, probes=probes, distribution=distribution, differentiate="frobenius_squared")
    return found.frobenius_squared


def moments(
    A: Operator,
    key: Key,
    *,
    probes: int = 32,
    distribution: Distribution = "rademacher",
    differentiate: Differentiated = "both",
) -> Moments:
    """Estimates of tr A and tr(A²) from the same probes, at the cost of one of them.

    Parameters
    ----------
    A, key, probes, distribution : see `trace`.
    differentiate : "trace" or "frobenius_squared" where only that one will be differentiated, which halves the cost of
        a gradient; the other one is then held constant.

    Returns
    -------
    Moments(trace, frobenius_squared), two correlated Estimates. Cost: M products, in the memory of one. A gradient
    takes the memory of one probe, too, whatever their number.

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
    checks.one_of("curvature.moments", "distribution", distribution, DISTRIBUTIONS)
    keys = jax.random.split(checks.key_array("curvature.moments", key), probes)
    return _moments(distribution, moving("curvature.moments", differentiate))(A, keys)


def moving(function: str, differentiate: str) -> tuple[bool, bool]:
    """Which of the two moments are differentiated."""
    checks.one_of(function, "differentiate", differentiate, ("both", *Moments._fields))
    first, second = (differentiate in ("both", field) for field in Moments._fields)
    return first, second


@functools.cache
def _moments(distribution: Distribution, moving: tuple[bool, bool]) -> Callable[[Operator, jax.Array], Moments]:
    def value(v: Params, Av: Params) -> tuple[jax.Array, jax.Array]:
        return trees.dot(v, Av), trees.norm_squared(Av)

    def one(A: Operator, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        v = DISTRIBUTIONS[distribution](key, A.like)
        return value(v, operators.apply(A, v))

    def every(A: Operator, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        found: tuple[jax.Array, jax.Array] = operators.samples(
            A, keys, lambda key: DISTRIBUTIONS[distribution](key, A.like), value
        )
        return found

    @operators.compiled
    def computed(A: Operator, keys: jax.Array) -> Moments:
        return Moments(*averaged(every, one, A, keys, moving))

    return computed


def averaged(
    every: averages.Value, one: averages.Value, operand: Any, keys: jax.Array, moving: tuple[bool, ...]
) -> tuple[Estimate, ...]:
    """Estimates of some quantities from one sample a key, see `averages`."""
    means, samples = averages.averages(every, one, operand, keys, moving)
    pairs = zip(means, samples, strict=True)
    return tuple(Estimate(mean, estimate(values).sem) for mean, values in pairs)


def estimate(samples: jax.Array) -> Estimate:
    """The mean of M independent samples, shape (M,), and its standard error, held constant under differentiation."""
    fixed = jax.lax.stop_gradient(samples)
    count = samples.shape[0]
    # two-pass, and in units of the largest: the spread of large, nearly equal, or tiny samples survives float32
    apart = fixed - jnp.mean(fixed)
    peak = jnp.max(jnp.abs(apart))
    unit = jnp.where((peak > 0) & jnp.isfinite(peak), peak, 1)
    spread = unit * jnp.sqrt(jnp.sum((apart / unit) ** 2) / max(count - 1, 1))
    sem = spread / count**0.5 if count > 1 else jnp.full((), jnp.nan, samples.dtype)
    return Estimate(jnp.mean(samples), sem)


def exact(value: jax.Array) -> Estimate:
    """What is known without sampling: a standard error of zero."""
    return Estimate(value, jnp.zeros_like(value))


def diagonal(A: Operator, key: Key, *, probes: int = 32) -> Estimate:
    """The diagonal of a symmetric operator, diag A = E v ∘ Av for random signs v (Bekas et al. 2007).

    Parameters
    ----------
    A : symmetric operator.
    key : an int or a key array.
    probes : M.

    Returns
    -------
    Estimate(mean, sem) of pytrees like the operator's vectors. Unbiased; the variance of an entry is the sum of the
    squares of the other entries of its row. Cost: M products; memory: a few vectors, whatever M.

    Raises
    ------
    InputError : as `trace`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from steppe import curvature
    >>> A = curvature.Operator(lambda v: jnp.array([1.0, 2.0, 3.0]) * v, jnp.zeros(3))
    >>> curvature.diagonal(A, 0).mean.tolist()
    [1.0, 2.0, 3.0]
    """
    checks.whole("diagonal", "probes", probes)
    return _diagonal(A, jax.random.split(checks.key_array("diagonal", key), probes))


@operators.compiled
def _diagonal(A: Operator, keys: jax.Array) -> Estimate:
    multiply = operators.multiplication(A)

    def add(sums: tuple[Params, Params, jax.Array], key: jax.Array) -> tuple[tuple[Params, Params, jax.Array], None]:
        mean, spread, count = sums
        v = DISTRIBUTIONS["rademacher"](key, A.like)
        sample = trees.multiply(v, multiply(v))
        # Welford's update: the spread of large, nearly equal samples survives float32
        ahead = jax.tree.map(lambda s, m: s.astype(m.dtype) - m, sample, mean)
        after = jax.tree.map(lambda m, d: m + d / count, mean, ahead)
        spread = jax.tree.map(lambda q, s, d, m: q + d * (s.astype(m.dtype) - m), spread, sample, ahead, after)
        return (after, spread, count + 1), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, A.dtype), A.like)
    (mean, spread, _), _ = jax.lax.scan(add, (zeros, zeros, jnp.ones((), A.dtype)), keys)
    many = len(keys)
    # the variance of the mean; of one sample it is not known
    variance = jax.tree.map(lambda q: q / (many - 1) / many if many > 1 else jnp.full_like(q, jnp.nan), spread)
    return Estimate(mean, jax.lax.stop_gradient(jax.tree.map(jnp.sqrt, variance)))

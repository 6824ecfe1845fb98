"""The whole spectrum by stochastic Lanczos quadrature: its density, and traces of functions of an operator."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe.core import checks, programs
from steppe.core.types import Estimate, Key
from steppe.curvature import lanczos, operators
from steppe.curvature.estimators.estimates import Distribution, estimate
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from steppe.curvature.operators import Operator


class Quadrature(NamedTuple):
    """M discrete measures, each standing for the spectrum: Σᵢ weightsᵢ f(nodesᵢ) estimates 1/n tr f(A).

    Attributes
    ----------
    nodes, weights : (M, m), one row a random vector; the weights of a row sum to 1, and are zero where its Krylov
        space was exhausted early. NaN where a product was not finite.
    """

    nodes: jax.Array
    weights: jax.Array

    def averages(self, function: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """(M,) Σᵢ wᵢ f(λᵢ), each an estimate of 1/n tr f(A)."""
        values = function(self.nodes).astype(self.nodes.dtype)
        return jnp.sum(jnp.where(self.weights == 0, 0, self.weights * values), axis=1)


class Density(NamedTuple):
    """A spectral density, smoothed.

    Attributes
    ----------
    grid : (P,) eigenvalues.
    density : (P,), per unit of eigenvalue; Σ density · spacing = 1. Times the operator's size: eigenvalues per unit.
    sem : (P,) standard errors over the random vectors, NaN for one.
    width : the resolution, the standard deviation of the normal curve that stands for each node.
    quadrature : what was smoothed.
    """

    grid: jax.Array
    density: jax.Array
    sem: jax.Array
    width: jax.Array
    quadrature: Quadrature


def quadrature(
    A: Operator, key: Key, *, probes: int = 10, steps: int = 64, distribution: Distribution = "rademacher"
) -> Quadrature:
    """Stochastic Lanczos quadrature: E Σᵢ wᵢ f(λᵢ) ≈ 1/n tr f(A), exact for polynomials of degree 2m − 1.

    Parameters
    ----------
    A : symmetric operator of size n.
    key : of the random vectors.
    probes : M, how many vectors.
    steps : m, Lanczos steps for each; at most n are taken.
    distribution : "rademacher" or "gaussian" (normalised, uniform on the sphere).

    Returns
    -------
    Quadrature(nodes, weights), (M, m) each. Cost: M·m products; memory: n(m + 4) numbers.

    Raises
    ------
    InputError : probes or steps below 1; an unknown distribution.

    Notes
    -----
    Golub and Meurant 1994; Ubaru, Chen and Saad 2017. Lanczos with partial reorthogonalisation (Simon 1984): the
    basis is gone through at every second to tenth step, as often as rounding asks for it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, 2.0, 6.0]) * v, jnp.zeros(3))
    >>> nodes, weights = quadrature(A, 0, probes=1)
    >>> [round(float(x), 3) for x in (nodes[0] * weights[0]).sum(keepdims=True)]  # 1/3 tr A
    [3.0]
    """
    checks.whole("quadrature", "probes", probes)
    checks.whole("quadrature", "steps", steps)
    checks.one_of("quadrature", "distribution", distribution, DISTRIBUTIONS)
    keys = jax.random.split(checks.key_array("quadrature", key), probes)
    return _quadrature(min(steps, A.size), distribution)(A, keys)


@functools.cache
def _quadrature(steps: int, distribution: Distribution) -> Callable[[Operator, jax.Array], Quadrature]:
    def computed(A: Operator, keys: jax.Array) -> Quadrature:
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            start = ravel_pytree(DISTRIBUTIONS[distribution](key, A.like))[0].astype(A.dtype)
            T = lanczos.tridiagonal(steps)(A, start)
            nodes, vectors = jnp.linalg.eigh(lanczos.dense(T))
            return nodes, vectors[0] ** 2

        return Quadrature(*jax.lax.map(one, keys))

    return operators.compiled(computed)


def spectral_density(
    A: Operator,
    key: Key,
    *,
    probes: int = 10,
    steps: int = 64,
    width: float | None = None,
    points: int = 1024,
    distribution: Distribution = "rademacher",
) -> Density:
    """The density of a symmetric operator's eigenvalues, 1/n Σᵢ N(t; λᵢ, width²), by stochastic Lanczos quadrature.

    Parameters
    ----------
    A, key, probes, steps, distribution : see `quadrature`.
    width : σ, the resolution; None: (λ_max − λ_min)/(2m), what m steps resolve in the bulk of a spectrum. Isolated
        eigenvalues at the ends are found to many digits and drawn as wide. Where the spectrum is so narrow that this
        dtype could not tell the points of the grid apart, σ is larger: the result says how large. For zeros it is 1.
    points : P, of the grid, which reaches 5σ beyond the ends.

    Returns
    -------
    Density(grid, density, sem, width, quadrature). Each point is the mean of the density over its cell of the grid, so
    that the sum is 1 at any resolution.

    Raises
    ------
    InputError : as `quadrature`; a width that is not positive; points below 2.

    Notes
    -----
    Lin, Saad and Yang 2016; Ghorbani, Krishnan and Xiao 2019.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, 2.0, 6.0]) * v, jnp.zeros(3))
    >>> found = spectral_density(A, 0)
    >>> round(float(jnp.sum(found.density) * (found.grid[1] - found.grid[0])), 4)
    1.0
    """
    checks.whole("spectral_density", "points", points, least=2)
    if width is not None:
        checks.real("spectral_density", "width", width, least=float(jnp.finfo(A.dtype).tiny))
    found = quadrature(A, key, probes=probes, steps=steps, distribution=distribution)
    return smoothed(found, width=width, points=points)


def smoothed(found: Quadrature, *, width: float | jax.Array | None = None, points: int = 1024) -> Density:
    """The density of a quadrature at another resolution; see `spectral_density`. Costs no products."""
    return _smoothed(found, width, points=points)


@programs.compiled(static=["points"])
def _smoothed(found: Quadrature, width: float | jax.Array | None, *, points: int) -> Density:
    nodes, weights = found
    seen = weights != 0  # NaN is seen
    low, high = jnp.min(nodes, where=seen, initial=jnp.inf), jnp.max(nodes, where=seen, initial=-jnp.inf)
    if width is None:
        width = (high - low) / (2 * nodes.shape[1])
    # one eigenvalue, repeated, has a density too: its curve is so wide that the dtype can tell the points of the grid
    # apart, ten units of rounding each; or 1 where all eigenvalues are zero
    needed = 10 * points * jnp.finfo(nodes.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    width = jnp.maximum(jnp.asarray(width, nodes.dtype), (needed - (high - low)) / 10)
    width = jnp.where(width == 0, 1, width)
    edges = jnp.linspace(low - 5 * width, high + 5 * width, points + 1)
    spacing = (edges[-1] - edges[0]) / points
    tails = jax.vmap(lambda n, w: jax.scipy.stats.norm.cdf((edges[:, None] - n[None]) / width) @ w)(nodes, weights)
    each = jnp.diff(tails, axis=1) / spacing
    mean, sem = map(jnp.asarray, jax.vmap(estimate, 1)(each))
    return Density((edges[1:] + edges[:-1]) / 2, mean, sem, width, found)


def trace_of_function(
    A: Operator,
    key: Key,
    function: Callable[[jax.Array], jax.Array],
    *,
    probes: int = 10,
    steps: int = 64,
    distribution: Distribution = "rademacher",
) -> Estimate:
    """The trace of a function of a symmetric operator, tr f(A) = Σᵢ f(λᵢ).

    Parameters
    ----------
    A, key, probes, steps, distribution : see `quadrature`.
    function : f, elementwise on arrays: ``jnp.abs`` gives the nuclear norm, ``jnp.log`` the log-determinant.

    Returns
    -------
    Estimate (a sum over all n eigenvalues) with its standard error over the random vectors; that of the quadrature is
    not in it, and falls exponentially in `steps` where f is smooth. Cost: probes · steps products.

    Raises
    ------
    InputError : as `quadrature`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, 2.0, 6.0]) * v, jnp.zeros(3))
    >>> round(float(trace_of_function(A, 0, jnp.log).mean), 3)  # log 12
    2.485
    """
    found = quadrature(A, key, probes=probes, steps=steps, distribution=distribution)
    return estimate(A.size * found.averages(function))


def soft_rank(A: Operator, key: Key, *, damping: float, probes: int = 10, steps: int = 64) -> Estimate:
    """The soft rank (effective dimension) tr A(A + αI)⁻¹ = Σᵢ λᵢ/(λᵢ + α): how many eigenvalues exceed α, softly.

    Negative eigenvalues, which a Hessian away from a minimum has, count as zero; `ggn` has none.

    Parameters
    ----------
    A, key, probes, steps : see `quadrature`.
    damping : α > 0, in units of the loss per squared parameter; the weight decay in Shoham 2025.

    Returns
    -------
    Estimate between 0 and n. Cost: probes · steps products.

    Raises
    ------
    InputError : as `quadrature`; a damping that is not positive.

    Notes
    -----
    MacKay 1992, eq. 4.9; Shoham 2025.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, 0.0, 3.0]) * v, jnp.zeros(3))
    >>> round(float(soft_rank(A, 0, damping=1.0).mean), 3)
    1.25
    """
    checks.real("soft_rank", "damping", damping, least=float(jnp.finfo(A.dtype).tiny))
    return trace_of_function(A, key, lambda values: soft_share(values, damping), probes=probes, steps=steps)


def soft_share(values: jax.Array, damping: float | jax.Array) -> jax.Array:
    """What each eigenvalue adds to the soft rank, λ/(λ + α), 0 for a negative one."""
    positive = jnp.maximum(values, 0)
    return positive / (positive + jnp.asarray(damping, values.dtype))

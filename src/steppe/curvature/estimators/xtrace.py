"""The trace from fewer products, where a few eigenvalues carry most of it."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe.core import checks
from steppe.core.types import Estimate, Key
from steppe.curvature import lanczos, operators
from steppe.curvature.estimators.estimates import estimate
from steppe.curvature.operators import Operator


def xtrace(A: Operator, key: Key, *, probes: int = 16) -> Estimate:
    """The trace of a symmetric operator from M random vectors and 2M products (Epperly, Tropp and Webber 2024, XTrace).

    For each vector ωᵢ, the trace is split into that on the range of A on all other vectors, exact, and that on its
    complement, estimated with ωᵢ; the mean over i is taken. Where eigenvalues decay, its error falls much faster than
    the 1/√M of `trace`: use it for a spectrum with a few outliers, `trace` for a flat one.

    Parameters
    ----------
    A : symmetric operator of size n.
    key : an int or a key array.
    probes : M, at least 2 and at most n; 2M products.

    Returns
    -------
    Estimate of tr A, unbiased. Its standard error is the spread of the M terms over √M: they are exchangeable, not
    independent, and share most of their error where M is small. Memory: about 4nM numbers.

    Raises
    ------
    InputError : probes below 2 or above n.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from steppe import curvature
    >>> A = curvature.Operator(lambda v: jnp.array([5.0, 1.0, 0.0, 0.0]) * v, jnp.zeros(4))  # rank 2
    >>> round(float(xtrace(A, 0, probes=3).mean), 3)
    6.0
    """
    checks.whole("xtrace", "probes", probes, least=2)
    if probes > A.size:
        checks.fail("xtrace", "probes", f"at most the operator's size, {A.size}", probes, "Use trace.")
    return _xtrace(probes)(A, checks.key_array("xtrace", key))


@functools.cache
def _xtrace(probes: int) -> Callable[[Operator, jax.Array], Estimate]:
    def computed(A: Operator, key: jax.Array) -> Estimate:
        flat, unravel = lanczos.flattening(A)

        def images(rows: jax.Array) -> jax.Array:
            def together(some: jax.Array) -> jax.Array:
                found = operators.images(A, jax.vmap(unravel)(some))
                return jax.vmap(lambda v: ravel_pytree(v)[0].astype(rows.dtype))(found)

            stack: jax.Array = operators.in_blocks(together, rows, operators.stack_size(A))
            return stack

        normal = jax.random.normal(key, (probes, flat.size), flat.dtype)
        omega = normal * (flat.size**0.5 / jnp.linalg.norm(normal, axis=1))[:, None]  # uniform on a sphere
        Y = images(omega)
        # images are divided by their size, so that no square leaves the range of the dtype
        largest = jnp.max(jnp.abs(Y))
        scale = jnp.where(largest == 0, 1, largest)
        Q, R = jnp.linalg.qr(Y.T / scale)
        return estimate(scale * _terms(flat.size, Q.T @ omega.T, R, Q.T @ images(Q.T).T / scale))

    return operators.compiled(computed)


def _terms(size: int, W: jax.Array, R: jax.Array, H: jax.Array) -> jax.Array:
    """The M terms, from W = QᵀΩ, QR = AΩ and H = QᵀAQ."""
    dot = lambda a, b: jnp.sum(a * b, axis=0)  # noqa: E731
    U, sigma, V = jnp.linalg.svd(R)
    # directions of Q that AΩ reaches; a matrix of low rank, or of zeros, leaves some out
    eps = 10 * jnp.finfo(R.dtype).eps
    kept = sigma > len(R) * eps * sigma[0]
    inverse = jnp.where(kept, 1 / jnp.where(kept, sigma, 1), 0)
    V = jnp.where(kept[:, None], V, 0)
    # column i of S: the unit vector of the range of AΩ that is orthogonal to Aωⱼ for all j ≠ i, the i-th column of R⁺ᵀ.
    # There is one only where Aωᵢ adds to the range of the others: where eᵢ is among the combinations that R can tell.
    S = U @ (inverse[:, None] * V)
    adds = dot(V, V) > 1 - jnp.sqrt(eps)
    length = jnp.linalg.norm(S, axis=0)
    S = jnp.where(adds & (length > 0), S / jnp.where(length > 0, length, 1), 0)
    rank = jnp.sum(kept)
    reached = (U * kept[None]) @ (U.T @ W)  # ωᵢ's part in the range of AΩ
    X = reached - S * dot(S, W)[None]  # and in that of A on the others
    parts = jnp.stack([dot(W, R), -2 * dot(X, R), dot(X, H @ X)])
    outside = jnp.sum(parts, axis=0)
    # what rounding alone can leave would be divided by a small length below, where ωᵢ is almost all reached
    outside = jnp.where(jnp.abs(outside) <= eps * jnp.sum(jnp.abs(parts), axis=0), 0, outside)
    left, length = size - rank + adds, size - dot(X, X)
    scaled = jnp.where(left > 0, left / jnp.where(left > 0, length, 1) * outside, 0)  # nothing is outside of everything
    return jnp.trace(U.T @ H @ U * kept[None]) - dot(S, H @ S) + scaled

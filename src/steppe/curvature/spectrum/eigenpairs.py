"""Eigenvalues at the ends of a spectrum, each with its residual: never an unconverged number without saying so."""

import warnings
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, trees
from steppe.core.programs import jit
from steppe.core.types import Key, Params
from steppe.curvature import lanczos, layout
from steppe.curvature.operators import Operator
from steppe.curvature.spectrum import krylov, search

DENSE = 300
"""Up to this size, or four times the number asked for, the whole matrix is made: n products, and nothing is missed."""

DENSE_MOST = 10_000
"""The largest matrix that is made so: 800 MB."""

BASIS_BYTES = 3e9
"""The most that a basis and its products may take."""


class Eigenpairs(NamedTuple):
    """Some eigenvalues and eigenvectors of a symmetric operator.

    Attributes
    ----------
    values : (k,), in the order asked for.
    vectors : a pytree like the operator's vectors with a leading axis k; unit length, orthogonal.
    residuals : (k,) lengths ‖Av − λv‖, computed from a product of their own. An eigenvalue of A lies within that of λ;
        where the next one is at a distance δ, within residual²/δ.
    converged : (k,) bools: residual ≤ tol · ‖A‖, and fewer than i eigenvalues come before the i-th value by more than
        tol · ‖A‖. So it is an eigenvalue, and the i-th.
    """

    values: jax.Array
    vectors: Params
    residuals: jax.Array
    converged: jax.Array


class SpectralRange(NamedTuple):
    """The two ends of a spectrum.

    Attributes
    ----------
    smallest, largest : λ_min and λ_max.
    residuals : (2,), of each; see `Eigenpairs`.
    converged : (2,) bools.
    """

    smallest: jax.Array
    largest: jax.Array
    residuals: jax.Array
    converged: jax.Array

    @property
    def width(self) -> jax.Array:
        """The Hessian spectral range λ_max − λ_min."""
        return self.largest - self.smallest


def top_eigenpairs(
    A: Operator,
    key: Key,
    k: int = 1,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    tol: float | None = None,
    max_products: int = 1000,
) -> Eigenpairs:
    """The k leading eigenpairs of a symmetric operator, by Lanczos' method with restarts until they have converged.

    Parameters
    ----------
    A : Operator
        Symmetric, of size n.
    key : int or jax.Array
        Of the random vectors.
    k : int
        How many, at most n.
    which : {"largest", "smallest", "magnitude"}
        λ_max first, the most negative first, or |λ| largest first.
    tol : float, optional
        What is asked for, as a fraction of ‖A‖, the largest |λ| met: of the residuals, and of how far the i-th value
        may be from the i-th eigenvalue. None: √ε of the dtype, 3e-4 in float32 and 1.5e-8 in float64; of an isolated
        eigenvalue that is a relative error of about tol².
    max_products : int
        Products after which to give up.

    Returns
    -------
    Eigenpairs
        (values, vectors, residuals, converged). What has not converged is returned, marked, and warned of: the warning
        says why the search ended, and what would help.

        Cost: n products for n up to 300 or 4k, where the whole matrix is made and solved. Beyond: about 40 to 120 for
        outliers, of which a third to a half show that nothing was missed; several hundred where the k-th eigenvalue
        lies within a bulk; and k for the residuals. Memory: about 64 + 4k vectors of n numbers, more (up to 3 GB) in a
        long search, fewer where that would exceed 3 GB. Runs on the host, not under `jax.jit`.

    Raises
    ------
    InputError
        k below 1 or above n, an unknown `which`, a tol that is not positive, a traced operator; products that are not
        finite.

    Notes
    -----
    Lanczos' method with full reorthogonalisation and thick restarts (Wu and Simon 2000). A search alone cannot see what
    it has missed, such as a second copy of an eigenvalue. So Lanczos' method is begun once more from a random vector
    outside what was found: how fast its polynomials grow bounds what else there is, with a chance of 1e-5 of being
    wrong, and a count by inertia carries the bound over to A (`curvature.certificate` has the mathematics). What turns
    up there is taken in, and the search goes on.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, -4.0, 3.0]) * v, jnp.zeros(3))
    >>> top_eigenpairs(A, 0, 2, which="magnitude").values.round(4).tolist()
    [-4.0, 3.0]
    """
    checks.one_of("top_eigenpairs", "which", which, ("largest", "smallest", "magnitude"))
    return _leading("top_eigenpairs", A, key, k, which=which, tol=tol, max_products=max_products)


def spectral_range(A: Operator, key: Key, *, tol: float | None = None, max_products: int = 1000) -> SpectralRange:
    """The smallest and the largest eigenvalue, from one search.

    Parameters
    ----------
    A, key, tol, max_products : see `top_eigenpairs`.

    Returns
    -------
    SpectralRange(smallest, largest, residuals, converged), with `width` λ_max − λ_min.

    Raises
    ------
    InputError : as `top_eigenpairs`; an operator of size 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> A = Operator(lambda v: jnp.array([1.0, -4.0, 3.0]) * v, jnp.zeros(3))
    >>> round(float(spectral_range(A, 0).width), 4)
    7.0
    """
    if A.size < 2:
        checks.fail("spectral_range", "A", "an operator of at least 2 parameters", "one of 1",
                    "Take top_eigenpairs for its one eigenvalue.")  # fmt: skip
    found = _leading("spectral_range", A, key, 2, which="ends", tol=tol, max_products=max_products)
    ends = jnp.array([1, 0])
    return SpectralRange(found.values[1], found.values[0], found.residuals[ends], found.converged[ends])


def _leading(
    function: str, A: Operator, key: Key, k: int, *, which: str, tol: float | None, max_products: int
) -> Eigenpairs:
    """The search, and what is said of its end."""
    checks.whole(function, "k", k)
    if k > A.size:
        checks.fail(function, "k", f"at most the operator's size, {A.size}", k)
    checks.whole(function, "max_products", max_products)
    eps = float(jnp.finfo(A.dtype).eps)
    tol = eps**0.5 if tol is None else float(checks.real(function, "tol", tol, least=eps, most=1.0))
    if any(map(checks.is_traced, jax.tree.leaves(A.data))):
        checks.fail(function, "A", "known: convergence is decided on the host", "an operator traced by jit or vmap",
                    "Call it outside, or use spectral_density.")  # fmt: skip
    key = checks.key_array(function, key)
    try:
        if A.size <= min(max(DENSE, 4 * k), DENSE_MOST, max_products):
            found = _densely(A, k, which)
        else:
            found = search.leading(A, key, search.Question(k, which, tol, max_products, BASIS_BYTES))
    except FloatingPointError:
        checks.fail(function, "A", "an operator whose products are finite", "NaN or infinite ones",
                    "Has training diverged? Is the loss finite?")  # fmt: skip
    return _result(function, A, found, tol)


def _densely(A: Operator, k: int, which: str) -> search.Solution:
    """From the whole matrix: no eigenvalue can be missed."""
    size, factor = A.size, jnp.ones((), A.dtype)
    unit = np.zeros(size, A.dtype)
    matrix = np.empty((size, size))
    for i in range(size):
        unit[i] = 1
        matrix[i] = layout.on_host(krylov.product(A, jnp.asarray(unit), factor))
        unit[i] = 0
    if not np.isfinite(matrix).all():
        raise FloatingPointError
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    best = search.order(values, which)[:k]
    rows = jnp.asarray(vectors.T[best], A.dtype)
    images = jnp.asarray((vectors.T @ matrix.T)[best], A.dtype)
    scale = float(np.abs(values).max())
    return search.Solution(rows, images, np.ones(k, bool), scale, size, stalled=False)


def _result(function: str, A: Operator, found: search.Solution, tol: float) -> Eigenpairs:
    """The pairs with residuals from products of their own, and a warning where they are not what was asked for."""
    unravel = lanczos.flattening(A)[1]
    one = jnp.ones((), A.dtype)
    # by number, as an array that other processes have parts of cannot be iterated over
    known, products = ([array[i] for i in range(len(array))] for array in (found.rows, found.images))
    rows = [row / jnp.linalg.norm(row) for row in known]
    images = [krylov.product(A, row, one) for row in rows]
    values, residuals, drifts = map(jnp.stack, zip(*map(_judged, rows, images, products), strict=True))
    pairs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(unravel, rows))
    limit = tol * found.scale
    short = np.asarray(residuals) > limit
    converged = ~short & found.certain
    if not converged.all():
        _warn(function, found, int(short.sum()), float(residuals.max()), limit, float(drifts.max()))
    return Eigenpairs(values, pairs, residuals, jnp.asarray(converged))


def _warn(function: str, found: search.Solution, short: int, largest: float, limit: float, drift: float) -> None:
    """Why a search ended, and what would help."""
    count, more = len(found.rows), "give more max_products, or a larger tol"
    if not short:
        unsure = int(np.sum(~found.certain))
        said = (
            f"{unsure} of {count} eigenpairs have small residuals, but {found.products} products could not rule out "
            f"that others come before them: {more}"
        )
    else:
        said = (
            f"{short} of {count} eigenpairs did not converge to residuals of {limit:.2g} in {found.products} products "
            f"(largest: {largest:.2g}); "
        )
        if drift > limit / 4:
            said += (
                f"the same product differs by {drift:.2g} when computed another way, so residuals cannot be smaller: "
                'use float64, jax.default_matmul_precision("highest"), or a larger tol'
            )
        elif found.stalled:
            said += "they stopped falling at the rounding of the products: use float64, or a larger tol"
        else:
            said += more
    warnings.warn(f"{function}: {said}. They are marked in `converged`.", stacklevel=5)


@jit
def _judged(row: jax.Array, image: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The Rayleigh quotient, the residual, and how far the product is from the one that the search had."""
    value = row @ image
    return value, trees.norm(image - value * row), trees.norm(image - known)

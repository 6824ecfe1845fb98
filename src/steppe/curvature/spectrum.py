"""Eigenvalues at the ends of a spectrum, each with its residual: never an unconverged number without saying so."""

import itertools
import warnings
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from steppe import checks, trees
from steppe.curvature import lanczos, operators
from steppe.curvature.lanczos import Tridiagonal
from steppe.curvature.operators import Operator
from steppe.typing import Key, Params

STEPS = 8
"""Products in a round at least, and Ritz vectors that the next one keeps beyond those asked for. Every step goes
through all of a round's basis: for a network whose products are cheap, long rounds cost more than short ones."""

BASIS_BYTES = 3e9
"""The most that basis and kept vectors may take, twice: the basis is transposed, kept vectors are made anew."""


class Eigenpairs(NamedTuple):
    """Some eigenvalues and eigenvectors of a symmetric operator.

    Attributes
    ----------
    values : (k,), in the order asked for.
    vectors : a pytree like the operator's vectors with a leading axis k; unit length, orthogonal.
    residuals : (k,) lengths ‖Av − λv‖, computed from a product of their own. An eigenvalue of A lies within that of λ;
        where the next one is at a distance δ, within residual²/δ.
    converged : (k,) bools, residual ≤ tol · ‖A‖.
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
    A : symmetric operator of size n.
    key : of the first vector.
    k : how many, at most n.
    which : "largest" (λ_max first), "smallest" (the most negative first) or "magnitude" (|λ| largest first).
    tol : the residual asked for, as a fraction of the largest |λ| met. None: √ε of the dtype, 3e-4 in float32 and
        1.5e-8 in float64; of an isolated eigenvalue that is a relative error of about tol².
    max_products : products after which to give up.

    Returns
    -------
    Eigenpairs(values, vectors, residuals, converged). What has not converged is returned, marked, and warned of.
    Cost: about 20 to 100 products for separated eigenvalues, and k for the residuals. Memory: about 32 + 2k vectors of
    n numbers, fewer (and more products) where that would exceed 3 GB. Runs on the host, not under `jax.jit`.

    Raises
    ------
    InputError : k below 1 or above n, an unknown `which`, a tol that is not positive, a traced operator; products
        that are not finite.

    Notes
    -----
    Lanczos from matfree (full reorthogonalisation), with thick restarts (Wu and Simon 2000). Where the Krylov space is
    exhausted early, as at repeated eigenvalues, the search goes on in its complement. A repeated eigenvalue is
    otherwise found once.

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
    search = _Search(function, A, checks.key_array(function, key), k, which, tol)
    while search.goes_on(max_products):
        search.round()
    return search.result()


class _Search:
    """Rounds of Lanczos with thick restarts: each goes on from the residual of the last and its best Ritz vectors.

    For the rows Y that are kept and their values θ, A yᵢ = θᵢ yᵢ + sᵢ q, where q is what the last round left over. A
    round begins with q and finds T on the complement of Y; on all rows together A is [[diag θ, s e₁ᵀ], [e₁ sᵀ, T]].
    Where nothing was left over, s = 0, and a random q takes its place: what is there more than once is found so.
    """

    def __init__(self, function: str, A: Operator, key: jax.Array, k: int, which: str, tol: float) -> None:
        self.function, self.A, self.key, self.k, self.which, self.tol = function, A, key, k, which, tol
        self.flat, _ = lanczos.flattening(A)
        self.steps = max(STEPS, k // 2)
        self.keep = k + self.steps
        most = int(BASIS_BYTES / (2 * self.flat.dtype.itemsize * A.size))
        if self.steps + self.keep > most:
            self.keep = max(most // 3, k + 1)
            self.steps = max(most - self.keep, k + 5)
        self.rows = jnp.zeros((self.keep, self.flat.size), self.flat.dtype)
        self.values = np.zeros(0)
        self.coupling: np.ndarray | None = None
        self.start = self.random()
        self.scale, self.products, self.complete = 0.0, 0, False

    def random(self) -> jax.Array:
        """A vector to begin with."""
        self.key, key = jax.random.split(self.key)
        return jax.random.normal(key, self.flat.shape, self.flat.dtype)

    def goes_on(self, max_products: int) -> bool:
        """Whether to look further."""
        return not self.complete and self.products < max_products

    def round(self) -> None:
        """One run of Lanczos on the complement of what is kept; then the best of both is kept."""
        steps = min(self.steps, self.A.size - len(self.values))
        T = lanczos.tridiagonal(steps)(self.A, self.start, self.rows)
        self.products += steps
        length = int(T.length)
        small, left = np.asarray(lanczos.dense(T), np.float64)[:length, :length], float(T.beside[length - 1])
        if not np.isfinite(small).all():
            checks.fail(self.function, "A", "an operator whose products are finite", "NaN or infinite ones",
                        "Has training diverged? Is the loss finite?")  # fmt: skip
        values, S, known = self.ritz(small)
        self.scale = max(self.scale, np.abs(values).max())
        order, bounds = self.order(values), left * np.abs(S[-1])
        wanted = order[: self.k]
        sound = bool((bounds[wanted] <= 0.5 * self.tol * self.scale).all())
        # a Krylov space that was exhausted may have missed some, unless what it found is all below what was known
        whole = left > 0 or max(wanted) < known
        self.complete = len(values) == self.A.size or (len(wanted) == self.k and sound and whole)
        self.restart(T, values, S, order[: self.keep], left)

    def ritz(self, small: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Eigenvalues on all rows, their coordinates, and how many of the first ones are those that were kept."""
        kept = len(self.values)
        if self.coupling is None:
            values, S = np.linalg.eigh(small)
            return np.concatenate([self.values, values]), scipy.linalg.block_diag(np.eye(kept), S), kept
        together = scipy.linalg.block_diag(np.diag(self.values), small)
        together[kept, :kept] = together[:kept, kept] = self.coupling
        return *np.linalg.eigh(together), 0

    def restart(self, T: Tridiagonal, values: np.ndarray, S: np.ndarray, best: list[int], left: float) -> None:
        """Keep the best Ritz vectors, and go on from what was left over."""
        weights = np.zeros((self.keep, self.keep + len(T.basis)))
        kept = len(self.values)
        weights[: len(best), :kept] = S[:kept, best].T
        weights[: len(best), self.keep : self.keep + len(S) - kept] = S[kept:, best].T
        self.rows = _combined(self.rows, T.basis, jnp.asarray(weights, T.basis.dtype))
        self.values = values[best]
        self.coupling = left * S[-1, best] if left > 0 else None
        self.start = T.rest if left > 0 else self.random()

    def order(self, values: np.ndarray) -> list[int]:
        """The positions of values, best first; of equal ones those that were kept before."""
        falling, rising = (np.argsort(sign * values, kind="stable").tolist() for sign in (-1, 1))
        if self.which == "ends":
            return list(dict.fromkeys(itertools.chain(*zip(falling, rising, strict=True))))
        if self.which == "magnitude":
            return np.argsort(-np.abs(values), kind="stable").tolist()
        return falling if self.which == "largest" else rising

    def result(self) -> Eigenpairs:
        """The best k, with residuals from products of their own."""
        pairs, values, residuals = _checked(self.A, self.rows[: self.k])
        converged = residuals <= self.tol * self.scale
        if not bool(jnp.all(converged)):
            warnings.warn(
                f"{self.function}: {int(jnp.sum(~converged))} of {self.k} eigenpairs did not converge to residuals of "
                f"{self.tol * self.scale:.2g} in {self.products} products (largest: {float(jnp.max(residuals)):.2g}). "
                "They are marked in `converged`; give more max_products, or a larger tol.",
                stacklevel=4,
            )
        return Eigenpairs(values, pairs, residuals, converged)


_combined = jax.jit(lambda rows, basis, weights: weights[:, : len(rows)] @ rows + weights[:, len(rows) :] @ basis)


@operators.compiled
def _checked(A: Operator, rows: jax.Array) -> tuple[Params, jax.Array, jax.Array]:
    """Unit vectors, their Rayleigh quotients, and the residuals ‖Av − λv‖, from flat vectors."""
    unravel = lanczos.flattening(A)[1]

    def one(row: jax.Array) -> tuple[Params, jax.Array, jax.Array]:
        v = unravel(row / jnp.linalg.norm(row))
        Av = operators.apply(A, (v,))[0]
        value = trees.dot(v, Av)
        return v, value, trees.norm(trees.add_scaled(Av, -value, v))

    return jax.lax.map(one, rows)

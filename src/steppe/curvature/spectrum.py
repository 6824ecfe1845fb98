"""Eigenvalues at the ends of a spectrum, each with its residual: never an unconverged number without saying so."""

import warnings
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe import checks, trees
from steppe.curvature import lanczos, operators
from steppe.curvature.operators import Operator
from steppe.typing import Key, Params

FIRST_STEPS = 16
"""Products in a round, and three for each eigenpair. Every fourth round doubles them: each number is compiled anew."""

BASIS_BYTES = 3e9
"""The largest basis, while it is transposed; when it is full, the search restarts from the best vector found."""


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
    Cost: about 20 to 100 products for separated eigenvalues, and k for the residuals. Memory: the basis, n numbers a
    product up to 1.5 GB (3 GB for a moment), then restarts. Runs on the host, not under `jax.jit`.

    Raises
    ------
    InputError : k below 1 or above n, an unknown `which`, a tol that is not positive, a traced operator; products
        that are not finite.

    Notes
    -----
    Lanczos from matfree (full reorthogonalisation); restarts with locking (Parlett 1980, section 13). Where the Krylov
    space is exhausted early, as at repeated eigenvalues, the search goes on in its complement. A repeated eigenvalue
    is otherwise found once.

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
    """Rounds of Lanczos, each on the complement of what has converged, from the best vector of the last one."""

    def __init__(self, function: str, A: Operator, key: jax.Array, k: int, which: str, tol: float) -> None:
        self.function, self.A, self.key, self.k, self.which, self.tol = function, A, key, k, which, tol
        self.flat, self.unravel = lanczos.flattening(A)
        self.most = max(int(BASIS_BYTES / (2 * self.flat.dtype.itemsize * A.size)), 3 * k + 10)
        self.steps = FIRST_STEPS + 3 * k
        self.values, self.vectors = np.zeros(0), []  # locked
        self.waiting: tuple[np.ndarray, list[jax.Array]] = (np.zeros(0), [])  # the best that has not converged
        self.start = None
        self.scale, self.products, self.rounds, self.complete = 0.0, 0, 0, False

    def goes_on(self, max_products: int) -> bool:
        return not self.complete and self.products < max_products

    def round(self) -> None:
        """One run of Lanczos, and what follows from it."""
        left = self.A.size - len(self.vectors)
        steps = min(self.steps, self.most, left)
        if self.start is None:
            self.key, key = jax.random.split(self.key)
            self.start = jax.random.normal(key, self.flat.shape, self.flat.dtype)
        T = lanczos.tridiagonal(steps)(self.A, self.start, self.locked())
        self.products += steps
        length = int(T.length)
        small = np.asarray(lanczos.dense(T), np.float64)[:length, :length]
        if not np.isfinite(small).all():
            checks.fail(self.function, "A", "an operator whose products are finite", "NaN or infinite ones",
                        "Has training diverged? Is the loss finite?")  # fmt: skip
        values, S = np.linalg.eigh(small)
        self.scale = max(self.scale, np.abs(values).max(initial=0))
        bounds = float(T.beside[length - 1]) * np.abs(S[-1])
        self.take(values, S, bounds, T, exhausted=length < steps or length == left)

    def locked(self) -> jax.Array:
        """What has converged, with zeros after it: one shape, and one compilation, for all rounds."""
        rows = max(-(-len(self.vectors) // self.k), 1) * self.k
        return jnp.stack(self.vectors + [jnp.zeros_like(self.flat)] * (rows - len(self.vectors)))

    def take(self, values: np.ndarray, S: np.ndarray, bounds: np.ndarray, T: Any, exhausted: bool) -> None:
        """Lock what has converged; decide whether anything better can be left, and where to look for it."""
        wanted = self.order(np.concatenate([self.values, values]))
        new = [at - len(self.values) for at in wanted if at >= len(self.values)]
        weights = np.zeros((self.k, len(T.basis)))
        weights[: len(new), : len(values)] = S[:, new].T
        vectors = list(_combined(T.basis, jnp.asarray(weights, T.basis.dtype)))
        sound = [bool(bounds[at] <= 0.5 * self.tol * self.scale) for at in new]
        left = self.A.size - len(self.vectors)
        self.complete = all(sound) and (not exhausted or not new or len(values) == left)
        self.vectors += [v for v, good in zip(vectors, sound, strict=False) if good]
        self.values = np.concatenate([self.values, values[[at for at, good in zip(new, sound, strict=True) if good]]])
        waiting = [i for i, good in enumerate(sound) if not good]
        self.waiting = values[[new[i] for i in waiting]], [vectors[i] for i in waiting]
        # weights fall with the rank: the leading one is what a restart must not lose
        self.start = sum((vectors[i] / (1 + i) for i in waiting), jnp.zeros_like(self.flat)) if waiting else None
        self.rounds += 1
        self.steps *= 1 if self.rounds % 4 else 2

    def order(self, values: np.ndarray) -> list[int]:
        """The positions of the (at most) k wanted ones, best first."""
        if self.which == "ends":
            return list(dict.fromkeys([int(np.argmax(values)), int(np.argmin(values))]))
        rank = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[self.which]
        return [int(at) for at in np.argsort(rank, kind="stable")[: self.k]]

    def result(self) -> Eigenpairs:
        """The best k, with residuals from products of their own."""
        values, vectors = np.concatenate([self.values, self.waiting[0]]), self.vectors + self.waiting[1]
        chosen = self.order(values)
        pairs, values, residuals = _checked(self.A, jnp.stack([vectors[at] for at in chosen]))
        converged = residuals <= self.tol * self.scale
        if not bool(jnp.all(converged)) or len(chosen) < self.k:
            warnings.warn(
                f"{self.function}: {int(jnp.sum(~converged))} of {self.k} eigenpairs did not converge to residuals of "
                f"{self.tol * self.scale:.2g} in {self.products} products (largest: {float(jnp.max(residuals)):.2g}). "
                "They are marked in `converged`; give more max_products, or a larger tol.",
                stacklevel=4,
            )
        return Eigenpairs(values, pairs, residuals, converged)


_combined = jax.jit(lambda basis, weights: weights @ basis)


@operators.compiled
def _checked(A: Operator, rows: jax.Array) -> tuple[Params, jax.Array, jax.Array]:
    """Unit vectors, their Rayleigh quotients, and the residuals ‖Av − λv‖, from flat vectors."""
    unravel = lanczos.flattening(A)[1]

    def one(row: jax.Array) -> tuple[Params, jax.Array, jax.Array]:
        v = unravel(row / jnp.linalg.norm(row))
        Av = operators.apply(A, (v,))[0]
        value = trees.dot(v, Av)
        return v, value, jnp.sqrt(trees.norm_squared(trees.add(Av, trees.scale(-value, v))))

    return jax.lax.map(one, rows)

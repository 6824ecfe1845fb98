"""The search for leading eigenpairs: rounds of Lanczos with thick restarts, until a bound says that none is missing.

A round multiplies new directions and keeps the best Ritz pairs of all rows. When the wanted residuals are small,
`_Search.certify` bounds what is outside the kept rows; what it finds there, the search goes on with.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe.curvature.operators import Operator
from steppe.curvature.spectrum import certificate, krylov

STEPS = 8
"""Products in a round at least. Every step goes through all rows: where products are cheap, long rounds cost more."""

ROWS = 24
"""Ritz pairs that a round leaves to the next one, and at least `STEPS` more than are asked for."""

GROWTH = 6
"""Rounds after which twice as many rows are kept, where memory allows it: a long search needs a larger basis."""

LOOK = 4
"""Products between two looks at whether a bound is reached."""

PATIENCE = 10
"""Rounds without progress, near the rounding of products, after which a search has stalled."""


class Question(NamedTuple):
    """What is asked for.

    Attributes
    ----------
    k : how many pairs.
    which : "largest", "smallest", "magnitude", or "ends": the largest and the smallest.
    tol : as a fraction of the largest |λ| met.
    max_products : after which to give up.
    most_bytes : that a basis and its products may take.
    """

    k: int
    which: str
    tol: float
    max_products: int
    most_bytes: float


class Solution(NamedTuple):
    """What a search found, in the order asked for.

    Attributes
    ----------
    rows, images : (k, n), eigenvectors and the operator times each.
    certain : (k,) whether fewer than i eigenvalues come before the i-th, beyond the tolerance.
    scale : the largest |λ| met.
    products : how many were taken.
    stalled : whether residuals stopped falling.
    """

    rows: jax.Array
    images: jax.Array
    certain: np.ndarray
    scale: float
    products: int
    stalled: bool


def order(values: np.ndarray, which: str) -> list[int]:
    """The positions of values, best first."""
    falling, rising = (_rank(sign * values) for sign in (-1, 1))
    if which == "ends":
        return list(dict.fromkeys(itertools.chain(*zip(falling, rising, strict=True))))
    if which == "magnitude":
        return _rank(-np.abs(values))
    return falling if which == "largest" else rising


def _rank(values: np.ndarray) -> list[int]:
    """The positions of values, the smallest first."""
    return [int(at) for at in np.argsort(values, kind="stable")]


def leading(A: Operator, key: jax.Array, asked: Question) -> Solution:
    """The k leading pairs, or what `max_products` products tell of them."""
    search = _Search(A, key, asked)
    while not search.ended:
        search.round()
        if search.sound:
            search.certify()
    return search.found()


class _Search:
    """The state of a search. Inside, A is multiplied by `factor`, a power of two that keeps squares in range."""

    def __init__(self, A: Operator, key: jax.Array, asked: Question) -> None:
        self.A, self.key = A, key
        self.k, self.which, self.tol, self.max_products, most_bytes = asked
        self.like = krylov.zero(A)
        self.eps = float(jnp.finfo(self.like.dtype).eps)
        self.most = int(most_bytes / (2 * self.like.dtype.itemsize * A.size))
        self.steps, self.keep = self.sizes()
        self.basis = krylov.Basis.empty(self.keep + self.steps, self.like, A.size)
        self.values, self.coupling = np.zeros(0), np.zeros((0, 0))
        self.certain = np.zeros(self.k, bool)
        self.rounds, self.products, self.block = 0, 0, 1
        self.best, self.idle, self.goal = np.inf, 0, np.inf
        # never 0, so that a length can be above what rounding leaves of it
        self.scale, self.factor = float(jnp.finfo(self.like.dtype).tiny), jnp.ones((), self.like.dtype)
        self.starts = [self.random()]
        self.first: _Rest | None = _Rest(self, 0, self.starts[0])
        self.set_factor()

    def sizes(self) -> tuple[int, int]:
        """Products a round and rows to keep, within a memory."""
        steps = max(STEPS, self.k // 2)
        keep = max(self.k + steps, ROWS)
        if steps + keep > self.most:
            keep = max(self.most // 2, self.k + 1)
            steps = max(self.most - keep, 3)
        return min(steps, self.A.size), min(keep, self.A.size)

    def grow(self) -> None:
        """Keep twice as many rows, as far as memory goes."""
        keep = min(2 * self.keep, self.most - self.steps, self.A.size)
        if keep > self.keep:
            self.basis = self.basis.grown(keep - self.keep)
            self.keep = keep

    def set_factor(self) -> None:
        """Choose the factor from one product."""
        peak = float(jnp.max(jnp.abs(self.multiply(self.starts[0]))))
        if not np.isfinite(peak):
            raise FloatingPointError("products that are not finite")
        most = jnp.finfo(self.like.dtype).maxexp - 2
        exponent = -int(np.clip(np.frexp(peak)[1], -most, most)) if peak else 0
        self.factor = jnp.asarray(2.0**exponent, self.like.dtype)

    def random(self) -> jax.Array:
        """A vector to begin with."""
        return krylov.random(self.next_key(), self.like, self.A.size)

    def next_key(self) -> jax.Array:
        """A key that was not used before."""
        self.key, key = jax.random.split(self.key)
        return jnp.asarray(key)

    def multiply(self, row: jax.Array) -> jax.Array:
        """A times a vector, counted."""
        self.products += 1
        return krylov.product(self.A, row, self.factor)

    @property
    def exhausted(self) -> bool:
        """Whether there are no products left."""
        return self.products >= self.max_products

    @property
    def stalled(self) -> bool:
        """Whether residuals stopped falling, near the rounding of products."""
        return self.idle >= PATIENCE and self.least < self.best <= 10 * self.least

    @property
    def ended(self) -> bool:
        """Whether all is known, or nothing more can be."""
        return bool(self.certain.all()) or self.exhausted or self.stalled

    @property
    def least(self) -> float:
        """A length that rounding alone can have."""
        return 30 * self.eps * self.scale

    @property
    def slack(self) -> float:
        """How far a value and an eigenvalue may be apart: half of what is promised, the other half is for rounding."""
        return 0.5 * self.tol * self.scale

    @property
    def residuals(self) -> np.ndarray:
        """Of all rows that are kept."""
        return np.sqrt(np.maximum(np.diagonal(self.coupling), 0))

    @property
    def short(self) -> np.ndarray:
        """Which of the wanted residuals are not small enough yet; smaller than promised, so that a bound can follow."""
        return np.flatnonzero(self.residuals[: self.k] > min(max(0.3 * self.slack, self.least), self.goal))

    @property
    def sound(self) -> bool:
        """Whether all wanted residuals are small enough to ask whether something was missed."""
        return len(self.values) >= self.k and not len(self.short)

    def round(self) -> None:
        """Multiply new directions and what follows from them; keep the best of all."""
        begin = len(self.values)
        steps = min(self.steps, self.A.size - begin, self.max_products - self.products)
        end, starts = begin + steps, self.starts[:steps]
        for i, start in enumerate(starts):
            self.basis, _ = self.basis.placed(begin + i, start, self.next_key(), self.least)
        left = None
        for at in range(begin, end):
            row = self.basis.row(at)
            image = self.multiply(row)
            self.basis = self.basis.multiplied(at, image)
            if (to := at + len(starts)) < end:
                self.basis, length = self.basis.placed(to, image, self.next_key(), self.least)
            else:
                left, length = self.basis.outside(image)
            if self.first:
                self.first.record(row, image, length)
        if self.first and left is not None:
            self.first.settle(left)
        self.rounds += 1
        if self.rounds % GROWTH == 0:
            self.grow()
        self.restart(end)

    def restart(self, rows: int) -> None:
        """Keep the best Ritz pairs of so many rows, and begin again at the residuals of those that are not sound."""
        values, vectors = self.basis.ritz(rows)
        self.scale = max(self.scale, float(np.abs(values).max()))
        best = order(values, self.which)[: self.keep]
        self.values = values[best]
        self.basis, self.coupling = self.basis.combined(vectors[:, best].T, self.values)
        if rows > len(best):
            self.first = None
        if rows == self.A.size:
            self.certain = np.ones(self.k, bool)
        worst = self.residuals[: self.k].max()
        self.idle = 0 if worst < 0.9 * self.best else self.idle + 1
        self.best = min(self.best, worst)
        self.begin_at(self.short[: self.block])

    def begin_at(self, rows: np.ndarray) -> None:
        """Begin the next round at the residuals of some rows, or at random."""
        self.starts = [self.basis.residual(i, self.values[i]) for i in rows] or [self.random()]

    def certify(self) -> None:
        """Find out whether an eigenvalue was missed; if so, or if the kept rows are too rough to tell, go on."""
        if self.certain.all():
            return
        # the first random vector bounds what is largest of all; what comes next takes a new one, outside that
        rest = self.first if self.first and (self.k == 1 or self.which == "ends") else self.outside()
        self.first = None
        while True:
            if len(rest.alpha):
                self.scale = max(self.scale, *rest.ends.values())
                self.certain = rest.certain()
                if self.certain.all():
                    return
                if (missed := rest.missed()) or rest.rough():
                    self.refine(missed)
                    return
            if self.exhausted:
                return
            rest.look()

    def outside(self) -> "_Rest":
        """What is outside the wanted rows, and more rows while they are accurate enough to count."""
        rows, targets = self.k, self.targets()
        for value, residual in zip(self.values[rows:], self.residuals[rows:], strict=True):
            gap = min(x.min() - sign * value for sign, x in targets.items())
            if residual**2 > 0.1 * gap**2:
                break
            rows += 1
        return _Rest(self, rows, self.random())

    def refine(self, missed: bool) -> None:
        """Ask for smaller residuals; where something was missed, look in a new direction, too."""
        self.best, self.idle = np.inf, 0
        self.goal = max(0.25 * self.residuals[: self.k].max(), self.least)
        if missed:
            self.block = min(self.block + 1, max(self.steps // 2, 1))
        self.begin_at(np.argsort(-self.residuals)[: max(self.block - missed, 1)])
        if missed:
            self.starts.append(self.random())

    def targets(self) -> dict[int, np.ndarray]:
        """For each end that matters, its sign and x (k,): few eigenvalues of sign · A may lie above the i-th x.

        An end that does not matter to the i-th pair has an infinite x there.
        """
        wanted = self.values[: self.k]
        if self.which == "ends":
            return {1: np.array([wanted[0] + self.slack, np.inf]), -1: np.array([np.inf, self.slack - wanted[1]])}
        if self.which == "magnitude":
            return dict.fromkeys((1, -1), np.abs(wanted) + self.slack)
        sign = 1 if self.which == "largest" else -1
        return {sign: sign * wanted + self.slack}

    def found(self) -> Solution:
        """The best k, in the operator's own units."""
        back = 1 / self.factor
        W, AW = (rows[: self.k] for rows in self.basis.pairs)
        return Solution(W, AW * back, self.certain, self.scale * float(back), self.products, self.stalled)


class _Rest:
    """A on the complement of some rows, seen by Lanczos' method from a random vector.

    A bound needs α and β alone, not the vectors: it goes on without a basis where the memory ends.
    """

    def __init__(self, search: _Search, rows: int, start: jax.Array) -> None:
        self.search, self.rows = search, rows
        self.values, self.coupling = search.values[:rows], search.coupling[:rows, :rows]
        left, length = krylov.outside(search.basis.W, start, rows)
        self.growth = certificate.rarity(float(length) ** 2)
        self.now, self.before = left / length, jnp.zeros_like(left)
        self.length = jnp.zeros((), left.dtype)
        self.alpha, self.beta = np.zeros(0), np.zeros(0)
        self.new: list[tuple[jax.Array, jax.Array]] = []

    @property
    def closed(self) -> bool:
        """Whether the Krylov space has come to its end: the random vector sees nothing else."""
        return len(self.beta) > 0 and self.beta[-1] <= self.search.least

    def record(self, row: jax.Array, image: jax.Array, length: jax.Array) -> None:
        """A step that the search itself took from here."""
        self.before, self.length = row, length
        self.new.append((row @ image, length))

    def settle(self, left: jax.Array) -> None:
        """The end of a round of the search: what its last product left outside all rows."""
        self.now = left / jnp.where(self.length > 0, self.length, 1)
        self.rows = len(self.search.basis.W)  # what was a row stays out; `values` says which rows count
        self.gather()

    def look(self) -> None:
        """A few steps more, without a basis."""
        W = self.search.basis.W
        for _ in range(min(LOOK, self.search.max_products - self.search.products)):
            image = self.search.multiply(self.now)
            alpha, length, new = krylov.three_term(W, image, self.before, self.now, self.length, self.rows)
            self.before, self.now, self.length = self.now, new, length
            self.new.append((alpha, length))
        self.gather()

    def gather(self) -> None:
        """Read the scalars of the last steps, up to the end of the Krylov space."""
        new = np.array([[float(a), float(b)] for a, b in self.new]).reshape(-1, 2)
        self.new = []
        if not np.isfinite(new).all():
            raise FloatingPointError("products that are not finite")
        if self.closed:
            return
        self.alpha, self.beta = np.append(self.alpha, new[:, 0]), np.append(self.beta, new[:, 1])
        ends = np.flatnonzero(self.beta <= self.search.least)
        if len(ends):
            self.alpha, self.beta = self.alpha[: ends[0] + 1], self.beta[: ends[0] + 1]

    @property
    def ends(self) -> dict[int, float]:
        """The largest Ritz value of A and of −A, by sign."""
        return {sign: certificate.largest(sign * self.alpha, self.beta) for sign in (1, -1)}

    def edge(self, sign: int, within: float) -> float:
        """An upper bound on the eigenvalues of sign · A out here."""
        margin = 10 * self.search.eps * self.search.scale
        if self.closed:
            return certificate.largest(sign * self.alpha, self.beta) + margin
        return certificate.edge(sign * self.alpha, self.beta, self.growth, max(within, margin)) + margin

    def certain(self) -> np.ndarray:
        """For each wanted pair, whether few enough eigenvalues come before it."""
        ends = self.ends
        widest = {sign: np.max(x, where=np.isfinite(x), initial=-np.inf) for sign, x in self.search.targets().items()}
        return self.counted({sign: self.edge(sign, x - ends[sign]) for sign, x in widest.items()})

    def counted(self, edges: dict[int, float]) -> np.ndarray:
        """What upper bounds at both ends of the rest say of each wanted pair."""
        before = np.zeros(self.search.k)
        for sign, x in self.search.targets().items():
            known = np.isfinite(x)
            before[known] += certificate.count_above(x[known], sign * self.values, self.coupling, edges[sign])
        return before <= (0 if self.search.which == "ends" else np.arange(self.search.k))

    def missed(self) -> bool:
        """Whether something out here comes before a wanted pair."""
        ends = self.ends
        return any(ends[sign] > x.min() for sign, x in self.search.targets().items())

    def rough(self) -> bool:
        """Whether no bound on the rest could make the kept rows count."""
        return not self.counted(self.ends).all()

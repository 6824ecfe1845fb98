"""What is believed of a difference after seeing it, with a region in which differences do not matter."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats

from steppe.analysis.statistics.samples import Pairs, pairs_of, random, require_pairs, seeds_of
from steppe.core import checks


class Posterior(NamedTuple):
    """The probabilities that a is lower than b, equivalent to it within the margin, and higher; their sum is 1."""

    lower: float
    equivalent: float
    higher: float


def correlated_t(a: Iterable[float], b: Iterable[float], *, margin: float = 0.0, correlation: float = 0.0) -> Posterior:
    """Bayesian correlated t-test (Corani and Benavoli 2015) of the mean of paired differences a − b.

    The posterior of the mean difference is Student's t with n − 1 degrees of freedom around d̄, of scale
    s_d √(1/n + ρ / (1 − ρ)) (Nadeau and Bengio 2003).

    Parameters
    ----------
    a, b : sequence of float
        Values of the same seeds, or of the same folds.
    margin : float
        The smallest difference that matters.
    correlation : float
        ρ between values: 0 for independent seeds; of cross-validation the share of the data that is tested on.

    Returns
    -------
    Posterior

    Raises
    ------
    InputError
        Fewer than two pairs, unequal lengths, values that are not finite, a margin below 0, ρ outside [0, 1).

    Examples
    --------
    >>> found = correlated_t([0.90, 0.92, 0.91], [0.90, 0.91, 0.91], margin=0.02)
    >>> round(found.equivalent, 3)
    0.971
    """
    pairs = _pairs("correlated_t", a, b)
    reach = float(checks.real("correlated_t", "margin", margin, least=0.0)) / pairs.unit
    rho = float(checks.real("correlated_t", "correlation", correlation, least=0.0))
    if not rho < 1:
        checks.fail("correlated_t", "correlation", "at least 0 and below 1", correlation)
    count = len(pairs.differences)
    scale = pairs.sd * math.sqrt(1 / count + rho / (1 - rho))
    if scale == 0:
        below, above = (float(np.heaviside(sign * pairs.mean - reach, 0.5 if reach == 0 else 0.0)) for sign in (-1, 1))
    else:
        below = float(stats.t.cdf((-reach - pairs.mean) / scale, count - 1))
        above = float(stats.t.sf((reach - pairs.mean) / scale, count - 1))
    return Posterior(below, max(1 - below - above, 0.0), above)


def signed_rank(
    a: Iterable[float],
    b: Iterable[float],
    *,
    margin: float = 0.0,
    prior: float = 0.5,
    draws: int = 50_000,
    seed: int = 0,
) -> Posterior:
    """Bayesian signed-rank test (Benavoli 2014): which of lower, equivalent and higher is the most probable.

    Differences are drawn from a Dirichlet process: weights ~ Dirichlet(prior, 1, …, 1) of a pseudo-difference 0 and of
    the n differences; a draw goes to the region in which the mean of two of them lies with the greatest probability.

    Parameters
    ----------
    a, b : sequence of float
        Values of the same seeds, or means on the same data sets.
    margin : float
        The smallest difference that matters. At 0 nothing is equivalent.
    prior : float
        The weight of the pseudo-difference.
    draws : int
        From the posterior.
    seed : int
        Of the draws; the same seed gives the same numbers.

    Returns
    -------
    Posterior

    Raises
    ------
    InputError
        Fewer than two pairs, unequal lengths, values that are not finite, a margin below 0, a prior that is not
        positive.

    Examples
    --------
    >>> found = signed_rank([0.93, 0.95, 0.94, 0.96, 0.93], [0.90, 0.91, 0.92, 0.90, 0.91], margin=0.01)
    >>> found.higher > 0.95
    True
    """
    pairs = _pairs("signed_rank", a, b)
    reach = float(checks.real("signed_rank", "margin", margin, least=0.0)) / pairs.unit
    weight = float(checks.positive("signed_rank", "prior", prior))
    count = checks.whole("signed_rank", "draws", draws)
    differences = np.concatenate([[0.0], pairs.rounded])
    sums = differences[:, None] + differences[None, :]
    above, below = (np.heaviside(sign * sums - 2 * reach, 0.5) for sign in (1, -1))
    rng = random("signed_rank", seed)
    wins = np.zeros(3)
    for size in np.diff(np.append(np.arange(0, count, 5_000), count)):
        weights = rng.dirichlet(np.concatenate([[weight], np.ones(len(pairs.differences))]), size)
        lower, higher = (np.einsum("ki,ij,kj->k", weights, side, weights, optimize=True) for side in (below, above))
        middle = 1 - lower - higher if reach > 0 else np.full(len(lower), -1.0)
        wins += np.bincount(np.argmax(np.stack([lower, middle, higher]), axis=0), minlength=3)
    return Posterior(*(float(share) for share in wins / count))


def _pairs(function: str, a: Iterable[float], b: Iterable[float]) -> Pairs:
    """Differences a − b of two samples of one length."""
    first, second = seeds_of(function, "a", a), seeds_of(function, "b", b)
    require_pairs(function, first, second)
    if len(first) < 2:
        checks.fail(function, "a", "two values or more, one for each seed", "one")
    return pairs_of(second, first)

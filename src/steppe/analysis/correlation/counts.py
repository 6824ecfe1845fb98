"""Pairs of networks, counted by the configurations of the two: what a rank correlation and its resamples are made of.

A resample draws configurations, so that it needs no more of the pairs than how many of two configurations agree, and
how many are tied. Pairs are looked at in blocks of rows: time grows with the square of the number of networks, memory
with that of configurations.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

AT_ONCE = 2**20
"""Pairs in a block."""

RESAMPLES = 1_000
"""Of configurations, for an interval."""

SIGNS = 9
"""Kinds of pairs: 3 (sign(xᵢ − xⱼ) + 1) + sign(yᵢ − yⱼ) + 1."""

ANSWERS = (0, 2, 6, 8)
"""Kinds where the two differ in both, in the order of 2 [xᵢ > xⱼ] + [yᵢ > yⱼ]."""

TERMS = np.array([[(x - 1) * (y - 1), abs(x - 1), abs(y - 1)] for x in range(3) for y in range(3)], float)
"""Kind -> sign(xᵢ − xⱼ) sign(yᵢ − yⱼ), and the squares of the two signs."""


class Sums(NamedTuple):
    """Σ sign(xᵢ − xⱼ) sign(yᵢ − yⱼ) over ordered pairs, and Σ of the squares of both signs.

    Attributes
    ----------
    all : (3,) the three sums.
    resampled : (3, resamples) the same where configurations are drawn. One that is drawn twice counts as two: its own
        pairs count twice, those with another as often as both.
    decided : (configurations, configurations) upper triangle: whether any pair of the two differs in both x and y.
    """

    all: np.ndarray
    resampled: np.ndarray
    decided: np.ndarray


class Counts(NamedTuple):
    """What there is to know of all pairs.

    Attributes
    ----------
    overall, within, matched : the sums over all pairs, those of one configuration, and those that are alike.
    answers : (configurations, configurations, 4) how many pairs are of each of the kinds in `ANSWERS`.
    """

    overall: Sums
    within: Sums
    matched: Sums
    answers: np.ndarray


class _Block(NamedTuple):
    """Pairs of some configurations from `first` on with all from `first` on: (configurations, others, kinds)."""

    first: int
    all: np.ndarray
    alike: np.ndarray


def count_pairs(
    x: np.ndarray, y: np.ndarray, of: np.ndarray, matched: np.ndarray | None, tolerance: float, seed: int
) -> Counts:
    """Count all pairs.

    Parameters
    ----------
    x, y : (networks,) array
        Finite values.
    of : (networks,) array of int
        Of each the configuration.
    matched : (networks,) array or None
        Pairs that differ in it by `tolerance` or less are alike; without it, none are.
    tolerance : float
        See there.
    seed : int
        Of the resampling.
    """
    names, of = np.unique(of, return_inverse=True)
    order = np.argsort(of, kind="stable")
    sizes = np.bincount(of)
    draws = _draws(len(names), seed)
    count = len(names)
    known = {
        name: Sums(np.zeros(3), np.zeros((3, len(draws))), np.zeros((count, count), bool))
        for name in ("overall", "within", "matched")
    }
    most = np.min_scalar_type(int(sizes.max(initial=0)) ** 2)
    answers = np.zeros((count, count, len(ANSWERS)), most)
    level = None if matched is None else matched[order]
    for block in _blocks(_ranks(x[order]), _ranks(y[order]), of[order], level, tolerance):
        _add(known["overall"], block.first, block.all, draws)
        _add(known["within"], block.first, block.all, draws, own_alone=True)
        if level is not None:
            _add(known["matched"], block.first, block.alike, draws)
        _fill(answers, block.first, block.all[..., ANSWERS].astype(most))
    return Counts(**known, answers=answers)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Small numbers of the same order and ties, which are compared sooner."""
    return np.unique(values, return_inverse=True)[1].astype(np.int32)


def _blocks(
    x: np.ndarray, y: np.ndarray, of: np.ndarray, matched: np.ndarray | None, tolerance: float
) -> Iterator[_Block]:
    """Count pairs in blocks; networks stand in the order of their configurations."""
    rows = max(1, AT_ONCE // max(1, len(x)))
    for begin in range(0, len(x), rows):
        some, first = slice(begin, begin + rows), int(of[begin])
        later = slice(int(np.searchsorted(of, first)), None)
        count, others = int(of[some][-1]) - first + 1, int(of[-1]) - first + 1
        kind = 3 * _signs(x, some, later) + _signs(y, some, later) + 4
        place = ((of[some] - first) * others)[:, None] + (of[later] - first)
        place = place * SIGNS + kind
        shape = count, others, SIGNS
        found = np.bincount(place.ravel(), minlength=count * others * SIGNS).reshape(shape)
        alike = np.zeros_like(found)
        if matched is not None:
            near = np.abs(matched[some, None] - matched[later]) <= tolerance * (1 + 1e-9)
            alike = np.bincount(place[near], minlength=found.size).reshape(shape)
        yield _Block(first, found, alike)


def _signs(values: np.ndarray, some: slice, later: slice) -> np.ndarray:
    """Which of two networks has the larger value."""
    rows, columns = values[some, None], values[later]
    return (rows > columns).astype(np.int8) - (rows < columns).astype(np.int8)


def _add(sums: Sums, first: int, kinds: np.ndarray, draws: np.ndarray, *, own_alone: bool = False) -> None:
    """Add what a block says. Pairs of two configurations stand in it in one order, of one in both."""
    count, weights = len(kinds), kinds @ TERMS
    said = np.triu(kinds[..., ANSWERS].any(axis=-1))
    if own_alone:
        said = np.eye(*said.shape, dtype=np.bool_) & said
    sums.decided[first : first + count, first:] |= said
    rows, columns = draws[:, first : first + count], draws[:, first:]
    for place in range(3):
        own = np.diagonal(weights[..., place])
        sums.all[place] += own.sum()
        sums.resampled[place] += rows @ own
        if not own_alone:
            between = np.triu(weights[..., place], 1)
            sums.all[place] += 2 * between.sum()
            sums.resampled[place] += 2 * np.einsum("rc,rc->r", rows @ between, columns)


def _fill(answers: np.ndarray, first: int, found: np.ndarray) -> None:
    """Add what a block says, and the same pairs in their other order."""
    count, others, _ = found.shape
    later = np.arange(others) > np.arange(count)[:, None]
    between = np.where(later[..., None], found, 0)
    some = slice(first, first + count)
    answers[some, first:] += between
    answers[first:, some] += between.transpose(1, 0, 2)[..., ::-1]
    own = np.arange(count)
    answers[first + own, first + own] += found[own, own]


def _draws(count: int, seed: int) -> np.ndarray:
    """(resamples, configurations) how often each was drawn."""
    if count < 2:
        return np.zeros((0, count))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(float)

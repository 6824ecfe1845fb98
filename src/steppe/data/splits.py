"""Parts of a data set: one that comes whole split into training and test, and what validates split off training."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from steppe.core import checks
from steppe.data.dataset import Dataset, fingerprint, shuffled


def stratified(
    name: str, labels: np.ndarray, test_fraction: float, split_seed: int, *, names: Sequence[object] = (), todo: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """Rows to train and to test on, drawn at random from each class.

    Parameters
    ----------
    name : str
        Of the data set, for messages.
    labels : numpy.ndarray
        (N,), from 0 to K − 1.
    test_fraction : float
        The share of the test part.
    split_seed : int
        Of the draw.
    names : sequence, optional
        What the labels stand for.
    todo : str
        What to do where a class has a single example.

    Returns
    -------
    tuple[numpy.ndarray, numpy.ndarray, str]
        The rows of both parts, and one clause about them.

    Raises
    ------
    InputError
        A share or a seed out of range; a class with a single example; parts that cannot both hold all classes.

    Examples
    --------
    >>> train, test, about = stratified("mine", np.array([0, 1] * 5), 0.2, 0, todo="")
    >>> about
    'stratified split, 8 to train and 2 to test (seed 0)'
    """
    from sklearn.model_selection import train_test_split

    where = f"data {name}"
    checks.real(where, "test_fraction", test_fraction, least=0.001, most=0.999)
    checks.whole(where, "split_seed", split_seed, least=0, most=2**32 - 1)
    kinds, counts = np.unique(labels, return_counts=True)
    count = math.ceil(test_fraction * len(labels))  # as scikit-learn rounds
    if counts.min() < 2:
        rare = int(counts.argmin())
        got = f"a single example of class {names[rare] if names else rare}"
        checks.fail(where, "labels", "classes of at least two examples each", got, todo)
    if min(count, len(labels) - count) < len(kinds):
        checks.fail(where, "test_fraction", f"such that both parts hold all {len(kinds)} classes", test_fraction)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=test_fraction, stratify=labels, random_state=split_seed
    )
    if len(np.unique(labels[train])) < len(kinds):
        checks.fail(where, "test_fraction", "such that every class is trained on", test_fraction, "Lower it.")
    how = "stratified" if len(kinds) > 1 else "random"
    return train, test, f"{how} split, {len(train)} to train and {len(test)} to test (seed {split_seed})"


def with_validation(data: Dataset, validation: float, seed: int = 0) -> Dataset:
    """The same data with some training examples split off, for tuning and stopping; the test part stays as it is.

    Examples are drawn at random from each class in proportion to its size, and one of each class at least stays to be
    trained on. Targets that are no single class are drawn from all alike. Both parts keep their order.

    Parameters
    ----------
    data : Dataset
        Without a validation part.
    validation : float
        A share of the training examples, above 0 and below 1, or a whole number of them.
    seed : int
        Of the draw.

    Returns
    -------
    Dataset
        With another fingerprint.

    Raises
    ------
    InputError
        A share or a number out of range; data that have a validation part.

    Examples
    --------
    >>> from steppe import data
    >>> moons = data.load("moons", validation=0.2)
    >>> len(moons.train["y"]), len(moons.validation["y"]), len(moons.test["y"])
    (80, 20, 1000)
    """
    where = f"data {data.name}"
    if data.validation is not None:
        checks.fail(where, "validation", "left out for data that have a validation part", checks.shown(validation))
    checks.whole(where, "validation_seed", seed, least=0, most=2**32 - 1)
    labels, total = np.asarray(data.train["y"]), len(data.train["y"])
    count = _count(where, validation, total)
    strata = labels if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) else np.zeros(total, int)
    chosen = np.zeros(total, bool)
    chosen[_drawn(where, strata, count, seed)] = True
    train, held = (jax.tree.map(lambda leaf: leaf[rows], data.train) for rows in (~chosen, chosen))  # noqa: B023
    about = f"{data.about}; {count} of {total} training examples split off to validate on (seed {seed})"
    mark = fingerprint({"train": train, "test": data.test, "validation": held})
    return dataclasses.replace(data, train=train, validation=held, about=about, fingerprint=mark)


def _count(where: str, validation: Any, total: int) -> int:
    """How many examples a share or a number is, of so many."""
    what = "a share above 0 and below 1, or a whole number of examples"
    if isinstance(validation, bool) or not isinstance(validation, int | float | np.number):
        checks.fail(where, "validation", what, checks.shown(validation))
    if isinstance(validation, int | np.integer):
        if not 0 < validation < total:
            checks.fail(where, "validation", f"from 1 to {total - 1}, of {total} training examples", validation)
        return int(validation)
    if not 0 < validation < 1:
        checks.fail(where, "validation", what, checks.shown(float(validation)))
    count = round(float(validation) * total)
    if not 0 < count < total:
        got = f"{float(validation):g}, which is {count} of {total}"
        checks.fail(where, "validation", "a share of at least one training example, and not of all", got)
    return count


def _drawn(where: str, strata: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many rows, in proportion to the sizes of strata, each of which keeps one row at least."""
    kinds, inverse, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if count > len(strata) - len(kinds):
        what = f"at most {len(strata) - len(kinds)} examples, so that each class has one to train on"
        checks.fail(where, "validation", what, f"{count}")
    quotas = sizes * count / len(strata)
    taken = np.minimum(np.floor(quotas).astype(int), sizes - 1)
    while taken.sum() < count:  # by the largest remainders
        taken[np.argmax(np.where(taken < sizes - 1, quotas - taken, -np.inf))] += 1
    order = shuffled(len(strata), seed)
    return np.concatenate([order[inverse[order] == kind][: taken[kind]] for kind in range(len(kinds))])

"""A data set that comes whole, split into a part to train on and one to test on."""

import math
from collections.abc import Sequence

import numpy as np

from steppe.core import checks


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
    return train, test, f"stratified split, {len(train)} to train and {len(test)} to test (seed {split_seed})"

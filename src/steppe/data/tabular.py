"""Tables that ship with scikit-learn, and what is done to every table."""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks
from steppe.core.types import Batch
from steppe.data.dataset import CHUNK, Dataset, as_it_is, dataset
from steppe.data.splits import stratified


def breast_cancer(*, test_fraction: float = 0.2, standardize: bool = True, split_seed: int = 0) -> Dataset:
    """Breast Cancer Wisconsin (diagnostic): 569 tumours, 30 features, malignant (0) or benign (1, 63 %).

    Parameters
    ----------
    test_fraction : share of examples held out, stratified by class; 0.2 leaves 455 to train on.
    standardize : subtract the training part's mean of each feature and divide by its standard deviation.
    split_seed : seed of the split.

    Raises
    ------
    InputError : settings out of range.

    Notes
    -----
    Wolberg, Street and Mangasarian (1993), as in scikit-learn.

    Examples
    --------
    >>> data = breast_cancer()
    >>> data.train["x"].shape, data.test["x"].shape, data.classes
    ((455, 30), (114, 30), 2)
    """
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    about = "Breast Cancer Wisconsin (diagnostic), Wolberg et al. 1993, as in scikit-learn"
    return split_table("breast-cancer", (x, y), about, test_fraction, standardize, split_seed)


def digits(
    *, test_fraction: float = 0.2, standardize: bool = True, split_seed: int = 0, as_images: bool = False
) -> Dataset:
    """Handwritten digits: 1,797 images of 8 × 8 pixels, as 64 features, ten classes.

    Parameters
    ----------
    test_fraction, standardize, split_seed : see `breast_cancer`.
    as_images : whether examples are images (8, 8, 1), as convolutional networks take them; the numbers are the same.

    Raises
    ------
    InputError : settings out of range.

    Notes
    -----
    Alpaydin and Kaynak (1998), as in scikit-learn.

    Examples
    --------
    >>> data = digits()
    >>> data.train["x"].shape, data.classes
    ((1437, 64), 10)
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    about = "handwritten digits, Alpaydin and Kaynak 1998, as in scikit-learn"
    found = split_table("digits", (x, y), about, test_fraction, standardize, split_seed)
    if not as_images:
        return found

    def decode(batch: Batch) -> Batch:
        flat = found.decode(batch)
        return {"x": flat["x"].reshape(-1, 8, 8, 1), "y": flat["y"]}

    return dataclasses.replace(found, decode=decode, shape=(8, 8, 1))


def diabetes(*, test_fraction: float = 0.2, standardize: bool = True, split_seed: int = 0) -> Dataset:
    """Diabetes progression: 442 patients, 10 features, a real target, the disease after a year (Efron et al. 2004).

    Parameters
    ----------
    test_fraction, split_seed : of the random split.
    standardize : subtract the training part's mean of each feature, and of the target, and divide by its standard
        deviation, so that a squared error of 1 is that of the mean.

    Raises
    ------
    InputError : settings out of range.

    Examples
    --------
    >>> data = diabetes()
    >>> data.train["x"].shape, data.test["x"].shape, data.classes, data.outputs
    ((353, 10), (89, 10), 0, 1)
    """
    from sklearn.datasets import load_diabetes

    pair = load_diabetes(return_X_y=True, scaled=False)
    about = "Diabetes progression (scikit-learn), 442 patients with 10 features, a real target"
    return split_table("diabetes", pair, about, test_fraction, standardize, split_seed, real=True)


def split_table(
    name: str,
    table_and_labels: tuple[np.ndarray, np.ndarray],
    about: str,
    test_fraction: float,
    standardize: bool,
    split_seed: int,
    *,
    names: Sequence[object] = (),
    real: bool = False,
) -> Dataset:
    """A table split at random, stratified by class; labels y are 0 to K − 1, and `names` what they stand for, or `real`
    targets.
    """
    x, y = table_and_labels
    todo = "Give a test_file, or drop that class."
    strata = np.zeros(len(y), int) if real else y
    *rows, split = stratified(name, strata, test_fraction, split_seed, names=names, todo=todo)
    train, test = ((x[part], y[part]) for part in rows)
    return table(name, train, test, 0 if real else len(np.unique(y)), f"{about}; {split}", standardize)


def table(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: int,
    about: str,
    standardize: bool,
) -> Dataset:
    """A table in two parts, standardised by the statistics of its training part if asked, real targets, too."""
    (x, y), (x_test, y_test) = train, test
    checks.one_of(f"data {name}", "standardize", standardize, (True, False))
    if standardize:
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        deviation[x.max(axis=0) == x.min(axis=0)] = 1  # constant: its deviation is 0, or a rounding error of the mean
        x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
        about += "; features standardised by the training part"
        if not classes:
            y, y_test = ((part - y.mean(axis=0)) / (y.std(axis=0) or 1.0) for part in (y, y_test))
            about += ", and so are targets"
    arrays.check_resolved(
        f"data {name}", "features", x, np.float32, todo="Let them be standardised: standardize = true."
    )
    parts = (x.astype(np.float32), y), (x_test.astype(np.float32), y_test)
    return dataset(name, *parts, decode=as_it_is, shape=x.shape[1:], classes=classes, about=about)


def standardizing(x: np.ndarray) -> Callable[[Batch], Batch]:
    """Decode features to their distance from their mean over x, (N, …), in units of their deviation.

    x is read twice, some rows at a time, and stays as it is. A feature that does not vary becomes 0.
    """
    each = max(1, CHUNK // max(x[0].size, 1))
    pieces = [slice(begin, begin + each) for begin in range(0, len(x), each)]
    mean = sum(x[piece].sum(axis=0, dtype=np.float64) for piece in pieces) / len(x)
    variance = sum(((x[piece] - mean) ** 2).sum(axis=0) for piece in pieces) / len(x)
    varies = np.any([(x[piece] != x[0]).any(axis=0) for piece in pieces], axis=0)
    inverse = 1 / np.where(varies & (variance > 0), np.sqrt(variance), 1)
    shift, scale = (jnp.asarray(array, jnp.float32)[None] for array in (np.where(varies, mean, x[0]), inverse))

    def decode(batch: Batch) -> Batch:
        return {**batch, "x": (batch["x"].astype(jnp.float32) - shift) * scale}

    return decode

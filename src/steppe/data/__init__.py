"""What is learned from? Data sets as arrays, from a hub, a folder or a user's own file."""

from collections.abc import Callable

from steppe import checks
from steppe.data.dataset import Dataset, dataset
from steppe.data.files import file
from steppe.data.images import cifar100
from steppe.data.tabular import breast_cancer, digits
from steppe.data.text import imdb, newsgroups

DATASETS: dict[str, Callable[..., Dataset]] = {
    "20newsgroups": newsgroups,
    "breast-cancer": breast_cancer,
    "cifar100": cifar100,
    "digits": digits,
    "file": file,
    "imdb": imdb,
}
"""Data sets by the name that a study calls them: functions of their settings."""


def load(name: str, **settings: object) -> Dataset:
    """The data set of that name.

    Raises
    ------
    InputError : no such name; whatever the data set's own function raises.

    Examples
    --------
    >>> load("breast-cancer", standardize=False).about
    'Breast Cancer Wisconsin (diagnostic), Wolberg et al. 1993, as in scikit-learn; stratified split, 455 to train and 114 to test (seed 0)'
    """
    checks.one_of("data.load", "name", name, DATASETS)
    return DATASETS[name](**settings)


__all__ = ["DATASETS", "Dataset", "dataset", "load"]

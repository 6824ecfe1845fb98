"""What is learned from? Data sets as arrays, from a hub, a folder or a user's own file."""

import inspect
from collections.abc import Callable

from steppe.core import checks, extras

extras.require("steppe.data", "study")
# ruff: noqa: E402

from steppe.data.arrays import from_arrays
from steppe.data.dataset import Dataset, checked, dataset
from steppe.data.files import file
from steppe.data.hub import hub
from steppe.data.images import cifar100, image_folder
from steppe.data.splits import with_validation
from steppe.data.synthetic import circles, moons, objective, with_random_labels
from steppe.data.tabular import breast_cancer, diabetes, digits
from steppe.data.text import imdb, newsgroups
from steppe.data.transforms import TRANSFORMS

DATASETS: dict[str, Callable[..., Dataset]] = {
    "20newsgroups": newsgroups,
    "breast-cancer": breast_cancer,
    "cifar100": cifar100,
    "circles": circles,
    "diabetes": diabetes,
    "digits": digits,
    "file": file,
    "hub": hub,
    "images": image_folder,
    "imdb": imdb,
    "moons": moons,
    "objective": objective,
}
"""Data sets by the name that a study calls them: functions of their settings."""


def load(
    name: str,
    *,
    validation: float | None = None,
    validation_seed: int = 0,
    random_labels: float | None = None,
    random_labels_seed: int = 0,
    **settings: object,
) -> Dataset:
    """The data set of that name, prepared as asked.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    validation, validation_seed : float and int, optional
        Examples to validate on, see `with_validation`.
    random_labels, random_labels_seed : float and int, optional
        Training labels drawn at random, see `with_random_labels`.
    **settings : object
        Of the data set's function.

    Raises
    ------
    InputError : no such name or setting; whatever the data set's own function raises.

    Examples
    --------
    >>> data = load("breast-cancer", standardize=False)
    >>> data.train["x"].shape, data.shape, data.classes
    ((455, 30), (30,), 2)
    """
    checks.one_of("data.load", "name", name, DATASETS)
    known = inspect.signature(DATASETS[name]).parameters
    for setting in settings:
        if setting not in known:
            checks.fail(
                f"data {name}", setting, "a setting that exists", "an unknown name", checks.nearest(setting, known)
            )
    for setting, parameter in known.items():
        if parameter.default is parameter.empty and setting not in settings:
            checks.fail(f"data {name}", setting, "given", "a call without it")
    return prepared(DATASETS[name](**settings), validation=validation, validation_seed=validation_seed,
                    random_labels=random_labels, random_labels_seed=random_labels_seed)  # fmt: skip


def prepared(
    data: Dataset,
    *,
    validation: float | None = None,
    validation_seed: int = 0,
    random_labels: float | None = None,
    random_labels_seed: int = 0,
) -> Dataset:
    """Any data set with examples split off to validate on, and labels of the other training examples drawn at random.

    Parameters
    ----------
    data : Dataset
    validation, validation_seed, random_labels, random_labels_seed : optional
        See `load`; without them the data stay as they are.

    Raises
    ------
    InputError : see `with_validation` and `with_random_labels`.

    Examples
    --------
    >>> found = prepared(moons(), validation=0.2, random_labels=0.5)
    >>> len(found.train["y"]), len(found.clean["y"]), len(found.validation["y"])
    (80, 80, 20)
    """
    if validation is not None:
        data = with_validation(data, validation, validation_seed)
    return data if random_labels is None else with_random_labels(data, random_labels, random_labels_seed)


__all__ = [
    "DATASETS",
    "TRANSFORMS",
    "Dataset",
    "breast_cancer",
    "checked",
    "cifar100",
    "circles",
    "dataset",
    "diabetes",
    "digits",
    "file",
    "from_arrays",
    "hub",
    "image_folder",
    "imdb",
    "load",
    "moons",
    "newsgroups",
    "objective",
    "prepared",
    "with_random_labels",
    "with_validation",
]

"""Shifts of data that are no images, and labels that were wrong."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from steppe.core import arrays, checks
from steppe.outcomes.forecasts import as_labels, as_matrix, as_probabilities

KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Rows of a keyboard: what is hit beside a letter is its neighbour in its row."""


def add_noise(x: Any, scale: float, *, seed: int = 0) -> np.ndarray:
    """A table with noise in each column, x + N(0, (scale · sd)²), in proportion to the column's standard deviation.

    Parameters
    ----------
    x : array
        (N, D)
    scale : float
        At least 0.
    seed : int

    Returns
    -------
    np.ndarray
        Of the shape and dtype of x; a column that does not vary stays.

    Raises
    ------
    InputError
        What is no table of finite numbers; a scale out of range.

    Examples
    --------
    >>> add_noise([[1.0, 0.0], [1.0, 2.0]], 0.5).shape
    (2, 2)
    """
    found = as_matrix("add_noise", "x", x)
    checks.real("add_noise", "scale", scale, least=0.0)
    moved = found + scale * found.std(axis=0) * _random("add_noise", seed).normal(size=found.shape)
    result: np.ndarray = moved.astype(_dtype(x))
    return result


def drop_values(x: Any, share: float, *, fill: str = "mean", seed: int = 0) -> np.ndarray:
    """A table in which a share of the values is missing, filled in by the mean of the column or by zero.

    Parameters
    ----------
    x : array
        (N, D). Of a bag of words ``fill="zero"`` drops words.
    share : float
        From 0 to 1: how likely each value is to be missing.
    fill : {"mean", "zero"}
    seed : int

    Returns
    -------
    np.ndarray
        Of the shape and dtype of x.

    Raises
    ------
    InputError
        What is no table of finite numbers; a share out of range.

    Examples
    --------
    >>> drop_values([[1.0, 2.0], [3.0, 4.0]], 1.0).tolist()
    [[2.0, 3.0], [2.0, 3.0]]
    """
    found = as_matrix("drop_values", "x", x)
    checks.real("drop_values", "share", share, least=0.0, most=1.0)
    checks.one_of("drop_values", "fill", fill, ("mean", "zero"))
    other = found.mean(axis=0) if fill == "mean" else np.zeros(found.shape[1])
    gone = _random("drop_values", seed).random(found.shape) < share
    return np.where(gone, other, found).astype(_dtype(x))


def misspell(texts: Sequence[str], share: float, *, seed: int = 0) -> list[str]:
    """Texts with typing errors: of each letter, how likely it is to be its neighbour on a keyboard.

    Parameters
    ----------
    texts : sequence of str
    share : float
        From 0 to 1, of the letters a to z.
    seed : int

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        What is no list of texts; a share out of range.

    Examples
    --------
    >>> misspell(["a q"], 1.0)
    ['s w']
    """
    _check_texts("misspell", texts, share)
    random = _random("misspell", seed)
    return ["".join(_neighbour(c, random) if random.random() < share else c for c in text) for text in texts]


def drop_words(texts: Sequence[str], share: float, *, seed: int = 0) -> list[str]:
    """Texts without some of their words: how likely each is to be dropped.

    Parameters
    ----------
    texts : sequence of str
    share : float
        From 0 to 1.
    seed : int

    Returns
    -------
    list of str
        Words are what spaces part; those that stay are joined by one.

    Raises
    ------
    InputError
        What is no list of texts; a share out of range.

    Examples
    --------
    >>> drop_words(["all of it"], 0.0), drop_words(["all of it"], 1.0)
    (['all of it'], [''])
    """
    _check_texts("drop_words", texts, share)
    random = _random("drop_words", seed)
    return [" ".join(word for word in text.split() if random.random() >= share) for text in texts]


class LabelNoiseFit(NamedTuple):
    """What a network makes of training examples whose labels were changed.

    Attributes
    ----------
    memorised : float
        The share of them that is predicted as the wrong label says.
    corrected : float
        The share that is predicted as the right label was.
    """

    memorised: float
    corrected: float


def label_noise_fit(probabilities: Any, noisy: Any, clean: Any) -> LabelNoiseFit:
    """Whether a network has learnt labels that were wrong, or seen through them.

    Parameters
    ----------
    probabilities : array
        (N, K) of training examples; see `calibration_error`.
    noisy, clean : array
        (N,) the labels that it was trained on, and those that are right.

    Returns
    -------
    LabelNoiseFit
        NaN where no label was changed.

    Raises
    ------
    InputError
        Arrays that are no probabilities, or no labels of them.

    Examples
    --------
    >>> label_noise_fit([0.9, 0.8, 0.1], noisy=[1, 1, 1], clean=[1, 0, 0])
    LabelNoiseFit(memorised=0.5, corrected=0.5)
    """
    p = as_probabilities("label_noise_fit", probabilities)
    given, right = (as_labels("label_noise_fit", y, (len(p), p.shape[1]), name)
                    for name, y in (("noisy", noisy), ("clean", clean)))  # fmt: skip
    changed, predicted = given != right, p.argmax(axis=1)
    if not changed.any():
        return LabelNoiseFit(float("nan"), float("nan"))
    return LabelNoiseFit(*(float(np.mean((predicted == y)[changed])) for y in (given, right)))


def _neighbour(letter: str, random: np.random.Generator) -> str:
    """The letter beside it, upper case where it is; what is no letter of a keyboard stays."""
    row = next((row for row in KEYS if letter.lower() in row), "")
    if not row:
        return letter
    place = row.index(letter.lower())
    beside = [row[at] for at in (place - 1, place + 1) if 0 <= at < len(row)]
    found = beside[random.integers(len(beside))]
    return found.upper() if letter.isupper() else found


def _check_texts(function: str, texts: Any, share: float) -> None:
    checks.real(function, "share", share, least=0.0, most=1.0)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        checks.fail(function, "texts", "a list of texts", checks.shown(texts))


def _random(function: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([*function.encode(), checks.whole(function, "seed", seed, least=0)])


def _dtype(x: Any) -> np.dtype:
    """The floating dtype of what was given; that of Python's numbers is double."""
    found = arrays.numbers("shifts", "x", x).dtype
    return found if found.kind == "f" else np.dtype(np.float64)

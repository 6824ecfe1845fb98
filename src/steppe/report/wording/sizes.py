"""How large a difference is, in words."""

import math

from steppe.analysis.quantities import Quantity
from steppe.analysis.verdict import LARGEST_LOG
from steppe.measures.words import NAMES


def size(quantity: Quantity, difference: float) -> str:
    """The size of a difference: of shares in points (percent), of logarithms as a factor.

    Examples
    --------
    >>> size(Quantity("accuracy", "Accuracy", "share"), -0.0123), size(Quantity("loss", "Loss", log=True), -1.1)
    ('1.23 points', 'a factor of 3')
    """
    if quantity.log:
        return factor(_ratio(difference))
    if quantity.unit == "share":
        return points(difference)
    return f"{abs(difference):.3g} {quantity.unit}".strip()


def size_range(quantity: Quantity, least: float, most: float) -> str:
    """The sizes of several differences, from the least to the most.

    Examples
    --------
    >>> size_range(Quantity("accuracy", "Accuracy", "share"), 0.01, -0.02)
    '1.00 to 2.00 points'
    >>> size_range(Quantity("loss", "Loss", log=True), math.log(10), math.log(100))
    'a factor of 10 to 100'
    """
    if size(quantity, least) == size(quantity, most):
        return size(quantity, least)
    if quantity.log:
        return f"{factor(_ratio(least))} to {_factor_number(_ratio(most))}"
    if quantity.unit == "share":
        return f"{_point_number(least)} to {points(most)}"
    return f"{abs(least):.3g} to {size(quantity, most)}"


def margin_size(quantity: Quantity, margin: float) -> str:
    """A margin, given on the scale that is compared.

    Examples
    --------
    >>> margin_size(Quantity("accuracy", "Accuracy", "share"), 0.01)
    '1.00 points'
    """
    return f"a factor of {math.exp(margin):.6g}" if quantity.log else size(quantity, margin)


def points(difference: float) -> str:
    """An absolute difference of shares in percentage points, to three digits and no finer than a hundredth."""
    return f"{_point_number(difference)} points"


def factor(ratio: float) -> str:
    """A ratio of at least 1 in words.

    Examples
    --------
    >>> factor(3.04), factor(12.4), factor(1.043), factor(2e7), factor(1.0001)
    ('a factor of 3', 'a factor of 12', 'a factor of 1.04', 'a factor of 2e+07', 'less than 1 %')
    """
    return "less than 1 %" if ratio < 1.005 else f"a factor of {_factor_number(ratio)}"


def sentence_case(text: str) -> str:
    """A phrase as the beginning of a sentence or of a cell."""
    return text[:1].upper() + text[1:]


def mid_sentence(text: str) -> str:
    """A phrase that may begin a sentence, as it stands within one.

    Examples
    --------
    >>> mid_sentence("Final test accuracy"), mid_sentence("AURC"), mid_sentence("Brier score")
    ('final test accuracy', 'AURC', 'Brier score')
    """
    return text if text[:2].isupper() or text.startswith(NAMES) else text[:1].lower() + text[1:]


def _ratio(difference: float) -> float:
    """The ratio that a difference of logarithms stands for, at least 1."""
    return math.exp(min(abs(difference), LARGEST_LOG))


def _point_number(difference: float) -> str:
    value = 100 * abs(difference)
    return "less than 0.01" if 0 < value < 0.005 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _factor_number(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}' if ratio >= 1.995 else f'{ratio:.3g}'):g}"

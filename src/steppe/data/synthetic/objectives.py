"""Test functions of optimisation as regressions: what a network learns is the function itself."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from steppe.core import checks
from steppe.data.dataset import Dataset
from steppe.data.synthetic.sizes import check_draw
from steppe.data.tabular import table

Values: TypeAlias = NDArray[np.float64]

HALF_WIDTH = 3.5
"""Points are uniform over the square [−3.5, 3.5]², as Mason-Williams et al. (2026) draw them."""


OBJECTIVES: dict[str, Callable[[Values, Values], Values]] = {
    "sphere": lambda x, y: x**2 + y**2,
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "rastrigin": lambda x, y: 20 + x**2 - 10 * np.cos(2 * np.pi * x) + y**2 - 10 * np.cos(2 * np.pi * y),
    "beale": lambda x, y: (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2,
    "booth": lambda x, y: (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2,
    "three-hump-camel": lambda x, y: 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2,
    "himmelblau": lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
}
"""The functions by name."""


def objective(
    *,
    function: str,
    examples: int = 10_000,
    test_examples: int = 10_000,
    standardize: bool = False,
    split_seed: int = 0,
) -> Dataset:
    """A function of two variables that optimisers are tested on, to be learned from its values at random points.

    Parameters
    ----------
    function : one of `OBJECTIVES`: "sphere", "rosenbrock", "rastrigin", "beale", "booth", "three-hump-camel",
        "himmelblau".
    examples, test_examples : how many points there are to train and to test on, uniform over [−3.5, 3.5]².
    standardize : subtract the training part's mean of each coordinate and of the values, and divide by its standard
        deviation. Values differ in scale by a factor of 900 between the functions.
    split_seed : seed of the draw.

    Raises
    ------
    InputError : settings out of range.

    Notes
    -----
    The seven functions of Mason-Williams et al. (2026), who draw 10,000 points of each part and do not standardise:

        sphere             x² + y²
        rosenbrock         (1 − x)² + 100 (y − x²)²
        rastrigin          20 + x² − 10 cos 2πx + y² − 10 cos 2πy
        beale              (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²
        booth              (x + 2y − 7)² + (2x + y − 5)²
        three-hump-camel   2x² − 1.05x⁴ + x⁶/6 + xy + y²
        himmelblau         (x² + y − 11)² + (x + y² − 7)²

    Examples
    --------
    >>> data = objective(function="sphere", examples=4, test_examples=2)
    >>> data.train["x"].shape, data.test["x"].shape, data.classes, data.outputs
    ((4, 2), (2, 2), 0, 1)
    """
    checks.one_of("data objective", "function", function, OBJECTIVES)
    check_draw("objective", examples, test_examples, split_seed)
    points = np.random.default_rng(split_seed).uniform(-HALF_WIDTH, HALF_WIDTH, size=(examples + test_examples, 2))
    values = OBJECTIVES[function](*points.T)
    train, test = ((points[part], values[part]) for part in (slice(examples), slice(examples, None)))
    about = (
        f"the function {function} at points uniform over [−3.5, 3.5]², {examples} to train and {test_examples} to test "
        f"(seed {split_seed})"
    )
    return table("objective", train, test, 0, about, standardize)

"""Two classes in the plane, as scikit-learn draws them."""

import numpy as np

from steppe.core import checks
from steppe.data.dataset import Dataset
from steppe.data.synthetic.sizes import check_draw
from steppe.data.tabular import table


def moons(*, examples: int = 100, test_examples: int = 1000, noise: float = 0.25, split_seed: int = 0) -> Dataset:
    """Two interleaved half circles in the plane, two classes, with normal noise on both coordinates.

    Parameters
    ----------
    examples, test_examples : how many there are to train and to test on.
    noise : standard deviation of the noise; the circles have radius 1.
    split_seed : seed of the draw.

    Raises
    ------
    InputError : settings out of range.

    Notes
    -----
    As scikit-learn's make_moons draws them.

    Examples
    --------
    >>> data = moons()
    >>> data.train["x"].shape, data.test["x"].shape, data.classes
    ((100, 2), (1000, 2), 2)
    """
    from sklearn.datasets import make_moons

    check_draw("moons", examples, test_examples, split_seed)
    checks.real("data moons", "noise", noise, least=0.0)
    draw = np.random.RandomState(split_seed)
    train, test = (make_moons(count, noise=noise, random_state=draw) for count in (examples, test_examples))
    about = f"two moons, {examples} examples to train and {test_examples} to test, noise {noise:g} (seed {split_seed})"
    return table("moons", train, test, 2, about, standardize=False)


def circles(
    *, factor: float = 0.5, examples: int = 50, test_examples: int = 50, noise: float = 0.0, split_seed: int = 0
) -> Dataset:
    """Two concentric circles in the plane, a class each: the closer their radii, the tighter the boundary between them.

    Parameters
    ----------
    factor : radius of the inner circle over that of the outer one, which is 1; at least 0 and below 1.
    examples, test_examples : how many there are to train and to test on.
    noise : standard deviation of normal noise on both coordinates.
    split_seed : seed of the draw.

    Raises
    ------
    InputError : settings out of range.

    Notes
    -----
    As scikit-learn's make_circles draws them: points evenly spaced on each circle, shuffled, of which the first are to
    train on. The defaults are those of Mason-Williams et al. (2026), who vary the factor.

    Examples
    --------
    >>> data = circles(factor=0.9)
    >>> data.train["x"].shape, data.test["x"].shape, data.classes
    ((50, 2), (50, 2), 2)
    """
    from sklearn.datasets import make_circles

    check_draw("circles", examples, test_examples, split_seed)
    checks.real("data circles", "noise", noise, least=0.0)
    if checks.real("data circles", "factor", factor, least=0.0) >= 1:
        checks.fail("data circles", "factor", "at least 0 and below 1", factor)
    x, y = make_circles(examples + test_examples, noise=noise or None, random_state=split_seed, factor=factor)
    about = (
        f"two concentric circles of radii {factor:g} and 1, {examples} examples to train and {test_examples} to test, "
        f"noise {noise:g} (seed {split_seed})"
    )
    parts = (x[:examples], y[:examples]), (x[examples:], y[examples:])
    return table("circles", *parts, 2, about, standardize=False)

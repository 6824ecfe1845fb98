"""Noisy targets, drawn anew at every step."""

from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks, trees
from steppe.core.types import Batch
from steppe.data.transforms.base import Transform, array_of


def label_noise(chance: float = 0.2, *, classes: int) -> Transform:
    """With chance p each label becomes another class, uniformly one of the K − 1 others (Damian et al. 2021).

    Parameters
    ----------
    chance : 0 ≤ p ≤ 1; a traced value will do.
    classes : K, the classes that the data have; a study fills it in.

    Returns
    -------
    A transform of batches with integer labels of any shape. Cost: two draws a label.

    Raises
    ------
    InputError : chance or classes out of range, when made; labels that are not integers, when called.

    Notes
    -----
    After Blanc et al. (2020), who change real targets (`target_noise`); flipped labels are what Damian et al. train
    classifiers with, p = 0.2 on CIFAR-10. Drawn anew at every step: labels that are wrong for good are another subject.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.array([0, 1, 0, 1])}
    >>> label_noise(1.0, classes=2)(jax.random.key(0), batch, None)["y"].tolist()
    [1, 0, 1, 0]
    """
    checks.real("label_noise", "chance", chance, least=0.0, most=1.0)
    checks.whole("label_noise", "classes", classes, least=2)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        y = array_of("label_noise", batch, "y", jnp.integer, "integer labels")
        flips, others = jax.random.split(key)
        # 1 to K − 1 classes further on: every other class, and never the same; small dtypes may not hold the sum
        other = (y.astype(jnp.int32) + jax.random.randint(others, y.shape, 1, classes, jnp.int32)) % classes
        return {**batch, "y": jnp.where(jax.random.bernoulli(flips, chance, y.shape), other.astype(y.dtype), y)}

    return transform


def target_noise(sigma: float) -> Transform:
    """Real targets become y + σε, each ε = ±1 with chance ½ (Blanc et al. 2020).

    Parameters
    ----------
    sigma : σ ≥ 0, in units of the targets; a traced value will do.

    Returns
    -------
    A transform of batches with floating-point targets of any shape, each entry with a sign of its own.

    Raises
    ------
    InputError : sigma out of range, when made; targets that are not floating-point, when called.

    Notes
    -----
    With it, SGD on half the squared error, at rate η with batches of B, goes to stationary points of L + (ησ²/B) R, and
    R to ¼ tr H as η goes to 0 (Damian et al. 2021).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.ones(4)}
    >>> sorted(set(target_noise(0.5)(jax.random.key(0), batch, None)["y"].tolist()))
    [0.5, 1.5]
    """
    checks.real("target_noise", "sigma", sigma, least=0.0)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        y = array_of("target_noise", batch, "y", jnp.floating, "floating-point targets")
        return {**batch, "y": trees.add_scaled(y, sigma, jax.random.rademacher(key, y.shape, y.dtype))}

    return transform

"""A value that is a sum divided by a sum, and the share of each part in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import programs


@programs.holder
@dataclass(frozen=True)
class Weighted:
    """The loss or the criterion that `weighted` makes."""

    function: Callable[[Any, Any], jax.Array]
    weight: Callable[[Any], jax.Array]

    def __call__(self, first: Any, second: Any) -> jax.Array:
        """The value of the loss at parameters and a batch, or of the criterion at outputs and targets."""
        return self.function(first, second)


def weighted(function: Callable[[Any, Any], jax.Array], weight: Callable[[Any], jax.Array]) -> Weighted:
    """A loss, or a criterion, that is a sum divided by a sum, with the sum that divides it.

    Over batches L = Σᵢ Wᵢ Lᵢ / Σᵢ Wᵢ, with Wᵢ the weight of a batch. Without it batches count by their sizes, which is
    right for a mean over examples and wrong for Σ wₙ lₙ / Σ wₙ: class weights, means over tokens that are not masked.

    Parameters
    ----------
    function : callable
        ``loss(params, batch)``, or ``criterion(outputs, y)``.
    weight : callable
        ``weight(batch)``, or ``weight(y)``: a scalar of at least 0, what the value has been divided by.

    Returns
    -------
    Weighted
        The same function. Everything in Steppe that takes several batches, parts of a batch or single examples reads
        its weight.

    Examples
    --------
    >>> import jax.numpy as jnp, steppe
    >>> masked = lambda w, batch: jnp.sum(batch["mask"] * (batch["x"] * w) ** 2) / jnp.sum(batch["mask"])
    >>> loss = weighted(masked, lambda batch: jnp.sum(batch["mask"]))
    >>> parts = [{"x": jnp.array([1.0, 5.0]), "mask": jnp.array([1.0, 0.0])}, {"x": jnp.ones(2), "mask": jnp.ones(2)}]
    >>> float(steppe.measures.measure(["loss"], loss=loss, params=jnp.array(2.0), batches=parts)[0].value)
    4.0
    """
    return Weighted(function, weight)


def shares(weight: Callable[[Any], jax.Array] | None, examples: Any) -> jax.Array:
    """The share of each example in a mean over them, (B,), summing to 1: by `weight` of one alone, or all alike.

    Where the weight is a pytree, a pytree of shares.
    """
    count = len(jax.tree.leaves(examples)[0])
    if weight is None:
        return jnp.full(count, 1 / count)
    parts: jax.Array = parts_of(jax.vmap(lambda one: weight(jax.tree.map(lambda leaf: leaf[None], one)))(examples))
    return parts


def parts_of(weights: Any) -> Any:
    """Weights (n,), or a pytree of such, divided by their sum; zeros where that is zero."""
    return jax.tree.map(lambda leaf: leaf / jnp.where(jnp.sum(leaf) == 0, 1, jnp.sum(leaf)), weights)


def weigh(share: jax.Array, value: jax.Array) -> jax.Array:
    """A value times its share; zero where that is zero, whatever the value: a sum over nothing may be 0/0."""
    share = jnp.asarray(share).astype(value.dtype)
    share = share.reshape(*share.shape, *[1] * (value.ndim - share.ndim))
    return jnp.where(share == 0, jnp.zeros((), value.dtype), share * value)

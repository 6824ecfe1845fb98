"""Averages over random vectors, whose derivative is taken vector by vector.

Differentiating a loop over vectors would keep what each of them needs for its derivative, or compute each of them
twice. Here a vector's value and gradient are computed in one step of a loop, and only their sums are kept: the memory
and the program of one vector, whatever their number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from steppe.core import trees
from steppe.curvature.estimators.as_one import as_one

Values = tuple[jax.Array, ...]
Value = Callable[[Any, jax.Array], Values]
"""``(operand, key) -> values``, one scalar for each quantity."""


def averages(
    every: Value, one: Value, operand: Any, keys: jax.Array, moving: tuple[bool, ...]
) -> tuple[Values, Values]:
    """The means over keys of some quantities, differentiable in the operand; and the (M,) samples, held constant.

    Parameters
    ----------
    every : callable
        ``(operand, keys) -> values``, (M,) each: all samples at once, in whatever way is cheapest without derivatives.
    one : callable
        ``(operand, key) -> values``: the same for one key, to be differentiated in reverse.
    operand : pytree
        What the values depend on; neither function may close over what is differentiated.
    keys : key array
        (M,)
    moving : tuple of bool
        Which quantities are differentiated; the means of the others are held constant.

    Returns
    -------
    means, samples
        A tuple of scalars, and one of arrays (M,). The means can be differentiated in either mode, any number of times.
        A first derivative takes one reverse pass of `one` for each key and each quantity that moves.
    """
    leaves, treedef = jax.tree.flatten(operand)

    @jax.custom_jvp
    def found(leaves: list[Any], keys: jax.Array) -> tuple[Values, Values]:
        samples = every(jax.tree.unflatten(treedef, leaves), keys)
        return tuple(jnp.mean(x) for x in samples), samples

    def derivative(primals: tuple, tangents: tuple) -> tuple[tuple[Values, Values], tuple[Values, Values]]:
        leaves, keys = primals
        places = perturbed(tangents[0])

        def values(part: list[Any], key: jax.Array) -> Values:
            return one(jax.tree.unflatten(treedef, exchanged(leaves, places, part)), key)

        part = [leaves[at] for at in places]
        samples, gradients = as_one(lambda part, keys: _accumulated(values, part, keys, moving), part, keys)
        along, left = [tangents[0][at] for at in places], iter(gradients)
        means = tuple(jnp.mean(x) for x in samples)
        slopes = tuple(
            trees.dot(next(left), along).astype(mean.dtype) if moves and places else jnp.zeros_like(mean)
            for mean, moves in zip(means, moving, strict=True)
        )
        return (means, samples), (slopes, tuple(jnp.zeros_like(x) for x in samples))

    found.defjvp(derivative, symbolic_zeros=True)
    return found(leaves, keys)


def _accumulated(
    values: Value, part: list[Any], keys: jax.Array, moving: tuple[bool, ...]
) -> tuple[Values, list[list[jax.Array]]]:
    """The samples, (M,) each, and the gradient in `part` of the mean of each quantity that moves."""
    count = len(keys)
    quantities = [at for at, moves in enumerate(moving) if moves]

    def gradients(key: jax.Array) -> tuple[Values, list[list[jax.Array]]]:
        def chosen(part: list[Any]) -> tuple[Values, Values]:
            found = values(part, key)
            return tuple(found[at] for at in quantities), found

        # what does not move is no output here: a cotangent of zeros would be computed with
        means, pull, found = jax.vjp(chosen, part, has_aux=True)
        unit = lambda at: tuple(jnp.full_like(x, at == other) for other, x in enumerate(means))  # noqa: E731
        return found, [pull(unit(at))[0] for at in range(len(means))]

    def add(sums: list[Any], key: jax.Array) -> tuple[list[Any], Values]:
        found, more = gradients(key)
        return jax.tree.map(lambda total, x: total + x.astype(total.dtype) / count, sums, more), found

    # a gradient looks like what it is taken in: asking JAX for its shapes would trace all of it twice
    sums, samples = jax.lax.scan(add, [trees.zero_sums(part) for _ in quantities], keys)
    return samples, sums


def perturbed(tangents: list[Any]) -> list[int]:
    """The places of the tangents that are not known to be zero."""
    return [at for at, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]


def exchanged(leaves: list[Any], places: list[int], part: list[Any]) -> list[Any]:
    """A list with other leaves at some places."""
    whole = list(leaves)
    for at, leaf in zip(places, part, strict=True):
        whole[at] = leaf
    return whole

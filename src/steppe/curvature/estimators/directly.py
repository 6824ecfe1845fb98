"""Moments of a loss's Hessian that know nothing of layers, made to be differentiated.

The gradient of ‖Hv‖² is 2 D³L[v, w] with w = Hv: the loss along two directions (four coefficients of a polynomial in
two variables), differentiated in reverse once. Differentiating the product itself, forward over reverse, in reverse
gives the same and takes more operations and memory: its reverse pass goes through that of the gradient.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from steppe.core import trees
from steppe.core.types import Moments, Params
from steppe.curvature import layers
from steppe.curvature.estimators import averages, estimates, segments
from steppe.curvature.estimators.probes import DISTRIBUTIONS

HeldLoss = Callable[["Held", list[Any]], jax.Array]
"""``(held, params)`` -> the loss at these parameters."""


class Held(NamedTuple):
    """What a loss depends on, leaf by leaf: its parameters, its batch, and the arrays that it closes over."""

    params: list[Any]
    batch: list[Any]
    consts: list[Any]


def moments(
    jaxpr: ClosedJaxpr,
    params: list[Any],
    batch: list[Any],
    keys: jax.Array,
    distribution: str,
    moving: tuple[bool, bool],
    *,
    rematerialize: int | None = None,
) -> Moments:
    """Estimates of tr H and tr(H²) for the program of a loss, a function of leaves; one key a random vector.

    `moving` says which of the two are differentiated; with `rematerialize` derivatives keep what passes between
    so many segments of the program, and compute again what is inside of them.
    """
    run: Callable[..., list[Any]] = functools.partial(jax.core.eval_jaxpr, jaxpr.jaxpr)
    if rematerialize is not None:
        run = segments.rematerialized(jaxpr, rematerialize)

    def loss(held: Held, params: list[Any]) -> jax.Array:
        (value,) = run(held.consts, *params, *held.batch)
        return jnp.asarray(value)

    def every(held: Held, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        multiply = jax.linearize(jax.grad(lambda p: loss(held, p)), held.params)[1]

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            v = DISTRIBUTIONS[distribution](key, params)
            return _squares(v, multiply(v))

        found: tuple[jax.Array, jax.Array] = jax.lax.map(one, keys)
        return found

    has_slopes = not layers.reverse_only(jaxpr.jaxpr)

    def one(held: Held, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        v = DISTRIBUTIONS[distribution](key, params)
        return _along(loss, held, v, has_slopes=has_slopes, apart=rematerialize is not None)

    held = Held(params, batch, list(jaxpr.consts))
    return Moments(*estimates.averaged(every, one, held, keys, moving))


def _squares(v: Params, Hv: Params) -> tuple[jax.Array, jax.Array]:
    return trees.dot(v, Hv), trees.norm_squared(Hv)


def _along(loss: HeldLoss, held: Held, v: list[Any], *, has_slopes: bool, apart: bool) -> tuple[jax.Array, jax.Array]:
    """vᵀHv and ‖Hv‖², with the derivatives of D²L[v, v] and of 2 D²L[v, w], w = Hv held.

    A loss that has no slope along a vector, as of a `custom_vjp`, is differentiated as ⟨Hv, w⟩, at more cost. The
    product and the derivative along it begin with the same pass. Where they are `apart` it is computed twice; else the
    compiler computes it once, and keeps all of it meanwhile.
    """
    leaves, treedef = jax.tree.flatten(held)

    def product(leaves: list[Any], v: list[Any]) -> list[Any]:
        held: Held = jax.tree.unflatten(treedef, leaves)
        image: list[Any] = jax.jvp(jax.grad(lambda p: loss(held, p)), (held.params,), (v,))[1]
        return image

    @jax.custom_jvp
    def squares(leaves: list[Any], v: list[Any]) -> tuple[jax.Array, jax.Array]:
        return _squares(v, product(leaves, v))

    def derivative(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        leaves, v = primals
        w = product(leaves, v)
        if apart:
            leaves, v, w = jax.lax.optimization_barrier((leaves, v, w))
        places = averages.perturbed(tangents[0])

        def form(part: list[Any], w: list[Any]) -> jax.Array:
            """D²L[v, w] at other values of what is differentiated."""
            moved: Held = jax.tree.unflatten(treedef, averages.exchanged(leaves, places, part))
            if not has_slopes:
                return trees.dot(product(jax.tree.leaves(moved), v), w)
            slope = lambda p: jax.jvp(lambda q: loss(moved, q), (p,), (v,))[1]  # noqa: E731
            found: jax.Array = jax.jvp(slope, (moved.params,), (w,))[1]
            return found.astype(trees.accumulator_dtype(moved.params))

        part, along = [leaves[at] for at in places], [tangents[0][at] for at in places]
        slopes = (jax.jvp(lambda part, w=w: form(part, w), (part,), (along,))[1] for w in (v, w))
        first, second = slopes
        return _squares(v, w), (first, 2 * second)

    squares.defjvp(derivative, symbolic_zeros=True)
    found: tuple[jax.Array, jax.Array] = squares(leaves, v)
    return found

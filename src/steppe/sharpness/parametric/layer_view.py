"""A network seen from one of its layers: what enters, and what follows when the layer's product moves."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import trees
from steppe.core.types import Apply, Params
from steppe.curvature import layers
from steppe.curvature.layers.detection import Layer

ORDER_KEPT = ("convert_element_type", "copy", "reshape", "squeeze")
"""Operations after which the numbers of an array still follow each other as before."""


def matrix(layer: Layer, params: Params) -> jax.Array:
    """W, (inputs, outputs), in at least float32."""
    W = layer.weights(jnp.asarray(jax.tree.leaves(params)[layer.leaf]))
    return W.reshape(-1, layer.fan_out).astype(trees.accumulator_dtype(W))


class View(NamedTuple):
    """A network at one batch, seen from one of its linear layers y = aW.

    Attributes
    ----------
    layer : the layer.
    a : (rows, inputs), what enters it.
    outputs : the network's outputs where y has been moved, an array or several: move -> outputs.
    still : a move by zeros.
    """

    layer: Layer
    a: jax.Array
    outputs: Callable[[jax.Array], jax.Array]
    still: jax.Array


def view(apply: Apply, name: str, params: Params, x: Any) -> View:
    """The network `apply` at inputs x, or a loss at a batch, seen from the layer of that name."""
    found = layers.traced(apply, params, x)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, x))]
    index = [one.name for one in found.layers].index(name)
    layer, seen = found.layers[index], []

    def outputs(move: jax.Array | None) -> jax.Array:
        def linear(at: int, a: jax.Array, K: jax.Array) -> jax.Array:
            y = found.layers[at].apply(a, K)
            if at != index:
                return y
            if move is None:
                seen.append((a, y))
                return y
            return y + move

        value: jax.Array = found.run(leaves, linear)
        return value

    outputs(None)
    a, y = seen[0]
    return View(layer, a, outputs, jnp.zeros_like(y))


def is_last(at: View) -> bool:
    """Whether the outputs are the layer's product and something fixed: they then move as it moves."""
    moves = jax.make_jaxpr(jax.linearize(at.outputs, at.still)[1])(at.still).jaxpr
    here = moves.invars[0]
    for eqn in moves.eqns:
        if eqn.primitive.name not in ORDER_KEPT or eqn.invars != [here]:
            return False
        here = eqn.outvars[0]
    return moves.outvars == [here] and bool(here.aval.shape[-1] == at.layer.fan_out)

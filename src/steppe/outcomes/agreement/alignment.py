"""Aligning the hidden units of two networks: the same function, of weights as near as their order allows."""

import itertools
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from steppe.core import checks, names, trees
from steppe.core.types import Apply, Params
from steppe.curvature import layers
from steppe.landscape.points import alike

ROUNDING = 100.0
"""Roundings, of the largest output, by which outputs may differ after hidden units have changed their places."""

ROUNDS = 100

Arrays = Sequence[np.ndarray]

Orders = list[np.ndarray]


class _Dense(NamedTuple):
    """A dense layer: the leaf of its weights, whether they lie (outputs, inputs), and the leaf of its bias, or None."""

    weight: int
    turned: bool
    bias: int | None


def align(apply: Apply, start: Params, end: Params, x: Any) -> Params:
    """A network with its hidden units in the order that brings its weights nearest to those of another.

    Permuting the units of a hidden layer, with what enters and what leaves them, changes no output. Two networks of one
    function may so lie far apart, with a barrier between them that is one of order alone. For one hidden layer after
    another the best permutation, all others kept, is an assignment problem; rounds end when no layer changes. They
    begin twice, at the order as it is and at the one that fits what enters each layer; the better end is kept.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``, a chain of dense layers with functions of single units between them: a perceptron.
    start : pytree of arrays
        The network that stays.
    end : pytree of arrays
        Of the same shapes: the one whose units are put in another order.
    x : array
        A few inputs, on which outputs are compared afterwards.

    Returns
    -------
    pytree of arrays
        As `end`, with the same outputs. Of `end` equal to `start` but for the order of its units it is `start` itself.
        Cost: an assignment of n units, n³ at most, a layer and round.

    Raises
    ------
    InputError
        A network that is no such chain, or whose outputs change with the order of units; networks of different shapes.

    Notes
    -----
    Weight matching of Ainsworth, Hayase and Srinivasa 2023 (Git Re-Basin), a local optimum. They visit layers in random
    order; here it is from the first to the last, so that the same networks give the same answer.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> apply = lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"]
    >>> start = {"in": jnp.array([[1.0, 2.0]]), "out": jnp.array([[3.0], [4.0]])}
    >>> end = {"in": jnp.array([[2.0, 1.0]]), "out": jnp.array([[4.0], [3.0]])}
    >>> align(apply, start, end, jnp.ones((2, 1)))["in"].tolist()
    [[1.0, 2.0]]
    """
    alike("align", "end", end, start)
    chain = _chain(apply, end, x)
    a, b = ([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in (start, end))
    still = [np.arange(b[layer.weight].shape[0 if layer.turned else 1]) for layer in chain[:-1]]
    ends = [_improved(a, b, chain, orders) for orders in (still, _forward(a, b, chain, still))]
    orders = max(ends, key=itemgetter(1))[0]
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(end)]
    moved = jax.tree.unflatten(trees.structure(end), _reordered(leaves, chain, orders))
    _same_outputs(apply, end, moved, x)
    return moved


def _chain(apply: Apply, params: Params, x: Any) -> list[_Dense]:
    """The layers of a perceptron, from its inputs to its outputs."""
    leaves, owners = jax.tree.leaves(params), names.layers(params)
    found = layers.traced(apply, params, x).layers
    chain, used = [], set()
    for layer in found:
        shape = np.shape(leaves[layer.leaf])
        places = np.arange(np.size(leaves[layer.leaf])).reshape(shape)
        seen = np.asarray(layer.weights(jnp.asarray(places, jnp.float32))).reshape(-1, layer.fan_out)
        turned = len(shape) == 2 and np.array_equal(seen, places.T)
        if layer.kind != "dense" or not (turned or (len(shape) == 2 and np.array_equal(seen, places))):
            _no_chain(f"one whose layer {layer.name} is something else")
        own = [i for i, leaf in enumerate(leaves) if owners[i] == owners[layer.leaf] and np.ndim(leaf) == 1]
        bias = next((i for i in own if np.size(leaves[i]) == layer.fan_out), None)
        chain.append(_Dense(layer.leaf, turned, bias))
        used |= {layer.leaf, bias}
    if len(chain) < 2:
        _no_chain(f"one of {len(chain)} dense layers" if chain else "one without dense layers")
    if len(used - {None}) < len(leaves):
        _no_chain("one with parameters beside weights and biases")
    widths = [np.shape(leaves[dense.weight])[:: -1 if dense.turned else 1] for dense in chain]
    if any(one[1] != after[0] for one, after in itertools.pairwise(widths)):
        _no_chain("one whose layers do not follow one another")
    return chain


def _forward(a: Arrays, b: Arrays, chain: list[_Dense], orders: Orders) -> Orders:
    """Orders by what enters each layer alone, from the first to the last: right where only these differ."""
    found = list(orders)
    for place in range(len(found)):
        found[place] = _best(a, b, chain, found, place, leaves=False)
    return found


def _improved(a: Arrays, b: Arrays, chain: list[_Dense], orders: Orders) -> tuple[Orders, float]:
    """Orders that no change of one layer betters, and Σ ⟨a, b⟩ over all weights and biases under them."""
    orders = list(orders)
    for _ in range(ROUNDS):
        before = list(orders)
        for place in range(len(orders)):
            orders[place] = _best(a, b, chain, orders, place)
        if all(map(np.array_equal, before, orders)):
            break
    return orders, sum(float(np.sum(one * other)) for one, other in zip(a, _reordered(b, chain, orders), strict=True))


def _best(a: Arrays, b: Arrays, chain: list[_Dense], orders: Orders, place: int, *, leaves: bool = True) -> np.ndarray:
    """The order of one hidden layer's units under which weights fit best, the other orders kept.

    Without `leaves` by what enters the layer alone.
    """
    free = [*orders[:place], np.arange(len(orders[place])), *orders[place + 1 :]]
    moved, entering, leaving = _reordered(b, chain, free), chain[place], chain[place + 1]
    rows = lambda side, layer: side[layer.weight] if layer.turned else side[layer.weight].T  # noqa: E731
    gain = rows(a, entering) @ rows(moved, entering).T
    if leaves:
        gain += rows(a, leaving).T @ rows(moved, leaving)
    if entering.bias is not None:
        gain += np.outer(a[entering.bias], moved[entering.bias])
    found: np.ndarray = optimize.linear_sum_assignment(gain, maximize=True)[1]
    return found


def _reordered(leaves: Sequence[Any], chain: list[_Dense], orders: Orders) -> list[Any]:
    """Arrays with the units of each hidden layer in its order."""
    found = list(leaves)
    for place, order in enumerate(orders):
        entering, leaving = chain[place], chain[place + 1]
        for layer, axis in ((entering, 0 if entering.turned else 1), (leaving, 1 if leaving.turned else 0)):
            found[layer.weight] = found[layer.weight][(slice(None),) * axis + (order,)]
        if entering.bias is not None:
            found[entering.bias] = found[entering.bias][order]
    return found


def _same_outputs(apply: Apply, before: Params, after: Params, x: Any) -> None:
    one, other = (np.asarray(apply(params, x)) for params in (before, after))
    scale = max(float(np.abs(one).max()), 1e-30)
    if not np.abs(one - other).max() <= ROUNDING * np.finfo(one.dtype).eps * scale:
        _no_chain("one whose outputs change with the order of its hidden units")


def _no_chain(got: str) -> NoReturn:
    checks.fail("align", "apply", "a chain of dense layers with functions of single units between them", got)

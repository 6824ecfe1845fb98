"""What methods log, found in the state of a whole chain."""

from collections import Counter
from typing import Any

import jax
from jax.tree_util import DictKey

from steppe.core import trees
from steppe.core.types import Estimate
from steppe.methods.contract import MethodState


def monitor(state: Any) -> dict[str, Estimate]:
    """What all methods in an optimiser's state log, by the methods' names.

    States are found by their class, wherever they are: the place of a method in a chain does not matter, nor what is
    around the chain (`optax.named_chain`, ``optax.MultiSteps``, ``inject_hyperparams``, ``multi_transform``, the
    optimiser of Flax NNX). Works under `jax.jit` and in a mapped ensemble, too, and adds nothing to a program.

    Parameters
    ----------
    state : Any
        The state of an optimiser, or any pytree with such states in it.

    Returns
    -------
    dict of str to Estimate
        For each method the last value of what it acts on, with its standard error (what that is says the method's
        docstring, and docs/methods.md). NaN until it has acted. Several methods of one kind are told apart by the
        labels that lie on the way to them in dictionaries, ``"first/fa"`` in a named chain, or else by their order,
        ``"fa_1"`` and ``"fa_2"``. Empty where there is no method.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.sum(w**2) / 2
    >>> tx = optax.chain(steppe.methods.sam(0.1), steppe.methods.fa(0.01), optax.adam(0.1))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w, loss=loss, batch=jnp.ones(1))
    >>> {name: round(float(value.mean), 3) for name, value in steppe.monitor(state).items()}
    {'sam': 0.5, 'fa': 2.0}
    """
    found = trees.instances(state, MethodState)
    names = _distinct([(_label(path), node.method or "method") for path, node in found])
    return {name: Estimate(*jax.tree.leaves(node.monitor)) for name, (_, node) in zip(names, found, strict=True)}


def _label(path: tuple[Any, ...]) -> str:
    return "/".join(str(step.key) for step in path if isinstance(step, DictKey))


def _distinct(methods: list[tuple[str, str]]) -> list[str]:
    """A name for each label and method: the method's where it is alone, with its label or a number where it is not."""
    kinds, seen = Counter(method for _, method in methods), Counter[tuple[str, str]]()
    names = []
    for label, method in methods:
        seen[label, method] += 1
        name = f"{label}/{method}" if label and kinds[method] > 1 else method
        several = methods.count((label, method)) > 1
        names.append(f"{name}_{seen[label, method]}" if several else name)
    return names

"""How well a network fits, beside which everything else is read; see `measures`."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from steppe.core import trees
from steppe.measures.registry import registered
from steppe.measures.subject import Quantity, Subject


@registered(cost="⅓", invariance="nodes", chosen="quick")
def loss(subject: Subject) -> Iterator[Quantity]:
    """How well does the network fit? Compare flatness at equal loss."""
    yield Quantity("loss", subject.value, log=True)


@registered(cost="⅓", invariance="nodes", needs="labels", chosen="quick")
def accuracy(subject: Subject) -> Iterator[Quantity]:
    """How many predictions are right?"""
    yield Quantity("accuracy", subject.accuracy())


@registered(cost="0", needs="initial", begins=True, chosen="quick")
def distance_from_initialisation(subject: Subject) -> Iterator[Quantity]:
    """How far did training move the weights?"""
    away = jax.tree.map(jnp.subtract, subject.params, subject.initial)
    yield Quantity("distance_from_initialisation", float(trees.norm(away)), log=True)

"""How well a network fits, beside which everything else is read; see `measures`."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, losses, trees
from steppe.measures.predictions import forecasts_of
from steppe.measures.registry import measure
from steppe.measures.subject import Quantity, Subject

KINDS = (losses.WeightedCrossEntropy, losses.TokenCrossEntropy)
"""Cross-entropies that have settings."""

MOST = 700.0
"""Nats whose exponential a float holds."""


@measure(family="fit", cost="⅓", invariance="nodes", chosen="quick")
def loss(subject: Subject) -> Iterator[Quantity]:
    """How well does the network fit? Compare flatness at equal loss."""
    yield Quantity("loss", subject.value, log=True)


@measure(family="fit", cost="⅓", invariance="nodes", needs="labels", chosen="quick", better="higher")
def accuracy(subject: Subject) -> Iterator[Quantity]:
    """How many predictions are right?"""
    yield Quantity("accuracy", subject.accuracy())


@measure(family="fit", cost="⅓", invariance="nodes", needs="labels", chosen="all")
def perplexity(subject: Subject) -> Iterator[Quantity]:
    """Between how many equally likely labels, or tokens, is a prediction unsure, exp(loss)?"""
    if not isinstance(subject.criterion, KINDS) and subject.criterion is not losses.cross_entropy:
        checks.fail("perplexity", "criterion", "cross-entropy", checks.shown(subject.criterion))
    yield Quantity("perplexity", math.exp(min(subject.value, MOST)), log=True)


@measure(family="fit", cost="⅓", invariance="nodes", needs="targets", chosen="all", better="higher")
def r_squared(subject: Subject) -> Iterator[Quantity]:
    """Which part of the variance of real targets is predicted, R² = 1 − Σ (f − y)² / Σ (y − ȳ)²?"""
    targets = np.concatenate([np.asarray(checks.inputs_and_targets("measure", batch)[1], float)
                              for batch in subject.batches.members()])  # fmt: skip
    variance = float(np.mean(np.var(targets, axis=0)))
    yield Quantity("r_squared", 1 - _squared_error(subject) / variance if variance else math.nan)


@measure(family="fit", cost="⅓", invariance="nodes", needs="targets", chosen="all")
def root_mean_squared_error(subject: Subject) -> Iterator[Quantity]:
    """How far are predictions of real targets off, in their units?"""
    yield Quantity("root_mean_squared_error", math.sqrt(_squared_error(subject)), log=True)


def _squared_error(subject: Subject) -> float:
    """The mean squared error; of predicted distributions that of their means."""
    if subject.criterion is losses.squared_error:
        return subject.value
    mean, _, targets = forecasts_of(subject)
    return float(np.mean((mean - targets) ** 2))


@measure(family="fit", cost="0", needs="initial", begins=True, chosen="quick", better="")
def distance_from_initialisation(subject: Subject) -> Iterator[Quantity]:
    """How far did training move the weights?"""
    away = jax.tree.map(jnp.subtract, subject.params, subject.initial)
    yield Quantity("distance_from_initialisation", float(trees.norm(away)), log=True)

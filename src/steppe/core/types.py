"""Contracts: the few names that every part of Steppe speaks in.

A network is known to Steppe only as a loss, a function of parameters and a batch. Whatever
produced the parameters (Flax NNX, Equinox, plain dictionaries) stays outside.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

Params: TypeAlias = Any
"""A pytree of floating-point arrays."""

Batch: TypeAlias = Any
"""A pytree whose leaves share their leading axis, of length B: ``{"x": (B, D), "y": (B,)}``."""

Loss: TypeAlias = Callable[[Params, Batch], jax.Array]
"""``loss(params, batch)``: a scalar, the mean over the batch; the same twice for the same arguments."""

ExampleLosses: TypeAlias = Callable[[Params, Batch], jax.Array]
"""``(params, batch)`` -> (B,), the loss of each example alone; `Loss` is their mean."""

Apply: TypeAlias = Callable[[Params, Any], jax.Array]
"""``apply(params, x)``: a network's outputs for B inputs, (B, ...); the same twice for the same arguments."""

Criterion: TypeAlias = Callable[[jax.Array, Any], jax.Array]
"""``criterion(outputs, y)``: a scalar, the mean over the batch."""

Key: TypeAlias = int | jax.Array
"""A seed: a Python int, or a JAX key array (typed or raw)."""


class Estimate(NamedTuple):
    """A random estimate and how far to trust it.

    Attributes
    ----------
    mean : the estimate, a scalar.
    sem : the standard error of ``mean``: NaN where it is unknown (one probe), 0 where the value is exact.
    """

    mean: jax.Array | float
    sem: jax.Array | float


class Moments(NamedTuple):
    """The first two moments of a symmetric operator's spectrum, tr H and tr H²."""

    trace: Estimate
    frobenius_squared: Estimate

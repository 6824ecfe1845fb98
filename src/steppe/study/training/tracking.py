"""Curvature during training: tr H, tr(H²), λ_max and λ_min with errors; how far λ_max is from the edge of stability.

Gradient descent with learning rate η and heavy-ball momentum β is stable on a quadratic whose largest curvature is
below 2(1 + β)/η, less the weight decay in the gradient. Full-batch training drives λ_max up to that limit and stays
there (Cohen et al. 2021).
"""

import math
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe import curvature
from steppe.core import batches, checks
from steppe.core.types import Batch, Loss
from steppe.models import Variables
from steppe.study.spec.tables import Track

CHUNK = 256
"""Examples in one step of a product: bounds its memory."""


TOLERANCE = 1e-2
"""The residuals of λ_max and λ_min, relative to the larger: an error is about the square of that."""


class Tracker:
    """Measures the same loss, on the same examples with the same random vectors, whenever it is due."""

    def __init__(self, loss: Callable[[Any], Loss], train: Batch, settings: Track) -> None:
        self.loss, self.settings = loss, settings  # the loss of a network with its state
        rows = shuffled(checks.batch_size("track", train))[: settings.examples]
        chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], train)
        self.batches = batches.gather("track", batches.in_batches(chosen, CHUNK))
        self.key = jax.random.key(zlib.crc32(b"track"))

    def at(self, network: Variables, epoch: int, *, due: bool = False) -> dict[str, Any]:
        """Columns of the history after an epoch; none where it is neither due nor its turn, or has diverged."""
        finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(network))
        if not finite or not (due or epoch == 1 or epoch % self.settings.every == 0):
            return {}
        H = curvature.hessian(self.loss(network.state), network.params, self.batches)
        trace, frobenius_squared = curvature.moments(H, self.key, probes=self.settings.probes)
        if not math.isfinite(frobenius_squared.mean):
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said in a column of its own
            ends = curvature.spectral_range(H, self.key, tol=TOLERANCE)
        return {
            "trace": float(trace.mean),
            "trace_sem": _finite(trace.sem),
            "frobenius_squared": float(frobenius_squared.mean),
            "frobenius_squared_sem": _finite(frobenius_squared.sem),
            "top_eigenvalue": float(ends.largest),
            "top_eigenvalue_residual": float(ends.residuals[1]),
            "top_eigenvalue_converged": bool(ends.converged[1]),
            "bottom_eigenvalue": float(ends.smallest),
            "bottom_eigenvalue_residual": float(ends.residuals[0]),
            "bottom_eigenvalue_converged": bool(ends.converged[0]),
            "spectral_range": float(ends.width),
        }


def shuffled(examples: int) -> np.ndarray:
    """The order from which training examples to measure on are taken, always the same."""
    return np.random.default_rng(0).permutation(examples)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None

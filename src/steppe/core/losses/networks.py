"""The loss that a criterion makes of a network."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from steppe.core import checks, programs
from steppe.core.losses.criteria import cross_entropy, example_losses
from steppe.core.losses.weights import shares, weigh
from steppe.core.types import Apply, Batch, Criterion, Loss, Params


@programs.holder
@dataclass(frozen=True)
class NetworkLoss:
    """The loss of a network: ``criterion(apply(params, x), y)``. Equal for equal parts."""

    apply: Apply
    criterion: Criterion

    def __call__(self, params: Params, batch: Batch) -> jax.Array:
        """The mean over the batch."""
        x, y = checks.inputs_and_targets("loss", batch)
        return self.criterion(self.apply(params, x), y)

    def each(self, params: Params, batch: Batch) -> jax.Array:
        """The loss of each example, (B,), times what its weight is of the mean weight: their mean is the loss."""
        x, y = checks.inputs_and_targets("loss", batch)
        values = example_losses(self.criterion, self.apply(params, x), y)
        weight = getattr(self.criterion, "weight", None)
        return values if weight is None else weigh(len(values) * shares(weight, y), values)


def of(apply: Apply, criterion: Criterion = cross_entropy) -> NetworkLoss:
    """The loss of a network, ``loss(params, batch) = criterion(apply(params, x), y)``.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    criterion : ``criterion(outputs, y)``, the mean over the batch.

    Returns
    -------
    A loss on batches ``{"x": (B, ...), "y": (B, ...)}`` or ``(x, y)``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = of(lambda params, x: x @ params)
    >>> round(float(loss(jnp.zeros((2, 4)), {"x": jnp.ones((3, 2)), "y": jnp.array([0, 1, 3])})), 4)  # log 4
    1.3863
    """
    return NetworkLoss(apply, criterion)


def weight_of(loss: Loss) -> Callable[[Batch], jax.Array] | None:
    """``weight(batch)`` of a loss, what divides it; None where its value is a mean over the examples."""
    if isinstance(loss, NetworkLoss):
        weight = getattr(loss.criterion, "weight", None)
        return None if weight is None else lambda batch: weight(checks.inputs_and_targets("loss", batch)[1])
    return getattr(loss, "weight", None)

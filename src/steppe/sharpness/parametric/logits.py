"""Networks whose logits have a fixed scale."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks, programs
from steppe.core.types import Apply, Params

SMALLEST = 1e-10


@programs.holder
@dataclass(frozen=True)
class LogitNormalised:
    """A network whose logits are centred and divided by their norm. Equal for equal networks."""

    apply: Apply

    def __call__(self, params: Params, x: Any) -> jax.Array:
        """The normalised logits (B, ..., K)."""
        z = self.apply(params, x)
        if jnp.ndim(z) < 2 or z.shape[-1] < 2:
            checks.fail(
                "logit_normalised",
                "apply(params, x)",
                "logits (B, K) of K >= 2 classes",
                f"an array of shape {jnp.shape(z)}",
                "One logit for two classes has nothing to be centred by.",
            )
        z = z - jnp.mean(z, axis=-1, keepdims=True)
        square = jnp.sum(z**2, axis=-1, keepdims=True)
        return z / jnp.sqrt(jnp.maximum(square, jnp.asarray(SMALLEST**2, z.dtype)))


def logit_normalised(apply: Apply) -> Apply:
    """A network with logits of one scale, z ← (z − mean z)/max(‖z − mean z‖₂, 10⁻¹⁰) for each example.

    Cross-entropy falls when a network that is right multiplies its logits, and sharpness changes with it though no
    prediction does. Measured on ``losses.of(logit_normalised(apply))``, every measure here is blind to that scale
    (Andriushchenko et al. 2023, section 3; the formula is that of their code).

    Parameters
    ----------
    apply : ``apply(params, x)``: logits (B, ..., K), K >= 2.

    Returns
    -------
    ``apply(params, x)`` of the same shape, rows of mean 0 and norm 1 (0 where all logits are equal). Equal to and
    hashed as any other made from an equal `apply`.

    Raises
    ------
    InputError : when called, for a single logit a row.

    Notes
    -----
    Unchanged when the logits are scaled or shifted; a factor on the last layer W₂, b₂ no longer changes the loss.
    Adaptive measures of it are also unchanged by rescaling the layers of a ReLU network.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> unit = logit_normalised(lambda scale, x: scale * x)
    >>> unit(2.0, jnp.array([[0.0, 2.0]])).round(3).tolist() == unit(9.0, jnp.array([[0.0, 2.0]])).round(3).tolist()
    True
    """
    return LogitNormalised(apply)

"""Networks behind a pair of pure functions over parameters and state: contracts, free of any framework."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax

from steppe.core.types import Apply, Moments, Params

State: TypeAlias = Any
"""A pytree of arrays that training changes without a gradient, such as BatchNorm's statistics; ``{}`` for none."""


class Variables(NamedTuple):
    """All arrays of a network.

    Attributes
    ----------
    params : Params
        what training changes by gradients.
    state : State
        what training changes without a gradient; ``{}`` where there is nothing.
    """

    params: Params
    state: State


class Network(NamedTuple):
    """A network as pure functions.

    Attributes
    ----------
    init : callable
        ``init(key) -> Variables``.
    apply : callable
        ``apply(variables, x, *, key=None, train=False) -> (outputs, state)``. With `train` normalisation uses the
        statistics of the batch and the state that is returned is the updated one; a `key` turns dropout on, and
        without one there is none. In evaluation mode, the default, the state is used and returned as it is, and the
        key is ignored. Outputs of a classifier are logits, (B, K), or (B, 1) for two classes.
    moments : callable or None
        ``moments(params, x, y) -> Moments``: tr H and tr(H²) of the cross-entropy in evaluation mode, for networks
        without state for which they have a closed form.
    statistics : callable or None
        ``statistics(variables, x) -> state``: the state with the statistics of this batch alone, without dropout and
        without what was there before. It lets averages of weights estimate statistics anew; None where a network has
        no state, or where it is not known how.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = Network(lambda key: Variables(jnp.ones(2), {}), lambda v, x, **_: (x @ v.params, v.state))
    >>> params, state = network.init(jax.random.key(0))
    >>> float(network.at(state)(params, jnp.array([1.0, 2.0])))
    3.0
    """

    init: Callable[[jax.Array], Variables]
    apply: Callable[..., tuple[Any, State]]
    moments: Callable[[Params, jax.Array, jax.Array], Moments] | None = None
    statistics: Callable[[Variables, Any], State] | None = None

    def at(self, state: State) -> Apply:
        """The network in evaluation mode with its state held: ``(params, x) -> outputs``.

        All that measures, landscapes and penalties see of a network.

        Parameters
        ----------
        state : State
            see `Variables`.

        Returns
        -------
        Apply
            A pure function of parameters and inputs.
        """
        return _Evaluation(self, state)


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """See `Network.at`."""

    network: Network
    state: State

    def __call__(self, params: Params, x: Any) -> jax.Array:
        return self.network.apply(Variables(params, self.state), x)[0]


class Trained(NamedTuple):
    """A network with values: its parameters and its state, such as `from_nnx` and `from_equinox` give.

    Attributes
    ----------
    network : Network
        the pure functions.
    params : Params
        its parameters now.
    state : State
        its state now.
    """

    network: Network
    params: Params
    state: State

    @property
    def apply(self) -> Apply:
        """``apply(params, x) -> outputs`` in evaluation mode with the state held, see `Network.at`."""
        return self.network.at(self.state)

    @property
    def variables(self) -> Variables:
        """Parameters and state."""
        return Variables(self.params, self.state)


def logits(classes: int) -> int:
    """How many logits a classifier has: two classes need one."""
    return 1 if classes == 2 else classes

"""Networks behind a pair of pure functions over parameters and state: contracts, free of any framework."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from steppe.core import batches, checks, names, trees
from steppe.core.batches import Batches
from steppe.core.predictions import RealOutputs
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


class ForwardPass(Protocol):
    """``apply(variables, x, *, key=None, train=False) -> (outputs, state)``, see `Network`."""

    def __call__(
        self, variables: Variables, x: Any, /, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, State]:
        """The outputs, and the state after this pass."""
        ...


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
        without what was there before; whatever else is state stays as it is. See `estimate`. None where a network has
        no statistics, or where it is not known how they are made.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = Network(lambda key: Variables(jnp.ones(2), {}), lambda v, x, **_: (x @ v.params, v.state))
    >>> params, state = network.init(jax.random.key(0))
    >>> float(network.at(state)(params, jnp.array([1.0, 2.0])))
    3.0
    """

    init: Callable[[jax.Array], Variables]
    apply: ForwardPass
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

    def estimate(self, variables: Variables, inputs: Batches, unfold: Callable[[Any], Any] = lambda x: x) -> State:
        """The state of a network with these parameters, its statistics estimated anew from training data.

        Statistics that training has gathered are not those of other weights, such as an average of weights or a point
        between two networks. A statistic becomes its mean over the batches, as Izmailov et al. (2018) do and Jordan
        et al. (2023, REPAIR) for interpolation; other state stays as it is, see `statistics`.

        Parameters
        ----------
        variables : Variables
            Parameters, and a state of which only what is no statistic counts.
        inputs : Batches
            Batches of training data.
        unfold : callable
            What the network takes of one of them.

        Returns
        -------
        State
            Cost: one forward pass over the batches.
        """
        statistics = self.statistics
        assert statistics is not None  # who asks has checked it
        first = unfold(inputs.first)
        leaves, structure = jax.tree.flatten(statistics(variables, first))
        new = self.is_statistic(variables, first)
        means = [new and _is_real(leaf) for new, leaf in zip(new, leaves, strict=True)]

        def found(batch: Any) -> list[jax.Array]:
            now = jax.tree.leaves(statistics(variables, unfold(batch)))
            return [leaf for leaf, is_mean in zip(now, means, strict=True) if is_mean]

        values = iter(batches.average(found, inputs))
        return jax.tree.unflatten(
            structure, [next(values) if is_mean else leaf for leaf, is_mean in zip(leaves, means, strict=True)]
        )

    def is_statistic(self, variables: Variables, x: Any) -> list[bool]:
        """Whether `estimate` knows each leaf of the state.

        Parameters
        ----------
        variables : Variables
            Arrays, or their shapes.
        x : Any
            Inputs, or their shapes.

        Returns
        -------
        list of bool
            One for each leaf of the state.
        """
        if self.statistics is None:
            return [False] * len(jax.tree.leaves(variables.state))
        statistics = self.statistics
        return changes(lambda params, x, state: statistics(Variables(params, state), x), variables.params, x,
                       variables.state)  # fmt: skip

    def is_trained(self, variables: Variables, x: Any) -> list[bool]:
        """Whether training changes each leaf of the state; arguments are those of `is_statistic`."""

        def after(params: Params, x: Any, key: jax.Array, state: State) -> State:
            return self.apply(Variables(params, state), x, key=key, train=True)[1]

        return changes(after, variables.params, x, jax.random.key(0), variables.state)


def joint(network: Network, variables: Variables) -> tuple[Apply, Params]:
    """A network in evaluation mode as a function of its parameters and its real statistics together, and both.

    For numbers that move statistics as if they were parameters, as some released code does. Whole numbers and keys
    among the state stay as they are.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> network = Network(lambda key: None, lambda v, x, **_: (x * v.params + v.state["mean"], v.state))
    >>> apply, both = joint(network, Variables(jnp.ones(1), {"mean": jnp.zeros(1)}))
    >>> apply(both, jnp.ones(1)), len(jax.tree.leaves(both))
    (Array([1.], dtype=float32), 2)
    """
    leaves, structure = jax.tree.flatten(variables.state)
    moved = [_is_real(leaf) for leaf in leaves]

    def apply(both: Params, x: Any) -> jax.Array:
        values = iter(both["statistics"])
        state = [next(values) if moves else leaf for moves, leaf in zip(moved, leaves, strict=True)]
        return network.at(jax.tree.unflatten(structure, state))(both["params"], x)

    statistics = [leaf for moves, leaf in zip(moved, leaves, strict=True) if moves]
    return apply, {"params": variables.params, "statistics": statistics}


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
    """How many logits a classifier has: two classes need one. A regression has as many outputs as it says."""
    return 1 if classes == 2 and not isinstance(classes, RealOutputs) else int(classes)


def changes(function: Callable[..., State], *arguments: Any) -> list[bool]:
    """Whether a function changes each leaf of a state: not those that it returns as they come.

    Parameters
    ----------
    function : callable
        Gives a state; the last of its arguments is the state before.
    *arguments : pytrees of arrays, or of their shapes

    Returns
    -------
    list of bool
        One for each leaf of the state, read off the function's program: no value is compared.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> changes(lambda x, state: {"mean": x.mean(), "scale": state["scale"]}, jnp.ones(3), {"mean": 0.0, "scale": 1.0})
    [True, False]
    """
    count = len(jax.tree.leaves(arguments[-1]))
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    before = program.invars[len(program.invars) - count :]
    return [after is not leaf for after, leaf in zip(program.outvars, before, strict=True)]


def conform(function: str, after: State, before: State) -> State:
    """A state after training, as it must be: of the shapes and kinds of numbers of the state before, in its precision.

    Raises
    ------
    InputError
        Training adds or drops a part, or changes a shape or whole numbers into others; `function` is named.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> conform("example", {"mean": jnp.ones(2)}, {"mean": jnp.zeros(2, jnp.bfloat16)})["mean"].dtype
    dtype(bfloat16)
    """
    known = names.names(before)
    if trees.structure(after) != trees.structure(before):
        was, now = (", ".join(called) or "nothing" for called in (known, names.names(after)))
        got, todo = f"{was} before an update and {now} after it", "Make all of it before training begins."
        checks.fail(function, "state", "of one structure throughout training", got, todo)

    def part(name: str, new: Any, old: Any) -> jax.Array:
        value, kinds = jnp.asarray(new), [jnp.result_type(leaf) for leaf in (old, new)]
        same = kinds[0] == kinds[1] or all(jnp.issubdtype(kind, jnp.floating) for kind in kinds)
        if jnp.shape(new) != jnp.shape(old) or not same:
            one, other = (f"{jnp.shape(leaf)} {kind}" for leaf, kind in zip((old, new), kinds, strict=True))
            checks.fail(function, "state", "of one shape and dtype throughout training",
                        f"{name} of {one} before an update and {other} after it")  # fmt: skip
        return value if kinds[0] == kinds[1] else value.astype(kinds[0])

    leaves = map(part, known, jax.tree.leaves(after), jax.tree.leaves(before))
    return jax.tree.unflatten(jax.tree.structure(before), list(leaves))


def _is_real(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))

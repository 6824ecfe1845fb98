"""Flax Linen modules inside ``nnx.bridge.ToNNX``: what they are asked otherwise than modules of NNX."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen, nnx
from flax.core import DenyList

from steppe.core import checks
from steppe.models.base import State

STATISTICS = ("mean", "var")
"""What Linen's BatchNorm calls its statistics."""


def call_of(module: nnx.bridge.ToNNX) -> Callable[..., Any]:
    """The call of the Linen module."""
    return type(module.to_nnx__module).__call__


def check_parts(module: nnx.Module) -> None:
    """Fail for a Linen module with state inside another module: nobody could tell it to update its state.

    Raises
    ------
    InputError
        There is one.
    """
    for path, part in nnx.iter_modules(module):
        if path and isinstance(part, nnx.bridge.ToNNX) and _collections(part):
            checks.fail("from_nnx", "module", "without state in a Linen module that it holds",
                        f"{', '.join(sorted(_collections(part)))} in {'.'.join(map(str, path))}",
                        "Wrap the whole network as nnx.bridge.ToNNX(network, rngs).lazy_init(x).")  # fmt: skip


def has_statistics(module: nnx.bridge.ToNNX) -> bool:
    """Whether some of its state is BatchNorm's."""
    return "batch_stats" in _collections(module)


def called(
    module: nnx.bridge.ToNNX, x: Any, mode: dict[str, Any], *, rngs: Any, still: bool, train: bool, anew: bool
) -> Any:
    """The outputs of a Linen module, which keeps what training changes.

    Parameters
    ----------
    module : nnx.bridge.ToNNX
        With values.
    x : Any
        A batch of inputs.
    mode : dict
        Arguments of the call that say in which mode the module is.
    rngs : jax.Array or None
        What all streams of randomness begin with.
    still : bool
        Whether there is no dropout, even where an argument of the call turns it on together with training.
    train : bool
        Whether collections other than parameters change.
    anew : bool
        Whether statistics forget what was there before.

    Returns
    -------
    Any
        What the module gives.
    """

    def asked(call: Callable[..., Any], arguments: Any, options: Any, context: linen.module.InterceptorContext) -> Any:
        layer = context.module
        if still and isinstance(layer, linen.Dropout):
            return arguments[0]
        if anew and isinstance(layer, linen.BatchNorm):
            object.__setattr__(layer, "momentum", 0.0)  # a frozen dataclass; this copy lives as long as the call
        return call(*arguments, **options)

    streams = nnx.Rngs(jax.random.key(0) if rngs is None else rngs, dropout=rngs) if rngs is not None else None
    with linen.intercept_methods(asked):
        return module(x, **{**mode, "rngs": streams}, mutable=DenyList("params") if train else False)


def with_statistics(before: State, after: State) -> State:
    """A state with the statistics of BatchNorm after a call, and all else as before."""
    if set(STATISTICS) <= before.keys():
        return before | {name: after[name] for name in STATISTICS}
    return {
        name: with_statistics(part, after[name]) if isinstance(part, dict) else part for name, part in before.items()
    }


def _collections(module: nnx.bridge.ToNNX) -> set[str]:
    """The collections that it holds beside parameters."""
    kinds = {type(variable) for _, variable in nnx.iter_graph(module) if isinstance(variable, nnx.Variable)}
    beside = {kind for kind in kinds if not issubclass(kind, (nnx.Param, nnx.RngState))}
    return {nnx.variablelib.variable_name_from_type(kind) for kind in beside}

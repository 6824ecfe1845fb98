"""An update that Python calls by itself, outside of `jax.jit`, as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax

from steppe.core import checks, entry, losses, programs
from steppe.core.types import Batch, ExampleLosses, Loss, Params

R = TypeVar("R")


class Given(NamedTuple):
    """What an update of a method is given.

    Attributes
    ----------
    updates, state, params, batch, loss, penalty_loss : as the chain hands them over.
    each : the losses of single examples; None where nobody knows them.
    strength : λ or ρ now; None where nobody has asked for it yet.
    """

    updates: Params
    state: Any
    params: Params
    batch: Batch
    loss: Loss
    penalty_loss: Loss
    each: ExampleLosses | None
    strength: jax.Array | None = None


def captured(name: str, given: Given, strength: jax.Array) -> Given | None:
    """The same with losses as they are now: programs, which are arguments of compiled functions.

    None where that cannot be: a loss that changes from call to call, or losses of single examples that are a function
    of their own. Products keep the precision that is set, as they do in a training step.
    """
    if given.each != _each(given.loss):
        return None
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # set by JAX itself
    asked = [given.loss] if given.penalty_loss is given.loss else [given.loss, given.penalty_loss]
    try:
        with jax.default_matmul_precision(chosen or "default"):
            found = [entry.capture_loss(name, loss, given.params, [given.batch]) for loss in asked]
    except checks.InputError:
        return None
    return given._replace(loss=found[0], penalty_loss=found[-1], each=None, strength=strength)


def at_once(function: Callable[[Given], R]) -> Callable[[Given, Given | None], R]:
    """``(given, captured) -> function(given)``, as one compiled program where that is captured.

    The compiled function belongs to the method, and goes with it. Equal losses share its program, whatever Python
    functions they come from: nothing is kept for a loss that is made anew at every step. Where the loss is asked for
    batches of other shapes, operations run one by one.
    """
    fast = programs.jit(lambda known: function(known._replace(each=_each(known.loss))))

    def run(given: Given, known: Given | None) -> R:
        if known is not None:
            try:
                return fast(known)
            except programs.UncapturedShapes:
                pass
        return function(given)

    return run


def _each(loss: Loss) -> ExampleLosses | None:
    """The losses of single examples, where the loss is a network's."""
    return loss.each if isinstance(loss, losses.NetworkLoss) else None

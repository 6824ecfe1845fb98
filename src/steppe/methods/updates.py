"""An update that Python calls by itself, outside of `jax.jit`, as one compiled program."""

import functools
import warnings
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, entry, losses, programs
from steppe.core.types import Batch, ExampleLosses, Loss, Params

R = TypeVar("R")

KEPT = 32
"""Functions of methods whose programs are kept for methods that are made anew, the latest used."""

MANY = 8
"""Programs of one method after which a user is told where they may come from."""

SMALL = 64
"""Numbers in an array that is a setting of a method, at most; a larger one is somebody's data."""


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


class AtOnce(Generic[R]):
    """``(given, strength) -> function(given)`` as one compiled program; operation by operation without a strength.

    Equal losses share a program, whatever Python functions they come from: nothing is kept for a loss that is made
    anew at every step. A program belongs to the method, and goes with it; what is `named` has one program for all
    methods that are made anew at every update, with other strengths.
    """

    def __init__(self, label: str, function: Callable[[Given], R], named: "Named | None" = None) -> None:
        self.label, self.function = label, function
        self.compiled = _Compiled(function) if named is None else _shared(named)
        self.programs = 0

    def __call__(self, given: Given, strength: jax.Array | None) -> R:
        """The function's value."""
        while strength is not None:
            known = _captured(self.label, given, strength, self.compiled.sizes)
            if known is None:
                break
            try:
                return self._run(known)
            except programs.UncapturedShapes as missing:
                if missing.examples is None or missing.examples in self.compiled.sizes:
                    break
                self.compiled.sizes.append(missing.examples)
        return self.function(given)

    def _run(self, known: Given) -> R:
        """The compiled program's value; of many programs of one method its user is told."""
        before = self.compiled.traced
        found: R = self.compiled.run(known)
        if self.compiled.traced > before:
            self.programs += 1
            if self.programs == MANY:
                warnings.warn(
                    f"{self.label}: its updates outside of jax.jit have been compiled {MANY} times. A Python number in "
                    "the loss that changes from step to step makes another program each time: make it an array, or put "
                    "the step within jax.jit.",
                    stacklevel=4,
                )
        return found


class _Compiled:
    """A function of captured losses, and the sizes of batches, besides the whole, that it asks them for."""

    def __init__(self, function: Callable[[Given], Any]) -> None:
        self.function, self.run = function, programs.jit(self._traced)
        self.sizes: list[int] = []
        self.traced = 0

    def _traced(self, known: Given) -> Any:
        found = self.function(known._replace(each=_each(known.loss)))
        self.traced += 1
        return found


class Named:
    """A function of what is given alone, equal to all of the same name; see `settings_of`."""

    def __init__(self, name: Hashable, function: Callable[[Given], Any]) -> None:
        self.name, self.function = name, function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@functools.lru_cache(maxsize=KEPT)
def _shared(named: Named) -> _Compiled:
    return _Compiled(named.function)


def settings_of(value: Any) -> Hashable | None:
    """What tells a function of Steppe from those that the same lines made with other settings.

    Its code, and the settings that it closes over. None where these are more than plain values, small arrays and other
    functions of Steppe: a user's own function is the same only as long as it is that object, and is not kept.
    """
    try:
        return _settings(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _settings(value: Any) -> Hashable:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, type, np.dtype)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), *map(_settings, value)
    if isinstance(value, dict):
        return dict, *((name, _settings(one)) for name, one in value.items())
    if isinstance(value, FunctionType) and value.__module__.startswith("steppe."):
        held = [cell.cell_contents for cell in value.__closure__ or ()]  # ValueError: an empty one
        return value.__code__, _settings(value.__defaults__), _settings(value.__kwdefaults__), _settings(held)
    if isinstance(value, (jax.Array, np.ndarray)) and not checks.is_traced(value) and value.size <= SMALL:
        plain = np.asarray(value)  # TypeError: a key array
        return "array", plain.dtype, plain.shape, plain.tobytes()
    raise TypeError(type(value))


def _captured(label: str, given: Given, strength: jax.Array, sizes: list[int]) -> Given | None:
    """The same with losses as they are now, also for batches of other `sizes`: arguments of compiled functions.

    None where that cannot be: a loss that changes from call to call, or losses of single examples that are a function
    of their own. Products keep the precision that is set, as they do in a training step.
    """
    if given.each != _each(given.loss):
        return None
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # set by JAX itself
    asked = [given.loss] if given.penalty_loss is given.loss else [given.loss, given.penalty_loss]
    batches = [given.batch, *(_resized(given.batch, size) for size in sizes)]
    try:
        with jax.default_matmul_precision(chosen or "default"):
            found = [entry.capture_loss(label, loss, given.params, batches) for loss in asked]
    except checks.InputError:
        return None
    return given._replace(loss=found[0], penalty_loss=found[-1], each=None, strength=strength)


def _resized(batch: Batch, size: int) -> Batch:
    """The shapes of a batch of another size."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), jnp.result_type(leaf)), batch)


def _each(loss: Loss) -> ExampleLosses | None:
    """The losses of single examples, where the loss is a network's."""
    return loss.each if isinstance(loss, losses.NetworkLoss) else None

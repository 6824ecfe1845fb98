"""An update that Python calls by itself, outside of `jax.jit`, as one compiled program."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, losses, programs
from steppe.core.types import Batch, ExampleLosses, Loss, Params
from steppe.methods.settings import reads_of

R = TypeVar("R")

KEPT = 32
"""Functions of methods whose programs are kept for methods that are made anew, the latest used."""

MANY = 8
"""Programs of one method after which a user is told where they may come from."""


class Given(NamedTuple):
    """What an update of a method is given.

    Attributes
    ----------
    updates, state, params, batch, loss, penalty_loss : as the chain hands them over.
    each : the losses of single examples; None where nobody knows them.
    where : the parameters that are moved or penalised.
    strength : λ or ρ now; None where nobody has asked for it yet.
    reads : what a user's own function in the method reads now, see `settings.reads_of`.
    """

    updates: Params
    state: Any
    params: Params
    batch: Batch
    loss: Loss
    penalty_loss: Loss
    each: ExampleLosses | None
    where: "Constant"
    strength: jax.Array | None = None
    reads: "Constant | None" = None


@jax.tree_util.register_static
class Constant:
    """What a program holds as a constant: equal where its key is."""

    def __init__(self, value: Any, key: Hashable) -> None:
        self.value, self.key = value, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def mask(value: Any) -> Constant:
    """A pytree of bools, or None for all parameters."""
    return Constant(value, (tuple(jax.tree.leaves(value)), jax.tree.structure(value)))


class AtOnce(Generic[R]):
    """``(given, strength) -> function(given)`` as one compiled program; operation by operation without a strength.

    Equal losses share a program, whatever Python functions they come from: nothing is kept for a loss that is made
    anew at every step. What is `named` has one program for all methods that are made anew at every update, with other
    strengths. With `act`, which holds a user's own function, there is a program for each state of what that reads, and
    for all methods in which it reads the same; where this cannot be told, it is traced at every call.
    """

    def __init__(
        self, label: str, function: Callable[[Given], R], named: "Named", act: Callable[..., Any] | None = None
    ) -> None:
        self.label, self.function, self.named, self.act = label, function, named, act
        self.compiled = _shared(named) if act is None else _Compiled(named.function)
        self.programs = 0

    def __call__(self, given: Given, strength: jax.Array | None) -> R:
        """The function's value."""
        while strength is not None:
            known = _captured(self.label, given, strength, self.compiled.sizes)
            if known is None:
                break
            try:
                return self._run(known)
            except _Changes:
                break
            except programs.UncapturedShapes as missing:
                if missing.examples is None or missing.examples in self.compiled.sizes:
                    break
                self.compiled.sizes.append(missing.examples)
        return self.function(given)

    def _run(self, known: Given) -> R:
        """The compiled program's value; of many programs of one method its user is told."""
        reads = None if self.act is None else reads_of(self.act)
        compiled = self.compiled if reads is None else self._kept(reads)
        before = compiled.made
        if reads is not None:
            found: R = compiled.run(known._replace(reads=Constant(None, reads)))
        elif self.act is None:
            found = compiled.run(known)
        else:
            found = compiled.trace_and_run(self.label, known)
        if compiled.made > before:
            self.programs += 1
            if self.programs == MANY:
                warnings.warn(
                    f"{self.label}: its updates outside of jax.jit have been compiled {MANY} times. A Python number in "
                    "the loss, or in a function of your own, that changes from step to step makes another program each "
                    "time: make it an array, or put the step within jax.jit.",
                    stacklevel=4,
                )
        return found

    def _kept(self, reads: Hashable) -> "_Compiled":
        """The programs of all methods whose user's function reads the same; what is traced is this one's, now."""
        found = _shared(Named((self.named.name, reads), self.named.function))
        found.function = self.named.function
        return found


class _Changes(Exception):
    """A user's function fails, or gives something else at every call."""


class _Compiled:
    """A function of captured losses, and the sizes of batches, besides the whole, that it asks them for."""

    def __init__(self, function: Callable[[Given], Any]) -> None:
        self.function, self.run = function, programs.jit(self._counted)
        self.sizes: list[int] = []
        self.made = 0

    def trace_and_run(self, label: str, known: Given) -> Any:
        """The value by the program that the function is now, for one that may read what has changed."""
        try:
            program = programs.capture(programs.Label(label, "update"), self._traced, [(known,)])
        except checks.InputError as error:
            raise _Changes from error
        return self.run(known, program)

    def _counted(self, known: Given, program: programs.Program | None = None) -> Any:
        found = self._traced(known) if program is None else program(known)
        self.made += 1
        return found

    def _traced(self, known: Given) -> Any:
        with contextlib.nullcontext() if known.reads is None else programs.untraced():
            return self.function(known._replace(each=_each(known.loss)))


class Named:
    """A function of what is given alone, equal to all of the same name; see `settings.settings_of`."""

    def __init__(self, name: Hashable, function: Callable[[Given], Any]) -> None:
        self.name, self.function = name, function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@functools.lru_cache(maxsize=KEPT)
def _shared(named: Named) -> _Compiled:
    return _Compiled(named.function)


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

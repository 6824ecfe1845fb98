"""What every method is: an Optax transformation that acts on every k-th update, with one form of state."""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from steppe.core import checks, entry, losses, programs, trees
from steppe.core.types import Batch, Estimate, ExampleLosses, Key, Loss, Params
from steppe.curvature import layers, layout
from steppe.methods import place
from steppe.methods.accumulation import accumulate, accumulate_examples
from steppe.methods.settings import settings_of
from steppe.methods.updates import AtOnce, Given, Named, mask

R = TypeVar("R")

Strength: TypeAlias = float | jax.Array | Callable[[Any], Any]
"""λ or ρ: a number, a traced value, or a function of the update's number."""


class MethodState(NamedTuple):
    """State of a method.

    Attributes
    ----------
    count : number of updates so far.
    key : raw key data; whatever is random folds `count` into it.
    monitor : the last value of what the method acts on, as its docstring says, with its standard error; NaN until it
        has acted. `steppe.monitor` finds it in the state of any chain.
    """

    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    key: jax.Array
    monitor: Estimate

    @property
    def method(self) -> str:
        """The name of the method, a constant of its kind of state; see `state_of`."""
        return ""

    @property
    def phase(self) -> "Phase | None":
        """What is known of the next update when its program is traced, a constant of the kind; see `specialize`."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        """For `pickle` and `copy`, which find no class that was made for a method."""
        return _restored, (self.method, *self)


class Phase(NamedTuple):
    """What is known of a state whose next update is the first one in a program; see `specialize`.

    An update makes another kind of state of it. So JAX refuses a program in which the number of updates depends on
    values, or that makes them in a loop: what is known holds for one alone.

    Attributes
    ----------
    every, acts : whether a method that acts on every k-th update acts on that one.
    which : the place of the state among those that the program is given.
    made : updates of it in this program so far.
    """

    every: int
    acts: bool
    which: int = 0
    made: int = 0


def state_of(method: str, phase: Phase | None = None) -> type[MethodState]:
    """The kind of state that a method of that name has: `MethodState` with the name as a constant, and no leaf more.

    Examples
    --------
    >>> state_of("fa").method, issubclass(state_of("fa"), MethodState)
    ('fa', True)
    """
    return _kind(method, phase)


@functools.cache
def _kind(method: str, phase: Phase | None) -> type[MethodState]:
    constants = {"method": method, "phase": phase, "__doc__": f"State of {method}."}
    return type("MethodState", (MethodState,), constants)


def _restored(method: str, *fields: Any) -> MethodState:
    return (state_of(method) if method else MethodState)(*fields)


class Call(NamedTuple):
    """What a method is given at an update.

    Attributes
    ----------
    gradient : what comes in.
    params, loss, batch : where, of what, on what; the loss goes through the batch by micro-batches, if asked to.
    penalty_loss : the function whose curvature is penalised, never by micro-batches; `loss` unless somebody says
        otherwise.
    strength : λ or ρ, now.
    key : for this update alone.
    example_losses : the same loss, example by example; None where nobody gave it.
    where : the parameters that are moved or penalised: None for all, or a pytree of bools, a prefix of `params`.
    """

    gradient: Params
    params: Params
    loss: Loss
    batch: Batch
    penalty_loss: Loss
    strength: jax.Array
    key: jax.Array
    example_losses: ExampleLosses | None
    where: Any

    @property
    def distance(self) -> jax.Array:
        """The strength, where it is a distance between parameters: in the dtype of sums over them."""
        return self.strength.astype(trees.accumulator_dtype(self.params))

    @property
    def in_loops(self) -> "Call":
        """The same with a loss whose gradient is fast inside loops, too."""
        return self._replace(loss=layers.through(self.loss))

    def confined(self, tree: Params) -> Params:
        """A direction in the space of parameters, zero outside of those that are moved."""
        return trees.confined(tree, self.where)

    def gradient_at(self, params: Params) -> Params:
        """The loss's gradient at other parameters, in the dtypes of the one that came in."""
        fast = layers.through(self.loss, kind="convolution")  # whose derivatives are slow where training is a loop
        return as_like(jax.grad(fast)(params, self.batch), self.gradient)


def as_like(tree: Params, like: Params) -> Params:
    """A pytree in the dtypes of another."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def unless_zero(strength: jax.Array, weight: jax.Array, tree: Params) -> Params:
    """Weight · tree, and zeros for a strength of 0: a traced 0 agrees with the plain gradient even beside overflow."""
    return jax.tree.map(lambda x: jnp.where(strength == 0, jnp.zeros_like(x), weight.astype(x.dtype) * x), tree)


def whole(name: str, called: str, value: Any, *, least: int = 1) -> int:
    """A whole number that shapes of a program depend on, as a Python int; a concrete array of one will do."""
    if checks.is_traced(value):
        checks.fail(name, called, "a Python int, for shapes depend on it", "a traced value",
                    f"Add {called!r} to static_args of optax.inject_hyperparams.")  # fmt: skip
    return checks.whole(name, called, _as_int(value), least=least)


def _as_int(value: Any) -> Any:
    is_array = isinstance(value, (jax.Array, np.ndarray)) and value.ndim == 0
    return int(value) if is_array and jnp.issubdtype(value.dtype, jnp.integer) else value


def number_of_updates(name: str, called: str, value: Any, *, least: int = 1) -> Any:
    """A whole number that no shape depends on: it may be traced."""
    if checks.is_traced(value) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer):
        return value
    return checks.whole(name, called, _as_int(value), least=least)


class _Rule(NamedTuple):
    """What a method computes at an update on which it acts."""

    name: str
    act: Callable[[Call], tuple[Params, Estimate]]
    strength: Strength
    microbatches: int | None
    key_impl: Any

    def now(self, number: jax.Array) -> jax.Array:
        """The strength at an update."""
        return jnp.asarray(self.strength(number) if callable(self.strength) else self.strength)

    def call(self, given: Given) -> Call:
        """What ``act`` is given."""
        name, state, params = self.name, given.state, given.params
        strength = self.now(state.count) if given.strength is None else given.strength
        stream = jax.random.wrap_key_data(state.key, impl=self.key_impl)
        key = jax.random.fold_in(stream, state.count)
        mean = accumulate(name, given.loss, self.microbatches)
        singles = accumulate_examples(name, given.loss, given.each, self.microbatches)
        return Call(given.updates, params, mean, given.batch, given.penalty_loss, strength, key, singles,
                    given.where.value)  # fmt: skip

    def acted(self, given: Given) -> tuple[Params, Estimate]:
        """What ``act`` returns, in the dtypes of the state."""
        with programs.user_errors(programs.Label(self.name)):
            found, monitor = self.act(self.call(given))
            found = layout.shard_alike(found, given.params)
        like = jnp.result_type(given.state.monitor.mean)
        return found, Estimate(*(jnp.asarray(x).astype(like) for x in monitor))

    def gradient(self, given: Given) -> Params:
        """The plain gradient of the loss."""
        with programs.user_errors(programs.Label(self.name)):
            return self.call(given).gradient_at(given.params)

    def at_once(self, function: Callable[["_Rule", Given], R]) -> AtOnce[R]:
        """One of these functions of what is given, compiled outside of `jax.jit`; see `AtOnce`."""
        settings = settings_of(self.act)
        name = function.__name__, self.name, settings, self.microbatches, str(self.key_impl)
        rule = self._replace(strength=jnp.nan)  # what is given holds the strength
        named = Named(name, functools.partial(function, rule))
        own = functools.partial(function, self)
        return AtOnce(self.name, own, named, self.act if settings is None else None)


def method(
    name: str,
    act: Callable[[Call], tuple[Params, Estimate]],
    strength: Strength,
    *,
    called: str = "lam",
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
    parts: int | None = None,
    key: Key = 0,
    no_zero: str = "",
    replaces: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """The method `name`, which turns a gradient into what ``act`` returns on updates 0, k, 2k, …, and else lets it be.

    `called` is what the strength is called. A literal strength of 0 is the plain gradient, bitwise and at no cost; or
    it is refused with the sentence `no_zero`, where the limit of a small strength is not the plain gradient. `replaces`
    says whether what comes in is replaced or added to; `place` refuses the places in a chain where that goes wrong.
    `parts` says how many micro-batches ``act`` makes by itself, where `microbatches` does not.
    """
    checks.real_or_schedule(name, called, strength, least=0.0)
    known = not callable(strength) and not checks.is_traced(strength)
    if known and no_zero and float(cast(float, strength)) == 0:
        checks.fail(name, called, "above 0", strength, no_zero)
    every = number_of_updates(name, "every", every)
    if microbatches is not None:
        microbatches = whole(name, "microbatches", microbatches)
    base_key = jax.random.fold_in(checks.key_array(name, key), zlib.crc32(name.encode()))

    def init(params: Params) -> MethodState:
        checks.floating(name, params, if_masked=_IF_MASKED.format(name))
        trees.partition(params, where)
        return _initial_state(name, params, base_key)

    rule = _Rule(name, act, strength, microbatches, jax.random.key_impl(base_key))
    act_at_once, gradient_at_once = rule.at_once(_Rule.acted), rule.at_once(_Rule.gradient)
    settings = [every, strength if isinstance(strength, jax.Array) else None]

    def update(
        updates: Params, state: MethodState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, MethodState]:
        place.refuse_accumulation(name)
        place.refuse_flattened(name)
        place.refuse_order(name, replaces=replaces)
        loss, batch, penalty_loss, each = _given(name, params, **extra)
        entry.check_loss(name, "loss", loss, params, batch)
        if penalty_loss is not loss:
            entry.check_loss(name, "penalty_loss", penalty_loss, params, batch)
        known_params, chosen = cast(Params, params), mask(trees.mask_of(params, where))
        given = Given(updates, state, known_params, batch, loss, penalty_loss, each, chosen)
        number = int(state.count) if _is_outside_of_jit(state.count, updates, params, batch, settings) else None
        acts = _acts(every, state) if number is None else number % int(every) == 0
        now = rule.now(state.count) if number is not None and acts else None
        if number == 0:
            if replaces:
                place.refuse_downhill(name, updates, gradient_at_once(given, now))
            if max(microbatches or 1, parts or 1) > 1:
                entry.warn_of_parts(name, penalty_loss, params, batch)
        if acts is None:
            updates, monitor = jax.lax.cond(
                state.count % every == 0, lambda: rule.acted(given), lambda: (updates, state.monitor)
            )
        else:
            updates, monitor = act_at_once(given, now) if acts else (updates, state.monitor)
        return updates, _next(state, monitor)

    # a zero that schedules or sweeps hand over is an array, and counts its updates
    if known and not isinstance(strength, jax.Array) and float(cast(float, strength)) == 0:
        return optax.GradientTransformationExtraArgs(init, lambda updates, state, params=None, **_: (updates, state))
    cast(Any, update).method = name
    return optax.GradientTransformationExtraArgs(init, update)


def _acts(every: Any, state: MethodState) -> bool | None:
    """Whether a method acts on this update, if that is known when its program is traced."""
    if isinstance(every, int) and every == 1:
        return True
    phase = state.phase
    known = phase is not None and phase.made == 0 and isinstance(every, int) and phase.every == every
    return phase.acts if known and phase is not None else None


def _next(state: MethodState, monitor: Estimate) -> MethodState:
    """The state after an update."""
    phase = state.phase and state.phase._replace(made=state.phase.made + 1)
    return state_of(state.method, phase)(state.count + 1, state.key, monitor)


def _initial_state(name: str, params: Params, key: jax.Array) -> MethodState:
    # arrays of its own: a training step may donate the state's buffers, none twice, and not those of the next state
    unknown = [jnp.full((), jnp.nan, trees.accumulator_dtype(params)) for _ in Estimate._fields]
    raw = jnp.array(jax.random.key_data(key), copy=True)
    return state_of(name)(jnp.zeros((), jnp.int32), raw, Estimate(*unknown))


def _given(
    name: str,
    params: Params | None,
    *,
    loss: Loss | None = None,
    batch: Batch | None = None,
    penalty_loss: Loss | None = None,
    example_losses: ExampleLosses | None = None,
    **_: Any,
) -> tuple[Loss, Batch, Loss, ExampleLosses | None]:
    """The loss, the batch, the loss that is penalised and the losses of single examples, as far as they are known."""
    missing = [n for n, v in (("params", params), ("loss", loss), ("batch", batch)) if v is None]
    if missing:
        checks.fail(name, "update", "given params, loss= and batch=", f"a call without {', '.join(missing)}",
                    "Call tx.update(grads, state, params, loss=loss, batch=batch).")  # fmt: skip
    each = loss.each if isinstance(loss, losses.NetworkLoss) else None
    known = cast(Loss, loss)
    return known, batch, penalty_loss or known, example_losses or each


_IF_MASKED = (
    "Leave optax.masked, multi_transform and partition out, and choose parameters by where=: {}(…, where=mask)."
)


def _is_outside_of_jit(count: jax.Array, *trees: Any) -> bool:
    """Whether the values of an update are known; what is computed inside `jax.lax.cond` is not."""
    return not any(map(checks.is_traced, jax.tree.leaves((count + 0, trees))))

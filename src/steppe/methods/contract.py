"""What every method is: an Optax transformation that acts on every k-th update, with one form of state."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from steppe import checks, losses, trees
from steppe.curvature import layers
from steppe.typing import Batch, Estimate, Key, Loss, Params

Strength = float | jax.Array | optax.Schedule
"""λ or ρ: a number, a traced value, or a function of the update's number."""

ExampleLosses = Callable[[Params, Batch], jax.Array]
"""``(params, batch)`` -> (B,), the loss of each example alone; `Loss` is their mean."""


class MethodState(NamedTuple):
    """State of a method.

    Attributes
    ----------
    count : number of updates so far.
    key : raw key data; whatever is random folds `count` into it.
    flatness : the last value of what the method acts on, as its docstring says, with its standard error; NaN until it
        has acted.
    """

    count: jax.Array
    key: jax.Array
    flatness: Estimate


class Call(NamedTuple):
    """What a method is given at an update.

    Attributes
    ----------
    gradient : what comes in.
    params, loss, batch : where, of what, on what.
    penalty_loss : the function whose curvature is penalised; `loss` unless somebody says otherwise.
    strength : λ or ρ, now.
    key : for this update alone.
    example_losses : the same loss, example by example; None where nobody gave it.
    """

    gradient: Params
    params: Params
    loss: Loss
    batch: Batch
    penalty_loss: Loss
    strength: jax.Array
    key: jax.Array
    example_losses: ExampleLosses | None = None

    @property
    def distance(self) -> jax.Array:
        """The strength, where it is a distance between parameters: in the dtype of sums over them."""
        return self.strength.astype(trees.accumulator_dtype(self.params))

    @property
    def in_loops(self) -> "Call":
        """The same with a loss whose gradient is fast inside loops, too."""
        return self._replace(loss=layers.through(self.loss))

    def gradient_at(self, params: Params) -> Params:
        """The loss's gradient at other parameters, in the dtypes of the one that came in."""
        return as_like(jax.grad(self.loss)(params, self.batch), self.gradient)


def as_like(tree: Params, like: Params) -> Params:
    """A pytree in the dtypes of another."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def unless_zero(strength: jax.Array, weight: jax.Array, tree: Params) -> Params:
    """Weight · tree, and zeros for a strength of 0: a traced 0 agrees with the plain gradient even beside overflow."""
    return jax.tree.map(lambda x: jnp.where(strength == 0, jnp.zeros_like(x), weight.astype(x.dtype) * x), tree)


def method(
    name: str,
    act: Callable[[Call], tuple[Params, Estimate]],
    strength: Strength,
    *,
    called: str = "lam",
    every: int = 1,
    key: Key = 0,
    no_zero: str = "",
) -> optax.GradientTransformationExtraArgs:
    """The method `name`, which turns a gradient into what ``act`` returns on updates 0, k, 2k, …, and else lets it be.

    `called` is what the strength is called. A literal strength of 0 is the plain gradient, bitwise and at no cost; or
    it is refused with the sentence `no_zero`, where the limit of a small strength is not the plain gradient.
    """
    checks.real_or_schedule(name, called, strength, least=0.0)
    is_zero = not callable(strength) and not checks.is_traced(strength) and float(strength) == 0.0
    if is_zero and no_zero:
        checks.fail(name, called, "above 0", strength, no_zero)
    checks.whole(name, "every", every)
    base_key = jax.random.fold_in(checks.key_array(name, key), zlib.crc32(name.encode()))

    def init(params: Params) -> MethodState:
        checks.floating(name, params)
        # an array each: a training step may donate the state's buffers, and none twice
        unknown = [jnp.full((), jnp.nan, trees.accumulator_dtype(params)) for _ in Estimate._fields]
        return MethodState(jnp.zeros((), jnp.int32), jax.random.key_data(base_key), Estimate(*unknown))

    def update(
        updates: Params,
        state: MethodState,
        params: Params | None = None,
        *,
        loss: Loss | None = None,
        batch: Batch | None = None,
        penalty_loss: Loss | None = None,
        example_losses: ExampleLosses | None = None,
        **_: Any,
    ) -> tuple[Params, MethodState]:
        missing = [n for n, v in (("params", params), ("loss", loss), ("batch", batch)) if v is None]
        if missing:
            checks.fail(name, "update", "given params, loss= and batch=", f"a call without {', '.join(missing)}",
                        "Call tx.update(grads, state, params, loss=loss, batch=batch).")  # fmt: skip

        def acted() -> tuple[Params, Estimate]:
            now = jax.random.fold_in(
                jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(base_key)), state.count
            )
            value = jnp.asarray(strength(state.count) if callable(strength) else strength)
            known = loss.each if isinstance(loss, losses.NetworkLoss) else None
            call = Call(updates, params, loss, batch, penalty_loss or loss, value, now, example_losses or known)
            found, flatness = act(call)
            like = state.flatness.mean.dtype
            return found, Estimate(*(jnp.asarray(x).astype(like) for x in flatness))

        if every == 1:
            updates, flatness = acted()
        else:
            updates, flatness = jax.lax.cond(state.count % every == 0, acted, lambda: (updates, state.flatness))
        return updates, MethodState(state.count + 1, state.key, flatness)

    if is_zero:
        return optax.GradientTransformationExtraArgs(init, lambda updates, state, params=None, **_: (updates, state))
    return optax.GradientTransformationExtraArgs(init, update)

"""The branch of every k-th update outside the program: one program that acts, and one that does not."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import jax

from steppe.core import checks
from steppe.methods.contract import MethodState, Phase, state_of

P = ParamSpec("P")
R = TypeVar("R")


def specialize(step: Callable[P, R], *, every: int) -> Callable[P, R]:
    """A training step as two programs behind one call: that of updates 0, k, 2k, …, and that of all others.

    A method with ``every=k`` is a branch in the program of a jitted step. The program asks for the memory of its
    larger side at every call, which takes time on a CPU, and on a GPU waits until the host knows the branch: one
    penalised update in ten made an update of a small ResNet take 1.8 times as long as a plain one, and two programs
    1.55 times; where memory is handed out in large pages, 1.5 and 1.4; on a small transformer both took 1.5
    (docs/performance.md). Loops that call a step from Python can choose between two programs:

        step = steppe.methods.specialize(jax.jit(step), every=10)

    Parameters
    ----------
    step : callable
        The jitted step. It takes the state of the optimiser among its arguments, and returns the next one, in whatever
        pytrees. Its other options, such as ``donate_argnums``, stay as they are.
    every : int
        k, that of the methods in the chain. A method of another `every` keeps its branch.

    Returns
    -------
    callable
        The same step, with the same numbers to rounding. It is compiled twice. The number of the update is read from
        the state where the state is not the one that was returned last, which waits for the device; otherwise it is
        known without waiting.

    Raises
    ------
    InputError
        `every` below 1; when called inside `jax.jit` or a scan, where the number of the update is not known; when
        called without the state of a method of Steppe, or with objects of Flax NNX, which change in place; a step that
        scans over updates or leaves some out, as `optax.apply_if_finite` does.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.mean(jnp.tanh(batch @ w) ** 2)
    >>> tx = optax.chain(steppe.methods.fa(0.01, every=10), optax.sgd(0.1))
    >>> def step(params, state, batch):
    ...     updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
    ...     return optax.apply_updates(params, updates), state
    >>> step = steppe.methods.specialize(jax.jit(step), every=10)
    >>> params, batch = jnp.ones(2), jnp.eye(2)
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     params, state = step(params, state, batch)
    >>> int(state[0].count)
    3
    """
    checks.whole("specialize", "every", every)
    latest: dict[int, tuple[jax.Array, int]] = {}  # the counts of the states that were returned last, with their values

    @functools.wraps(step)
    def called(*arguments: P.args, **options: P.kwargs) -> R:
        numbers: list[int] = []

        def marked(state: MethodState) -> MethodState:
            count, number = latest.get(id(state.count), (None, 0))
            if count is not state.count:
                number = _number(state.count)
            numbers.append(number)
            return state_of(state.method, Phase(every, number % every == 0, len(numbers) - 1))(*state)

        jax.tree.leaves((arguments, options), is_leaf=_refuse_mutable)
        given, named = _mapped(marked, (arguments, options))
        if not numbers:
            checks.fail("specialize", "step", "called with the state of a method among its arguments", "none",
                        "Pass the optimiser's state as an argument of the step.")  # fmt: skip
        latest.clear()

        def plain(state: MethodState) -> MethodState:
            if state.phase is not None and state.phase.made:  # otherwise no update, or its numbers in the old state
                latest[id(state.count)] = state.count, numbers[state.phase.which] + state.phase.made
            return state_of(state.method)(*state)

        try:
            found = step(*given, **named)
        except (TypeError, ValueError) as error:
            if MethodState.__name__ in str(error):
                _refuse_unknown_number(error)
            raise
        return cast(R, _mapped(plain, found))

    return called


def _refuse_mutable(node: Any) -> bool:
    """Fail at an object of Flax NNX, which a step changes in place: it would change a copy. False otherwise."""
    if any(kind.__module__.startswith("flax.nnx") and kind.__name__ == "Pytree" for kind in type(node).__mro__):
        checks.fail("specialize", "step", "given what it does not change in place", f"a {type(node).__name__} of NNX",
                    "Pass what nnx.split gives, under jax.jit, and return the next state.")  # fmt: skip
    return False


def _refuse_unknown_number(error: Exception) -> None:
    """JAX found that a step makes one update or another number of them."""
    try:
        checks.fail("specialize", "step", "one whose number of updates is known when it is traced",
                    "one that makes them in a loop or skips some (a scan, optax.apply_if_finite, jnp.where or "
                    "jax.lax.cond between two states)", "Leave specialize out.")  # fmt: skip
    except checks.InputError as refusal:
        raise refusal from error


def _is_state(node: Any) -> bool:
    return isinstance(node, MethodState)


def _mapped(function: Callable[[MethodState], MethodState], tree: Any) -> Any:
    """A pytree with other states of methods."""
    return jax.tree.map(lambda node: function(node) if _is_state(node) else node, tree, is_leaf=_is_state)


def _number(count: Any) -> int:
    if checks.is_traced(count):
        checks.fail("specialize", "step", "called where the number of the update is known", "a call inside jit or scan",
                    "Call it from Python; inside a scan leave it out.")  # fmt: skip
    return int(count)

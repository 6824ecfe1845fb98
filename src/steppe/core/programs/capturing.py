"""What a function computes now, traced with care that nothing of an earlier trace is taken for it."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from steppe.core import checks
from steppe.core.programs.errors import OTHERS, OWN, Label, require_value, user_errors
from steppe.core.programs.fingerprints import fingerprint, jaxpr_of, rule, ruled
from steppe.core.programs.program import Program, Signature, Trace, same_arrays

Check = Callable[[Any], Any]
"""What a function must return: gives the value on, or raises an `InputError`."""


def capture(
    label: Label, function: Callable[..., Any], calls: Sequence[tuple], check: Check = lambda value: value
) -> Program:
    """What a function computes now, for arguments of the shapes of `calls`.

    Parameters
    ----------
    label : Label
        What the function is called in errors.
    function : callable
        The function, or a program.
    calls : sequence of tuples
        Arguments; only their structure, shapes and dtypes are read.
    check : callable
        What the function's value must be.

    Returns
    -------
    Program
        Cost: two traces for each shape, one inside a JAX transformation; derivatives of what has rules of its
        own. Arrays of NumPy are copied.

    Raises
    ------
    InputError
        A function that fails, that changes from call to call, or whose value is not what it must be.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> held = [2.0]
    >>> double = capture(Label("example", "function"), lambda x: held[0] * x, [(jnp.ones(()),)])
    >>> held[0] = 5.0
    >>> float(double(jnp.ones(())))
    2.0
    """
    known: dict[Signature, Trace] = {}
    if isinstance(function, Program):
        if all(Signature.of(arguments) in function.traces for arguments in calls):
            return function
        # further shapes of what is captured already: the function must still be the same
        known, checked = function.traces, function.function
    else:
        checked = lambda *arguments: check(require_value(label, function(*arguments)))  # noqa: E731
    arrays: dict[int, Any] = {}
    traces: dict[Signature, Trace] = {}
    for arguments in calls:
        signature = Signature.of(arguments)
        if signature not in traces:
            traces[signature] = _traced(label, checked, arguments, arrays, OTHERS if traces else OWN)
    for signature, trace in known.items():
        if signature in traces and traces[signature].digest != trace.digest:
            _changed(label)
    return Program(traces, [_held(array) for array in arrays.values()], label, checked)


def check(label: Label, function: Callable[..., Any], arguments: tuple, must: Check) -> Jaxpr:
    """Trace a function once, for what its value must be; its own errors are told as `capture` tells them."""
    with user_errors(label, own=True):
        traced = jax.make_jaxpr(lambda *a: must(require_value(label, function(*a))))(*arguments)
    return cast(Jaxpr, traced.jaxpr)


def _traced(label: Label, function: Callable[..., Any], arguments: tuple, arrays: dict[int, Any], todo: str) -> Trace:
    """One trace of a function; the arrays that it holds join `arrays`. `todo` follows an error of its own."""
    with user_errors(label, own=True, todo=todo), full_precision(arguments):
        closed, value = jaxpr_of(function, arguments)
        if not any(map(checks.is_traced, jax.tree.leaves(arguments))):
            with untraced():
                again = jaxpr_of(function, arguments)[0]
            alike = fingerprint(closed).digest == fingerprint(again).digest
            if not (alike and same_arrays(closed.consts, again.consts)):
                _changed(label)
    written = fingerprint(closed)
    for eqn in ruled(closed.jaxpr):
        written = written.joined(rule(eqn))
    places = {array: place for place, array in enumerate(arrays)}
    for const in closed.consts:
        if id(const) not in places:
            places[id(const)] = len(arrays)
            arrays[id(const)] = const
    consts = tuple(places[id(const)] for const in closed.consts)
    return Trace(closed.jaxpr, jax.tree.structure(value), consts, written.digest, written.opaque)


def full_precision(arguments: Any) -> contextlib.AbstractContextManager:
    """A context in which products of float32 are those of float32, for what measures.

    GPUs and TPUs multiply in fewer bits unless told otherwise (TF32: a Hessian with errors of 2 %). A precision that
    the user set stays, and so does that of a program which is being traced: a training step is its author's.

    Parameters
    ----------
    arguments : pytree
        Of the function that measures; traced ones say that the program is another's.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> with full_precision(jnp.ones(2)):
    ...     print(jax.config.jax_default_matmul_precision)
    highest
    """
    is_set = jax.config.jax_default_matmul_precision is not None  # type: ignore[attr-defined]  # set by JAX itself
    if is_set or any(map(checks.is_traced, jax.tree.leaves(arguments))):
        return contextlib.nullcontext()
    return cast(contextlib.AbstractContextManager, jax.default_matmul_precision("highest"))


_untraced = jax.make_user_context(None)


def untraced() -> contextlib.AbstractContextManager[Any]:
    """A context in which JAX remembers no trace.

    Bodies of loops, branches and jitted parts that were traced before are otherwise not traced again, whatever changed
    in what they close over.
    """
    return cast(contextlib.AbstractContextManager[Any], _untraced(object()))


def _changed(label: Label) -> None:
    checks.fail(label.function, label.name, "the same twice for the same arguments",
                "a function that changes from call to call, or holds a part traced before something in it changed",
                "Turn dropout and shuffling off, or fix their key outside the function; pass what changes to jitted "
                "parts, and to bodies of loops and branches, as an argument.")  # fmt: skip


def unchanging(leaf: Any) -> Any:
    """An array that nobody changes in place: one of NumPy is copied."""
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def _held(const: Any) -> Any:
    """An array in a program, as it is now: JAX keeps those of NumPy by reference."""
    return const if isinstance(const, jax.Array) else unchanging(np.asarray(const))

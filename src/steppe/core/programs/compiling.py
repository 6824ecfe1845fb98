"""`jax.jit`, with what goes wrong in a user's function told in a sentence."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, cast, overload

import jax

from steppe.core.programs.capturing import full_precision
from steppe.core.programs.errors import Label, explain
from steppe.core.programs.program import Program

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R], /) -> Callable[P, R]:
    """`jax.jit`, with the types of the function."""
    return cast(Callable[P, R], jax.jit(function))


@overload
def compiled(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def compiled(*, static: Sequence[str]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def compiled(function: Callable[..., Any] | None = None, /, *, static: Sequence[str] = ()) -> Callable[..., Any]:
    """`jax.jit`, with what goes wrong in a user's function told in a sentence; `static` names static arguments."""
    if function is None:
        return functools.partial(compiled, static=static)
    fast = jax.jit(function, static_argnames=tuple(static))

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            with _unlogged(), full_precision((arguments, options)):
                return fast(*arguments, **options)
        except Exception as error:
            explain(error, label_of((arguments, options)))
            raise

    return called


def label_of(tree: Any) -> Label:
    """The label of the first program in a pytree."""
    programs = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Program))
    return next((program.label for program in programs if isinstance(program, Program)), Label("steppe", "function"))


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """JAX logs tracebacks of callbacks that fail, and raises them too: the second is enough."""
    log = logging.getLogger("jax._src.callback")
    log.addFilter(_nothing)
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False

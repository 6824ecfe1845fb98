"""What functions are made with and read, to tell them apart without tracing them."""

import dis
import functools
from collections.abc import Callable, Hashable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from steppe.core import checks

SMALL = 64
"""Numbers in an array that is a setting of a method, at most; a larger one is somebody's data."""

LIBRARIES = {"jax", "jaxlib", "math", "numpy", "optax", "steppe"}
"""Packages whose functions read nothing that changes."""

_IMPORT = dis.opmap["IMPORT_NAME"]


def settings_of(value: Any) -> Hashable | None:
    """What tells a function of Steppe from those that the same lines made with other settings.

    Its code, and the settings that it closes over. None where these are more than plain values, small arrays and other
    functions of Steppe: a user's own function is the same only as long as it is that object, and is not kept.
    """
    return _told(_settings, value)


def reads_of(value: Any) -> Hashable | None:
    """The same of a function that holds a user's own: also what that reads now, in its closure and its module.

    None where that is more than plain values, containers and functions of them, such as an object's attribute, an
    array, or a module of the user's: nobody can tell whether it has changed.
    """
    return _told(_reads, value)


def _told(rule: Callable[[Any], Hashable], value: Any) -> Hashable | None:
    try:
        found = rule(value)
        hash(found)
    except (TypeError, ValueError, RecursionError):
        return None
    return found


def _settings(value: Any) -> Hashable:
    if _is_of(value, {"steppe"}) and isinstance(value, FunctionType):
        return _made(value, _settings)
    if isinstance(value, (jax.Array, np.ndarray)) and not checks.is_traced(value) and value.size <= SMALL:
        plain = np.asarray(value)  # TypeError: a key array
        return "array", plain.dtype, plain.shape, plain.tobytes()
    if isinstance(value, type):
        return type(value), value
    return _plain(value, _settings)


def _reads(value: Any) -> Hashable:
    known = _is_of(value, LIBRARIES)
    if isinstance(value, FunctionType):
        return _made(value, _settings_or_reads if known else _reads) + (() if known else _globals(value))
    if known and isinstance(value, (type, BuiltinFunctionType, np.ufunc, _JITTED)):
        return value
    if isinstance(value, ModuleType) and value.__name__.partition(".")[0] in LIBRARIES:
        return value
    if isinstance(value, functools.partial):
        return "partial", _reads(value.func), _reads(value.args), _reads(value.keywords)
    return _plain(value, _reads)


def _settings_or_reads(value: Any) -> Hashable:
    """Of what a library's function closes over: its own settings, or a user's function."""
    is_array = isinstance(value, (jax.Array, np.ndarray))
    return _settings(value) if is_array else _reads(value)


def _made(function: FunctionType, rule: Callable[[Any], Hashable]) -> tuple[Hashable, ...]:
    held = [cell.cell_contents for cell in function.__closure__ or ()]  # ValueError: an empty one
    return function.__code__, rule(function.__defaults__), rule(function.__kwdefaults__), rule(held)


def _globals(function: FunctionType) -> tuple[Hashable, ...]:
    """What a function's names mean in its module; names of attributes are taken for such, too."""
    known = function.__globals__
    names = sorted({name for code in _codes(function.__code__) for name in code.co_names if name in known})
    return tuple((name, _reads(known[name])) for name in names if known[name] is not function)


@functools.lru_cache
def _codes(code: CodeType) -> tuple[CodeType, ...]:
    """A function's code and that of the functions inside; TypeError where it imports."""
    found = tuple(_inside(code))
    if any(one.opcode == _IMPORT for part in found for one in dis.get_instructions(part)):
        raise TypeError(code)
    return found


def _inside(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _inside(one)


def _plain(value: Any, rule: Callable[[Any], Hashable]) -> Hashable:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), *map(rule, value)
    if isinstance(value, dict):
        return dict, *((name, rule(one)) for name, one in value.items())
    raise TypeError(type(value))


def _is_of(value: Any, packages: set[str]) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in packages


_JITTED = type(jax.jit(lambda: None))

"""A captured function: its operations, and the arrays in it as leaves of a pytree."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from steppe.core import checks
from steppe.core.programs.errors import Label, UncapturedShapes
from steppe.core.programs.fingerprints import plain

C = TypeVar("C", bound=type)


@jax.tree_util.register_pytree_node_class
class Program:
    """A function as what it computed when it was captured, for arguments of the shapes it was captured at.

    A pytree: the arrays that the function held are its leaves, its operations are static, equal where they compute the
    same. So it is an argument of compiled functions, and can be called inside them.

    Rules of `jax.custom_jvp` and `jax.custom_vjp` are told apart by the derivatives they give when captured.
    """

    def __init__(self, traces: dict["Signature", "Trace"], consts: Sequence[Any], label: Label, function: Any = None):
        self.traces, self.consts, self.label, self.function = traces, tuple(consts), label, function

    def __call__(self, *arguments: Any) -> Any:
        """What the function gave."""
        trace = self._trace(arguments)
        leaves = map(_array, jax.tree.leaves(arguments))
        found = jax.core.eval_jaxpr(trace.jaxpr, [self.consts[i] for i in trace.consts], *leaves)
        return jax.tree.unflatten(trace.structure, found)

    def closed(self, *arguments: Any) -> ClosedJaxpr:
        """Its operations for arguments of these shapes, with its arrays."""
        trace = self._trace(arguments)
        return ClosedJaxpr(trace.jaxpr, [self.consts[i] for i in trace.consts])

    def exchange(self, before: Any, after: Any, function: Callable[..., Any]) -> "Program":
        """The same operations with other arrays: those that are leaves of `before` become the leaves of `after`.

        Parameters
        ----------
        before, after : pytrees of one structure
            The arrays of `before` are told by what they are, not by their values.
        function : callable
            What has become of the function that was captured, for shapes to come.
        """
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        others = {id(old): new for old, new in pairs}
        return Program(self.traces, [others.get(id(const), const) for const in self.consts], self.label, function)

    def computes(self, other: "Program") -> bool:
        """Whether another program has the same operations, and arrays of the same bytes."""
        return self.traces == other.traces and same_arrays(self.consts, other.consts)

    def structure(self, *arguments: Any) -> Any:
        """Of its value for arguments of these shapes, as a pytree."""
        return self._trace(arguments).structure

    def _trace(self, arguments: tuple) -> "Trace":
        signature = Signature.of(arguments)
        if signature not in self.traces:
            raise UncapturedShapes(signature)
        return self.traces[signature]

    @property
    def digest(self) -> str:
        """Of its operations, without its arrays: the same in every process."""
        return hashlib.sha256(b"".join(trace.digest for trace in self.traces.values())).hexdigest()

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """As a pytree: its arrays are its leaves."""
        return self.consts, (tuple(self.traces.items()), _Unkeyed(self.label))

    @classmethod
    def tree_unflatten(cls, static: Any, consts: Sequence[Any]) -> "Program":
        """The inverse of `tree_flatten`; it knows only the shapes that it was captured at."""
        traces, unkeyed = static
        return cls(dict(traces), consts, unkeyed.value)


class _Unkeyed:
    """A value that goes along with a program and is no part of what it is."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unkeyed)

    def __hash__(self) -> int:
        return 0


class Signature(NamedTuple):
    """The structure, shapes and dtypes of a function's arguments."""

    structure: Any
    avals: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, arguments: tuple) -> "Signature":
        """That of some arguments."""
        leaves, structure = jax.tree.flatten(arguments)
        return cls(structure, tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves))


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A function's operations for arguments of one signature; equal where they compute the same.

    Attributes
    ----------
    jaxpr : the operations.
    structure : of the value.
    consts : which of the program's arrays it holds, in its order.
    digest : of all that can be written down.
    opaque : what cannot, such as callbacks to Python.
    """

    jaxpr: Jaxpr
    structure: Any
    consts: tuple[int, ...]
    digest: bytes
    opaque: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def _key(self) -> tuple:
        return self.digest, self.structure, self.consts, self.opaque


def _array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def same_arrays(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether arrays have the same bytes, one by one; two traced ones count as the same."""
    return len(some) == len(others) and all(map(_same, some, others))


def _same(a: Any, b: Any) -> bool:
    if a is b or (checks.is_traced(a) and checks.is_traced(b)):
        return True
    if checks.is_traced(a) or checks.is_traced(b):  # one of the first trace, kept for the second: a key split again
        return False
    return plain(a).dtype == plain(b).dtype and plain(a).tobytes() == plain(b).tobytes()


HOLDERS: list[type] = []
"""Classes of functions that are made of functions; see `holder`."""


def holder(cls: C) -> C:
    """Register a frozen dataclass as a pytree: fields that hold programs are its children, all others are static."""
    names = [field.name for field in dataclasses.fields(cls)]

    def flatten(self: Any) -> tuple[tuple[Any, ...], Any]:
        values = {name: getattr(self, name) for name in names}
        static = {name: value for name, value in values.items() if not is_program(value)}
        return tuple(v for name, v in values.items() if name not in static), tuple(static.items())

    def unflatten(static: Any, children: Sequence[Any]) -> Any:
        known = dict(static)
        others = (name for name in names if name not in known)
        return cls(**known, **dict(zip(others, children, strict=True)))

    HOLDERS.append(cls)
    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls


def is_program(value: Any) -> bool:
    """Whether a value is a program, or made of such."""
    return isinstance(value, (Program, *HOLDERS))


def is_captured(value: Any) -> bool:
    """Whether a function has been captured already, or is made of what has."""
    if isinstance(value, tuple(HOLDERS)):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]  # every holder is a dataclass
        return any(is_captured(getattr(value, field.name)) for field in fields)
    return isinstance(value, Program)

"""Programs written down, so that two of them are told apart by what they compute."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from steppe.core import checks

R = TypeVar("R")

RULES = ("custom_jvp_call", "custom_vjp_call")
"""Operations that carry Python functions for their derivatives."""

ORDERS = 3
"""Derivatives by which rules are told apart, at most: no method or measure takes more."""


class Fingerprint(NamedTuple):
    """A program written down: a digest of what can be, and a tuple of what cannot."""

    digest: bytes
    opaque: tuple[Any, ...]

    def joined(self, more: "Fingerprint") -> "Fingerprint":
        """That of a program and of what belongs to it."""
        return Fingerprint(hashlib.sha256(self.digest + more.digest).digest(), (*self.opaque, *more.opaque))


def fingerprint(closed: ClosedJaxpr, *, values: bool = False) -> Fingerprint:
    """That of the operations, and of the `values` of the arrays that they hold."""
    writer = _Writer()
    writer.jaxpr(closed.jaxpr)
    writer.value(list(closed.consts) if values else [])
    return Fingerprint(writer.hash.digest(), tuple(writer.opaque))


class _Writer:
    """Writes programs down, exactly: numbers by their bytes, variables by their place."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.opaque: list[Any] = []

    def text(self, *words: Any) -> None:
        self.hash.update(("\x00".join(map(str, words)) + "\x01").encode())

    def jaxpr(self, jaxpr: Jaxpr) -> None:
        places: dict[Any, int] = {}

        def new(variables: Sequence[Any]) -> None:
            for variable in variables:
                places[variable] = len(places)
                self.text(variable.aval, variable.aval.weak_type if hasattr(variable.aval, "weak_type") else "")

        def known(atoms: Sequence[Any]) -> None:
            for atom in atoms:
                if isinstance(atom, Literal):
                    self.text("literal", atom.aval)
                    self.value(atom.val)
                else:
                    self.text(places[atom])

        new([*jaxpr.constvars, *jaxpr.invars])
        for eqn in jaxpr.eqns:
            self.text(eqn.primitive.name)
            known(eqn.invars)
            for name in sorted(eqn.params):
                value = eqn.params[name]
                if eqn.primitive.name in RULES and not isinstance(value, (ClosedJaxpr, int)):
                    continue  # another function at every trace: see `rule`
                self.text(name)
                self.value(value)
            new(eqn.outvars)
        known(jaxpr.outvars)

    def value(self, value: Any) -> None:
        if isinstance(value, ClosedJaxpr):
            self.jaxpr(value.jaxpr)
            self.value(list(value.consts))
        elif isinstance(value, Jaxpr):
            self.jaxpr(value)
        elif checks.is_traced(value):
            self.opaque.append(value)
        elif isinstance(value, (jax.Array, np.ndarray, np.generic)) or type(value).__name__ == "TypedNdArray":
            array = plain(value)
            self.text("array", array.dtype, array.shape)
            self.hash.update(array.tobytes())
        elif isinstance(value, dict):
            self.value(sorted(value.items(), key=repr))
        elif isinstance(value, (tuple, list)):
            self.text(type(value).__name__, len(value))
            for item in value:
                self.value(item)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype, type)):
            self.text(type(value).__name__, repr(value))
        else:
            self.text(type(value).__name__)
            self.opaque.append(value)


def ruled(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations that carry rules of derivatives."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in RULES:
            yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from ruled(inner)


def rule(eqn: JaxprEqn) -> Fingerprint:
    """What the rule of an operation computes: its derivatives in all numbers, as many as have rules themselves.

    The arrays in a rule are a part of what it is, by their values: no argument reaches them.
    """
    operands = [jax.ShapeDtypeStruct(*_shape_and_dtype(atom.aval)) for atom in eqn.invars]
    numbers = [at for at, operand in enumerate(operands) if jnp.issubdtype(operand.dtype, jnp.inexact)]
    kept = [jnp.issubdtype(_shape_and_dtype(atom.aval)[1], jnp.inexact) for atom in eqn.outvars]

    def value(*operands: Any) -> list[Any]:
        found = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        return [x for x, is_number in zip(found, kept, strict=True) if is_number]

    def derivative(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def along_ones(*operands: Any) -> list[Any]:
            def of(*own: Any) -> list[Any]:
                others = dict(enumerate(operands)) | dict(zip(numbers, own, strict=True))
                return function(*others.values())

            own = [operands[at] for at in numbers]
            if eqn.primitive.name == "custom_jvp_call":
                return list(jax.jvp(of, own, [jnp.ones_like(x) for x in own])[1])
            values, pull = jax.vjp(of, *own)
            return list(pull([jnp.ones_like(x) for x in values]))

        return along_ones

    found, function = Fingerprint(b"", ()), value
    for order in range(ORDERS):
        function = derivative(function)
        try:
            closed = jaxpr_of(function, tuple(operands))[0]
        except Exception:  # what has no derivative is not differentiated; of a first one nobody knows
            return found if order else Fingerprint(b"", (eqn.params,))
        found = found.joined(fingerprint(closed, values=True))
        if not any(ruled(closed.jaxpr)):
            break
    return found


def _shape_and_dtype(aval: Any) -> tuple[tuple[int, ...], Any]:
    return aval.shape, aval.dtype


def jaxpr_of(function: Callable[..., Any], arguments: tuple) -> tuple[ClosedJaxpr, Any]:
    """The operations of a function as it is now, and the structure of its value."""
    return jax.make_jaxpr(fresh(function), return_shape=True)(*arguments)


def fresh(function: Callable[..., R]) -> Callable[..., R]:
    """A function whose program JAX does not remember from an earlier call, for transformations that look there."""
    return lambda *arguments: function(*arguments)  # noqa: PLW0108


def plain(array: Any) -> np.ndarray:
    """An array as one of NumPy; of random keys, their data."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)

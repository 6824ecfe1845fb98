"""Programs whose images keep their channels last between convolutions.

A network of PyTorch or Equinox holds images as (batch, channels, *space), and CPUs compute convolutions with channels
last. Where each convolution rearranges its input and its output, a fifth of a Hessian-vector product is spent on
copies. Here a transposition waits until an operation needs its result: elementwise operations, sums over axes, pooling,
margins and convolutions do not, and two that cancel never happen.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from steppe.curvature.layers.convolutions import inverse, last

CALLS = ("jit", "pjit", "closed_call")
"""Operations that only group others."""

ELEMENTWISE = frozenset(
    ("abs", "add", "add_any", "and", "ceil", "clamp", "convert_element_type", "copy", "cos", "div", "eq", "erf",
     "erf_inv", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p",
     "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow", "rem", "round", "rsqrt", "select_n",
     "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor")
)  # fmt: skip
"""Operations on each number alone; an operand may be a scalar, or have axes of length 1."""

REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min")
BY_AXIS = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
"""Parameters of pooling, an entry an axis."""


class Turned(NamedTuple):
    """An array that waits: ``transpose(value, axes)``."""

    value: jax.Array
    axes: tuple[int, ...]

    def array(self) -> jax.Array:
        """The array itself."""
        return jnp.transpose(self.value, self.axes)


def channels_last(program: ClosedJaxpr) -> ClosedJaxpr:
    """The same function, convolutions with channels last; the very program where they have them last anyway."""
    if not any(_rearranges(jaxpr) for jaxpr in _with_calls(program.jaxpr)):
        return program

    def function(*values: Any) -> list[Any]:
        return [_array(result) for result in _run(program.jaxpr, program.consts, list(values))]

    return jax.make_jaxpr(function)(*program.in_avals)


def _with_calls(jaxpr: Jaxpr) -> Iterator[Jaxpr]:
    """A program and those that its calls group."""
    yield jaxpr
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in CALLS:
            yield from _with_calls(inner(eqn).jaxpr)


def _rearranges(jaxpr: Jaxpr) -> bool:
    """Whether a convolution has its channels elsewhere, or images of which a transposition has brought them last."""
    turned = {eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive.name == "transpose"}
    convolutions = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
    return any(not _is_last(eqn) or eqn.invars[0] in turned for eqn in convolutions)


def _is_last(eqn: JaxprEqn) -> bool:
    numbers = eqn.params["dimension_numbers"]
    channels = len(numbers.lhs_spec) - 1
    return bool(numbers.lhs_spec == numbers.out_spec == (0, channels, *range(1, channels)))


def inner(eqn: JaxprEqn) -> ClosedJaxpr:
    """The program that a call groups."""
    program: ClosedJaxpr = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
    return program


def _run(jaxpr: Jaxpr, consts: Any, values: list[Any]) -> list[Any]:
    """What a program gives for arrays, some of which wait; some of its results may."""
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *values), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _results(eqn, [read(atom) for atom in eqn.invars]), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(eqn: JaxprEqn, values: list[Any]) -> list[Any]:
    name, waits = eqn.primitive.name, any(isinstance(value, Turned) for value in values)
    if name in CALLS and (waits or any(map(_rearranges, _with_calls(inner(eqn).jaxpr)))):
        return _run(inner(eqn).jaxpr, inner(eqn).consts, values)
    if name in ("transpose", "conv_general_dilated") or (waits and name in RULES):
        return [RULES[name](eqn, values)]
    result = _bound(eqn, *map(_array, values))
    return result if eqn.primitive.multiple_results else [result]


def _array(value: Any) -> Any:
    return value.array() if isinstance(value, Turned) else value


def _bound(eqn: JaxprEqn, *values: Any, **other: Any) -> Any:
    return eqn.primitive.bind(*values, **{**eqn.primitive.get_bind_params(eqn.params), **other})


def _turned(value: Any, axes: tuple[int, ...]) -> Any:
    """The transposition, of an array that may wait already."""
    if isinstance(value, Turned):
        value, axes = value.value, tuple(value.axes[axis] for axis in axes)
    return value if axes == tuple(range(len(axes))) else Turned(value, axes)


def _transposition(eqn: JaxprEqn, values: list[Any]) -> Any:
    return _turned(values[0], tuple(eqn.params["permutation"]))


def _elementwise(eqn: JaxprEqn, values: list[Any]) -> Any:
    axes = next(value.axes for value in values if isinstance(value, Turned))
    scalar = [not isinstance(value, Turned) and not jnp.ndim(value) for value in values]
    below = [v if alone else _array(_turned(v, inverse(axes))) for v, alone in zip(values, scalar, strict=True)]
    return Turned(_bound(eqn, *below), axes)


def _reduction(eqn: JaxprEqn, values: list[Any]) -> Any:
    (turned,) = values
    gone = [turned.axes[axis] for axis in eqn.params["axes"]]
    result = _bound(eqn, turned.value, axes=tuple(sorted(gone)))
    kept = [axis for axis in turned.axes if axis not in gone]
    return _turned(result, tuple(sorted(kept).index(axis) for axis in kept))


def _window(eqn: JaxprEqn, values: list[Any]) -> Any:
    (turned,) = values
    below = {name: _below(eqn.params[name], turned.axes) for name in BY_AXIS}
    return Turned(_bound(eqn, turned.value, **below), turned.axes)


def _padding(eqn: JaxprEqn, values: list[Any]) -> Any:
    turned, filling = values
    if not isinstance(turned, Turned):
        return _bound(eqn, turned, _array(filling))
    config = _below(eqn.params["padding_config"], turned.axes)
    return Turned(_bound(eqn, turned.value, filling, padding_config=config), turned.axes)


def _slice(eqn: JaxprEqn, values: list[Any]) -> Any:
    (turned,) = values
    names = [name for name in ("start_indices", "limit_indices", "strides") if eqn.params[name] is not None]
    below = {name: _below(eqn.params[name], turned.axes) for name in names}
    return Turned(_bound(eqn, turned.value, **below), turned.axes)


def _concatenation(eqn: JaxprEqn, values: list[Any]) -> Any:
    axes = next(value.axes for value in values if isinstance(value, Turned))
    below = [_array(_turned(value, inverse(axes))) for value in values]
    return Turned(_bound(eqn, *below, dimension=axes[eqn.params["dimension"]]), axes)


def _below(entries: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """Entries for each axis of the value that waits, from those for each axis of its transposition."""
    return tuple(entries[axis] for axis in inverse(axes))


def _convolution(eqn: JaxprEqn, values: list[Any]) -> Any:
    numbers = eqn.params["dimension_numbers"]
    channels = len(numbers.lhs_spec) - 1
    image = (0, channels, *range(1, channels))
    y = _bound(
        eqn,
        _array(_turned(values[0], last(numbers.lhs_spec))),
        _array(values[1]),
        dimension_numbers=jax.lax.ConvDimensionNumbers(image, numbers.rhs_spec, image),
    )
    return _turned(y, inverse(last(numbers.out_spec)))


RULES: dict[str, Callable[[JaxprEqn, list[Any]], Any]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(WINDOWS, _window),
    "transpose": _transposition,
    "pad": _padding,
    "slice": _slice,
    "concatenate": _concatenation,
    "conv_general_dilated": _convolution,
}

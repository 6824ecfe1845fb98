"""The product of a linear layer as a primitive whose derivatives of every order stay of three simple kinds.

A layer's product defines a trilinear form ⟨G, aK⟩, and every derivative of any order contracts it with two of its three
arguments: the output aK, the input's cotangent GKᵀ, the kernel's cotangent aᵀG. Differentiating the cotangents of a
convolution as ordinary operations instead yields convolutions in layouts that a CPU computes 20 times more slowly; and
elementwise operations fused into a transposed cotangent are computed several times over, and slowly.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from steppe.curvature.layers import convolutions


@dataclass(frozen=True)
class Dense:
    """(rows, in) × (in, c) -> (rows, c)."""

    precision: Any
    preferred_element_type: Any
    kind = "dense"
    groups = 1

    def __call__(self, a: jax.Array, K: jax.Array) -> jax.Array:  # noqa: D102 (see the class)
        return jax.lax.dot_general(
            a, K, (((1,), (0,)), ((), ())), precision=self.precision, preferred_element_type=self.preferred_element_type
        )


@dataclass(frozen=True)
class Convolution:
    """A convolution; kernel (*window and input channels, c), output (*rows, c).

    `options` are keyword arguments of `jax.lax.conv_general_dilated`, as pairs. With several groups the channels of
    input and output are in so many equal parts, each with a kernel of its own: c is then a multiple of `groups`.
    """

    options: tuple[tuple[str, Any], ...]
    groups: int = 1
    kind = "convolution"

    def __call__(self, a: jax.Array, K: jax.Array) -> jax.Array:  # noqa: D102 (see the class)
        options = dict(self.options)
        _, rhs, out = options["dimension_numbers"]
        kernel = jnp.moveaxis(K, -1, rhs[0])
        y = jax.lax.conv_general_dilated(a, kernel, **options, feature_group_count=self.groups)
        return jnp.moveaxis(y, out[1], -1)

    @property
    def multiplies(self) -> bool:
        """Whether `kernel_cotangent` knows it: inputs are not dilated, and there is something to look at."""
        options = dict(self.options)
        return all(step == 1 for step in options["lhs_dilation"]) and bool(options["window_strides"])

    def is_depthwise(self, k_like: "ShapeDtype") -> bool:
        """Whether each channel of the output sees one channel of several, and `multiplies`."""
        inputs = _with_channels(k_like.shape, self._numbers[1][0])[self._numbers[1][1]]
        return self.groups > 1 and inputs == 1 and self.multiplies

    def kernel_cotangent(self, a: jax.Array, G: jax.Array, k_like: "ShapeDtype") -> jax.Array:
        """The cotangent of the kernel by products of matrices, or by sums of products of shifted images."""
        window, a, G = self._window(k_like), self._image(a), self._output(G)
        if self.is_depthwise(k_like):
            K = convolutions.depthwise_kernel_cotangent(window, a, G)[..., None, :]
        elif self.groups > 1:
            K = convolutions.grouped_kernel_cotangent(window, self.groups, a, G, dict(self.options)["precision"])
        else:
            K = convolutions.kernel_cotangent(window, a, G, dict(self.options)["precision"])
        kernel = self._numbers[1]
        K = _arranged(K, (*kernel[2:], kernel[1], kernel[0]))
        return jnp.moveaxis(K, kernel[0], -1).astype(k_like.dtype)

    def depthwise(self, a: jax.Array, K: jax.Array) -> jax.Array:
        """The output by sums of shifted images, where each channel is seen alone."""
        window = self._window(ShapeDtype(K.shape, K.dtype))
        y = convolutions.depthwise(window, self._image(a), self._depthwise_kernel(K))
        return _arranged(y, (*self._behind, y.ndim - 1)).astype(dict(self.options)["preferred_element_type"] or a.dtype)

    def depthwise_input_cotangent(self, G: jax.Array, K: jax.Array, a_like: "ShapeDtype") -> jax.Array:
        """The cotangent of the input by such sums."""
        image, kernel = self._numbers[0], self._depthwise_kernel(K)
        places = convolutions.last(image)
        shape = tuple(a_like.shape[axis] for axis in places)
        window = self._window(ShapeDtype(K.shape, K.dtype))
        a = convolutions.depthwise_input_cotangent(window, self._output(G), kernel, shape)
        return _arranged(a, places).astype(a_like.dtype)

    @property
    def _numbers(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The axes of input, kernel and output, as `jax.lax.ConvDimensionNumbers` has them."""
        found: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = dict(self.options)["dimension_numbers"]
        return found

    @property
    def _behind(self) -> tuple[int, ...]:
        """The axes of examples and space of an output whose channels are last."""
        output = self._numbers[2]
        return tuple(axis - (axis > output[1]) for axis in (output[0], *output[2:]))

    def _window(self, k_like: "ShapeDtype") -> convolutions.Window:
        options, kernel = dict(self.options), self._numbers[1]
        shape = _with_channels(k_like.shape, kernel[0])
        return convolutions.Window(
            tuple(shape[axis] for axis in kernel[2:]),
            options["window_strides"],
            options["padding"],
            options["rhs_dilation"],
        )

    def _image(self, a: jax.Array) -> jax.Array:
        """The input as (B, *space, in)."""
        return jnp.transpose(a, convolutions.last(self._numbers[0]))

    def _output(self, G: jax.Array) -> jax.Array:
        """An output whose channels are last already as (B, *space, out)."""
        return jnp.transpose(G, (*self._behind, G.ndim - 1))

    def _depthwise_kernel(self, K: jax.Array) -> jax.Array:
        """A kernel of one input channel as (*window, out)."""
        kernel = self._numbers[1]
        return jnp.transpose(jnp.moveaxis(K, -1, kernel[0]), (*kernel[2:], kernel[1], kernel[0]))[..., 0, :]


def _with_channels(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of a kernel whose output channels are not last but at `axis`."""
    return (*shape[:-1][:axis], shape[-1], *shape[:-1][axis:])


def _arranged(x: jax.Array, places: tuple[int, ...]) -> jax.Array:
    """The array whose axis ``places[i]`` is axis i of `x`."""
    return jnp.transpose(x, convolutions.inverse(places))


CONVOLUTION_OPTIONS = (
    "window_strides",
    "padding",
    "lhs_dilation",
    "rhs_dilation",
    "dimension_numbers",
    "precision",
    "preferred_element_type",
)
Form = Dense | Convolution


class ShapeDtype(NamedTuple):
    """Shape and dtype of an argument of a product."""

    shape: tuple[int, ...]
    dtype: Any

    def struct(self) -> jax.ShapeDtypeStruct:
        """As JAX has it."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)


def product(form: Form, a: jax.Array, K: jax.Array) -> jax.Array:
    """The layer's output ``form(a, K)``, linear in each."""
    a_like, k_like = ShapeDtype(a.shape, a.dtype), ShapeDtype(K.shape, K.dtype)
    output: jax.Array = _output.bind(a, K, form=form, a_like=a_like, k_like=k_like)
    return output


def kernel_cotangent(form: Form, a: jax.Array, G: jax.Array, k_like: ShapeDtype) -> jax.Array:
    """The K̄ with ⟨K̄, K⟩ = ⟨G, form(a, K)⟩ for all K: aᵀG for a dense layer."""
    cotangent: jax.Array = _kernel.bind(a, G, form=form, a_like=ShapeDtype(a.shape, a.dtype), k_like=k_like)
    return cotangent


def _output_of(a: jax.Array, K: jax.Array, *, form: Form, a_like: ShapeDtype, k_like: ShapeDtype) -> jax.Array:
    if isinstance(form, Dense) or not form.is_depthwise(k_like):
        return _laid_out(form, form, a, K)
    value: jax.Array = jax.lax.platform_dependent(
        a, K, cpu=form.depthwise, default=functools.partial(_laid_out, form, form)
    )
    return value


def _input_of(G: jax.Array, K: jax.Array, *, form: Form, a_like: ShapeDtype, k_like: ShapeDtype) -> jax.Array:
    def cotangent(G: jax.Array, K: jax.Array) -> jax.Array:
        (da,) = jax.linear_transpose(lambda a: form(a, K), a_like.struct())(G)
        return jnp.asarray(da)

    if isinstance(form, Dense) or not form.is_depthwise(k_like):
        return _laid_out(form, cotangent, G, K)
    by_sums = functools.partial(form.depthwise_input_cotangent, a_like=a_like)
    value: jax.Array = jax.lax.platform_dependent(
        G, K, cpu=by_sums, default=functools.partial(_laid_out, form, cotangent)
    )
    return value


def _kernel_of(a: jax.Array, G: jax.Array, *, form: Form, a_like: ShapeDtype, k_like: ShapeDtype) -> jax.Array:
    def cotangent(a: jax.Array, G: jax.Array) -> jax.Array:
        (dK,) = jax.linear_transpose(lambda K: form(a, K), k_like.struct())(G)
        return jnp.asarray(dK)

    def as_convolution(a: jax.Array, G: jax.Array) -> jax.Array:
        return _laid_out(form, cotangent, a, G)

    a, G = jax.lax.optimization_barrier((a, G))
    if isinstance(form, Dense) or not form.multiplies:
        return as_convolution(a, G)
    as_products = functools.partial(form.kernel_cotangent, k_like=k_like)
    value: jax.Array = jax.lax.platform_dependent(a, G, cpu=as_products, default=as_convolution)
    return value


def _laid_out(form: Form, function: Callable[..., jax.Array], *arguments: jax.Array) -> jax.Array:
    """`function`, its convolutions in the layout that every backend computes well: channels last.

    XLA brings convolutions into that layout by itself, but on a CPU not those inside a branch or a loop.
    """
    if isinstance(form, Dense):
        return function(*arguments)
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    env: dict[Any, jax.Array] = dict(zip(traced.invars, arguments, strict=True))
    for eqn in traced.eqns:
        values = [env[atom] for atom in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated":
            env[eqn.outvars[0]] = _channels_last(values[0], values[1], eqn.params)
        else:
            env[eqn.outvars[0]] = eqn.primitive.bind(*values, **eqn.params)
    return env[traced.outvars[0]]


def _channels_last(lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> jax.Array:
    """A convolution as one of (batch, *space, in) with (*space, in, out)."""
    numbers, last = params["dimension_numbers"], lhs.ndim - 1
    space = tuple(range(1, last))
    image = (0, last, *space)
    options = {name: params[name] for name in (*CONVOLUTION_OPTIONS, "feature_group_count", "batch_group_count")}
    options["dimension_numbers"] = jax.lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image)
    y = jax.lax.conv_general_dilated(
        jnp.transpose(lhs, convolutions.last(numbers.lhs_spec)),
        jnp.transpose(rhs, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])),
        **options,
    )
    return _arranged(y, convolutions.last(numbers.out_spec))


def _primitive(name: str, function: Callable[..., jax.Array], folds: bool) -> Primitive:
    """A primitive computed by `function`; `folds`: its first argument's rows may be those of a whole stack."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(function, static_argnames=("form", "a_like", "k_like")))
    primitive.def_abstract_eval(lambda *avals, **options: _abstract(function, avals, options))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))

    def batch(arguments: tuple, axes: tuple, **options: Any) -> tuple[jax.Array, int]:
        if folds and axes[1] is None and isinstance(options["form"], Dense):
            # one kernel for all: their rows are the rows of one product
            stack = jnp.moveaxis(arguments[0], axes[0], 0)
            count, rows, width = stack.shape
            a_like = options["a_like"]
            folded = {**options, "a_like": ShapeDtype((count * rows, *a_like.shape[1:]), a_like.dtype)}
            result = primitive.bind(stack.reshape(count * rows, width), arguments[1], **folded)
            return result.reshape(count, rows, result.shape[-1]), 0
        mapped = jax.vmap(lambda *a: function(*a, **options), in_axes=axes)
        if folds or isinstance(options["form"], Dense) or None in axes:
            return mapped(*arguments), 0

        # as one convolution, in groups, CPUs compute them hundreds of times more slowly
        def in_turn(*stacks: jax.Array) -> jax.Array:
            first = [jnp.moveaxis(x, axis, 0) for x, axis in zip(stacks, axes, strict=True)]
            result: jax.Array = jax.lax.map(lambda pair: primitive.bind(*pair, **options), tuple(first))
            return result

        return jax.lax.platform_dependent(*arguments, cpu=in_turn, default=mapped), 0

    batching.primitive_batchers[primitive] = batch
    return primitive


def _abstract(function: Callable[..., jax.Array], avals: tuple, options: dict[str, Any]) -> jax.core.ShapedArray:
    out = jax.eval_shape(lambda *a: function(*a, **options), *(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in avals))
    return jax.core.ShapedArray(out.shape, out.dtype)


_output = _primitive("layer_output", _output_of, folds=True)
_input = _primitive("layer_input_cotangent", _input_of, folds=True)
_kernel = _primitive("layer_kernel_cotangent", _kernel_of, folds=False)

# the cotangent of ⟨G, aK⟩ in either argument of one kind is another kind of product of the other two
ad.defbilinear(_output, lambda G, a, K, **o: _input.bind(G, K, **o), lambda G, a, K, **o: _kernel.bind(a, G, **o))
ad.defbilinear(_input, lambda a, G, K, **o: _output.bind(a, K, **o), lambda a, G, K, **o: _kernel.bind(a, G, **o))
ad.defbilinear(_kernel, lambda K, a, G, **o: _input.bind(G, K, **o), lambda K, a, G, **o: _output.bind(a, K, **o))

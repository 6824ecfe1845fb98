"""The linear layers of a network, found in the program of its loss.

A weight W that meets the loss only through one product y = aW is a layer, whatever framework wrote it. Nobody declares
anything: the layers are read off the jaxpr of ``loss(params, batch)``.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params
from jax.tree_util import PyTreeDef

from steppe.core import checks, names, programs
from steppe.core.types import Batch, Loss, Params
from steppe.curvature.layers import images, products
from steppe.curvature.layers.images import inner

INLINED = images.CALLS
"""Calls that only group operations: layers are looked for inside."""

SAME_ENTRIES = ("transpose", "reshape", "squeeze", "copy")
"""Operations whose result holds a weight's very entries, in another order."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer y = aW, a dense one or a convolution: W enters the loss there and nowhere else.

    ``y = outputs(apply(inputs(a), kernel(W)))``, where `apply` is linear in both of its arguments, takes kernels of
    any number c of columns (of a convolution in `groups`, a multiple of them), and puts the c channels of its result
    last.

    Attributes
    ----------
    name : the path of W in the parameters.
    kind : "dense" or "convolution".
    rows, fan_in, fan_out : y has `rows` rows of `fan_out` numbers, each a sum of `fan_in` products.
    from_data : whether a depends on no parameter.
    leaf : the index of W among the leaves of the parameters.
    site : where the program holds it.
    made : what the program does to that leaf before it is W: operations that keep its entries.
    """

    name: str
    kind: str
    rows: int
    fan_in: int
    fan_out: int
    from_data: bool
    leaf: int
    site: "Site" = field(repr=False)
    made: tuple[JaxprEqn, ...] = field(repr=False)

    @property
    def groups(self) -> int:
        """Into how many parts a convolution divides the channels, each with a kernel of its own; 1 for all others."""
        return self.site.form.groups

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Of ``kernel(W)``: inputs first, `fan_out` last."""
        return self.site.kernel_shape

    def inputs(self, a: jax.Array) -> jax.Array:
        """The operand a, its contracted axes last."""
        return self.site.inputs(a)

    def kernel(self, W: jax.Array) -> jax.Array:
        """The operand W, its output channels last."""
        return self.site.kernel(W)

    def weights(self, leaf: jax.Array) -> jax.Array:
        """The kernel from the array among the parameters, which the program may transpose or reshape on the way."""
        for eqn in self.made:
            leaf = _bound(eqn, leaf)
        return self.kernel(leaf)

    def outputs(self, y: jax.Array) -> jax.Array:
        """`apply`'s result in the layout of the program."""
        return self.site.outputs(y)

    def apply(self, a: jax.Array, K: jax.Array) -> jax.Array:
        """The product."""
        return products.product(self.site.form, a, K)

    def outer(self, a: jax.Array, G: jax.Array) -> jax.Array:
        """The cotangent of a kernel with as many columns as G has: aᵀG for a dense layer."""
        like = products.ShapeDtype((*self.kernel_shape[:-1], G.shape[-1]), self.site.weight_dtype)
        return products.kernel_cotangent(self.site.form, a, G, like)


class Site(NamedTuple):
    """Where and in what layout a program holds a layer.

    Attributes
    ----------
    form : the product.
    inputs, kernel, outputs : to and from its layout.
    kernel_shape : of ``kernel(W)``.
    shape, dtype : of the product.
    weight_dtype : of W.
    path : indices of nested equations in the program.
    weight : which operand W is.
    """

    form: products.Form
    inputs: Callable[[jax.Array], jax.Array]
    kernel: Callable[[jax.Array], jax.Array]
    outputs: Callable[[jax.Array], jax.Array]
    kernel_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any
    weight_dtype: Any
    path: tuple[int, ...]
    weight: int


class Program(NamedTuple):
    """A function as a jaxpr of (leaves of params, leaves of batch), with its layers; `value`: its value's structure."""

    jaxpr: ClosedJaxpr
    layers: tuple[Layer, ...]
    value: PyTreeDef

    def run(self, leaves: list[Any], linear: Callable[[int, jax.Array, jax.Array], jax.Array]) -> Any:
        """Its value, with ``linear(index, a, K)`` for each layer's product; leaves: those of params, then of batch."""
        at = {layer.site.path: index for index, layer in enumerate(self.layers)}

        def replaced(index: int, *operands: jax.Array) -> jax.Array:
            layer = self.layers[index]
            a, W = operands[1 - layer.site.weight], operands[layer.site.weight]
            return layer.outputs(linear(index, layer.inputs(a), layer.kernel(W)))

        values = _run(self.jaxpr.jaxpr, self.jaxpr.consts, leaves, Replacement(at, replaced), ())
        return jax.tree.unflatten(self.value, values)


class Replacement(NamedTuple):
    """What to compute in the place of which equations."""

    at: dict[tuple[int, ...], int]
    linear: Callable[..., Any]


def find_layers(loss: Loss, params: Params, batch: Batch) -> tuple[Layer, ...]:
    """The linear layers that `loss_moments`, and so `fa`, can treat as such.

    Parameters
    ----------
    loss, params, batch : as for `hessian`; arrays or `jax.ShapeDtypeStruct`.

    Returns
    -------
    Layers in the order in which the loss meets them. What is not named here (biases, embeddings, weights used twice or
    inside `scan`, `cond`, `remat` or a `custom_jvp`; everything where the loss speaks to other devices or holds a
    `custom_vjp`) is treated directly: as correct, and dearer. Cost: a trace.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda params, batch: jnp.mean((jnp.tanh(batch @ params["in"]) @ params["out"]) ** 2)
    >>> for layer in find_layers(loss, {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}, jnp.ones((5, 3))):
    ...     print(layer)
    Layer(name='in', kind='dense', rows=5, fan_in=3, fan_out=4, from_data=True, leaf=0)
    Layer(name='out', kind='dense', rows=5, fan_in=4, fan_out=2, from_data=False, leaf=1)
    """
    return program(loss, params, batch).layers


def program(loss: Loss, params: Params, batch: Batch, function: str = "find_layers") -> Program:
    """Trace a loss and find its layers; `function` is named in errors."""
    if isinstance(loss, programs.Program):
        return traced(loss, params, batch)
    with programs.user_errors(programs.Label(function), own=True):
        return traced(lambda params, batch: checks.one_scalar(function, "loss", loss(params, batch)), params, batch)


def traced(function: Callable[[Params, Batch], Any], params: Params, batch: Batch) -> Program:
    """Trace a function and find its layers."""
    if isinstance(function, programs.Program):
        return _searched(function.closed(params, batch), function.structure(params, batch), params)
    jaxpr, value = jax.make_jaxpr(programs.fresh(function), return_shape=True)(params, batch)
    return _searched(jaxpr, jax.tree.structure(value), params)


def _searched(jaxpr: ClosedJaxpr, structure: PyTreeDef, params: Params) -> Program:
    """The layers of a program of (leaves of params, leaves of batch), whose value has that structure."""
    if _across_devices(jaxpr) or reverse_only(jaxpr.jaxpr):
        return Program(jaxpr, (), structure)
    jaxpr = images.channels_last(jaxpr)
    search = _Search(names.names(params))
    known = [_Fact(leaf, True) for leaf in range(len(search.names))]
    known += [_Fact(None, False)] * (len(jaxpr.in_avals) - len(known))
    search.uses.update(out.leaf for out in search.walk(jaxpr.jaxpr, known, ()))
    return Program(jaxpr, tuple(layer for layer in search.found if search.uses[layer.leaf] == 1), structure)


@programs.holder
@dataclass(frozen=True)
class ProductForm:
    """A function of (params, batch), its layers' products as `products`.

    The same function; but on a CPU derivatives of a convolution inside a loop take 25 times longer without it, and a
    transformer's Hessian-vector product a fifth longer. With `kind`, only where there is a layer of that kind.
    """

    function: Callable[[Params, Batch], Any]
    kind: str | None = None

    def __call__(self, params: Params, batch: Batch) -> Any:
        """What the function gives."""
        found = traced(self.function, params, batch)
        if not any(self.kind in (None, layer.kind) for layer in found.layers):
            return self.function(params, batch)
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, batch))]
        value: jax.Array = found.run(leaves, lambda at, a, K: found.layers[at].apply(a, K))
        return value


def through(function: Callable[[Params, Batch], Any], *, kind: str | None = None) -> ProductForm:
    """`function` itself, see `ProductForm`; equal for equal functions."""
    return function if isinstance(function, ProductForm) else ProductForm(function, kind)


def _across_devices(jaxpr: ClosedJaxpr) -> bool:
    """Whether the program itself says which device holds what: products of rows are then not at hand, or not typed."""
    manual = any(getattr(aval, "vma", None) for aval in jaxpr.in_avals)
    manual |= any(_explicitly_sharded(aval) for aval in jaxpr.in_avals)
    return manual or any(type(effect).__name__ == "NamedAxisEffect" for effect in jaxpr.effects)


def _explicitly_sharded(aval: Any) -> bool:
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return any(kind == jax.sharding.AxisType.Explicit for kind in getattr(mesh, "axis_types", ()))


def reverse_only(jaxpr: Jaxpr) -> bool:
    """Whether a program holds what can be differentiated in reverse only: the loss then has no slope along a probe."""
    within = (sub for eqn in jaxpr.eqns for sub in jaxprs_in_params(eqn.params))
    return any(eqn.primitive.name.startswith("custom_vjp") for eqn in jaxpr.eqns) or any(map(reverse_only, within))


class _Fact(NamedTuple):
    """What is known of a value: the parameter whose entries it holds, whether it depends on any, how it was made."""

    leaf: int | None
    depends: bool
    made: tuple[JaxprEqn, ...] = ()


class _Search:
    """A walk over a program that counts the uses of each parameter and collects products with one."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.uses: Counter[int | None] = Counter()
        self.found: list[Layer] = []

    def walk(self, jaxpr: Jaxpr, known: list[_Fact], path: tuple[int, ...]) -> list[_Fact]:
        env: dict[Var, _Fact] = dict(zip(jaxpr.invars, known, strict=True))
        nothing = _Fact(None, False)

        def read(atom: Any) -> _Fact:
            return nothing if isinstance(atom, Literal) else env.get(atom, nothing)

        for index, eqn in enumerate(jaxpr.eqns):
            values = [read(atom) for atom in eqn.invars]
            if eqn.primitive.name in INLINED:
                results = self.walk(inner(eqn).jaxpr, values, (*path, index))
            elif _keeps_entries(eqn):
                results = [values[0]._replace(made=(*values[0].made, eqn) if values[0].leaf is not None else ())]
            else:
                self.uses.update(value.leaf for value in values)
                self.collect(eqn, values, (*path, index))
                results = [_Fact(None, any(value.depends for value in values))] * len(eqn.outvars)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def collect(self, eqn: JaxprEqn, values: list[_Fact], path: tuple[int, ...]) -> None:
        """Note a layer where an equation is a product with one parameter (one of two parameters is no layer)."""
        weights = [side for side, value in enumerate(values) if value.leaf is not None]
        if eqn.primitive.name not in SITES or len(weights) != 1:
            return
        leaf = values[weights[0]].leaf
        assert leaf is not None
        site = SITES[eqn.primitive.name](eqn, weights[0], path)
        if site is None or not all(isinstance(n, int) for n in (*site.shape, *site.kernel_shape)):  # symbolic: exported
            return
        seen, fan_out = values[weights[0]], site.kernel_shape[-1]
        sizes = (math.prod(site.shape[:-1]), math.prod(site.kernel_shape[:-1]), fan_out)
        kind, from_data = site.form.kind, not values[1 - weights[0]].depends
        self.found.append(Layer(self.names[leaf], kind, *sizes, from_data, leaf, site, seen.made))


def _shaped(variable: Var | Literal) -> jax.core.ShapedArray:
    """The shape and the dtype of a variable of a program in which every value is an array."""
    return cast(jax.core.ShapedArray, variable.aval)


def _keeps_entries(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name == "convert_element_type":
        return all(jnp.issubdtype(_shaped(v).dtype, jnp.floating) for v in (*eqn.invars, *eqn.outvars))
    return eqn.primitive.name in SAME_ENTRIES


def _dense(eqn: JaxprEqn, weight: int, path: tuple[int, ...]) -> Site | None:
    """A product of matrices: all contracted axes of W together are its inputs, all others its outputs."""
    contracted, batched = eqn.params["dimension_numbers"]
    if batched[0] or not contracted[0]:
        return None
    a, W = _shaped(eqn.invars[1 - weight]), _shaped(eqn.invars[weight])
    from_a, from_w = contracted[1 - weight], contracted[weight]
    free_a = [axis for axis in range(a.ndim) if axis not in from_a]
    free_w = [axis for axis in range(W.ndim) if axis not in from_w]
    shape_a, shape_w = [a.shape[axis] for axis in free_a], [W.shape[axis] for axis in free_w]
    rows, fan_in, fan_out = math.prod(shape_a), math.prod(a.shape[axis] for axis in from_a), math.prod(shape_w)

    def outputs(y: jax.Array) -> jax.Array:
        return y.reshape(*shape_a, *shape_w) if weight else y.T.reshape(*shape_w, *shape_a)

    return Site(
        products.Dense(eqn.params["precision"], eqn.params["preferred_element_type"]),
        inputs=lambda a: jnp.transpose(a, (*free_a, *from_a)).reshape(rows, fan_in),
        kernel=lambda W: jnp.transpose(W, (*from_w, *free_w)).reshape(fan_in, fan_out),
        outputs=outputs,
        kernel_shape=(fan_in, fan_out),
        shape=(rows, fan_out),
        dtype=_shaped(eqn.outvars[0]).dtype,
        weight_dtype=W.dtype,
        path=path,
        weight=weight,
    )


def _convolution(eqn: JaxprEqn, weight: int, path: tuple[int, ...]) -> Site | None:
    """A convolution: its output channels are the columns."""
    if weight == 0 or eqn.params["batch_group_count"] != 1:
        return None
    W, y, numbers = _shaped(eqn.invars[1]), _shaped(eqn.outvars[0]), eqn.params["dimension_numbers"]
    channel_w, channel_y = numbers.rhs_spec[0], numbers.out_spec[1]
    return Site(
        products.Convolution(
            tuple((name, eqn.params[name]) for name in products.CONVOLUTION_OPTIONS), eqn.params["feature_group_count"]
        ),
        inputs=lambda a: a,
        kernel=lambda W: jnp.moveaxis(W, channel_w, -1),
        outputs=lambda y: jnp.moveaxis(y, -1, channel_y),
        kernel_shape=_last(W.shape, channel_w),
        shape=_last(y.shape, channel_y),
        dtype=y.dtype,
        weight_dtype=W.dtype,
        path=path,
        weight=weight,
    )


def _last(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape with one axis moved to the end."""
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


SITES = {"dot_general": _dense, "conv_general_dilated": _convolution}


def _run(
    jaxpr: Jaxpr, consts: list[Any], values: list[Any], replacement: Replacement, path: tuple[int, ...]
) -> list[Any]:
    """Evaluate a jaxpr, with layers replaced and the calls that hold one inlined."""
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *values), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for index, eqn in enumerate(jaxpr.eqns):
        here, values = (*path, index), [read(atom) for atom in eqn.invars]
        if here in replacement.at:
            results = [replacement.linear(replacement.at[here], *values)]
        elif eqn.primitive.name in INLINED and any(site[: len(here)] == here for site in replacement.at):
            results = _run(inner(eqn).jaxpr, inner(eqn).consts, values, replacement, here)
        else:
            result = _bound(eqn, *values)
            results = result if eqn.primitive.multiple_results else [result]
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(eqn: JaxprEqn, *values: Any) -> Any:
    """What an equation makes of values."""
    return eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))

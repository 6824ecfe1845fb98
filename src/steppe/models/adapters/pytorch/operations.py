"""The operations of PyTorch as JAX computes them: torchax's, and our own where those are wrong or slow.

torchax leaves BatchNorm's statistics as they are, draws dropout from a key that `jax.jit` freezes, unrolls recurrent
networks and computes convolutions in a layout that is slow on CPUs inside loops.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional
from torchax.ops import mappings, op_base, ops_registry
from torchax.tensor import Environment, RuntimeProperty, Tensor
from torchax.view import View

from steppe.core import checks
from steppe.models.adapters.pytorch import activations, layers, recurrent


class NeedsKey(Exception):
    """A module draws random numbers, and no key was given."""


class Translator(Environment):
    """torchax's environment with our own operations, and with the key of the call that is being traced.

    Attributes
    ----------
    values : dict
        What a tensor of the module stands for in this call, by its identity: for those that are reached in other
        ways than by their names, such as the list of weights of a recurrent layer.
    """

    def __init__(self) -> None:
        with jax.ensure_compile_time_eval():  # it makes a key from PyTorch's seed, which is no part of a trace
            super().__init__()
        self._property.content = RuntimeProperty(mesh=None, prng=None, autocast_dtype=None)
        self.values: dict[int, Tensor] = {}
        for operation, function in OWN.items():
            self._ops[operation] = _operator(operation, functools.partial(function, self))
        arrays = {**dict.fromkeys(CONVOLUTIONS, convolution), **activations.OPERATIONS, **layers.OPERATIONS}
        for operation, function in arrays.items():
            self._ops[operation] = _operator(operation, function, of_arrays=True)
        for operation, function in activations.IN_PLACE.items():
            written = op_base.InplaceOp(function, is_jax_func=True)
            self._ops[operation] = _operator(operation, written, of_views=True)

    @contextmanager
    def call(self, key: jax.Array | None, values: list[tuple[torch.Tensor, Tensor]]) -> Iterator[None]:
        """Translate what runs inside; without a `key` nothing may be drawn, and dropout is off.

        `values` has tensors of the module with what they stand for. They are kept for the time of the call: a tensor
        that the module makes would otherwise get the identity of one that is gone, and be taken for it.
        """
        self.values = {id(tensor): value for tensor, value in values}
        try:
            with self.override_property(prng=key), self:
                yield
        finally:
            self.values = {}

    def get_and_rotate_prng_key(self, generator: torch.Generator | None = None) -> jax.Array:
        """The next key.

        Raises
        ------
        NeedsKey
            None was given to the call.
        """
        if self.param.prng is None:
            raise NeedsKey
        key: jax.Array = self.param.get_and_rotate_prng_key()
        return key

    def dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """As torchax; but what is computed under ``torch.no_grad`` has no derivative."""
        result = super().dispatch(func, types, args, kwargs)
        if isinstance(result, Tensor) and not torch.is_grad_enabled() and func not in WITHOUT_VALUES:
            result._elem = jax.lax.stop_gradient(result._elem)
        return result

    def _is_same_device(self, the_tensor: Any, new_device: Any) -> bool:
        """As torchax, whose device has another name here; PyTorch calls it meta where an operation changes dtypes."""
        ours = new_device == "meta" and isinstance(the_tensor, (Tensor, View))
        return ours or bool(super()._is_same_device(the_tensor, new_device))

    def t2j_iso(self, torchtensors: Any) -> Any:
        """Arrays of JAX from torchax's tensors; any other tensor is a parameter of the module, or a constant."""

        def array(value: torch.Tensor) -> Any:
            if isinstance(value, (Tensor, View)):
                return value.jax()
            known = self.values.get(id(value))
            return array_of(value) if known is None else known.jax()

        return torch.utils._pytree.tree_map_only(torch.Tensor, array, torchtensors)


def array_of(tensor: torch.Tensor) -> Any:
    """A tensor that is no torchax's as a constant: an array of JAX.

    A scalar is a Python number, whose dtype gives way to that of arrays, as in PyTorch.
    """
    numbers = numbers_of(tensor)
    return jnp.asarray(numbers) if numbers.ndim else numbers.item()


def numbers_of(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor in the dtype that JAX gives them: integers and floats of 64 bits are cut to 32.

    Raises
    ------
    InputError
        Integers that 32 bits do not hold: cut, they would be other numbers.
    """
    with torch._C.DisableTorchFunction(), torch.utils._mode_utils.no_dispatch():
        plain = tensor.detach().cpu()
        wide = plain.to(torch.float32) if plain.dtype in mappings.NUMPY_UNSUPPORTED_DTYPES else plain
        given = wide.resolve_conj().resolve_neg().numpy()
        numbers = np.array(given).astype(dtype_of(tensor))
        if given.dtype.kind in "iu" and not np.array_equal(given, numbers):
            checks.fail("from_torch", "integers", "such that 32 bits hold them",
                        f"{given.flat[np.abs(given).argmax()]}",
                        'Say jax.config.update("jax_enable_x64", True) before.')  # fmt: skip
        return numbers


def dtype_of(tensor: torch.Tensor) -> Any:
    """The dtype that JAX gives it."""
    return jax.dtypes.canonicalize_dtype(mappings.t2j_dtype(tensor.dtype))


def _operator(operation: Any, function: Callable[..., Any], *, of_arrays: bool = False, of_views: bool = False) -> Any:
    return ops_registry.Operator(
        operation, function, is_jax_function=of_arrays, is_user_defined=True, needs_env=False, is_view_op=of_views
    )


def convolution(
    x: jax.Array, weight: jax.Array, bias: jax.Array | None, stride: Any, padding: Any, dilation: Any,
    *rest: Any, transposed: bool = False, output_padding: Any = None, groups: int = 1,
) -> jax.Array:  # fmt: skip
    """``aten::convolution`` and ``aten::conv2d``, channels last inside, which CPUs need in loops."""
    if len(rest) == 3:
        transposed, output_padding, groups = rest
    elif rest:
        (groups,) = rest
    if transposed:
        return layers.transposed_convolution(x, weight, bias, stride, padding, dilation, output_padding, groups)
    space = weight.ndim - 2
    whole = x if x.ndim == space + 2 else x[None]
    stride, padding, dilation = (tuple(n) * (space if len(n) == 1 else 1) for n in (stride, padding, dilation))
    last = space + 1
    image, kernel = (0, last, *range(1, last)), (last, last - 1, *range(space))
    y = jax.lax.conv_general_dilated(
        jnp.moveaxis(whole, 1, -1),
        jnp.transpose(weight, (*range(2, last + 1), 1, 0)),
        stride,
        [(p, p) for p in padding],
        rhs_dilation=dilation,
        dimension_numbers=jax.lax.ConvDimensionNumbers(image, kernel, image),
        feature_group_count=groups,
    )
    y = jnp.moveaxis(y if bias is None else y + bias, -1, 1)
    return y if x.ndim == space + 2 else y[0]


WITHOUT_VALUES = (torch.Tensor.detach,)
CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.conv2d, torch.ops.aten.convolution.default)


def _arrays(env: Translator, *values: Any) -> list[Any]:
    return [env.t2j_iso(value) if isinstance(value, torch.Tensor) else value for value in values]


def _write(buffer: Any, value: jax.Array) -> None:
    """Change a buffer in place, in its own dtype."""
    buffer._elem = value.astype(buffer._elem.dtype)


def batch_norm(  # noqa: PLR0917 (the arguments of PyTorch)
    env: Translator, input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: Any = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """``torch.nn.functional.batch_norm``: in training it normalises by the batch and moves the running statistics.

    As in PyTorch the variance that normalises is divided by n, and the one that is kept by n − 1.
    """
    x, gain, shift, rate = _arrays(env, input, weight, bias, momentum)
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    if training:
        count = x.size // x.shape[1]
        if count <= 1:
            checks.fail("from_torch", "x", "more than one value for each channel where BatchNorm is in training mode",
                        f"the shape {tuple(x.shape)}", "Train on batches of two examples or more.")  # fmt: skip
        mean, var = x.mean(axes), x.var(axes)
        for buffer, new in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
            if buffer is not None:
                before = env.t2j_iso(buffer)
                _write(buffer, (1 - rate) * before + rate * jax.lax.stop_gradient(new))
    else:
        mean, var = _arrays(env, running_mean, running_var)
    y = (x - mean.reshape(shape)) * jax.lax.rsqrt(var.reshape(shape) + eps)
    y = y if gain is None else y * gain.reshape(shape)
    y = y if shift is None else y + shift.reshape(shape)
    return env.j2t_iso(y.astype(x.dtype))


def _torch_batch_norm(
    env: Translator, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *rest: Any
) -> Any:
    """``torch.batch_norm``, whose arguments stand in another order."""
    return batch_norm(env, input, running_mean, running_var, weight, bias, *rest[:3])


def instance_norm(  # noqa: PLR0917 (the arguments of PyTorch)
    env: Translator, input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """``torch.nn.functional.instance_norm``; statistics that are kept are means over the examples."""
    x, gain, shift = _arrays(env, input, weight, bias)
    axes, shape = tuple(range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
    if use_input_stats:
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        count = x[0, 0].size
        for buffer, new in ((running_mean, mean), (running_var, var * (count / max(count - 1, 1)))):
            if buffer is not None:
                now = jax.lax.stop_gradient(new).mean(0).ravel()
                _write(buffer, (1 - momentum) * env.t2j_iso(buffer) + momentum * now)
    else:
        mean, var = (array.reshape(shape) for array in _arrays(env, running_mean, running_var))
    y = (x - mean) * jax.lax.rsqrt(var + eps)
    y = y if gain is None else y * gain.reshape(shape)
    return env.j2t_iso(y if shift is None else y + shift.reshape(shape))


def _dropout(
    env: Translator, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False, *, channels: bool = False
) -> Any:
    """Dropout of numbers or of whole channels, drawn from the call's key; without one nothing is dropped."""
    if not training or env.param.prng is None or p == 0:
        return input
    x = env.t2j_iso(input)
    shape = x.shape[:2] + (1,) * (x.ndim - 2) if channels else x.shape
    kept = jax.random.bernoulli(env.get_and_rotate_prng_key(), 1 - p, shape)
    y = jnp.where(kept, x / (1 - p), 0) if p < 1 else jnp.zeros_like(x)
    return _result(env, input, y, inplace)


def _alpha_dropout(
    env: Translator,
    input: Any,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    channels: bool = False,
) -> Any:
    """Dropout that keeps mean and variance of SELU's outputs (Klambauer et al. 2017)."""
    if not training or env.param.prng is None or p == 0:
        return input
    x, floor = env.t2j_iso(input), -1.7580993408473766  # −αλ of SELU
    shape = x.shape[:2] + (1,) * (x.ndim - 2) if channels else x.shape
    kept = jax.random.bernoulli(env.get_and_rotate_prng_key(), 1 - p, shape)
    scale = ((1 - p) * (1 + p * floor**2)) ** -0.5
    return _result(env, input, scale * (jnp.where(kept, x, floor) - p * floor), inplace)


def _result(env: Translator, input: Any, y: jax.Array, inplace: bool) -> Any:
    if inplace and isinstance(input, Tensor):
        _write(input, y)
        return input
    return env.j2t_iso(y)


_channels = functools.partial(_dropout, channels=True)
OWN: dict[Any, Callable[..., Any]] = {
    functional.batch_norm: batch_norm,
    torch.batch_norm: _torch_batch_norm,
    functional.instance_norm: instance_norm,
    functional.embedding_bag: layers.embedding_bag,
    functional.dropout: _dropout,
    torch.dropout: _dropout,
    torch.dropout_: functools.partial(_dropout, inplace=True),
    functional.dropout1d: _channels,
    functional.dropout2d: _channels,
    functional.dropout3d: _channels,
    torch.feature_dropout: _channels,
    functional.alpha_dropout: _alpha_dropout,
    functional.feature_alpha_dropout: functools.partial(_alpha_dropout, channels=True),
    **recurrent.OPERATIONS,
}
"""What replaces torchax's own: functions of the translator and of PyTorch's arguments."""

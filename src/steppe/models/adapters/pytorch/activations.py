"""Functions of single numbers, maxima and norms with PyTorch's slopes where there are several: at corners and ties.

Inputs of exactly zero are common: margins of images, units that are off. There JAX has other slopes than PyTorch, or
none.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torchax.ops import jaten


def clamp(x: jax.Array, min: Any = None, max: Any = None) -> jax.Array:
    """``aten::clamp``: its slope is 1 at both bounds."""
    above = x if min is None else jnp.where(x < min, min, x)
    return above if max is None else jnp.where(above > max, max, above)


def relu(x: jax.Array) -> jax.Array:
    """``aten::relu``: its slope at 0 is 0."""
    return jnp.where(x <= 0, 0, x)


def hardtanh(x: jax.Array, min_val: float = -1.0, max_val: float = 1.0) -> jax.Array:
    """``aten::hardtanh``, of which ReLU6 is one: its slope is 0 at both bounds."""
    return jnp.where(x <= min_val, min_val, jnp.where(x >= max_val, max_val, x)).astype(x.dtype)


def leaky_relu(x: jax.Array, negative_slope: float = 0.01) -> jax.Array:
    """``aten::leaky_relu``: its slope at 0 is that of the left."""
    return jnp.where(x > 0, x, negative_slope * x)


def elu(x: jax.Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> jax.Array:
    """``aten::elu``: its slopes at 0 are those of the left."""
    left = jnp.where(x > 0, 0, x)
    return jnp.where(x > 0, scale * x, alpha * scale * jnp.expm1(input_scale * left))


def selu(x: jax.Array) -> jax.Array:
    """``aten::selu``."""
    return elu(x, 1.6732632423543772, 1.0507009873554805)


def celu(x: jax.Array, alpha: float = 1.0) -> jax.Array:
    """``aten::celu``."""
    return elu(x, alpha, 1.0, 1 / alpha)


def hardswish(x: jax.Array) -> jax.Array:
    """``aten::hardswish``: its slopes at ±3 are those outside."""
    return jnp.where(x <= -3, 0, jnp.where(x < 3, x * (x + 3) / 6, x))


def hardsigmoid(x: jax.Array) -> jax.Array:
    """``aten::hardsigmoid``: its slopes at ±3 are 0."""
    return hardtanh((x + 3) / 6, 0.0, 1.0)


def log_sigmoid(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``aten::log_sigmoid_forward``, and what PyTorch keeps for the way back."""
    return jax.nn.log_sigmoid(x), jnp.zeros_like(x)


def absolute(x: jax.Array) -> jax.Array:
    """``aten::abs``: its slope at 0 is 0."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.abs(x)
    return x * jax.lax.stop_gradient(jnp.sign(x))


def highest(x: jax.Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """``aten::max``: along an axis the gradient goes to the one that is returned as its place."""
    return jnp.max(x) if dim is None else _at(jnp.argmax, x, dim, keepdim)


def lowest(x: jax.Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """``aten::min``, likewise."""
    return jnp.min(x) if dim is None else _at(jnp.argmin, x, dim, keepdim)


def _at(place: Callable[..., jax.Array], x: jax.Array, dim: int, keepdim: bool) -> tuple[jax.Array, jax.Array]:
    """The numbers at some places along an axis, and the places."""
    if not x.ndim:
        return x, jnp.zeros((), jnp.int32)
    places = place(x, axis=dim, keepdims=True)
    found = jnp.take_along_axis(x, places, dim)
    return (found, places) if keepdim else (found.squeeze(dim), places.squeeze(dim))


def vector_norm(x: jax.Array, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> jax.Array:
    """``aten::linalg_vector_norm``: the slope of the Euclidean norm at 0 is 0."""
    if ord != 2 or dtype is not None or not jnp.issubdtype(x.dtype, jnp.floating):
        other: jax.Array = jaten._aten_linalg_vector_norm(x, ord, dim, keepdim, dtype)
        return other
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else dim
    squares = jnp.sum(x**2, axis=axes or None, keepdims=keepdim)
    return jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))


def distances(x1: jax.Array, x2: jax.Array, p: float = 2.0, compute_mode: Any = None) -> jax.Array:
    """``aten::cdist``: the slope of a distance of 0 is 0."""
    apart = x1[..., :, None, :] - x2[..., None, :, :]
    return jnp.sum(absolute(apart), -1) if p == 1 else vector_norm(apart, p, -1)


def cosine_similarity(x1: jax.Array, x2: jax.Array, dim: int = 1, eps: float = 1e-8) -> jax.Array:
    """``torch.cosine_similarity``."""
    lengths = (jnp.maximum(vector_norm(x, dim=dim, keepdim=True), eps) for x in (x1, x2))
    return jnp.sum(x1 / next(lengths) * (x2 / next(lengths)), axis=dim)


OPERATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.clamp: clamp,
    torch.ops.aten.clamp.default: clamp,
    torch.ops.aten.clamp.Tensor: clamp,
    torch.ops.aten.clamp_min: clamp,
    torch.ops.aten.clamp_max: lambda x, max: clamp(x, None, max),
    torch.ops.aten.relu: relu,
    torch.ops.aten.relu.default: relu,
    torch.ops.aten.hardtanh: hardtanh,
    torch.ops.aten.leaky_relu: leaky_relu,
    torch.ops.aten.elu: elu,
    torch.ops.aten.selu: selu,
    torch.ops.aten.celu: celu,
    torch.ops.aten.hardswish: hardswish,
    torch.ops.aten.hardsigmoid: hardsigmoid,
    torch.ops.aten.log_sigmoid_forward: log_sigmoid,
    torch.ops.aten.abs: absolute,
    torch.ops.aten.max: highest,
    torch.ops.aten.min: lowest,
    torch.ops.aten.linalg_vector_norm: vector_norm,
    torch.cosine_similarity: cosine_similarity,
    torch.cdist: distances,
    torch.ops.aten.cdist: distances,
    torch.ops.aten._cdist_forward: distances,
}
"""Functions of arrays of JAX."""

IN_PLACE: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.clamp_: clamp,
    torch.ops.aten.clamp_min_: clamp,
    torch.ops.aten.clamp_max_: lambda x, max: clamp(x, None, max),
    torch.ops.aten.relu_: relu,
    torch.ops.aten.hardtanh_: hardtanh,
    torch.ops.aten.leaky_relu_: leaky_relu,
    torch.ops.aten.elu_: elu,
    torch.ops.aten.selu_: selu,
    torch.ops.aten.celu_: celu,
    torch.ops.aten.hardswish_: hardswish,
    torch.ops.aten.hardsigmoid_: hardsigmoid,
}
"""Those whose value is written into the first argument."""

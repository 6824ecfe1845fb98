"""Layers of PyTorch that torchax lacks or computes otherwise."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torchax.ops import jaten, mappings

from steppe.core import checks
from steppe.models.adapters.pytorch.activations import highest


def adaptive_max_pool(x: jax.Array, output_size: Any) -> tuple[jax.Array, jax.Array]:
    """``aten::adaptive_max_pool2d`` and its like: maxima of windows that cover the space, and their places in it."""
    sizes = tuple(output_size)
    space = x.shape[x.ndim - len(sizes) :]
    places = jnp.arange(x[(0,) * (x.ndim - len(sizes))].size).reshape(space)
    found = []
    for window in itertools.product(*map(_windows, space, sizes)):
        part = x[(..., *window)]
        values, at = highest(part.reshape(*part.shape[: -len(sizes)], -1), -1)
        found.append((values, places[window].ravel()[at]))
    values, at = (jnp.stack(part, -1).reshape(*part[0].shape, *sizes) for part in zip(*found, strict=True))
    return values, at


def _windows(size: int, count: int) -> Iterator[slice]:
    """Windows along an axis, as many as are asked for."""
    return (slice(i * size // count, -((i + 1) * size // -count)) for i in range(count))


def average_pool(  # noqa: PLR0917 (the arguments of PyTorch)
    x: jax.Array, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> jax.Array:  # fmt: skip
    """``aten::avg_pool2d`` and its like: means over windows, which with `ceil_mode` may reach beyond the padding.

    What is beyond the padding never counts; the padding itself does with `count_include_pad`.
    """
    window = tuple(kernel_size)
    lead = x.ndim - len(window)
    strides, paddings = (_each_axis(n, len(window)) for n in (stride or window, padding))
    borders, counts = [], np.ones(())
    for length, size, step, pad in zip(x.shape[lead:], window, strides, paddings, strict=True):
        reach = length + 2 * pad - size
        outputs = (-(-reach // step) if ceil_mode else reach // step) + 1
        outputs -= ceil_mode and (outputs - 1) * step >= length + pad  # a window begins on an input, or on padding
        begin = step * np.arange(outputs) - pad
        end = np.minimum(begin + size, length + pad)
        inside = end - begin if count_include_pad else np.minimum(end, length) - np.maximum(begin, 0)
        counts = counts[..., None] * inside
        borders.append((pad, max((outputs - 1) * step + size - length - pad, 0)))
    shape, steps = ((*(1,) * lead, *n) for n in (window, strides))
    total: jax.Array = jax.lax.reduce_window(
        x, np.zeros((), x.dtype), jax.lax.add, shape, steps, [(0, 0)] * lead + borders
    )
    return total / jnp.asarray(counts if divisor_override is None else divisor_override, x.dtype)


def _each_axis(numbers: Any, axes: int) -> tuple[int, ...]:
    """A number for each axis of space, of one for all of them or of several."""
    several = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return several * (axes if len(several) == 1 else 1)


def transposed_convolution(  # noqa: PLR0917 (the arguments of PyTorch)
    x: jax.Array, weight: jax.Array, bias: jax.Array | None, stride: Any, padding: Any, dilation: Any,
    output_padding: Any, groups: int,
) -> jax.Array:  # fmt: skip
    """A transposed convolution, channels first: the derivative of a convolution in its input."""
    space = weight.ndim - 2
    whole = x if x.ndim == space + 2 else x[None]
    stride, padding, dilation, more = (
        tuple(n) * (space if len(n) == 1 else 1) for n in (stride, padding, dilation, output_padding)
    )
    parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    kernel = jnp.swapaxes(parts, 1, 2).reshape(groups * weight.shape[1], -1, *weight.shape[2:])
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    y = jax.lax.conv_general_dilated(
        whole,
        jnp.flip(kernel, range(2, weight.ndim)),
        (1,) * space,
        [(r - p, r - p + m) for r, p, m in zip(reach, padding, more, strict=True)],
        lhs_dilation=stride,
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    y = y if bias is None else y + bias.reshape(-1, *(1,) * space)
    return y if x.ndim == space + 2 else y[0]


def embedding_bag(  # noqa: PLR0917 (the arguments of PyTorch)
    env: Any, input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """``torch.nn.functional.embedding_bag`` of bags of one length, (B, N)."""
    if offsets is not None or max_norm is not None or scale_grad_by_freq:
        checks.fail("from_torch", "module", "one whose bags of embeddings have one length, (B, N)",
                    "one with offsets, max_norm or scale_grad_by_freq",
                    "Pad the bags: padding_idx leaves padding out.")  # fmt: skip
    ids, table = env.t2j_iso(input), env.t2j_iso(weight)
    padding = None if padding_idx is None else padding_idx % table.shape[0]
    counts = jnp.ones(ids.shape, bool) if padding is None else ids != padding
    rows = table[ids]
    if mode == "max":
        found = jnp.where(counts[..., None], rows, -jnp.inf)
        return env.j2t_iso(jnp.where(counts.any(1)[:, None], highest(found, 1)[0], 0))
    shares = counts.astype(table.dtype) if per_sample_weights is None else counts * env.t2j_iso(per_sample_weights)
    total = jnp.einsum("bn,bnd->bd", shares, rows)
    return env.j2t_iso(total if mode == "sum" else total / jnp.maximum(counts.sum(1), 1)[:, None])


def resize(
    x: jax.Array, output_size: Any, align_corners: bool, scales_h: Any = None, scales_w: Any = None,
    *, method: str = "linear",
) -> jax.Array:  # fmt: skip
    """``aten::_upsample_bilinear2d_aa`` and its like: images of another size, smoothed where it is smaller."""
    if align_corners:
        checks.fail("from_torch", "module", "one that resizes by antialias without align_corners", "one with both")
    y: jax.Array = jax.image.resize(x, (*x.shape[:2], *output_size), method, antialias=True)
    return y


def pad(x: jax.Array, pad: Any, mode: str = "constant", value: Any = None) -> jax.Array:
    """``aten::pad``; negative numbers cut."""
    if mode != "constant":
        other: jax.Array = jaten._aten_pad(x, pad, mode, value)
        return other
    borders = [(before, after, 0) for before, after in zip(pad[::2], pad[1::2], strict=True)]
    return jax.lax.pad(x, jnp.asarray(value or 0, x.dtype), [(0, 0, 0)] * (x.ndim - len(borders)) + borders[::-1])


def linear(input: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """``torch.nn.functional.linear``, whose arguments many libraries give by name."""
    y = jnp.einsum("...a,ba->...b", input, weight)
    return y if bias is None else y + bias


def mean(x: jax.Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> jax.Array:
    """``aten::mean``."""
    axes = (tuple(dim) if isinstance(dim, (list, tuple)) else dim) if x.ndim else None
    kind = None if dtype is None else jax.dtypes.canonicalize_dtype(mappings.t2j_dtype(dtype))
    return jnp.mean(x, axes, keepdims=keepdim, dtype=kind)


def solve(A: jax.Array, B: jax.Array, left: bool = True) -> jax.Array:
    """``torch.linalg.solve``: X of A X = B, or of X A = B; B is a vector where it has the shape of A's rows."""
    if not left:
        return jnp.matrix_transpose(solve(jnp.matrix_transpose(A), jnp.matrix_transpose(B)))
    is_vector = B.ndim == 1 or B.shape == A.shape[:-1]
    x: jax.Array = jnp.linalg.solve(A, B[..., None] if is_vector else B)
    return x[..., 0] if is_vector else x


OPERATIONS: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.linear: linear,
    torch.linalg.solve: solve,
    torch.ops.aten.mean: mean,
    torch.ops.aten.adaptive_max_pool2d: adaptive_max_pool,
    torch.ops.aten.adaptive_max_pool3d: adaptive_max_pool,
    torch.ops.aten.avg_pool1d: average_pool,
    torch.ops.aten.avg_pool2d: average_pool,
    torch.ops.aten.avg_pool3d: average_pool,
    torch.ops.aten._upsample_bilinear2d_aa: resize,
    torch.ops.aten._upsample_bicubic2d_aa: functools.partial(resize, method="cubic"),
    torch.ops.aten.pad: pad,
    torch.ops.aten.mT: lambda x: jnp.swapaxes(x, -1, -2),
}
"""Functions of arrays of JAX."""

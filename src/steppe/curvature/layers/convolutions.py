"""The cotangent of a convolution's kernel as products of matrices, which is what CPUs compute fast.

XLA makes a convolution of it whose window is the whole image and whose channels are the examples. On a CPU that takes
up to ten times as long, in one thread: both operands are transposed, and the sum is as long as the window.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PATCHES_BYTES = 4_000_000
"""Of a copy of the input, for each output what one row of the window covers: it should stay in the cache."""


class Window(NamedTuple):
    """What a convolution of channels-last images (B, *space, in) looks at.

    Attributes
    ----------
    shape, strides, padding, dilation : one entry an axis of space, as for `jax.lax.conv_general_dilated`.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


def kernel_cotangent(window: Window, a: jax.Array, G: jax.Array, precision: Any = None) -> jax.Array:
    """The K̄ with ⟨K̄, K⟩ = ⟨G, a ∗ K⟩ for all K.

    Parameters
    ----------
    window : Window
        Of the convolution.
    a : Array
        Its input (B, *space, in).
    G : Array
        The cotangent of its output (B, *space, out).
    precision : jax.lax.Precision or None
        Of the products.

    Returns
    -------
    Array
        (*window, in, out), in float32 or wider. For each place in a window's rows the sum over examples and pixels of
        the outer products of what the row covers and G. Some examples at a time: a copy of their pixels is made.
    """
    count = _examples_at_once(window, a, G)
    if count == len(a):
        return _cotangent(window, a, G, precision)
    blocks = a.reshape(-1, count, *a.shape[1:]), G.reshape(-1, count, *G.shape[1:])

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + _cotangent(window, *block, precision), None

    first = jnp.zeros((*window.shape, a.shape[-1], G.shape[-1]), _sum_dtype(a, G))
    total: jax.Array = jax.lax.scan(add, first, blocks)[0]
    return total


def _examples_at_once(window: Window, a: jax.Array, G: jax.Array) -> int:
    """The most examples, a divisor of all, whose copies stay small; all of them where nothing is copied."""
    if math.prod(window.shape) == 1:
        return len(a)
    one = math.prod(G.shape[1:-1]) * window.shape[-1] * a.shape[-1] * a.dtype.itemsize
    most = max(1, PATCHES_BYTES // max(one, 1))
    return max((count for count in range(1, min(most, len(a)) + 1) if len(a) % count == 0), default=len(a))


def _cotangent(window: Window, a: jax.Array, G: jax.Array, precision: Any) -> jax.Array:
    borders = [(0, 0, 0), *((*sides, 0) for sides in window.padding), (0, 0, 0)]
    # without a barrier XLA computes the padding anew for each pixel of each window, which costs more than the products
    padded = jax.lax.optimization_barrier(jax.lax.pad(a, jnp.zeros((), a.dtype), borders))
    space = G.shape[1:-1]
    columns = _places(window, -1, space[-1]) + jnp.arange(window.shape[-1]) * window.dilation[-1]
    rows = []
    for tap in itertools.product(*map(range, window.shape[:-1])):
        seen = padded
        for axis, (place, length) in enumerate(zip(tap, space, strict=False)):
            first, stride = place * window.dilation[axis], window.strides[axis]
            seen = jax.lax.slice_in_dim(seen, first, first + (length - 1) * stride + 1, stride, axis + 1)
        seen = jax.lax.optimization_barrier(seen.at[..., columns, :].get(mode="promise_in_bounds"))
        product = jax.lax.dot_general(
            seen.reshape(-1, window.shape[-1] * a.shape[-1]), G.reshape(-1, G.shape[-1]), (((0,), (0,)), ((), ())),
            precision=precision, preferred_element_type=_sum_dtype(a, G),
        )  # fmt: skip
        rows.append(product)
    return jnp.stack(rows).reshape(*window.shape, a.shape[-1], G.shape[-1])


def _places(window: Window, axis: int, length: int) -> jax.Array:
    """Where windows begin along an axis, as a column."""
    return jnp.arange(length)[:, None] * window.strides[axis]


def _sum_dtype(a: jax.Array, G: jax.Array) -> Any:
    return jnp.promote_types(jnp.promote_types(a.dtype, G.dtype), jnp.float32)

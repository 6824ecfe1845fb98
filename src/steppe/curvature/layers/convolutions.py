"""The kernel's cotangent of a convolution, and all three products of depthwise ones, as what CPUs compute fast.

A kernel's cotangent is a convolution whose window is the whole image and whose channels are the examples. XLA leaves
both operands in their layouts, which takes a CPU up to ten times as long as with the examples last. A convolution
of each channel alone takes XLA thirty times as long as the multiplications and additions of shifted images that it is.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

EXAMPLES = 8
"""At a time in a kernel's cotangent, at least: more of them leave the cache."""

EXAMPLES_OF_FEW_CHANNELS = 32
"""The same for up to `FEW_CHANNELS` of output."""

FEW_CHANNELS = 16
"""XLA gives convolutions of up to so many channels, in and out, to a library that is slower on CPUs."""

PRODUCT_BYTES = 250_000
"""Of a product of images, whose sum is an entry of a depthwise kernel's cotangent: it should stay in a small cache."""


def last(numbers: Sequence[int]) -> tuple[int, ...]:
    """The axes of images as (batch, *space, channels), from `jax.lax.ConvDimensionNumbers`, which has channels second.

    Examples
    --------
    >>> last((0, 1, 2, 3))
    (0, 2, 3, 1)
    """
    return (numbers[0], *numbers[2:], numbers[1])


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that takes one back: of an array transposed by `axes`.

    Examples
    --------
    >>> inverse((0, 2, 3, 1))
    (0, 3, 1, 2)
    """
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


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
        (*window, in, out), in float32 or wider. Some examples at a time, of which both arrays are copied.
    """
    least = EXAMPLES_OF_FEW_CHANNELS if G.shape[-1] <= FEW_CHANNELS else EXAMPLES
    count = min(n for n in range(1, len(a) + 1) if len(a) % n == 0 and n >= min(least, len(a)))
    return _summed(functools.partial(_cotangent, window, precision=precision), a, G, count)


def grouped_kernel_cotangent(window: Window, groups: int, a: jax.Array, G: jax.Array, precision: Any) -> jax.Array:
    """`kernel_cotangent` of a convolution in groups, (*window, in / groups, out), group by group."""
    a, G = (jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0) for x in (a, G))
    K = jax.lax.map(lambda part: kernel_cotangent(window, part[0], part[1], precision), (a, G))
    return jnp.moveaxis(K, 0, -2).reshape(*window.shape, K.shape[-2], -1)


def depthwise(window: Window, a: jax.Array, K: jax.Array) -> jax.Array:
    """A convolution of each channel alone: (B, *space, in) with (*window, out), `out` a multiple of `in`.

    The sum over the places of the window of the shifted image, times the kernel's entry there.
    """
    padded = _padded(_repeated(a, K.shape[-1]), [(*sides, 0) for sides in window.padding])
    space = [
        (length - (size - 1) * dilation - 1) // stride + 1
        for length, size, dilation, stride in zip(
            padded.shape[1:-1], window.shape, window.dilation, window.strides, strict=True
        )
    ]
    return _shifted_sum(window, padded, K, space)


def depthwise_input_cotangent(window: Window, G: jax.Array, K: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The ā of that `shape` with ⟨ā, a⟩ = ⟨G, depthwise(a, K)⟩ for all a: G, spread by the strides, with K reversed."""
    borders = []
    for axis, length in enumerate(shape[1:-1]):
        reach, stride = (window.shape[axis] - 1) * window.dilation[axis], window.strides[axis]
        low = reach - window.padding[axis][0]
        borders.append((low, length + reach - low - ((G.shape[axis + 1] - 1) * stride + 1), stride - 1))
    reverse = window._replace(strides=(1,) * len(window.shape))
    spread = _shifted_sum(reverse, _padded(G, borders), jnp.flip(K, range(K.ndim - 1)), shape[1:-1])
    return spread.reshape(*shape, -1).sum(-1)


def depthwise_kernel_cotangent(window: Window, a: jax.Array, G: jax.Array) -> jax.Array:
    """The K̄, (*window, out), with ⟨K̄, K⟩ = ⟨G, depthwise(a, K)⟩ for all K: sums of shifted images times G."""
    one = math.prod(G.shape[1:]) * G.dtype.itemsize
    return _summed(functools.partial(_depthwise_cotangent, window), a, G, _most_examples(len(a), one, PRODUCT_BYTES))


def _depthwise_cotangent(window: Window, a: jax.Array, G: jax.Array) -> jax.Array:
    padded, space = _padded(_repeated(a, G.shape[-1]), [(*sides, 0) for sides in window.padding]), G.shape[1:-1]
    taps = itertools.product(*map(range, window.shape))
    wide = G.astype(_sum_dtype(a, G))
    sums = [jnp.sum(_seen(window, padded, tap, space) * wide, axis=range(G.ndim - 1)) for tap in taps]
    return jnp.stack(sums).reshape(*window.shape, G.shape[-1])


def _shifted_sum(window: Window, padded: jax.Array, K: jax.Array, space: Sequence[int]) -> jax.Array:
    """The sum over places of the window of what each sees, times the kernel there, in float32 or wider."""
    kernel = K.astype(_sum_dtype(padded, K))
    terms = (_seen(window, padded, tap, space) * kernel[tap] for tap in itertools.product(*map(range, window.shape)))
    total: jax.Array = functools.reduce(jnp.add, terms)
    return total


def _repeated(a: jax.Array, channels: int) -> jax.Array:
    """Each channel as often as there are channels of output that see it."""
    return a if a.shape[-1] == channels else jnp.repeat(a, channels // a.shape[-1], axis=-1)


def _summed(
    cotangent: Callable[[jax.Array, jax.Array], jax.Array], a: jax.Array, G: jax.Array, count: int
) -> jax.Array:
    """A kernel's cotangent, `count` examples at a time."""
    if count == len(a):
        return cotangent(a, G)
    blocks = a.reshape(-1, count, *a.shape[1:]), G.reshape(-1, count, *G.shape[1:])

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + cotangent(*block), None

    like = jax.eval_shape(cotangent, *(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in blocks))
    total: jax.Array = jax.lax.scan(add, jnp.zeros(like.shape, like.dtype), blocks)[0]
    return total


def _most_examples(examples: int, one: int, limit: int) -> int:
    """The most examples, a divisor of all, that take no more than so many bytes; `one` is what each takes."""
    most = max(1, limit // max(one, 1))
    return max((count for count in range(1, min(most, examples) + 1) if examples % count == 0), default=examples)


def _cotangent(window: Window, a: jax.Array, G: jax.Array, precision: Any) -> jax.Array:
    """A convolution of images (in, *space, examples) with a kernel (*space, examples, out).

    Without a barrier XLA undoes the transpositions.
    """
    last = a.ndim - 1
    space, image = tuple(range(1, last)), (0, last, *range(1, last))
    images, kernel = jax.lax.optimization_barrier(
        (jnp.transpose(a, (last, *space, 0)), jnp.transpose(G, (*space, 0, last)))
    )
    borders = []
    for axis, (low, _) in enumerate(window.padding):
        reach = (G.shape[axis + 1] - 1) * window.strides[axis] + (window.shape[axis] - 1) * window.dilation[axis] + 1
        borders.append((low, reach - low - a.shape[axis + 1]))
    K = jax.lax.conv_general_dilated(
        images, kernel, window.dilation, borders, rhs_dilation=window.strides,
        dimension_numbers=jax.lax.ConvDimensionNumbers(image, (last, last - 1, *range(last - 1)), image),
        precision=precision, preferred_element_type=_sum_dtype(a, G),
    )  # fmt: skip
    return jnp.moveaxis(K, 0, -2)


def _padded(x: jax.Array, borders: Sequence[tuple[int, int, int]]) -> jax.Array:
    """Images with borders of zeros, and zeros between their pixels, for each axis of space as `jax.lax.pad` has them.

    Without a barrier XLA computes the padding anew for each pixel of each window, which costs more than the sums.
    """
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *borders, (0, 0, 0)])
    kept: jax.Array = jax.lax.optimization_barrier(padded)
    return kept


def _seen(window: Window, padded: jax.Array, tap: Sequence[int], space: Sequence[int]) -> jax.Array:
    """What a place of the window sees, for each pixel of the output; `tap` may name the first axes only."""
    for axis, (place, length) in enumerate(zip(tap, space, strict=False)):
        first, stride = place * window.dilation[axis], window.strides[axis]
        padded = jax.lax.slice_in_dim(padded, first, first + (length - 1) * stride + 1, stride, axis + 1)
    return padded


def _sum_dtype(a: jax.Array, G: jax.Array) -> Any:
    return jnp.promote_types(jnp.promote_types(a.dtype, G.dtype), jnp.float32)

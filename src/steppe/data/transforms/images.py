"""Shifts, mirrors, magnified parts and covered squares of images."""

import functools
import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data.transforms.base import Transform, array_of

Fill: TypeAlias = float | tuple[float, ...] | None
"""What stands where there is no image: one number, one for each channel, or zeros."""

ATTEMPTS = 10
"""Parts that are drawn for an image, of which the first that fits is taken, as torchvision does."""


def crop(padding: int = 4, *, flip: bool = True, fill: Fill | Literal["reflect"] = None) -> Transform:
    """Each image is shifted by up to p pixels either way, and mirrored left to right with chance ½.

    Padded on all four sides by p rows and columns, then cut to its own size at one of (2p + 1)² places.

    Parameters
    ----------
    padding : p ≥ 0, in pixels.
    flip : whether to mirror.
    fill : what the image is padded with: zeros, one number, one for each channel, or "reflect" for the image mirrored
        at its edge. Numbers are in units of the *decoded* images.

    Returns
    -------
    A transform of batches of images x (B, H, W, C), each image with a shift and a mirroring of its own.

    Raises
    ------
    InputError : settings out of range, when made; an x that is not (B, H, W, C), as many numbers to fill with as there
        are no channels, or a reflection of more than the image, when called.

    Notes
    -----
    Zeros are put into the *decoded* images: where channels are standardised they are the mean colour, where not, black.
    Lee et al. (2015) and He et al. (2016) with p = 4 for CIFAR's 32 × 32 pixels.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
    >>> crop(2)(jax.random.key(0), batch, None)["x"].shape
    (2, 8, 8, 3)
    """
    p = checks.whole("crop", "padding", padding, least=0)
    checks.one_of("crop", "flip", flip, (True, False))
    if fill != "reflect":
        _check_fill("crop", fill, ', or "reflect"')

    def one(image: jax.Array, place: jax.Array, mirrored: jax.Array) -> jax.Array:
        cut = jax.lax.dynamic_slice(_padded(image, p, fill), (*place, 0), image.shape)
        return jnp.where(mirrored, cut[:, ::-1], cut)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _images("crop", batch, np.generic)
        if fill == "reflect" and p >= min(x.shape[1:3]):
            checks.fail("crop", "padding", f"below {min(x.shape[1:3])}, the smaller side, to be reflected", p)
        places, mirrors = jax.random.split(key)
        place = jax.random.randint(places, (len(x), 2), 0, 2 * p + 1)
        mirrored = jax.random.bernoulli(mirrors, 0.5, (len(x),)) & flip
        return {**batch, "x": jax.vmap(one)(x, place, mirrored)}

    return transform


def flip(chance: float = 0.5) -> Transform:
    """Each image is mirrored left to right with chance p.

    Parameters
    ----------
    chance : 0 ≤ p ≤ 1.

    Returns
    -------
    A transform of batches of images x (B, H, W, C).

    Raises
    ------
    InputError : a chance out of range, when made; an x that is not (B, H, W, C), when called.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.arange(3.0).reshape(1, 1, 3, 1), "y": jnp.array([0])}
    >>> flip(1.0)(jax.random.key(0), batch, None)["x"].ravel().tolist()
    [2.0, 1.0, 0.0]
    """
    checks.real("flip", "chance", chance, least=0.0, most=1.0)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _images("flip", batch, np.generic)
        mirrored = jax.random.bernoulli(key, chance, (len(x), 1, 1, 1))
        return {**batch, "x": jnp.where(mirrored, x[:, :, ::-1], x)}

    return transform


def resized_crop(
    scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (0.75, 4 / 3), *, flip: bool = True
) -> Transform:
    """A random part of each image at the size of the whole (Szegedy et al. 2015), mirrored with chance ½.

    A share of the area and a ratio of width to height, uniform on its logarithm, are drawn ten times; the first part
    that fits into the image is cut out at a random place, and the largest central one within the ratios where none
    does, as torchvision's RandomResizedCrop has it. It is magnified by bilinear interpolation.

    Parameters
    ----------
    scale : the smallest and the largest share of the area, above 0 and at most 1.
    ratio : the smallest and the largest ratio of width to height.
    flip : whether to mirror.

    Returns
    -------
    A transform of batches of images x (B, H, W, C) of floats, each image with a part of its own. Cost: two products of
    an image with matrices as large as its sides.

    Raises
    ------
    InputError : settings out of range, when made; an x that is not (B, H, W, C) of floats, when called.

    Notes
    -----
    The authors' range of areas is for ImageNet. For images of 32 × 32 pixels (0.5, 1) is more usual.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
    >>> resized_crop()(jax.random.key(0), batch, None)["x"].shape
    (2, 8, 8, 3)
    """
    _check_range("scale", scale, most=1.0)
    _check_range("ratio", ratio)
    checks.one_of("resized_crop", "flip", flip, (True, False))

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        drawn, mirrors = jax.random.split(key)
        top, left, height, width = _part(drawn, image.shape[0], image.shape[1], scale, ratio)
        rows, columns = (
            _interpolation(start, size, whole, image.dtype)
            for start, size, whole in ((top, height, image.shape[0]), (left, width, image.shape[1]))
        )
        part = jnp.einsum("ik,klc,jl->ijc", rows, image, columns, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(jax.random.bernoulli(mirrors) & flip, part[:, ::-1], part)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _images("resized_crop", batch, jnp.floating)
        return {**batch, "x": jax.vmap(one)(x, jax.random.split(key, len(x)))}

    return transform


def cutout(size: int = 16, *, fill: Fill = None) -> Transform:
    """A square of each image is covered (DeVries and Taylor 2017).

    Its centre is one of all pixels alike, so that a part of the square may lie outside.

    Parameters
    ----------
    size : the side of the square, in pixels.
    fill : what it is covered with: zeros, one number, or one for each channel, in units of the *decoded* images.

    Returns
    -------
    A transform of batches of images x (B, H, W, C), each image with a square of its own.

    Raises
    ------
    InputError : settings out of range, when made; an x that is not (B, H, W, C), or as many numbers to fill with as
        there are no channels, when called.

    Notes
    -----
    The authors take 16 for CIFAR-10, 8 for CIFAR-100, and standardised images, where zeros are the mean colour.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((1, 8, 8, 3)), "y": jnp.array([0])}
    >>> bool(jnp.any(cutout(4)(jax.random.key(0), batch, None)["x"] == 0))
    True
    """
    checks.whole("cutout", "size", size)
    _check_fill("cutout", fill)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _images("cutout", batch, np.generic)
        inside = [
            _within(jax.random.randint(own, (len(x), 1), 0, side), size, side)
            for own, side in zip(jax.random.split(key), x.shape[1:3], strict=True)
        ]
        covered = inside[0][:, :, None, None] & inside[1][:, None, :, None]
        return {**batch, "x": jnp.where(covered, _values("cutout", fill, x), x)}

    return transform


def _within(center: jax.Array, size: int, side: int) -> jax.Array:
    """Which of so many pixels lie in a stretch of so many around a centre: from centre − ⌊size/2⌋ on."""
    first = center - size // 2
    return (jnp.arange(side) >= first) & (jnp.arange(side) < first + size)


def _images(function: str, batch: Batch, kind: Any) -> jax.Array:
    """The images of a batch."""
    needed = "images (B, H, W, C)" + (" of floats" if kind is jnp.floating else "")
    x = array_of(function, batch, "x", kind, needed)
    if x.ndim != 4:
        checks.fail(function, "x", needed, f"a {x.dtype} array of shape {x.shape}")
    return x


def _padded(image: jax.Array, p: int, fill: Any) -> jax.Array:
    """An image (H, W, C) with p pixels more on each side."""
    widths = ((p, p), (p, p), (0, 0))
    if fill is None:
        return jnp.pad(image, widths)
    if fill == "reflect":
        return jnp.pad(image, widths, mode="reflect")
    values = _values("crop", fill, image)
    inside = jnp.pad(jnp.ones(image.shape[:2], bool), widths[:2])
    return jnp.where(inside[..., None], jnp.pad(image, widths), values)


def _values(function: str, fill: Fill, x: jax.Array) -> jax.Array:
    """What to fill the channels with, in the dtype of the images."""
    values = jnp.asarray(0 if fill is None else fill, x.dtype)
    if values.ndim and values.shape != x.shape[-1:]:
        got = f"{len(values)} for images of {x.shape[-1]} channels"
        checks.fail(function, "fill", "one number, or one for each channel", got)
    return values


def _check_fill(function: str, fill: Any, other: str = "") -> None:
    if isinstance(fill, str) or (isinstance(fill, tuple | list) and not fill):
        checks.fail(function, "fill", f"one number, or one for each channel{other}", checks.shown(fill))
    for value in fill if isinstance(fill, tuple | list) else () if fill is None else (fill,):
        checks.real(function, "fill", value)


def _check_range(name: str, values: Any, most: float = math.inf) -> None:
    if not isinstance(values, tuple | list) or len(values) != 2:
        checks.fail("resized_crop", name, "two numbers, the smallest and the largest", checks.shown(values))
    for value in values:
        checks.positive("resized_crop", name, value)
    if not values[0] <= values[1] <= most:
        what = "the smallest, then the largest" + (f", at most {most:g}" if most < math.inf else "")
        checks.fail("resized_crop", name, what, f"{values[0]:g} and {values[1]:g}")


def _part(
    key: jax.Array, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The top, the left, the height and the width of a random part of an image, in whole pixels."""
    areas, ratios, tops, lefts = jax.random.split(key, 4)
    uniform = functools.partial(jax.random.uniform, shape=(ATTEMPTS,))
    area = height * width * uniform(areas, minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(uniform(ratios, minval=math.log(ratio[0]), maxval=math.log(ratio[1])))
    w, h = (jnp.round(jnp.sqrt(size)).astype(jnp.int32) for size in (area * aspect, area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, found = jnp.argmax(fits), jnp.any(fits)
    own = width / height
    within = min(max(own, ratio[0]), ratio[1])
    # the largest part within the ratios: narrower than the image, or lower
    central_w = width if own <= within else max(1, min(width, round(height * within)))
    central_h = height if own >= within else max(1, min(height, round(width / within)))
    h, w = jnp.where(found, h[first], central_h), jnp.where(found, w[first], central_w)
    top = jnp.where(found, jax.random.randint(tops, (), 0, height - h + 1), (height - h) // 2)
    left = jnp.where(found, jax.random.randint(lefts, (), 0, width - w + 1), (width - w) // 2)
    return top, left, h, w


def _interpolation(start: jax.Array, size: jax.Array, whole: int, dtype: Any) -> jax.Array:
    """The matrix that magnifies `size` pixels from `start` on to all pixels of a side, (whole, whole), linearly.

    Pixels are squares: the centre of output i is at start + (i + ½) size / whole − ½, and never beyond the part.
    """
    at = (jnp.arange(whole) + 0.5) * size / whole - 0.5
    at = start + jnp.clip(at, 0, size - 1)
    weights: jax.Array = jnp.maximum(0, 1 - jnp.abs(at[:, None] - jnp.arange(whole)))
    return weights.astype(dtype)

"""Encoded images as bytes of pixels: oriented, of one size, in colour or grey."""

import io
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data.archives import check_bytes

Colors = Literal["rgb", "grey"]
Size = int | tuple[int, int] | None
"""Height and width; one number for both; None where all images have the same."""

Decode: TypeAlias = Callable[[Batch], Batch]


class Encoded(NamedTuple):
    """An image as it is stored: bytes, or a file; and what it is called in messages."""

    name: str
    source: bytes | Path


class Form(NamedTuple):
    """What images are made to be.

    Attributes
    ----------
    size : height and width, or None for those that the first image has and all must have.
    colors : "rgb" or "grey".
    """

    size: tuple[int, int] | None
    colors: Colors

    @property
    def channels(self) -> int:
        """C."""
        return 3 if self.colors == "rgb" else 1

    @classmethod
    def of(cls, data: str, size: Size, colors: Colors) -> "Form":
        """From settings.

        Raises
        ------
        InputError
            A size below 1, other colours.
        """
        checks.one_of(f"data {data}", "colors", colors, ("rgb", "grey"))
        if size is None:
            return cls(None, colors)
        both = (size, size) if isinstance(size, int) else tuple(size)
        if len(both) != 2:
            checks.fail(f"data {data}", "size", "a whole number, or a height and a width", checks.shown(size))
        height, width = (checks.whole(f"data {data}", "size", side) for side in both)
        return cls((height, width), colors)


def stacked(data: str, images: Iterable[Encoded], count: int, form: Form) -> np.ndarray:
    """Images as (N, H, W, C) bytes, C = 3 or 1.

    An image is turned as its EXIF data say. What is transparent is laid over white. 16 bits of grey become 8. With a
    size the largest part in its middle that has the right proportions is resized (bicubic, with antialiasing).

    Parameters
    ----------
    data : str
        Of the data set, for messages.
    images : iterable of Encoded
        One after another, so that no two need be in memory.
    count : int
        N.
    form : Form
        What they are made to be.

    Raises
    ------
    InputError
        An image that is damaged, animated, or of pixels that are no bytes; without a size, images of different ones;
        more of them than fit into memory.
    """
    pixels = np.empty((0, 0, 0, 0), np.uint8)
    first = ""
    if form.size is not None:
        _check_room(data, (count, *form.size, form.channels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of odd images, and of large ones
        for row, image in enumerate(images):
            array = decoded(data, image, form)
            if not row:
                first = image.name
                _check_room(data, (count, *array.shape))
                pixels = np.empty((count, *array.shape), np.uint8)
            if array.shape != pixels.shape[1:]:
                sizes = [f"{height} × {width}" for height, width, _ in (pixels.shape[1:], array.shape)]
                got = f"{sizes[0]} pixels of {first} and {sizes[1]} of {image.name}"
                checks.fail(f"data {data}", "images", "all of one size", got, "Set size.")
            pixels[row] = array
    return pixels


def _check_room(data: str, shape: tuple[int, ...]) -> None:
    """Fail where bytes of this shape do not fit into memory."""
    check_bytes(f"data {data}", "images", int(np.prod(shape, dtype=float)), "Set a smaller size.")


def decoded(data: str, image: Encoded, form: Form) -> np.ndarray:
    """One image as (H, W, C) bytes; see `stacked`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    where, what = f"data {data}", f"image {image.name}"
    source = image.source if isinstance(image.source, Path) else io.BytesIO(image.source)
    try:
        with Image.open(source) as opened:
            if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":  # a photograph and its previews
                checks.fail(where, what, "a single picture", f"one of {getattr(opened, 'n_frames', 1)} frames",
                            "Save one frame of it, or remove it.")  # fmt: skip
            picture = _in_bytes(where, what, ImageOps.exif_transpose(opened))
    except checks.InputError:
        raise
    except UnidentifiedImageError:
        checks.fail(where, what, "an image", "a file of another kind, or a damaged one", "Remove or replace it.")
    except (Exception, Image.DecompressionBombError) as error:  # damaged images fail in a dozen ways
        got = f"a damaged one ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
        checks.fail(where, what, "a whole image", got, "Remove or replace it.")
    picture = picture.convert("RGB" if form.colors == "rgb" else "L")
    if form.size is not None:
        picture = ImageOps.fit(picture, form.size[::-1], method=Image.Resampling.BICUBIC)
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def _in_bytes(where: str, what: str, picture: Any) -> Any:
    """A picture of 8 bits a channel, without transparency."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if picture.mode in ("I", "F"):
        kind = "32-bit" if picture.mode == "I" else "real-valued"
        checks.fail(where, what, "of 8 or 16 bits a channel", f"one of {kind} pixels", "Save it with 8 bits.")
    if not picture.has_transparency_data:
        return picture.convert("RGB") if picture.mode != "L" else picture
    seen = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def channel_moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the deviation of each channel in units of 255, exact, whatever the number of bytes.

    Examples
    --------
    >>> channel_moments(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    (array([0.5]), array([0.5]))
    """
    levels, channels = np.arange(256) / 255, pixels.shape[-1]
    counts = np.zeros((channels, 256))
    for image in pixels:
        for channel in range(channels):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    return mean, np.sqrt(np.sum(shares * (levels - mean[:, None]) ** 2, axis=1))


def standardizing(mean: np.ndarray, deviation: np.ndarray) -> Decode:
    """Decode bytes to channels less their mean, in units of their deviation; a channel that does not vary becomes 0."""
    inverse = 1 / np.where(deviation == 0, 1, deviation)
    # Of the rank of a batch, so that nothing is promoted
    shift, scale = (a.astype(np.float32).reshape(1, 1, 1, -1) for a in (mean, inverse))

    def decode(batch: Batch) -> Batch:
        x = batch["x"].astype(jnp.float32) / 255
        return {"x": (x - shift) * scale, "y": batch["y"]}

    return decode


def as_shares(batch: Batch) -> Batch:
    """Decode bytes to numbers from 0 to 1."""
    return {"x": batch["x"].astype(jnp.float32) / 255, "y": batch["y"]}

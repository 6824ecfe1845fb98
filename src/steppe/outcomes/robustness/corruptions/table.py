"""All corruptions by name, and one entry to them; and the published arrays."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from steppe.core import arrays, checks
from steppe.outcomes.robustness.corruptions import blur, colour, digital, noise

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

CORRUPTIONS: Mapping[str, Corruption] = {
    function.__name__: function
    for function in (
        noise.gaussian_noise, noise.shot_noise, noise.impulse_noise, noise.speckle_noise,
        blur.gaussian_blur, blur.glass_blur, blur.defocus_blur, blur.motion_blur, blur.zoom_blur,
        colour.fog, colour.brightness, colour.contrast, colour.saturate,
        digital.pixelate, digital.jpeg_compression, digital.elastic_transform,
    )
}  # fmt: skip
"""Sixteen of the nineteen published ones: frost, snow and spatter need photographs or drawings."""

LEVELS = 5

CHANNELS = (1, 3, 4)
"""Of grey and of coloured images, and of such with transparency."""


class CorruptImages(NamedTuple):
    """Images of one corruption at one level.

    Attributes
    ----------
    name : str
    level : int
        From 1 to 5.
    x : np.ndarray
        (N, H, W, C) bytes.
    y : np.ndarray
        (N,) labels.
    """

    name: str
    level: int
    x: np.ndarray
    y: np.ndarray


def corrupt(images: Any, name: str, level: int, *, seed: int = 0) -> np.ndarray:
    """Images with one of sixteen corruptions, at one of the five levels published for CIFAR.

    Parameters
    ----------
    images : array
        (N, H, W, C) of bytes, or of floats from 0 to 1; C is 1 or 3.
    name : str
        One of `CORRUPTIONS`.
    level : int
        From 1, mild, to 5.
    seed : int
        Of what is drawn.

    Returns
    -------
    np.ndarray
        Of the same shape and dtype; the same seed gives the same images.

    Raises
    ------
    InputError
        An unknown name or level; arrays that are no images.

    Notes
    -----
    Hendrycks and Dietterich 2019; the figures are those of their images of 32 × 32, and so are the formulas. These
    images are generated here: other draws than the published arrays, which `corrupt_images` reads, and other programs:
    OpenCV, with which those were stretched, looks places up in steps of 1/32 of a pixel, this one exactly. An accuracy
    on them is not that of CIFAR-10-C.

    Examples
    --------
    >>> import numpy as np
    >>> corrupt(np.full((1, 8, 8, 3), 0.5), "contrast", 3).round(3).max()
    np.float64(0.5)
    """
    checks.one_of("corrupt", "name", name, CORRUPTIONS)
    checks.whole("corrupt", "level", level, most=LEVELS)
    given = as_images("corrupt", images)
    random = np.random.default_rng([checks.whole("corrupt", "seed", seed, least=0), *name.encode(), level])
    whole = given.dtype == np.uint8
    found = CORRUPTIONS[name](given / 255 if whole else given.astype(np.float64), level, random).clip(0, 1)
    return np.rint(found * 255).astype(np.uint8) if whole else found.astype(given.dtype)


def as_images(function: str, images: Any) -> np.ndarray:
    """Images of bytes, or of floats from 0 to 1.

    Raises
    ------
    InputError : anything else.
    """
    found = arrays.numbers(function, "images", images)
    if found.ndim != 4 or not found.size or not (found.dtype == np.uint8 or found.dtype.kind == "f"):
        what = "images (N, H, W, C) of bytes, or of floats from 0 to 1"
        checks.fail(function, "images", what, checks.returned(found))
    if found.shape[1] in CHANNELS and found.shape[3] not in CHANNELS:
        checks.fail(function, "images", "of shape (N, H, W, C)", checks.returned(found),
                    "Put channels last: images.transpose(0, 2, 3, 1).")  # fmt: skip
    if found.dtype.kind == "f" and not (found.min() >= 0 and found.max() <= 1):
        checks.fail(function, "images", "from 0 to 1", f"values from {found.min():g} to {found.max():g}",
                    "Corrupt pixels before they are standardised.")  # fmt: skip
    return found


def corrupt_images(folder: Path | str) -> Iterator[CorruptImages]:
    """The published arrays of CIFAR-10-C or CIFAR-100-C, corruption by corruption, level by level.

    Parameters
    ----------
    folder : path
        That holds ``labels.npy`` and ``<corruption>.npy``, (5 N, 32, 32, 3) bytes each, mild images first.

    Raises
    ------
    InputError
        A folder without such arrays, or with arrays of other shapes.
    """
    place = Path(folder)
    names = sorted(path for path in place.glob("*.npy") if path.name != "labels.npy")
    if not (place / "labels.npy").is_file() or not names:
        what = "a folder with labels.npy and an array for each corruption"
        checks.fail("corrupt_images", "folder", what, checks.shown(str(folder)))
    labels = np.load(place / "labels.npy", allow_pickle=False)
    for path in names:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        count = len(images) // LEVELS
        if images.ndim != 4 or images.dtype != np.uint8 or len(images) != LEVELS * count or len(labels) < count:
            what = "(5 N, H, W, C) bytes, with N labels at least"
            checks.fail("corrupt_images", str(path), what, checks.returned(images))
        for level in range(1, LEVELS + 1):
            part = slice((level - 1) * count, level * count)
            own = labels[part] if len(labels) == len(images) else labels[:count]
            yield CorruptImages(path.stem, level, np.asarray(images[part]), own.astype(np.int32))

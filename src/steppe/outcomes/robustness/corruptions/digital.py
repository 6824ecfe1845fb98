"""Storage and shape. Images are (N, H, W, C) from 0 to 1, levels 1 to 5; the figures are those of 32 × 32 images."""

import io

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from steppe.core import checks, extras

ELASTIC = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
"""By level: how far pixels are displaced, how smoothly, and how far corners move, all in widths of the image."""


def pixelate(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Fewer pixels: made smaller by a box filter, and as large as before by the nearest pixel."""
    found = images
    for axis in (1, 2):
        size = images.shape[axis]
        few = max(int(size * (0.95, 0.9, 0.85, 0.75, 0.65)[level - 1]), 1)
        both = _box(size, few)[(2 * np.arange(size) + 1) * few // (2 * size)]
        found = np.moveaxis(np.tensordot(both, found, (1, axis)), 0, axis)
    return found


def jpeg_compression(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Stored as JPEG of low quality.

    Raises
    ------
    InputError : images of other than one or three channels; Pillow is not installed.
    """
    if images.shape[-1] not in (1, 3):
        checks.fail("jpeg_compression", "images", "of one or three channels", f"{images.shape[-1]}")
    extras.require("outcomes", "study")
    from PIL import Image

    found = np.empty_like(images)
    for image, place in zip(np.rint(images * 255).astype(np.uint8), found, strict=True):
        stored = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
            stored, "JPEG", quality=(80, 65, 58, 50, 40)[level - 1]
        )
        place[...] = np.asarray(Image.open(stored)).reshape(image.shape) / 255
    return found


def elastic_transform(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Stretched: a random affine map, and then a smooth random displacement of each pixel."""
    amount, smooth, corner = ELASTIC[level - 1]
    height, width = images.shape[1:3]
    size, found = np.array([height, width]), np.empty_like(images)
    for image, place in zip(images, found, strict=True):
        moves = random.uniform(-corner, corner, (3, 2)) * size
        field = random.uniform(-1, 1, (2, height, width))
        place[...] = displaced(affine(image, moves), field, amount * size, smooth * size)
    return found


def affine(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """An image under the affine map that moves three corners of a square in its middle, by so many rows and columns."""
    size = np.array(image.shape[:2])
    corners = size // 2 + np.array([[1, 1], [1, -1], [-1, -1]]) * (size.min() // 3)
    matrix = np.linalg.solve(np.column_stack([corners + moves, np.ones(3)]), corners)  # from where each pixel comes
    return _looked_up(image, np.einsum("dhw,de->ehw", _grid(size), matrix[:2]) + matrix[2][:, None, None], "mirror")


def displaced(image: np.ndarray, field: np.ndarray, amount: np.ndarray, smooth: np.ndarray) -> np.ndarray:
    """An image whose pixels come from places beside them: a field (2, H, W), blurred and enlarged."""
    blurred = ndimage.gaussian_filter(field, (0, *smooth), mode="reflect", truncate=3)
    return _looked_up(image, _grid(np.array(image.shape[:2])) + blurred * amount[:, None, None], "reflect")


def _grid(size: np.ndarray) -> np.ndarray:
    """The row and the column of each pixel, (2, H, W)."""
    return np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")).astype(np.float64)


def _looked_up(image: np.ndarray, source: np.ndarray, mode: str) -> np.ndarray:
    """The colours at places between pixels, interpolated linearly."""
    channels = [ndimage.map_coordinates(channel, source, order=1, mode=mode) for channel in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1)


def _box(size: int, few: int) -> np.ndarray:
    """The matrix that makes so few means of whole pixels of so many, (few, size): a box filter as Pillow's."""
    scale = size / few
    centres = (np.arange(few) + 0.5) * scale
    away = (np.arange(size)[None] + 0.5 - centres[:, None]) / scale
    inside = ((away > -0.5) & (away <= 0.5)).astype(np.float64)
    result: np.ndarray = inside / inside.sum(axis=1, keepdims=True)
    return result

"""Blurs. Images are (N, H, W, C) from 0 to 1, levels 1 to 5; the figures are those of 32 × 32 images."""

import numpy as np
from numpy.random import Generator
from scipy import ndimage


def gaussian_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """A Gaussian of few pixels."""
    return _blurred(images, (0.4, 0.6, 0.7, 0.8, 1.0)[level - 1])


def glass_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Frosted glass: pixels change places with neighbours, between two blurs."""
    sigma, reach, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[level - 1]
    found, every = _blurred(images, sigma), np.arange(len(images))
    for _ in range(rounds):
        for row in range(images.shape[1] - reach - 1, reach - 1, -1):
            for column in range(images.shape[2] - reach - 1, reach - 1, -1):
                down, right = random.integers(-reach, reach, (2, len(images)))
                near = every, row + down, column + right
                here = found[:, row, column].copy()
                found[:, row, column], found[near] = found[near].copy(), here
    return _blurred(found, sigma)


def defocus_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Out of focus: a disk whose edge is smoothed."""
    radius, sigma = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[level - 1]
    offsets = np.arange(-3, 4)
    disk = (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(np.float64)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    edge /= edge.sum()
    kernel = ndimage.convolve(disk / disk.sum(), edge[:, None] * edge[None], mode="constant")
    result: np.ndarray = ndimage.convolve(images, kernel[None, :, :, None], mode="mirror")
    return result


def motion_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """A camera that moved: along one direction an image, half a Gaussian."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[level - 1]
    angles = random.uniform(-45, 45, len(images))
    return np.stack([moved(image, radius, sigma, angle) for image, angle in zip(images, angles, strict=True)])


def moved(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """The mean of pixels along a direction, in degrees below the rows, with the weights of half a Gaussian.

    Each place along it is the nearest pixel, as in ImageMagick, whose function made the published images; beyond the
    edge stands the last pixel.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, right = (
        np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle)))
    )
    found = np.zeros_like(image)
    for weight, row, column in zip(weights / weights.sum(), down, right, strict=True):
        rows, columns = (
            np.clip(np.arange(n) + by, 0, n - 1) for n, by in zip(image.shape[:2], (row, column), strict=True)
        )
        found += weight * image[rows[:, None], columns[None]]
    return found


ZOOMS = tuple(np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26))
"""As published, NumPy's rounding included: up to 1.06, 1.11, 1.15, 1.20 and 1.25."""


def zoom_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """A camera that zoomed: the mean of the image and of enlargements of its centre."""
    found = images.copy()
    for zoom in ZOOMS[level - 1]:
        rows, columns = (_enlarged(size, zoom) for size in images.shape[1:3])
        found += _rows(_rows(images, rows, 1), columns, 2)
    result: np.ndarray = found / (len(ZOOMS[level - 1]) + 1)
    return result


def _enlarged(size: int, zoom: float) -> np.ndarray:
    """From where the pixels come: the middle of the enlargement of a middle part in whole pixels, whose ends stay."""
    part = int(np.ceil(size / zoom))
    whole = round(part * zoom)
    places = (size - part) // 2 + ((whole - size) // 2 + np.arange(size)) * ((part - 1) / max(whole - 1, 1))
    result: np.ndarray = np.minimum(places, size - 1)
    return result


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    found: np.ndarray = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    return found


def _rows(images: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Images at places between their pixels along an axis, interpolated linearly."""
    first = np.clip(np.floor(places).astype(int), 0, images.shape[axis] - 1)
    after = np.minimum(first + 1, images.shape[axis] - 1)
    share = (places - first).reshape([-1 if a == axis else 1 for a in range(4)])
    result: np.ndarray = (1 - share) * np.take(images, first, axis) + share * np.take(images, after, axis)
    return result

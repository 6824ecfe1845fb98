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
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    angles = np.deg2rad(random.uniform(-45, 45, len(images)))
    found = np.zeros_like(images)
    weights = weights[weights > NEGLIGIBLE]
    for place, weight in enumerate(weights / weights.sum()):
        for at, angle in enumerate(angles):
            move = (place * np.sin(angle), place * np.cos(angle), 0)
            found[at] += weight * ndimage.shift(images[at], move, order=1, mode="nearest")
    return found


def zoom_blur(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """A camera that zoomed: the mean of the image and of enlargements of its centre."""
    steps = 1 + 0.01 * np.arange((5, 10, 15, 20, 25)[level - 1] + 1)
    height, width = images.shape[1:3]
    found = images.copy()
    for zoom in steps:
        rows, columns = ((np.arange(n) - (n - 1) / 2) / zoom + (n - 1) / 2 for n in (height, width))
        found += _rows(_rows(images, rows, 1), columns, 2)
    result: np.ndarray = found / (len(steps) + 1)
    return result


NEGLIGIBLE = 1e-6
"""A share of the largest weight that no pixel shows."""


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

"""Light and colour. Images are (N, H, W, C) from 0 to 1, levels 1 to 5; the figures are those of 32 × 32 images."""

import numpy as np
from numpy.random import Generator

from steppe.core import checks


def brightness(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Too bright: the value of HSV, which is the largest channel, is raised; hue and saturation stay."""
    value = images.max(axis=-1, keepdims=True)
    raised = np.minimum(value + (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1], 1)
    result: np.ndarray = np.where(value > 0, images * raised / np.where(value > 0, value, 1), raised)
    return result


def contrast(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Less contrast: nearer to the mean of each channel."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    result: np.ndarray = (images - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[level - 1] + mean
    return result


def saturate(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Another saturation of HSV, a S + b; what has no hue gets that of red.

    Raises
    ------
    InputError : images without three channels.
    """
    if images.shape[-1] != 3:
        checks.fail("saturate", "images", "of three channels", f"{images.shape[-1]}", "Leave it out for grey images.")
    factor, more = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[level - 1]
    value = images.max(axis=-1, keepdims=True)
    away = value - images  # V S where a channel is the smallest
    most = away.max(axis=-1, keepdims=True)
    hued = np.where(most > 0, away / np.where(most > 0, most, 1), np.array([0.0, 1.0, 1.0]))
    saturation = np.clip(factor * most / np.where(value > 0, value, 1) + more, 0, 1)
    result: np.ndarray = value * (1 - saturation * hued)
    return result


def fog(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Fog: a plasma fractal is added, and all scaled back to the range of the image."""
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[level - 1]
    count, height, width = images.shape[:3]
    size = 1 << max(max(height, width) - 1, 1).bit_length()
    plasma = _plasma(count, size, decay, random)[:, :height, :width, None]
    most = images.max(axis=(1, 2, 3), keepdims=True)
    result: np.ndarray = (images + amount * plasma) * most / (most + amount)
    return result


def _plasma(count: int, size: int, decay: float, random: Generator) -> np.ndarray:
    """Fractals from 0 to 1 by midpoint displacement on a torus, (count, size, size).

    The displacement at each scale is uniform, its width the square of what `decay` divides, as it is in the published
    images.
    """
    found, step, wide = np.zeros((count, size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        draw = lambda like, wide=wide: wide * random.uniform(-wide, wide, like.shape)  # noqa: E731
        corners = found[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        found[:, half::step, half::step] = (pairs + np.roll(pairs, -1, 2)) / 4 + draw(corners)
        middles = found[:, half::step, half::step]
        across = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        found[:, ::step, half::step] = across / 4 + draw(corners)
        down = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        found[:, half::step, ::step] = down / 4 + draw(corners)
        step, wide = half, wide / decay
    found -= found.min(axis=(1, 2), keepdims=True)
    result: np.ndarray = found / found.max(axis=(1, 2), keepdims=True)
    return result

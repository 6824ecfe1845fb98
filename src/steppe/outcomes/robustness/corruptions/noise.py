"""Noise of pixels. Images are (N, H, W, C) from 0 to 1, levels 1 to 5; the figures are those of 32 × 32 images."""

import numpy as np
from numpy.random import Generator


def gaussian_noise(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Normal noise: x + N(0, c²)."""
    result: np.ndarray = images + random.normal(scale=(0.04, 0.06, 0.08, 0.09, 0.10)[level - 1], size=images.shape)
    return result


def shot_noise(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Noise of few photons: Poisson(c x)/c."""
    count = (500, 250, 100, 75, 50)[level - 1]
    result: np.ndarray = random.poisson(images * count) / count
    return result


def impulse_noise(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Salt and pepper: a share of all values is 0 or 1."""
    hit = random.random(images.shape) < (0.01, 0.02, 0.03, 0.05, 0.07)[level - 1]
    result: np.ndarray = np.where(hit, random.integers(0, 2, images.shape), images)
    return result


def speckle_noise(images: np.ndarray, level: int, random: Generator) -> np.ndarray:
    """Noise in proportion: x + x N(0, c²)."""
    result: np.ndarray = images * (1 + random.normal(scale=(0.06, 0.1, 0.12, 0.16, 0.2)[level - 1], size=images.shape))
    return result

"""Shifts and mirrors of images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data.transforms.base import Transform, array_of


def crop(padding: int = 4, *, flip: bool = True) -> Transform:
    """Each image is shifted by up to p pixels either way, and mirrored left to right with chance ½.

    Padded on all four sides by p rows and columns of zeros, then cut to its own size at one of (2p + 1)² places.

    Parameters
    ----------
    padding : p ≥ 0, in pixels.
    flip : whether to mirror.

    Returns
    -------
    A transform of batches of images x (B, H, W, C), each image with a shift and a mirroring of its own.

    Raises
    ------
    InputError : settings out of range, when made; an x that is not (B, H, W, C), when called.

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

    def one(image: jax.Array, place: jax.Array, mirrored: jax.Array) -> jax.Array:
        cut = jax.lax.dynamic_slice(jnp.pad(image, ((p, p), (p, p), (0, 0))), (*place, 0), image.shape)
        return jnp.where(mirrored, cut[:, ::-1], cut)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = array_of("crop", batch, "x", np.generic, "images (B, H, W, C)")
        if x.ndim != 4:
            checks.fail("crop", "x", "images (B, H, W, C)", f"a {x.dtype} array of shape {x.shape}")
        places, mirrors = jax.random.split(key)
        place = jax.random.randint(places, (len(x), 2), 0, 2 * p + 1)
        mirrored = jax.random.bernoulli(mirrors, 0.5, (len(x),)) & flip
        return {**batch, "x": jax.vmap(one)(x, place, mirrored)}

    return transform

"""A small convolutional network."""

import itertools
from typing import Any

import jax
from flax import nnx

from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts
from steppe.models.zoo.parts import Normalization


class Convolutional(nnx.Module):
    """Stages of a convolution, normalisation, ReLU and pooling; then dense layers."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        outputs: int,
        *,
        kernel: int,
        normalization: Normalization | None,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        height, width, first = shape
        pairs = list(itertools.pairwise((first, *channels)))
        is_plain = normalization is None
        self.convolutions = nnx.List([parts.convolution(i, o, kernel, rngs, use_bias=is_plain) for i, o in pairs])
        self.norms = nnx.List([parts.normalize(normalization, o, rngs) for _, o in pairs])
        flat = (height >> len(channels)) * (width >> len(channels)) * channels[-1]
        widths = itertools.pairwise((flat, *hidden, outputs))
        self.dense = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in widths])
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = parts.halve(jax.nn.relu(norm(convolution(x))))
        x = x.reshape(len(x), -1)
        for layer in list(self.dense)[:-1]:
            x = self.dropout(jax.nn.relu(layer(x)), deterministic=rngs is None, rngs=rngs)
        return self.dense[-1](x)


def convolutional(
    shape: tuple[int, ...],
    classes: int,
    *,
    channels: tuple[int, ...] = (32, 64),
    hidden: tuple[int, ...] = (128,),
    kernel: int = 3,
    normalization: Normalization | None = None,
    dropout: float = 0.0,
) -> Network:
    """A small convolutional network: stages that halve the image, then dense layers.

    Parameters
    ----------
    shape : tuple of int
        Of one image, (H, W, C).
    classes : int
        K, with one logit for two classes.
    channels : tuple of int
        Of each stage: a convolution, normalisation if asked for, ReLU, and the largest of each 2 × 2 pixels.
    hidden : tuple of int
        Widths of the dense layers before the last, with ReLU.
    kernel : int
        Pixels along each side of a convolution, odd.
    normalization : str, optional
        "batch" or "group", see `mlp`; convolutions then have no biases.
    dropout : float
        Chance of zeroing a hidden unit of a dense layer in training.

    Returns
    -------
    Network
        Kernels of convolutions are drawn by He's normal rule, of dense layers by LeCun's; biases are zero.

    Raises
    ------
    InputError
        Examples that are no images, or too small; sizes below 1; an even kernel; dropout outside [0, 1).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = convolutional((8, 8, 1), 10, channels=(4, 8), hidden=())
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 8, 8, 1))).shape
    (5, 10)
    """
    parts.check_sizes("convolutional", channels=channels, kernel=kernel)
    if hidden:
        parts.check_sizes("convolutional", hidden=hidden)
    parts.check_kernel("convolutional", kernel)
    parts.check_options("convolutional", dropout=dropout, normalization=normalization)
    image, outputs = parts.image_shape("convolutional", shape, halvings=len(channels)), logits(classes)
    settings: Any = {"kernel": kernel, "normalization": normalization, "dropout": dropout}
    return from_factory(lambda rngs: Convolutional(image, channels, hidden, outputs, **settings, rngs=rngs))

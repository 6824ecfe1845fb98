"""Residual networks for small images."""

import jax
from flax import nnx

from steppe.core import checks
from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts
from steppe.models.zoo.parts import Normalization


class Block(nnx.Module):
    """Two convolutions, and the way around them: as it is, or a convolution of one pixel where shapes differ."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, normalization: Normalization, zero_scale: bool, *, rngs: nnx.Rngs
    ):
        self.first = parts.convolution(inputs, outputs, 3, rngs, stride=stride)
        self.first_norm = parts.normalize(normalization, outputs, rngs)
        self.second = parts.convolution(outputs, outputs, 3, rngs)
        self.second_norm = parts.normalize(normalization, outputs, rngs, zero_scale=zero_scale)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else parts.convolution(inputs, outputs, 1, rngs, stride=stride)
        self.shortcut_norm = None if same else parts.normalize(normalization, outputs, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features (B, H/stride, W/stride, outputs)."""
        y = jax.nn.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.relu(x + y)


class ResNet(nnx.Module):
    """A stem, stages of blocks, the mean over pixels, a dense layer."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        outputs: int,
        normalization: Normalization,
        zero_scale: bool,
        *,
        stem_stride: int,
        rngs: nnx.Rngs,
    ):
        self.stem = parts.convolution(inputs, widths[0], 3, rngs, stride=stem_stride)
        self.stem_norm = parts.normalize(normalization, widths[0], rngs)
        made, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for place in range(count):
                stride = 2 if stage and not place else 1
                made.append(Block(before, width, stride, normalization, zero_scale, rngs=rngs))
                before = width
        self.blocks = nnx.List(made)
        self.head = nnx.Linear(before, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, K)."""
        x = jax.nn.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(axis=(1, 2)))


def resnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    normalization: Normalization = "batch",
    zero_scale: bool = False,
    stem_stride: int | None = None,
) -> Network:
    """A residual network with the stem for small images, a convolution of 3 × 3; ResNet-18 unless asked otherwise.

    Parameters
    ----------
    shape : tuple of int
        Of one image, (H, W, C).
    classes : int
        K, with one logit for two classes.
    widths : tuple of int
        Channels of each stage; each stage but the first halves the image.
    blocks : tuple of int
        Blocks of each stage, two convolutions each.
    normalization : str
        "batch" (see `mlp`) or "group", which has no state.
    zero_scale : bool
        Whether the last normalisation of a block begins with scales of zero, so that each block begins as the
        identity (Goyal et al. 2017).
    stem_stride : int, optional
        Of the first convolution, 1 unless said otherwise. With 2 it halves the image, and a network takes a quarter of
        the time.

    Returns
    -------
    Network
        11,173,962 parameters with ten classes, 11,220,132 with a hundred, of colour images. Convolutions are drawn by
        He's normal rule over their outputs (He et al. 2015), the dense layer by LeCun's.

    Raises
    ------
    InputError
        Examples that are no images, or too small; sizes below 1; widths and blocks of different lengths.

    Notes
    -----
    He et al. (2016), "Deep residual learning for image recognition".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = resnet((8, 8, 3), 10, widths=(4, 8), blocks=(1, 1))
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 8, 8, 3))).shape
    (5, 10)
    """
    parts.check_sizes("resnet", widths=widths, blocks=blocks)
    if len(widths) != len(blocks):
        checks.fail("model resnet", "blocks", f"as many numbers as widths, {len(widths)}", len(blocks))
    parts.check_options("resnet", normalization=normalization)
    stride = 1 if stem_stride is None else checks.whole("model resnet", "stem_stride", stem_stride)
    halvings = len(widths) - 1 + (stride - 1).bit_length()
    channels, outputs = parts.image_shape("resnet", shape, halvings=halvings)[2], logits(classes)
    return from_factory(
        lambda rngs: ResNet(channels, widths, blocks, outputs, normalization, zero_scale, stem_stride=stride, rngs=rngs)
    )

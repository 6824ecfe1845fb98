"""VGG networks for small images."""

import itertools

import jax
from flax import nnx

from steppe.core import checks
from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts
from steppe.models.zoo.parts import Normalization


class VGG(nnx.Module):
    """Stages of convolutions, each pooled; then dense layers."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        convolutions: tuple[int, ...],
        hidden: tuple[int, ...],
        outputs: int,
        normalization: Normalization | None,
        *,
        rngs: nnx.Rngs,
    ):
        self.counts = convolutions
        channels = [width for width, count in zip(widths, convolutions, strict=True) for _ in range(count)]
        pairs = list(itertools.pairwise([inputs, *channels]))
        self.convolutions = nnx.List([parts.convolution(i, o, 3, rngs, use_bias=True) for i, o in pairs])
        self.norms = nnx.List([parts.normalize(normalization, o, rngs) for _, o in pairs])
        dense = itertools.pairwise([channels[-1], *hidden, outputs])
        self.dense = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in dense])
        self.dense_norms = nnx.List([parts.normalize(normalization, width, rngs) for width in hidden])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (B, K)."""
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for count in self.counts:
            for convolution, norm in itertools.islice(layers, count):
                x = jax.nn.relu(norm(convolution(x)))
            x = parts.halve(x)
        x = x.mean(axis=(1, 2))
        for layer, norm in zip(self.dense, self.dense_norms, strict=False):
            x = jax.nn.relu(norm(layer(x)))
        return self.dense[-1](x)


def vgg(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512, 512),
    convolutions: tuple[int, ...] = (2, 2, 4, 4, 4),
    hidden: tuple[int, ...] = (),
    normalization: Normalization | None = "batch",
) -> Network:
    """A VGG network with the head for small images, one dense layer; VGG-19 with BatchNorm unless asked otherwise.

    Parameters
    ----------
    shape : tuple of int
        Of one image, (H, W, C).
    classes : int
        K, with one logit for two classes.
    widths : tuple of int
        Channels of each stage, which halves the image at its end.
    convolutions : tuple of int
        Convolutions of each stage.
    hidden : tuple of int
        Widths of dense layers before the last, each normalised and with ReLU.
    normalization : str, optional
        "batch" (see `mlp`) or "group"; "none" in a study's TOML, None in Python, for the original network.

    Returns
    -------
    Network
        20,040,522 parameters with ten classes, of colour images. Convolutions, which have biases, are drawn by He's
        normal rule over their outputs, dense layers by LeCun's.

    Raises
    ------
    InputError
        Examples that are no images, or too small; sizes below 1; widths and convolutions of different lengths.

    Notes
    -----
    Simonyan and Zisserman (2015), "Very deep convolutional networks for large-scale image recognition". What is left of
    the image at the end is averaged; of 32 × 32 pixels that is one.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = vgg((8, 8, 3), 10, widths=(4, 8), convolutions=(1, 2))
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 8, 8, 3))).shape
    (5, 10)
    """
    parts.check_sizes("vgg", widths=widths, convolutions=convolutions)
    if hidden:
        parts.check_sizes("vgg", hidden=hidden)
    if len(widths) != len(convolutions):
        checks.fail("model vgg", "convolutions", f"as many numbers as widths, {len(widths)}", len(convolutions))
    parts.check_options("vgg", normalization=normalization)
    channels, outputs = parts.image_shape("vgg", shape, halvings=len(widths))[2], logits(classes)
    return from_factory(lambda rngs: VGG(channels, widths, convolutions, hidden, outputs, normalization, rngs=rngs))

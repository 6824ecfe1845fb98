"""Vision transformers."""

import jax
import jax.numpy as jnp
from flax import nnx

from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts
from steppe.models.zoo.transformer import Encoder


class ViT(nnx.Module):
    """Patches and a class token, an encoder, a dense layer of the class token."""

    def __init__(
        self,
        shape: tuple[int, ...],
        count: int,
        outputs: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.patches = parts.Steps(shape, width, None, patch, rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, width)))
        sizes = {"width": width, "depth": depth, "heads": heads, "head_width": head_width, "hidden": hidden}
        self.encoder = Encoder(count + 1, **sizes, dropout=dropout, rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        x, _ = self.patches(x)
        token = jnp.broadcast_to(self.token[...], (len(x), 1, x.shape[-1])).astype(x.dtype)
        x = self.encoder(jnp.concatenate([token, x], axis=1), None, rngs)
        return self.head(x[:, 0])


def vit(
    shape: tuple[int, ...],
    classes: int,
    *,
    patch: int = 4,
    width: int = 512,
    depth: int = 6,
    heads: int = 6,
    head_width: int = 64,
    hidden: int = 256,
    dropout: float = 0.0,
) -> Network:
    """A vision transformer: an image as a sequence of patches, classified by a token of its own.

    Parameters
    ----------
    shape : tuple of int
        Of one image, (H, W, C).
    classes : int
        K, with one logit for two classes.
    patch : int
        Pixels along each side of a patch; it divides height and width.
    width : int
        Features of a patch.
    depth : int
        Layers.
    heads, head_width : int
        Of attention, and the features of each.
    hidden : int
        Width of the dense layer inside each layer.
    dropout : float
        Chance of zeroing a feature or an attention weight in training.

    Returns
    -------
    Network
        Kernels of layers are drawn by Glorot's uniform rule, positions normally with a deviation of 0.02; the class
        token begins at zero.

    Raises
    ------
    InputError
        Examples that are no images; sizes below 1; patches that do not fill the image; dropout outside [0, 1).

    Notes
    -----
    Dosovitskiy et al. (2021), "An image is worth 16x16 words". Defaults are those of Mason-Williams et al. (2026) for
    images of 32 × 32 pixels, whose network differs in small things: patches are normalised, and products of attention
    have no biases.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = vit((8, 8, 3), 10, width=8, depth=1, heads=2, head_width=4, hidden=16)
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.zeros((5, 8, 8, 3))).shape
    (5, 10)
    """
    sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads, "head_width": head_width, "hidden": hidden}
    parts.check_sizes("vit", **sizes)
    parts.check_options("vit", dropout=dropout)
    image, outputs = parts.image_shape("vit", shape), logits(classes)
    count = parts.step_count("vit", image, None, patch)
    return from_factory(lambda rngs: ViT(image, count, outputs, **sizes, dropout=dropout, rngs=rngs))

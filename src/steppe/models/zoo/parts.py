"""What several networks are made of: normalisation, convolutions, sequences, and the shapes of examples they take."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from steppe.core import checks

Normalization = Literal["batch", "group"]

Layer: TypeAlias = Callable[[jax.Array], jax.Array]

MOMENTUM = 0.9
"""What BatchNorm's statistics keep of themselves at an update."""

GROUPS = 32
"""Of GroupNorm, or as many as also divide the channels (Wu and He 2018)."""

HE = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He's normal rule for what comes before ReLU, by the outputs of a layer: as ResNets are drawn."""


def image_shape(model: str, shape: tuple[int, ...], *, halvings: int = 0) -> tuple[int, int, int]:
    """The shape of an image (H, W, C).

    Raises
    ------
    InputError
        Examples that are no images, or too small to be halved so often.
    """
    if len(shape) != 3:
        checks.fail(f"model {model}", "data", "images (height, width, channels)", f"examples of shape {tuple(shape)}",
                    "Choose a data set of images, or another model.")  # fmt: skip
    height, width, channels = shape
    if min(height, width) < 2**halvings:
        what = f"images of at least {2**halvings} pixels each way, to be halved {halvings} times"
        checks.fail(f"model {model}", "data", what, f"{height} × {width}", "Ask for fewer stages.")
    return height, width, channels


def check_sizes(model: str, **sizes: int | tuple[int, ...]) -> None:
    """Fail for a size below 1, or a list of none."""
    for name, value in sizes.items():
        if isinstance(value, int):
            checks.whole(f"model {model}", name, value)
        elif not value:
            checks.fail(f"model {model}", name, "at least one whole number", "none")
        else:
            for one in value:
                checks.whole(f"model {model}", name, one)


def check_kernel(model: str, kernel: int) -> None:
    """Fail for a kernel that is even, around which an image cannot be padded alike on both sides."""
    if kernel % 2 == 0:
        checks.fail(f"model {model}", "kernel", "odd, so that the image keeps its size", kernel)


def check_options(model: str, *, dropout: float = 0.0, normalization: str | None = None) -> None:
    """Fail for a chance of dropout outside [0, 1), or an unknown normalisation."""
    checks.real(f"model {model}", "dropout", dropout, least=0.0, most=0.999)
    if normalization is not None:
        checks.one_of(f"model {model}", "normalization", normalization, get_args(Normalization))


class BatchNorm(nnx.BatchNorm):
    """Flax's, in the dtype of what comes in: its statistics are float32, whatever the network computes in."""

    def __call__(self, x: jax.Array, *given: Any, **named: Any) -> jax.Array:
        """What comes in, normalised."""
        values: jax.Array = super().__call__(x, *given, **named).astype(x.dtype)
        return values


def normalize(kind: str | None, channels: int, rngs: nnx.Rngs, *, zero_scale: bool = False) -> Layer:
    """A layer that normalises channels, which stand last; None leaves them as they are."""
    if kind is None:
        return _unchanged
    scale = nnx.initializers.zeros if zero_scale else nnx.initializers.ones
    if kind == "batch":
        return BatchNorm(channels, momentum=MOMENTUM, scale_init=scale, rngs=rngs)
    return nnx.GroupNorm(channels, math.gcd(channels, GROUPS), scale_init=scale, rngs=rngs)


def _unchanged(x: jax.Array) -> jax.Array:
    return x


def convolution(
    inputs: int, outputs: int, size: int, rngs: nnx.Rngs, *, stride: int = 1, use_bias: bool = False
) -> nnx.Conv:
    """A convolution with zeros around the image, as many on each side, drawn by He's normal rule."""
    side = size // 2
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, padding=((side, side), (side, side)),
                    use_bias=use_bias, kernel_init=HE, rngs=rngs)  # fmt: skip


def halve(x: jax.Array) -> jax.Array:
    """The largest of each 2 × 2 pixels."""
    values: jax.Array = nnx.max_pool(x, (2, 2), strides=(2, 2))
    return values


class Steps(nnx.Module):
    """Examples as steps of features (B, T, width), and which steps count (B, T).

    Tokens are whole numbers below `vocabulary`, 0 for padding, which does not count. Other examples are projected: of
    (T, C) the features of each step, of images their patches, from left to right and from top to bottom.
    """

    def __init__(self, shape: tuple[int, ...], width: int, vocabulary: int | None, patch: int, *, rngs: nnx.Rngs):
        self.vocabulary, self.patch = vocabulary, patch
        self.inner: nnx.Linear | nnx.Embed
        if vocabulary is not None:
            self.inner = nnx.Embed(vocabulary, width, embedding_init=nnx.initializers.normal(0.02), rngs=rngs)
        else:
            features = patch * patch * shape[2] if len(shape) == 3 else shape[1]
            self.inner = nnx.Linear(features, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features of steps, and which count."""
        if self.vocabulary is not None:
            tokens = jnp.where(x == jnp.round(x), x, -1).astype(jnp.int32)
            known = (tokens >= 0) & (tokens < self.vocabulary)  # what is no token must be seen: it makes the loss NaN
            steps = self.inner(jnp.where(known, tokens, 0))
            return jnp.where(known[..., None], steps, jnp.nan), tokens != 0
        if x.ndim == 4:
            x = patches(x, self.patch)
        return self.inner(x), jnp.ones(x.shape[:2], bool)


def patches(x: jax.Array, size: int) -> jax.Array:
    """Square patches of images (B, H, W, C), as (B, H/size · W/size, size² C)."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, size * size * channels)


def step_count(model: str, shape: tuple[int, ...], vocabulary: int | None, patch: int | None) -> int:
    """How many steps an example has, see `Steps`; without `patch` the steps of an image are its rows.

    Raises
    ------
    InputError
        Examples that are no sequences; a vocabulary for what holds no tokens; patches that do not fill the image.
    """
    if vocabulary is not None:
        checks.whole(f"model {model}", "vocabulary", vocabulary, least=2)
        if len(shape) != 1:
            checks.fail(f"model {model}", "data", "tokens (length,) with a vocabulary",
                        f"examples of shape {tuple(shape)}", "Leave the vocabulary out.")  # fmt: skip
        return shape[0]
    if len(shape) not in (2, 3):
        checks.fail(f"model {model}", "data", "sequences (steps, features), images, or tokens with a vocabulary",
                    f"examples of shape {tuple(shape)}", "Say vocabulary if these are tokens.")  # fmt: skip
    if len(shape) == 2 or patch is None:
        return shape[0]
    checks.whole(f"model {model}", "patch", patch)
    if shape[0] % patch or shape[1] % patch:
        checks.fail(f"model {model}", "patch", f"a divisor of the {shape[0]} × {shape[1]} pixels", patch)
    return shape[0] // patch * (shape[1] // patch)

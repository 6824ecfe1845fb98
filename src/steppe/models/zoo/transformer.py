"""A transformer that classifies text, sequences and images; and its layers."""

import jax
import jax.numpy as jnp
from flax import nnx

from steppe.core import checks
from steppe.models.adapters.nnx import from_factory
from steppe.models.base import Network, logits
from steppe.models.zoo import parts


class Layer(nnx.Module):
    """Attention and a network of two dense layers, each after LayerNorm and added to what came in."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int, dropout: float, *, rngs: nnx.Rngs):
        xavier = nnx.initializers.xavier_uniform()
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads, width, heads * head_width, dropout_rate=dropout, decode=False, kernel_init=xavier, rngs=rngs,
            keep_rngs=False,
        )  # fmt: skip
        self.dense_norm = nnx.LayerNorm(width, rngs=rngs)
        self.inner = nnx.Linear(width, hidden, kernel_init=xavier, rngs=rngs)
        self.outer = nnx.Linear(hidden, width, kernel_init=xavier, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, mask: jax.Array | None, rngs: nnx.Rngs | None) -> jax.Array:
        """Features (B, T, width)."""
        still = rngs is None
        attended = self.attention(self.attention_norm(x), mask=mask, deterministic=still, rngs=rngs)
        x = x + self.dropout(attended, deterministic=still, rngs=rngs)
        y = self.dropout(jax.nn.gelu(self.inner(self.dense_norm(x))), deterministic=still, rngs=rngs)
        return x + self.dropout(self.outer(y), deterministic=still, rngs=rngs)


class Encoder(nnx.Module):
    """Learned positions added to steps, layers, LayerNorm."""

    def __init__(
        self,
        count: int,
        *,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        hidden: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, count, width)))
        self.layers = nnx.List([Layer(width, heads, head_width, hidden, dropout, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, mask: jax.Array | None, rngs: nnx.Rngs | None) -> jax.Array:
        """Features (B, T, width)."""
        x = self.dropout(x + self.positions[...], deterministic=rngs is None, rngs=rngs)
        for layer in self.layers:
            x = layer(x, mask, rngs)
        features: jax.Array = self.norm(x)
        return features


class Transformer(nnx.Module):
    """Steps, an encoder, the mean over the steps that count, a dense layer."""

    def __init__(
        self,
        steps: parts.Steps,
        count: int,
        outputs: int,
        *,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.steps = steps
        sizes = {"width": width, "depth": depth, "heads": heads, "head_width": width // heads, "hidden": hidden}
        self.encoder = Encoder(count, **sizes, dropout=dropout, rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits (B, K)."""
        x, counts = self.steps(x)
        mask = None if self.steps.vocabulary is None else counts[:, None, None, :]
        x = self.encoder(x, mask, rngs)
        shares = counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1)
        return self.head(jnp.sum(shares[..., None] * x, axis=1))


def transformer(
    shape: tuple[int, ...],
    classes: int,
    *,
    vocabulary: int | None = None,
    patch: int = 4,
    width: int = 128,
    depth: int = 2,
    heads: int = 4,
    hidden: int = 512,
    dropout: float = 0.0,
) -> Network:
    """A transformer encoder that classifies by the mean over its steps.

    Parameters
    ----------
    shape : tuple of int
        Of one example: tokens (T,), steps of features (T, C), or an image (H, W, C).
    classes : int
        K, with one logit for two classes.
    vocabulary : int, optional
        How many tokens there are, for examples that are tokens: whole numbers below it, 0 for padding, which counts
        for nothing. Anything else makes the loss NaN.
    patch : int
        Pixels along each side of the patches of an image, which are its steps.
    width : int
        Features of a step.
    depth : int
        Layers.
    heads : int
        Of attention; a divisor of the width.
    hidden : int
        Width of the dense layer inside each layer.
    dropout : float
        Chance of zeroing a feature or an attention weight in training.

    Returns
    -------
    Network
        Layers normalise before they compute (Xiong et al. 2020); GELU; learned positions. Kernels of layers are drawn
        by Glorot's uniform rule, embeddings and positions normally with a deviation of 0.02.

    Raises
    ------
    InputError
        Examples of another kind; sizes below 1; heads that do not divide the width; patches that do not fill the
        image; dropout outside [0, 1).

    Notes
    -----
    Vaswani et al. (2017), "Attention is all you need".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> network = transformer((6,), 2, vocabulary=20, width=8, heads=2, hidden=16)
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.array([[3, 7, 1, 0, 0, 0]])).shape
    (1, 1)
    """
    parts.check_sizes("transformer", patch=patch, width=width, depth=depth, heads=heads, hidden=hidden)
    parts.check_options("transformer", dropout=dropout)
    if width % heads:
        checks.fail("model transformer", "heads", f"a divisor of the width {width}", heads)
    count, outputs = parts.step_count("transformer", shape, vocabulary, patch), logits(classes)

    def make(rngs: nnx.Rngs) -> Transformer:
        steps = parts.Steps(shape, width, vocabulary, patch, rngs=rngs)
        return Transformer(
            steps, count, outputs, width=width, depth=depth, heads=heads, hidden=hidden, dropout=dropout, rngs=rngs
        )

    return from_factory(make)

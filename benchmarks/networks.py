"""Networks of the benchmarks, written as users write them, with Flax NNX. Each: ``(loss, params, batch)``."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import steppe
from steppe import curvature
from steppe.core import losses

Case = tuple[Callable, Any, Any]


def mlp(sizes: tuple[int, ...], batch: int) -> Case:
    """A multilayer perceptron with ReLU; sizes[-1] classes."""

    class MLP(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(sizes)])

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers[:-1]:
                x = nnx.relu(layer(x))
            return self.layers[-1](x)

    return case(MLP, normal(batch, sizes[0]), sizes[-1])


def resnet(batch: int = 32, widths: tuple[int, ...] = (16, 32, 64)) -> Case:
    """A residual network on 32 × 32 images: a stem, a block of two 3 × 3 convolutions a width, group normalisation."""

    class Block(nnx.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
            conv = lambda i, o, size, stride: nnx.Conv(i, o, (size, size), (stride, stride), use_bias=False, rngs=rngs)
            self.first, self.second = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, 1)
            self.shortcut = conv(inputs, outputs, 1, stride)
            self.norms = nnx.List([nnx.GroupNorm(outputs, num_groups=8, rngs=rngs) for _ in range(2)])

        def __call__(self, x: jax.Array) -> jax.Array:
            y = nnx.relu(self.norms[0](self.first(x)))
            return nnx.relu(self.norms[1](self.second(y)) + self.shortcut(x))

    class ResNet(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stem = nnx.Conv(3, widths[0], (3, 3), rngs=rngs)
            pairs = zip((widths[0], *widths), widths, strict=False)
            self.blocks = nnx.List([Block(i, o, 1 if i == o else 2, rngs) for i, o in pairs])
            self.head = nnx.Linear(widths[-1], 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.stem(x))
            for block in self.blocks:
                x = block(x)
            return self.head(jnp.mean(x, axis=(1, 2)))

    return case(ResNet, normal(batch, 32, 32, 3), 10)


def transformer(
    batch: int = 16,
    length: int = 64,
    width: int = 128,
    layers: int = 2,
    vocabulary: int = 512,
    dtype: Any = np.float32,
) -> Case:
    """A causal language model: embeddings, blocks of attention and GELU perceptron with layer normalisation, a head."""
    attention = nnx.dot_product_attention if dtype == np.float32 else attention_in_one_dtype

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
            self.attention = nnx.MultiHeadAttention(4, width, decode=False, attention_fn=attention, rngs=rngs)
            self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.attention(self.norms[0](x), mask=nnx.make_causal_mask(jnp.ones(x.shape[:2])))
            return x + self.down(nnx.gelu(self.up(self.norms[1](x))))

    class Transformer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            table = lambda rows: nnx.Embed(rows, width, dtype=dtype, rngs=rngs)
            self.tokens, self.places = table(vocabulary), table(length)
            self.blocks = nnx.List([Block(rngs) for _ in range(layers)])
            self.head = nnx.Linear(width, vocabulary, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = self.tokens(x) + self.places(jnp.arange(length))[None]
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return case(Transformer, np.random.default_rng(0).integers(0, vocabulary, (batch, length)), vocabulary, (length,))


def attention_in_one_dtype(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, **_: Any) -> jax.Array:
    """Attention in the dtype of its arguments: that of Flax computes its weights in float32, whatever it is given."""
    scores = jnp.einsum("...qhd,...khd->...hqk", q / q.shape[-1] ** 0.5, k)
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(q.dtype).min))
    return jnp.einsum("...hqk,...khd->...qhd", weights, v)


def case(make: Callable, x: np.ndarray, classes: int, positions: tuple[int, ...] = ()) -> Case:
    """The mean cross-entropy of a network on random labels."""
    graph, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)
    y = np.random.default_rng(1).integers(0, classes, (len(x), *positions))

    def loss(params: Any, batch: Any) -> jax.Array:
        logits = nnx.merge(graph, params, rest)(batch["x"])
        return losses.cross_entropy(logits.reshape(-1, classes), batch["y"].reshape(-1))

    return loss, params, {"x": jnp.asarray(x), "y": jnp.asarray(y)}


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def trained(loss: Callable, params: Any, batches: list[Any], updates: int) -> Any:
    """Parameters after so many updates with Adam."""
    tx = optax.adam(1e-3)

    @jax.jit
    def update(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        step, state = tx.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, step), state

    state = tx.init(params)
    for batch, _ in zip(itertools.cycle(batches), range(updates), strict=False):
        params, state = update(params, state, batch)
    return params


def directly(probes: int, **options: Any) -> Callable[..., steppe.Estimate]:
    """tr(H²) as ‖Hv‖² of probes, knowing nothing of layers: ``(loss, params, batch, key) -> Estimate``."""

    def squares(loss: steppe.Loss, params: Any, batch: Any, key: jax.Array) -> steppe.Estimate:
        return curvature.frobenius_squared(curvature.hessian(loss, params, [batch]), key, probes=probes, **options)

    return squares

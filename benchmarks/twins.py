"""The networks of `networks` in PyTorch, on the same weights, and the way between the two spaces of parameters.

Imports PyTorch: only to be imported where it is installed.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Networks: every module has the name of its twin


class MLP(nn.Module):
    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in itertools.pairwise(sizes)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class Convolution(nn.Conv2d):
    """With the padding that Flax calls SAME: where it is odd, the end gets more."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, bias: bool = False) -> None:
        missing = size - stride if size > stride else 0
        super().__init__(inputs, outputs, size, stride, padding=missing // 2, bias=bias)
        self.odd = missing % 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(x, (0, self.odd, 0, self.odd)) if self.odd else x)


class LayerNorm(nn.LayerNorm):
    """Written out: the forward derivative of the Jacobian of PyTorch's own is wrong in the weight (2.13)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


class GroupNorm(nn.GroupNorm):
    """Written out: the backward pass of PyTorch's own has no forward derivative, which curvlinops needs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        groups = x.unflatten(1, (self.num_groups, -1))
        variance, mean = torch.var_mean(groups, (2, 3, 4), correction=0, keepdim=True)
        y = ((groups - mean) / (variance + self.eps).sqrt()).flatten(1, 2)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class ResNet(nn.Module):
    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = Convolution(inputs, outputs, 3, stride), Convolution(outputs, outputs, 3)
            self.shortcut = Convolution(inputs, outputs, 1, stride)
            self.norms = nn.ModuleList([GroupNorm(8, outputs, eps=1e-6) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = functional.relu(self.norms[0](self.first(x)))
            return functional.relu(self.norms[1](self.second(y)) + self.shortcut(x))

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.stem = Convolution(3, widths[0], 3, bias=True)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.ModuleList([self.Block(i, o, 1 if i == o else 2) for i, o in pairs])
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Causal, four heads; written out, since the fused one of PyTorch has no second derivative."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.register_buffer("later", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(-3, -2) for layer in (self.query, self.key, self.value))
        scores = (q / q.shape[-1] ** 0.5) @ k.transpose(-2, -1)
        weights = scores.masked_fill(self.later, torch.finfo(x.dtype).min).softmax(-1)
        return self.out((weights @ v).transpose(-3, -2).flatten(-2))


class Transformer(nn.Module):
    """Gives logits (positions of all texts, vocabulary)."""

    class Block(nn.Module):
        def __init__(self, width: int, length: int) -> None:
            super().__init__()
            self.norms = nn.ModuleList([LayerNorm(width, eps=1e-6) for _ in range(2)])
            self.attention = Attention(width, length)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(self.norms[0](x))
            return x + self.down(functional.gelu(self.up(self.norms[1](x)), approximate="tanh"))

    def __init__(self, length: int = 64, width: int = 128, layers: int = 2, vocabulary: int = 512) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([self.Block(width, length) for _ in range(layers)])
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens(x) + self.places.weight
        for block in self.blocks:
            x = block(x)
        return self.head(x).flatten(0, 1)


# Weights


class Weight(NamedTuple):
    """What the weight of a kind of layer is called in Flax, and its layout there and back; arguments (array, shape)."""

    name: str
    out: Callable[[np.ndarray, tuple], np.ndarray]
    back: Callable[[np.ndarray, tuple], np.ndarray]


def reshaped(array: np.ndarray, shape: tuple) -> np.ndarray:
    return array.reshape(shape)


WEIGHTS: dict[type, Weight] = {
    # (inputs, outputs), either of them as (heads, width of a head), against (outputs, inputs)
    nn.Linear: Weight("kernel", lambda a, shape: a.reshape(shape[::-1]).T, lambda a, shape: a.T.reshape(shape)),
    # (height, width, inputs, outputs) against (outputs, inputs, height, width)
    Convolution: Weight("kernel", lambda a, _: a.transpose(3, 2, 0, 1), lambda a, _: a.transpose(2, 3, 1, 0)),
    GroupNorm: Weight("scale", reshaped, reshaped),
    LayerNorm: Weight("scale", reshaped, reshaped),
    nn.Embedding: Weight("embedding", reshaped, reshaped),
}
BIAS = Weight("bias", reshaped, reshaped)


class Twin:
    """A network in PyTorch with the weights of one in Flax.

    `tensors` and `tree` go from pytrees like the parameters to lists like ``module.parameters()`` and back.
    """

    def __init__(self, module: nn.Module, params: Any) -> None:
        named = jax.tree_util.tree_flatten_with_path(params)[0]
        names = [jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in named]
        self.treedef, self.shapes = jax.tree.structure(params), [leaf.shape for _, leaf in named]
        self.links: list[tuple[int, Weight, tuple]] = []
        for name, tensor in module.named_parameters():
            owner, _, last = name.rpartition(".")
            kind = BIAS if last == "bias" else WEIGHTS[type(module.get_submodule(owner))]
            self.links.append((names.index(f"{owner}.{kind.name}"), kind, tuple(tensor.shape)))
        if sorted(leaf for leaf, *_ in self.links) != list(range(len(names))):
            raise AssertionError("a parameter has no twin, or two")
        dtype = torch.float64 if named[0][1].dtype == np.float64 else torch.float32
        self.module = module.to(dtype)
        with torch.no_grad():
            for tensor, value in zip(self.module.parameters(), self.tensors(params), strict=True):
                tensor.copy_(value)

    def tensors(self, tree: Any) -> list[torch.Tensor]:
        """A pytree like the parameters as a list of tensors."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        return [torch.tensor(kind.out(leaves[at], shape).copy()) for at, kind, shape in self.links]

    def flat(self, tree: Any) -> torch.Tensor:
        """A pytree as one long tensor."""
        return torch.cat([tensor.flatten() for tensor in self.tensors(tree)])

    def tree(self, tensors: list[torch.Tensor]) -> Any:
        """A list of tensors as a pytree."""
        leaves = [None] * len(tensors)
        for tensor, (at, kind, _) in zip(tensors, self.links, strict=True):
            leaves[at] = jnp.asarray(kind.back(tensor.detach().numpy(), self.shapes[at]))
        return jax.tree.unflatten(self.treedef, leaves)

    def unflat(self, vector: np.ndarray | torch.Tensor) -> Any:
        """One long vector as a pytree."""
        dtype = next(self.module.parameters()).dtype
        parts = torch.as_tensor(vector, dtype=dtype).split([int(np.prod(shape)) for *_, shape in self.links])
        return self.tree([part.reshape(shape) for part, (*_, shape) in zip(parts, self.links, strict=True)])


def batch(arrays: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as (x, y), images with their channels first, the labels of all positions in one row."""
    x, y = np.asarray(arrays["x"]), np.asarray(arrays["y"], np.int64)
    x = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.int64)
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).contiguous(), torch.tensor(y.ravel())

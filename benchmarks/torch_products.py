"""What a Hessian-vector product of a convolutional network from PyTorch costs, beside PyTorch's own.

python benchmarks/torch_products.py [NAME …]    (a Markdown table)

One thread, processor time, interleaved rounds; lowest quartiles, which a busy machine moves
least. PyTorch's product is the gradient of ⟨gradient, v⟩; the graph of the
gradient is built each time, as its users do.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")

import jax
import jax.numpy as jnp
import torch

import steppe
from steppe import curvature

ROUNDS = 15


class Block(torch.nn.Module):
    """A block of a residual network."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = torch.nn.BatchNorm2d(outputs)
        self.second = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = torch.nn.BatchNorm2d(outputs)
        self.shortcut = torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features."""
        y = self.second_norm(self.second(torch.relu(self.first_norm(self.first(x)))))
        return torch.relu(y + self.shortcut(x))


def head(width: int) -> list[torch.nn.Module]:
    """From features to ten classes."""
    return [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, 10)]


def resnet(*widths: int) -> torch.nn.Module:
    """A residual network of one block a width."""
    pairs = zip((3, *widths[:-1]), widths, strict=True)
    blocks = [Block(inputs, outputs, 1 if inputs == 3 else 2) for inputs, outputs in pairs]
    return torch.nn.Sequential(*blocks, *head(widths[-1]))


def separable() -> torch.nn.Module:
    """Depthwise convolutions of 3 × 3 and convolutions of one pixel, as MobileNets have them."""
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, 32, 3, 2, 1), torch.nn.ReLU()]
    for _ in range(2):
        layers += [torch.nn.Conv2d(32, 32, 3, 1, 1, groups=32), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(32, 32, 1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, *head(32))


NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "residual, 16-32-64, 32 images of 32 × 32": (lambda: resnet(16, 32, 64), (32, 3, 32, 32)),
    "residual, 64-128, 8 images of 32 × 32": (lambda: resnet(64, 128), (8, 3, 32, 32)),
    "depthwise, 32 channels, 32 images of 32 × 32": (separable, (32, 3, 32, 32)),
}


def seconds(function: Callable[[], Any]) -> float:
    """Processor time of a call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def compare(name: str) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module, x = make().eval(), torch.randn(shape)
    y = torch.randint(0, 10, shape[:1])
    trained = steppe.from_torch(module, x)
    loss = steppe.losses.of(trained.apply, steppe.losses.cross_entropy)
    batch = {"x": jnp.asarray(x.numpy()), "y": jnp.asarray(y.numpy(), jnp.int32)}
    operator = curvature.hessian(loss, trained.params, batch)
    parameters = list(module.parameters())
    vector = jax.tree.map(jnp.ones_like, trained.params)
    ours = operator.matvec  # compiled, with the parameters and the batch as arguments

    def theirs() -> Any:
        value = torch.nn.functional.cross_entropy(module(x), y)
        slopes = torch.autograd.grad(value, parameters, create_graph=True)
        return torch.autograd.grad(sum(s.sum() for s in slopes), parameters)

    def product() -> Any:
        return jax.block_until_ready(ours(vector))

    product(), theirs()
    pairs = [(seconds(product), seconds(theirs)) for _ in range(ROUNDS)]
    mine, other = (sorted(column)[ROUNDS // 4] for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    spread = f"{mine / other:.2f} ({ratios[ROUNDS // 4]:.2f}–{ratios[-1 - ROUNDS // 4]:.2f})"
    return f"| {name} | {1e3 * other:.0f} | {1e3 * mine:.0f} | {spread} |"


def main() -> None:
    torch.set_num_threads(1)
    print("| network | PyTorch, ms | Steppe, ms | Steppe over PyTorch |")
    print("|---|---|---|---|", flush=True)
    for name in NETWORKS:
        if not sys.argv[1:] or any(word in name for word in sys.argv[1:]):
            print(compare(name), flush=True)


if __name__ == "__main__":
    main()

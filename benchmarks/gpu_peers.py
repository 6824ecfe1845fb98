"""How does measuring a ResNet-18 compare with curvlinops on the same card? Needs PyTorch. Named explicitly."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import curvlinops
import jax
import jax.numpy as jnp
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

import gpu_training
import timing
from steppe import curvature

PROBES, EIGENVALUES = 16, 5

Ways = dict[str, Callable[[], Any]]


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for part in (torch.backends.cudnn, torch.backends.cuda.matmul):
        part.allow_tf32 = False  # as Steppe measures
    ours, theirs = steppe_ways(quick), curvlinops_ways(quick, device)
    pairs = [(f"Steppe: {way}", f"curvlinops: {way}") for way in ours]
    firsts, runs = {}, {}
    for who, ways in (("Steppe", ours), ("curvlinops", theirs)):
        for way, run in ways.items():
            firsts[f"{who}: {way}"] = timing.seconds(run)
            runs[f"{who}: {way}"] = run
            print(who, way, firsts[f"{who}: {way}"], flush=True)
    times = timing.interleaved(runs, 1 if quick else 5, warm=True)
    rows = [
        {"quantity": mine.partition(": ")[2], "Steppe, ms": timing.median(times, mine),
         "curvlinops, ms": timing.median(times, other), "curvlinops over Steppe": timing.ratio(times, other, mine),
         "first call, Steppe, s": firsts[mine], "first call, curvlinops, s": firsts[other]}
        for mine, other in pairs
    ]  # fmt: skip
    note = (
        f"{jax.devices()[0].device_kind}; float32 without TF32; {PROBES} probes; the {EIGENVALUES} eigenvalues largest "
        "in magnitude, tolerance 3.5e-4, SciPy's eigsh for curvlinops. Each network has its own weights and data."
    )
    yield timing.Table("ResNet-18, 128 images, against curvlinops", rows, note)


def steppe_ways(quick: bool) -> Ways:
    loss, params, batch = gpu_training.resnet(quick)
    H = curvature.hessian(loss, params, batch)
    v = jax.tree.map(jnp.ones_like, params)
    return {
        "product": lambda: H.matvec(v),
        "trace": lambda: curvature.trace(H, 0, probes=PROBES),
        "top eigenvalues": lambda: curvature.top_eigenpairs(H, 0, EIGENVALUES),
    }


def curvlinops_ways(quick: bool, device: str) -> Ways:
    module = resnet(*(((8, 16), (1, 1)) if quick else ((64, 128, 256, 512), (2, 2, 2, 2)))).to(device).eval()
    size = 8 if quick else 128
    x, y = torch.randn(size, 3, 32, 32, device=device), torch.randint(0, 100, (size,), device=device)
    H = curvlinops.HessianLinearOperator(module, nn.CrossEntropyLoss(), list(module.parameters()), [(x, y)])
    v = torch.ones(sum(p.numel() for p in module.parameters()), device=device)

    def done(value: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    return {
        "product": lambda: done(H @ v),
        "trace": lambda: done(curvlinops.hutchinson_trace(H, PROBES)),
        "top eigenvalues": lambda: eigsh(H.to_scipy(), EIGENVALUES, which="LM", maxiter=20, tol=math.sqrt(1.2e-7)),
    }


class Normalisation(nn.Module):
    """Batch normalisation by running statistics, written out: PyTorch's own has no forward derivative everywhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight / (self.variance + 1e-5).sqrt()
        return x * scale[:, None, None] + (self.bias - self.mean * scale)[:, None, None]


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([Normalisation(outputs) for _ in range(2)])
        same = stride == 1 and inputs == outputs
        project = lambda: nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), Normalisation(outputs))
        self.shortcut = nn.Identity() if same else project()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.shortcut(x))


def resnet(widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """The ResNet that ships with Steppe, for images of 32 × 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), Normalisation(widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for index in range(count):
            layers.append(Block(inputs, width, 2 if stage and not index else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 100))

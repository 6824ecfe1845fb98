"""Two libraries that measure Hessians in PyTorch, as their users call them: curvlinops and PyHessian.

Imports both: only to be imported where they are installed.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import curvlinops
import numpy as np
import pyhessian
import torch
from curvlinops.papyan2020traces.spectrum import approximate_boundaries
from scipy.sparse.linalg import eigsh
from torch import nn

import twins

# PyHessian differentiates through .backward(), and clears what that leaves behind
warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")


class Passes(list):
    """Batches that count how often somebody went through them."""

    count = 0

    def __iter__(self) -> Iterator[Any]:
        self.count += 1
        return super().__iter__()

    def during(self, run: Callable[[], Any]) -> tuple[Any, int]:
        """What a function gives, and how many passes over the data it took."""
        before = self.count
        return run(), self.count - before


class Curvlinops:
    """Forward over reverse, with SciPy's Lanczos for eigenvalues."""

    def __init__(self, twin: twins.Twin, batches: list[Any]) -> None:
        self.twin, self.data = twin, Passes(map(twins.batch, batches))
        self.H = curvlinops.HessianLinearOperator(
            twin.module, nn.CrossEntropyLoss(), list(twin.module.parameters()), self.data
        )

    def loss(self) -> float:
        return float(self.H.gradient_and_loss()[1])

    def product(self, v: Any) -> Callable[[], Any]:
        flat = self.twin.flat(v)
        return lambda: self.H @ flat

    def trace(self, probes: int, estimator: Callable = curvlinops.hutchinson_trace) -> Callable[[], Any]:
        return lambda: estimator(self.H, probes)

    def top(self, k: int, tol: float) -> Callable[[], Any]:
        """The k eigenvalues largest in magnitude, and their vectors, in ascending order."""
        operator = self.H.to_scipy()
        return lambda: eigsh(operator, k, which="LM", tol=tol)

    def density(self, steps: int) -> Callable[[], Any]:
        """Of one random vector; the ends of the spectrum, which it would look for, are given."""
        ends = approximate_boundaries(self.H)
        return lambda: curvlinops.lanczos_approximate_spectrum(self.H, steps, boundaries=ends)

    def pairs(self, found: Any) -> list[tuple[float, Any]]:
        """What `top` gives as eigenvalues with pytrees."""
        values, vectors = found
        pairs = zip(values, np.ascontiguousarray(vectors.T), strict=True)
        return [(float(value), self.twin.unflat(v)) for value, v in pairs]


class PyHessian:
    """Reverse over reverse, power iteration for eigenvalues."""

    def __init__(self, twin: twins.Twin, batches: list[Any]) -> None:
        self.twin, self.data = twin, Passes(map(twins.batch, batches))
        self.H = pyhessian.hessian(twin.module, nn.CrossEntropyLoss(), dataloader=self.data, cuda=False)

    def product(self, v: Any) -> Callable[[], Any]:
        tensors = self.twin.tensors(v)
        return lambda: self.H.dataloader_hv_product(tensors)[1]

    def trace(self, probes: int) -> Callable[[], Any]:
        return lambda: self.H.trace(maxIter=probes, tol=-math.inf)  # never stops before

    def top(self, k: int, products: int) -> Callable[[], Any]:
        """After so many products, whatever its own stopping rule says."""
        return lambda: self.H.eigenvalues(top_n=k, maxIter=max(products // k, 1), tol=-math.inf)

    def density(self, steps: int) -> Callable[[], Any]:
        return lambda: self.H.density(iter=steps)

    def pairs(self, found: Any) -> list[tuple[float, Any]]:
        """What `top` gives as eigenvalues with pytrees."""
        return [(float(value), self.twin.tree(v)) for value, v in zip(*found, strict=True)]


def on(threads: int, run: Callable[[], Any]) -> Callable[[], Any]:
    """A function that runs on so many threads of PyTorch."""

    def limited() -> Any:
        torch.set_num_threads(threads)
        return run()

    return limited


def failure(run: Callable[[], Any]) -> str:
    """The first line of the error that a function raises, nothing if it runs."""
    try:
        run()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return str(error).partition("\n")[0]
    return ""

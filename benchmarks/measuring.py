"""What does measuring curvature cost? Products against gradients, other libraries (`against`), a `large` network."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import large
import networks
import steppe
import timing
from steppe import curvature
from steppe.core import batches as batches_
from steppe.curvature import Operator

CIFAR, SMALL = (3072, 512, 256, 100), (64, 32, 10)
PROGRAM, BY_BATCH = "gradient, one program", "gradient, batch by batch"
PRODUCT, TOGETHER = "Hessian-vector product", "one of eight products together"


class Work(NamedTuple):
    """Rounds, probes of a trace, eigenvalues, Lanczos steps of a density, training before, batches (None: all)."""

    rounds: int = 3
    probes: int = 16
    k: int = 5
    steps: int = 64
    updates: int = 10
    batches: int | None = None


QUICK = Work(rounds=1, probes=2, k=2, steps=8, updates=2)


class Network(NamedTuple):
    """A network of `networks` for so many examples in a dtype, and how its data are batched."""

    make: Callable[[int, Any], networks.Case]
    batches: int
    size: int


NETWORKS = {
    "MLP": Network(lambda rows, _: networks.mlp(CIFAR, rows), 8, 128),
    "transformer": Network(lambda rows, dtype: networks.transformer(rows, dtype=dtype), 4, 16),
    "ResNet": Network(lambda rows, _: networks.resnet(rows), 2, 32),
    "small MLP": Network(lambda rows, _: networks.mlp(SMALL, rows), 2, 32),
}


class Problem(NamedTuple):
    """A loss, where it is measured, on what."""

    loss: Any
    params: Any
    batches: list[Any]

    def hessian(self) -> Operator:
        return curvature.hessian(self.loss, self.params, self.batches)


def problem(name: str, work: Work, dtype: Any = np.float32) -> Problem:
    """A network after some training on the data on which it is measured."""
    network = NETWORKS[name]
    count = network.batches if work.batches is None else work.batches
    loss, params, data = network.make(count * network.size, dtype)
    params, data = jax.tree.map(lambda x: as_dtype(x, dtype), (params, data))
    batches = steppe.in_batches(data, network.size)
    return Problem(loss, networks.trained(loss, params, batches, work.updates), batches)


def as_dtype(x: Any, dtype: Any) -> jax.Array:
    return jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def direction(params: Any, seed: int = 1) -> Any:
    """A normal vector."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        treedef, [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    )


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    work = QUICK if quick else Work()
    names = ["small MLP"] if quick else ["MLP", "transformer", "ResNet"]
    rows = [row for name in names for row in product_rows(problem(name, work), name, work)]
    note = (
        "Of the mean over all batches. Against the quicker gradient. Peak: arguments + outputs + temporaries − shared. "
        "Eight together: a trace of eight probes, a probe; its memory is that of all eight."
    )
    yield timing.Table("A Hessian-vector product against a gradient on the same data", rows, note)
    try:
        against = importlib.import_module("against")
    except ImportError as error:
        print(f"No comparison with curvlinops and PyHessian (pip install '.[bench]'): {error}.\n", flush=True)
    else:
        yield from against.tables(names, work)
    yield from large.tables(quick)


# A product against a gradient


def product_rows(given: Problem, name: str, work: Work) -> list[dict[str, Any]]:
    """Gradients over the data in two ways, products alone and together."""
    loss, params, parts = given
    H, v, data = given.hessian(), direction(params), batches_.gather("benchmark", parts)
    one, step = jax.jit(jax.grad(loss)), jax.jit(lambda sums, g: jax.tree.map(jnp.add, sums, g), donate_argnums=0)
    gradient = jax.jit(lambda params, data: batches_.average(lambda batch: jax.grad(loss)(params, batch), data))
    product = jax.jit(lambda H, v: H.matvec(v))
    eight = jax.jit(lambda H, key: curvature.moments(H, key, probes=8))
    ways = {
        PROGRAM: lambda: gradient(params, data),
        BY_BATCH: lambda: functools.reduce(step, (one(params, batch) for batch in parts)),
        PRODUCT: lambda: H.matvec(v),
        TOGETHER: lambda: eight(H, jax.random.key(0)),
    }
    plans = {
        PROGRAM: timing.memory(gradient, params, data),
        PRODUCT: timing.memory(product, H, v),
        TOGETHER: timing.memory(eight, H, jax.random.key(0)),
    }
    times = timing.interleaved(ways, work.rounds)
    times[TOGETHER] = [ms / 8 for ms in times[TOGETHER]]
    base = min((PROGRAM, BY_BATCH), key=lambda way: timing.median(times, way))
    about = f"{name}, {len(parts)} × {NETWORKS[name].size}"
    return [
        {"network": about, "way": way, "ms": timing.median(times, way),
         "against a gradient": timing.ratio(times, way, base),
         "peak, MB": plans[way].peak if way in plans else None,
         "against a gradient's": plans[way].peak / plans[PROGRAM].peak if way in plans else None,
         "temporaries, MB": plans[way].temporaries if way in plans else None}
        for way in ways
    ]  # fmt: skip

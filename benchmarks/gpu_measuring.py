"""What does measuring a ResNet-18 and a transformer of GPT-2's size cost on a GPU? How exact is it? Named explicitly.

What would begin after its limit is left out, and the table says so.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import gpu_training
import networks
import timing
from steppe import curvature

SECONDS = 90
"""Measures of one network that begin later are left out."""


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    card = jax.devices()[0].device_kind
    yield timing.Table("The dense Hessian of a small MLP, as it comes", precision_rows(), card)
    language = networks.transformer(2, 16, 32, 1, 64) if quick else networks.transformer(8, 256, 768, 12, 50_257)
    for name, case in {"a transformer of GPT-2's size": language, "ResNet-18": gpu_training.resnet(quick)}.items():
        size = sum(leaf.size for leaf in jax.tree.leaves(case[1]))
        note = f"{card}; {size:,} parameters. The first call, compilation included, and the next one."
        yield timing.Table(f"Measures of one batch of {name}", measure_rows(*case, quick), note)


def measure_rows(loss: Callable, params: Any, batch: Any, quick: bool) -> list[dict[str, Any]]:
    """First and second calls of measures."""
    H = curvature.hessian(loss, params, batch)
    v = jax.tree.map(jnp.ones_like, params)
    gradient = jax.jit(jax.value_and_grad(loss))
    ways: dict[str, Callable[[], Any]] = {
        "value and gradient": lambda: gradient(params, batch),
        "product": lambda: H.matvec(v),
        "trace, 16 probes": lambda: curvature.trace(H, 0, probes=16),
        "tr(H²), 16 probes": lambda: curvature.frobenius_squared(H, key=0, probes=16),
        "largest eigenvalue": lambda: curvature.top_eigenpairs(H, 0, 1),
        "density, 1 vector, 32 steps": lambda: curvature.spectral_density(H, 0, probes=1, steps=32),
    }
    began, rows = time.perf_counter(), []
    for way, run in list(ways.items())[: 2 if quick else None]:
        late = time.perf_counter() - began > SECONDS
        first, then = (None, None) if late else (timing.seconds(run), timing.seconds(run))
        rows.append({"measure": way, "first, s": first, "then, s": then, "": "left out: no time" if late else ""})
        print(rows[-1], flush=True)
    return rows


def precision_rows() -> list[dict[str, Any]]:
    """How far the Hessian is from float64's on the host, and whether eigenpairs converge."""
    loss, params, batch = networks.mlp((10, 16, 3), 64)
    H = curvature.hessian(loss, params, batch)
    found, pairs = H.dense(), curvature.top_eigenpairs(H, 0, 5)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(jax.device_get(x), jnp.float64), tree)
        exact_batch = {"x": wide(batch["x"]), "y": jnp.asarray(jax.device_get(batch["y"]))}
        exact = curvature.hessian(loss, wide(params), exact_batch).dense()
        error = jnp.linalg.norm(wide(found) - exact) / jnp.linalg.norm(exact)
    return [{"relative error": float(error), "eigenpairs converged": bool(pairs.converged.all())}]

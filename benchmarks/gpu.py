"""What do penalties and measures of a ResNet-18 and of a transformer cost on a GPU? Named explicitly, in eight minutes.

Each part has a limit: what would begin after it is left out, and the table says so.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import networks
import timing
from steppe import curvature, methods, models
from steppe.core import losses

STEP_SECONDS, MEASURE_SECONDS, PRECISION_SECONDS = 270, 150, 30


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    card = jax.devices()[0].device_kind
    note = f"{card}. Temporaries are planned by the compiler; medians of five rounds taken in turn."
    yield timing.Table("An update of ResNet-18, B = 128, SGD with momentum", step_rows(quick), note)
    note = f"{card}. The first call, compilation included, and the next one."
    yield timing.Table("Measures of one batch", measure_rows(quick), note)
    yield timing.Table("The dense Hessian of a small MLP, as it comes", precision_rows(), card)


def resnet(quick: bool) -> networks.Case:
    """The ResNet-18 that ships, or a small one."""
    small = {"widths": [8, 16], "blocks": [1, 1]} if quick else {}
    network = models.build("resnet", (32, 32, 3), 100, **small)
    at, size = network.init(jax.random.key(0)), 8 if quick else 128
    keys = jax.random.split(jax.random.key(1))
    batch = {"x": jax.random.normal(keys[0], (size, 32, 32, 3)), "y": jax.random.randint(keys[1], (size,), 0, 100)}
    return losses.of(network.at(at.state), losses.cross_entropy), at.params, batch


def step_rows(quick: bool) -> list[dict[str, Any]]:
    """A row for each way to train: its time, memory and compilation, over those of plain training."""
    loss, params, batch = resnet(quick)
    fa = lambda probes, every=1, **options: methods.fa(0.01, probes=probes, every=every, **options)
    ways = {"plain": methods.fa(0.0), "SAM": methods.sam(0.05), "FA, M = 1": fa(1), "FA, M = 5": fa(5),
            "FA, M = 1, rematerialize=8": fa(1, rematerialize=8), "FA, M = 1, every 10": fa(1, 10),
            "FA, M = 5, every 10": fa(5, 10)}  # fmt: skip
    if quick:
        ways = dict(list(ways.items())[:3])
    began, known, runs = time.perf_counter(), {}, {}
    for way, method in ways.items():
        if time.perf_counter() - began > STEP_SECONDS:
            continue
        run, known[way] = compiled_step(loss, method, params, batch)
        runs[way] = run
    times = timing.interleaved(runs, 1 if quick else 5)
    plain = known["plain"]
    return [
        {"way": way, "ms an update": timing.median(times, way) / 10 if way in times else None,
         "over plain": timing.ratio(times, way, "plain") if way in times else "left out: no time",
         "memory, MB": known[way]["memory"] if way in known else None,
         "memory over plain": known[way]["memory"] / plain["memory"] if way in known else None,
         "compiling, s": known[way]["compiling"] if way in known else None,
         "compiling over plain": known[way]["compiling"] / plain["compiling"] if way in known else None}
        for way in ways
    ]  # fmt: skip


def compiled_step(loss: Callable, method: Any, params: Any, batch: Any) -> tuple[Callable[[], Any], dict[str, float]]:
    """Ten updates, one call each; the memory and the compilation of their program."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    began = time.perf_counter()
    program = jax.jit(step).lower(params, tx.init(params)).compile()
    plan = program.memory_analysis()
    carry = [(params, tx.init(params))]

    def run() -> Any:
        for _ in range(10):
            carry[0] = program(*carry[0])
        return carry[0]

    return run, {"compiling": time.perf_counter() - began, "memory": plan.temp_size_in_bytes / 1e6}


def measure_rows(quick: bool) -> list[dict[str, Any]]:
    """First and second calls of measures, for both networks."""
    language = networks.transformer(2, 16, 32, 1, 64) if quick else networks.transformer(8, 256, 768, 12, 50_257)
    began, rows = time.perf_counter(), []
    for name, (loss, params, batch) in {"ResNet": resnet(quick), "transformer": language}.items():
        H = curvature.hessian(loss, params, batch)
        v = jax.tree.map(jnp.ones_like, params)
        ways: dict[str, Callable[[], Any]] = {
            "product": lambda H=H, v=v: H.matvec(v),
            "trace, 16 probes": lambda H=H: curvature.trace(H, 0, probes=16),
            "largest eigenvalue": lambda H=H: curvature.top_eigenpairs(H, 0, 1, max_products=60),
            "density, 1 vector, 32 steps": lambda H=H: curvature.spectral_density(H, 0, probes=1, steps=32),
        }
        for way, run in list(ways.items())[: 2 if quick else None]:
            late = time.perf_counter() - began > MEASURE_SECONDS
            first, then = (None, None) if late else (timing.seconds(run), timing.seconds(run))
            said = "left out: no time" if late else ""
            rows.append({"network": name, "measure": way, "first, s": first, "then, s": then, "": said})
    return rows


def precision_rows() -> list[dict[str, Any]]:
    """How far the Hessian is from float64's on the host, and whether eigenpairs converge."""
    loss, params, batch = networks.mlp((10, 16, 3), 64)
    began = time.perf_counter()
    H = curvature.hessian(loss, params, batch)
    found, pairs = H.dense(), curvature.top_eigenpairs(H, 0, 5)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(jax.device_get(x), jnp.float64), tree)
        exact_batch = {"x": wide(batch["x"]), "y": jnp.asarray(jax.device_get(batch["y"]))}
        exact = curvature.hessian(loss, wide(params), exact_batch).dense()
        error = jnp.linalg.norm(wide(found) - exact) / jnp.linalg.norm(exact)
    late = time.perf_counter() - began > PRECISION_SECONDS
    return [{"relative error": float(error), "eigenpairs converged": bool(pairs.converged.all()), "over time": late}]

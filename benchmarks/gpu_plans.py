"""What does the compiler plan for an H100, asked on a machine without one? Memory and compilation. Named explicitly.

It needs ``pip install 'jax[cuda12]'`` and no GPU. Nothing is tuned, because tuning runs on the card: compilation is the
compiler's alone. Of an update of ResNet-18, plain and with FA, 628 and 3,481 MB were planned here, 623 and 3,498 on the
card itself.
"""

import os

FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"  # read when JAX begins
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
from jax._src import xla_bridge  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

import gpu_training  # noqa: E402
import networks  # noqa: E402
import timing  # noqa: E402
from steppe import curvature, methods  # noqa: E402

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""The card, as XLA describes it."""

Plan = dict[str, float]


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    note = "An H100 80GB that is not there; processor seconds. Temporaries are planned by the compiler."
    yield timing.Table("An update of ResNet-18, B = 128, SGD with momentum", over_first(updates(quick)), note)
    yield timing.Table("A transformer of GPT-2's size, 8 × 256 tokens", over_first(measures(quick)), note)


def updates(quick: bool) -> Iterator[tuple[str, Plan]]:
    """Plans of an update with each method."""
    loss, params, batch = gpu_training.resnet(quick)
    fa = lambda probes, **options: methods.fa(0.01, probes=probes, every=1, **options)
    ways = {"plain": methods.fa(0.0), "SAM": methods.sam(0.05), "FA, M = 1": fa(1), "FA, M = 5": fa(5)}
    ways |= {f"FA, M = 1, rematerialize={count}": fa(1, rematerialize=count) for count in (2, 4, 8, 16)}
    ways |= {"FA, M = 5, rematerialize=8": fa(5, rematerialize=8)}
    for way, method in list(ways.items())[: 3 if quick else None]:
        tx, step = gpu_training.update(loss, method)
        yield way, plan(step, params, tx.init(params), batch)


def measures(quick: bool) -> Iterator[tuple[str, Plan]]:
    """Plans of measures of one batch."""
    sizes = (2, 16, 32, 1, 64) if quick else (8, 256, 768, 12, 50_257)
    loss, params, batch = networks.transformer(*sizes)
    yield "value and gradient", plan(jax.value_and_grad(loss), params, batch)
    yield "product", plan(lambda p, b, v: curvature.hessian(loss, p, b).matvec(v), params, batch, params)
    yield (
        "trace, 16 probes",
        plan(lambda p, b: curvature.trace(curvature.hessian(loss, p, b), 0, probes=16), params, batch),
    )


def plan(function: Callable, *arguments: Any) -> Plan:
    """What the compiler says of a function of such arguments, and the processor time of tracing and compiling it."""
    everywhere = NamedSharding(card(), PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), arguments)
    began = time.process_time()
    lowered = jax.jit(function).trace(*like).lower(lowering_platforms=("cuda",))
    traced = time.process_time()
    memory = lowered.compile().memory_analysis().temp_size_in_bytes / 1e6
    return {"memory, MB": memory, "tracing, s": traced - began, "compiling, s": time.process_time() - traced}


def card() -> jax.sharding.Mesh:
    """A mesh of one H100."""
    canonical = xla_bridge.canonicalize_platform

    def known(platform: str) -> str:  # JAX looks for a card before it believes a platform (its issue 23971)
        try:
            return canonical(platform)
        except RuntimeError:
            return "cuda"

    xla_bridge.canonicalize_platform = known
    topology = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    return topologies.make_mesh(topology, (1,), ("card",))


def over_first(plans: Iterator[tuple[str, Plan]]) -> list[dict[str, Any]]:
    """A row for each plan, with ratios to the first one."""
    rows: list[dict[str, Any]] = []
    for way, found in plans:
        first = rows[0] if rows else found
        ratios = {
            f"{name.partition(',')[0]} over the first": found[name] / first[name]
            for name in ("memory, MB", "compiling, s")
        }
        rows.append({"program": way, **found, **ratios})
        print(rows[-1], flush=True)
    return rows

"""The curvature of a network of eleven million parameters on 2,048 images, in a process of its own: seconds and memory.

python benchmarks/large.py [--quick]: CIFAR-100 where STEPPE_DATA names a folder, otherwise random images.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import networks
import steppe
import timing
from steppe import curvature, data

SIZES = (3072, 2048, 1536, 1024, 100)
IMAGES, BATCH = 2048, 128


def tables(quick: bool) -> list[timing.Table]:
    """What this script says when another process runs it."""
    command = [sys.executable, str(Path(__file__)), *(["--quick"] if quick else [])]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    note = (
        f"Layers {'-'.join(map(str, SIZES))}, {found['images']:,} images ({found['data']}) in batches of {BATCH}. A "
        "process of its own, first calls: compilation included. Peak: the most that the whole process has held so far."
    )
    return [timing.Table(f"A network of {found['size'] / 1e6:.1f} million parameters", found["rows"], note)]


def measured(quick: bool) -> dict[str, Any]:
    """A row for each quantity."""
    probes, steps, k = (2, 4, 1) if quick else (32, 64, 5)
    images, name = examples(2 * BATCH if quick else IMAGES)
    loss, params, _ = networks.mlp(SIZES, 1)
    H = curvature.hessian(loss, params, steppe.in_batches(images, BATCH))
    jax.block_until_ready(H.data)
    rows = [row("nothing yet", "", lambda: None)]
    rows.append(row("tr H and tr(H²)", f"{probes} probes", lambda: curvature.moments(H, 0, probes=probes)))
    options = {"tol": 0.5, "max_products": 32} if quick else {}
    rows.append(row(f"the {k} largest eigenvalues", "", lambda: curvature.top_eigenpairs(H, 0, k, **options)[::2]))
    rows.append(
        row("spectral density", f"1 vector, {steps} steps",
            lambda: curvature.spectral_density(H, 0, probes=1, steps=steps).quadrature)
    )  # fmt: skip
    return {"size": H.size, "images": len(images["y"]), "data": name, "rows": rows}


def examples(count: int) -> tuple[dict[str, jax.Array], str]:
    """So many images in one row each, and where they come from."""
    if "STEPPE_DATA" not in os.environ:
        return networks.mlp((3072, 100), count)[2], "random"
    found = data.load("cifar100", train_examples=count)
    batch = jax.jit(found.decode)(found.train)
    return {"x": batch["x"].reshape(count, -1), "y": jnp.asarray(batch["y"])}, "CIFAR-100"


def row(quantity: str, work: str, run: Callable[[], Any]) -> dict[str, Any]:
    """One quantity: how long its first call lasts, and the peak of the process after it."""
    began = time.perf_counter()
    value = jax.block_until_ready(run())
    seconds = time.perf_counter() - began
    firsts = [float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(value)]
    found = ", ".join(map(timing.digits, firsts[:4]))
    return {
        "quantity": quantity,
        "work": work,
        "first numbers": found,
        "s": seconds,
        "peak, GB": peak(),
    }


def peak() -> float:
    """The most memory that this process has held, in GB."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with what the parent held
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(measured(parser.parse_args().quick)))


if __name__ == "__main__":
    main()

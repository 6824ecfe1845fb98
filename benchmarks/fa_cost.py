"""What FA-Regularization costs: the shipped studies' training against λ = 0, interleaved in one process.

    python benchmarks/fa_cost.py [--rounds 7] [--json out.json]

Data are random arrays of the studies' shapes, since costs do not depend on values. A round times, for each way to
train, a scan of 40 updates (compiled before, warmed up once) in turn; figures are medians over rounds, and the ratios
those of each round's own pair, so that a machine whose speed drifts does not bend them.
"""

import argparse
import json
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from steppe import data, study
from steppe.data.tabular import as_it_is
from steppe.data.text import dense
from steppe.study.program import Compiler, shape_of

UPDATES = 40
WAYS = {
    "λ = 0": {"method.lam": 0.0},
    "every 10": {"method.lam": 0.01},
    "every step": {"method.lam": 0.01, "method.every": 1},
}


def stand_in(name: str, batch: int) -> data.Dataset:
    """Random examples of a study's shape, `UPDATES` batches of them."""
    rng, count = np.random.default_rng(0), UPDATES * batch
    if name == "fa-breast-cancer":
        x, decode, shape, classes = rng.normal(size=(count, 30)).astype(np.float32), as_it_is, (30,), 2
    elif name == "fa-cifar100":
        x, shape, classes = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), (32, 32, 3), 100
        decode = lambda b: {"x": b["x"].astype(jnp.float32) / 255 - 0.5, "y": b["y"]}
    else:
        index = rng.integers(0, 10_000, (count, 300)).astype(np.uint16)
        x = {"index": index, "value": rng.random(index.shape, np.float32) / 17}
        shape, classes = (10_000,), 2 if name == "fa-imdb" else 20
        decode = lambda b: {"x": dense(b["x"], 10_000), "y": b["y"]}
    part = x, rng.integers(0, classes, count)
    return data.dataset(name, part, part, decode=decode, shape=shape, classes=classes, about="random")


def epochs(name: str) -> dict:
    """Way -> a function that trains one epoch and waits for it, and the operations of an update."""
    base = study.load(name, {"grid": {}, "baseline": ""})
    found = {}
    for way, changes in WAYS.items():
        spec = study.load(name, {"grid": {}, "baseline": "", **changes})
        shape, strengths = shape_of(spec)
        compiler = Compiler(stand_in(name, base.train.batch_size))
        trainer = compiler.trainer(shape, strengths)
        progress = [trainer.start(jnp.uint32(0), strengths)]

        def run(trainer=trainer, strengths=strengths, progress=progress, compiler=compiler):
            progress[0], _ = jax.block_until_ready(trainer.epoch(progress[0], strengths, compiler.train))

        found[way] = run, trainer.step_memory_mb
    return found


def measured(name: str, rounds: int) -> list[dict]:
    """A row for each way to train."""
    ways = epochs(name)
    times = {way: [] for way in ways}
    for round_ in range(rounds + 1):
        for way, (run, _) in ways.items():
            began = time.perf_counter()
            run()
            if round_:  # the first warms up
                times[way].append((time.perf_counter() - began) / UPDATES * 1e3)
    rows = []
    for way, (_, memory) in ways.items():
        ratios = [t / plain for t, plain in zip(times[way], times["λ = 0"], strict=True)]
        rows.append({
            "study": name, "penalty": way, "ms_per_update": statistics.median(times[way]), "memory_mb": memory,
            "ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="also write the rows there")
    arguments = parser.parse_args()
    print("| study | penalty | ms an update | against λ = 0 (lowest to highest) | planned memory, MB |")
    print("|---|---|---|---|---|")
    rows = []
    for name in ("fa-breast-cancer", "fa-20newsgroups", "fa-imdb", "fa-cifar100"):
        for row in measured(name, arguments.rounds):
            spread = f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}"
            print(
                f"| {row['study']} | {row['penalty']} | {row['ms_per_update']:.2f} | {row['ratio']:.2f} ({spread}) "
                f"| {row['memory_mb']:.1f} |",
                flush=True,
            )
            rows.append(row)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"jax": jax.__version__, "machine": platform.machine(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()

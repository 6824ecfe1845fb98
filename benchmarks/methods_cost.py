"""What does a training step cost with each method? Against plain training, and SAM against other libraries' SAM."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

import fa_cost
import networks
import timing
from steppe import methods, study
from steppe.study.training.program import Compiler

PLAIN = "plain"
LAMS = {"fa": 0.01, "hsr": 0.01, "seht": 0.001, "fam": 0.1}

WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {"method": {"name": "fa", "lam": 0.0}},
    **{name: {"method": {"name": name} | ({"lam": LAMS[name]} if name in LAMS else {})} for name in methods.METHODS},
    "fa, every step": {"method": {"name": "fa", "lam": 0.01, "every": 1}},
    "fa, adaptive": {"method": {"name": "fa", "lam": 0.01, "adaptive": True}},
    "fa, Gauss-Newton": {"method": {"name": "fa", "lam": 0.01, "matrix": "ggn"}},
    "mixup": {"augment": [{"name": "mixup"}]},
    "fgsm": {"augment": [{"name": "fgsm", "radius": 0.1}]},
    "pgd": {"augment": [{"name": "pgd", "radius": 0.1}]},
    "ema": {"average": {"name": "ema"}},
}
"""What a study changes for each way to train; methods at their defaults."""

STUDIES = ("fa-breast-cancer", "fa-cifar100")
NETWORKS = {"30-512-256-2, B = 32": ((30, 512, 256, 2), 32), "3072-512-256-100, B = 128": ((3072, 512, 256, 100), 128)}
OURS, OPTAX, TORCH = "Steppe", "Optax", "pytorch_optimizer"


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    rounds = 1 if quick else 5
    rows = method_rows(STUDIES[: 1 if quick else None], rounds)
    note = (
        f"The shipped studies' own compiled programs, methods at their defaults; medians over {rounds} rounds of "
        f"{fa_cost.UPDATES} updates, in brackets the lowest and the highest round."
    )
    yield timing.Table("An update with each method, over one without", rows, note)
    try:
        import pytorch_optimizer
        import torch
    except ImportError:
        torch = pytorch_optimizer = None
        print("pytorch_optimizer is not installed (pip install '.[bench]'): no comparison with it.\n", flush=True)
    rows = [row for name in NETWORKS for row in sam_rows(name, rounds, torch, pytorch_optimizer)]
    note = (
        "SGD with momentum, no dropout, no data pipeline: one call a step. Over plain: a step without SAM (Optax's "
        "is Steppe's). `contrib.sam` is called with the gradient inside (opaque), or twice a step."
    )
    yield timing.Table("A step of SAM in three libraries", rows, note)


def method_rows(names: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    """A row for each way, a column for each study."""
    found: dict[str, dict[str, Any]] = {way: {"method": way} for way in WAYS}
    for name in names:
        compiler = Compiler(fa_cost.stand_in(name, study.load(name).train.batch_size))
        runs = {way: fa_cost.epoch(name, changes, compiler)[0] for way, changes in WAYS.items()}
        times = timing.interleaved(runs, rounds)
        for way in WAYS:
            found[way][f"{name}, ms"] = timing.median(times, way) / fa_cost.UPDATES
            found[way][f"{name}, over plain"] = timing.ratio(times, way, PLAIN)
    return list(found.values())


def sam_rows(name: str, rounds: int, torch: Any, peer: Any) -> list[dict[str, Any]]:
    """A step with and without SAM on one network, library by library."""
    sizes, rows = NETWORKS[name]
    ways = jax_steps(sizes, rows)
    if torch is not None:
        torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
        ways |= torch_steps(sizes, rows, torch, peer)
    times = timing.interleaved(ways, rounds, settle=True)
    return [
        {"network": name, "library": library, "step": step, "ms": timing.median(times, (library, step)),
         "over plain": timing.ratio(times, (library, step), (library if library == TORCH else OURS, PLAIN)),
         "over Steppe's": timing.ratio(times, (library, step), (OURS, step if step in (PLAIN, "asam") else "sam"))}
        for library, step in ways
    ]  # fmt: skip


def jax_steps(sizes: tuple[int, ...], rows: int) -> dict[tuple[str, str], Callable[[], Any]]:
    """Steps of Steppe and of Optax."""
    loss, params, batch = networks.mlp(sizes, rows)
    sgd, ascent = optax.sgd(0.01, momentum=0.9), optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    opaque = optax.contrib.sam(sgd, ascent, opaque_mode=True)
    halves = optax.contrib.sam(sgd, ascent)

    def ours(*parts: Any) -> Callable[[], Any]:
        tx = optax.chain(*parts, sgd)
        return compiled(tx, lambda params, grads: {"loss": loss, "batch": batch})

    def compiled(tx: Any, extra: Callable[..., dict[str, Any]], calls: int = 1) -> Callable[[], Any]:
        @jax.jit
        def step(params: Any, state: Any) -> Any:
            grads = jax.grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, **extra(params, grads))
            return optax.apply_updates(params, updates), state

        state = tx.init(params)

        def run() -> Any:
            carry = params, state
            for _ in range(calls):
                carry = step(*carry)
            return carry

        return run

    return {
        (OURS, PLAIN): ours(),
        (OURS, "sam"): ours(methods.sam(0.05)),
        (OURS, "asam"): ours(methods.asam(0.5)),
        (OPTAX, "sam, opaque"): compiled(opaque, lambda *_: {"grad_fn": lambda p, _: jax.grad(loss)(p, batch)}),
        (OPTAX, "sam, two calls"): compiled(halves, lambda *_: {}, calls=2),
    }


def torch_steps(sizes: tuple[int, ...], rows: int, torch: Any, peer: Any) -> dict[tuple[str, str], Callable[[], Any]]:
    """Steps of pytorch_optimizer, on a network of the same sizes."""
    nn = torch.nn
    x = torch.tensor(networks.normal(rows, sizes[0]))
    y = torch.tensor(np.random.default_rng(1).integers(0, sizes[-1], rows))

    def step(make: Callable[[Any], Any], perturbed: bool) -> Callable[[], Any]:
        pairs = [(nn.Linear(i, o), nn.ReLU()) for i, o in itertools.pairwise(sizes)]
        network = nn.Sequential(*[layer for pair in pairs for layer in pair][:-1])
        optimizer = make(network.parameters())

        def closure() -> Any:
            optimizer.zero_grad()
            value = nn.functional.cross_entropy(network(x), y)
            value.backward()
            return value

        def run() -> None:
            closure()
            optimizer.step(closure) if perturbed else optimizer.step()

        return run

    sgd, options = torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}
    return {
        (TORCH, PLAIN): step(lambda p: sgd(p, **options), False),
        (TORCH, "sam"): step(lambda p: peer.SAM(p, sgd, rho=0.05, **options), True),
        (TORCH, "asam"): step(lambda p: peer.SAM(p, sgd, rho=0.5, adaptive=True, **options), True),
    }

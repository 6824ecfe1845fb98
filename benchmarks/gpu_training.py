"""What does a penalty cost in training on a GPU? ResNet-18, and the paper's three networks. Named explicitly.

What would begin after its limit is left out, and the table says so.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

import fa_cost
import timing
from steppe import methods, models
from steppe.core import losses

SECONDS = 150
"""The compilation of ways of ResNet-18 that begins later is left out."""

PAPER = ("fa-breast-cancer", "fa-20newsgroups", "fa-cifar100")

Case = tuple[Callable, Any, Any]


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    card = jax.devices()[0].device_kind
    note = f"{card}. Temporaries are planned by the compiler; medians of rounds of ten updates taken in turn."
    yield timing.Table("An update of ResNet-18, B = 128, SGD with momentum", step_rows(quick), note)
    ways = {way: fa_cost.WAYS[way] for way in (fa_cost.PLAIN, fa_cost.TENTH, fa_cost.SAM)}
    rows = [row for name in PAPER[: 1 if quick else None] for row in fa_cost.study_rows(name, 1 if quick else 7, ways)]
    note = f"{card}. M = 5. Scans of {fa_cost.UPDATES} updates; in brackets the lowest and the highest round."
    yield timing.Table("An update of the paper's networks", rows, note)


def resnet(quick: bool) -> Case:
    """The ResNet-18 that ships, or a small one: ``(loss, params, batch)``."""
    small = {"widths": [8, 16], "blocks": [1, 1]} if quick else {}
    network = models.build("resnet", (32, 32, 3), 100, **small)
    at, size = network.init(jax.random.key(0)), 8 if quick else 128
    keys = jax.random.split(jax.random.key(1))
    batch = {"x": jax.random.normal(keys[0], (size, 32, 32, 3)), "y": jax.random.randint(keys[1], (size,), 0, 100)}
    return losses.of(network.at(at.state), losses.cross_entropy), at.params, batch


def step_rows(quick: bool) -> list[dict[str, Any]]:
    """A row for each way to train: its time, memory and compilation, over those of plain training."""
    began, case, known, runs = time.perf_counter(), resnet(quick), {}, {}
    for way, method in ways(quick).items():
        if time.perf_counter() - began < SECONDS:
            runs[way], known[way] = compiled_step(*case, method, way.endswith("specialize"))
            print(f"{way}: {known[way]}", flush=True)
    times = timing.interleaved(runs, 1 if quick else 7)
    plain = known["plain"]
    return [
        {"way": way, "ms an update": timing.median(times, way) / 10 if way in times else None,
         "over plain": timing.ratio(times, way, "plain") if way in times else "left out: no time",
         "memory, MB": known[way]["memory"] if way in known else None,
         "memory over plain": known[way]["memory"] / plain["memory"] if way in known else None,
         "compiling, s": known[way]["compiling"] if way in known else None,
         "compiling over plain": known[way]["compiling"] / plain["compiling"] if way in known else None}
        for way in ways(quick)
    ]  # fmt: skip


def ways(quick: bool) -> dict[str, Any]:
    """The methods that are compared."""
    fa = lambda probes, every=1, **options: methods.fa(0.01, probes=probes, every=every, **options)
    all_of_them = {
        "plain": methods.fa(0.0),
        "FA, M = 1": fa(1),
        "FA, M = 5": fa(5),
        "SAM": methods.sam(0.05),
        "FA, M = 5, every 10": fa(5, 10),
        "FA, M = 1, every 10": fa(1, 10),
        "FA, M = 5, every 10, specialize": fa(5, 10),
        "FA, M = 1, rematerialize=8": fa(1, rematerialize=8),
    }
    return dict(list(all_of_them.items())[: 2 if quick else None])


def update(loss: Callable, method: Any) -> tuple[Any, Callable]:
    """An optimiser with a method, and an update by it, ``(params, state, batch) -> (params, state)``."""
    tx = optax.chain(method, optax.sgd(0.1, momentum=0.9))

    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    return tx, step


def compiled_step(
    loss: Callable, params: Any, batch: Any, method: Any, specialized: bool
) -> tuple[Callable[[], Any], dict[str, float]]:
    """Ten updates, one call each; the memory and the compilation, tracing included, of their program."""
    tx, step = update(loss, method)
    step = functools.partial(step, batch=batch)
    carry = [(params, tx.init(params))]
    began = time.perf_counter()
    program = jax.jit(step).lower(*carry[0]).compile()
    spent = {"compiling": time.perf_counter() - began, "memory": program.memory_analysis().temp_size_in_bytes / 1e6}
    if specialized:
        program = methods.specialize(jax.jit(step), every=10)

    def run() -> Any:
        for _ in range(10):
            carry[0] = program(*carry[0])
        return carry[0]

    return run, spent

"""What does FA-Regularization cost in training? The shipped studies, and networks that are not dense.

Data are random arrays of the studies' shapes, since costs do not depend on values.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import floor
import networks
import timing
from steppe import data, methods, study
from steppe.core import losses
from steppe.data.tabular import as_it_is
from steppe.data.text import dense
from steppe.study.training.program import Compiler
from steppe.study.training.recipe import Recipe, shape_of

UPDATES = 40

PROBES = 5

SHAPES = {
    "fa-breast-cancer": (30, 512, 256, 1),
    "fa-20newsgroups": (10_000, 20),
    "fa-imdb": (10_000, 1),
    "fa-cifar100": (3072, 512, 256, 100),
}
"""The studies' layer sizes, for the floor."""

PLAIN, TENTH, ALWAYS, SAM = "λ = 0", "FA, every 10", "FA, every step", "SAM"

EVERY = {TENTH: 10, ALWAYS: 1}

WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {"name": "fa", "lam": 0.0},
    TENTH: {"name": "fa", "lam": 0.01, "probes": PROBES, "every": 10},
    ALWAYS: {"name": "fa", "lam": 0.01, "probes": PROBES, "every": 1},
    SAM: {"name": "sam", "rho": 0.05},
}
"""A study's [method] table for each way to train."""


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    rounds = 1 if quick else 7
    rows = [row for name in list(SHAPES)[: 1 if quick else None] for row in study_rows(name, rounds)]
    note = f"Medians over {rounds} rounds of {UPDATES} updates; in brackets the lowest and the highest round."
    yield timing.Table("An update of the shipped studies", rows, note)
    rows = [
        row
        for name in (("transformer",) if quick else ("resnet", "transformer"))
        for row in network_rows(name, min(rounds, 5))
    ]
    note = (
        "M = 1, Adam, every 10. Direct: ‖Hv‖² of a sign probe, differentiated, knowing nothing about layers. Two "
        "programs: the penalised step and the plain one compiled apart, in place of one with a branch. New pages: "
        "memory that went back to the system and came again; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 makes them few."
    )
    yield timing.Table("An update of networks that are not only dense", rows, note)
    note = "B = 128, M = 5, Adam, no dropout. Peak: arguments + outputs + temporaries − shared, of one update."
    yield timing.Table("Memory of a penalised update, CIFAR-100 MLP, MB", memory_rows(), note)


# The shipped studies


def study_rows(name: str, rounds: int, ways: dict[str, dict[str, Any]] = WAYS) -> list[dict[str, Any]]:
    """A row for each way to train, the plain one among them."""
    base = study.load(name, {"grid": {}, "baseline": ""})
    size = base.train.batch_size
    compiler = Compiler(stand_in(name, size))
    trainers = {way: epoch(name, {"method": method}, compiler) for way, method in ways.items()}
    runs = {way: run for way, (run, _) in trainers.items()}
    times = timing.interleaved({**runs, "gradients": gradients(base, compiler)}, rounds)
    plain_ms, gradient_ms = (timing.median(times, way) / UPDATES for way in (PLAIN, "gradients"))
    rows = []
    for way, (_, planned) in trainers.items():
        ms = timing.median(times, way) / UPDATES
        least = floor.update_ms(plain_ms, gradient_ms, SHAPES[name], size, PROBES, EVERY[way]) if way in EVERY else None
        rows.append({
            "study": name, "way": way, "ms an update": ms, "against λ = 0": timing.ratio(times, way, PLAIN),
            "against the floor": ms / least if least else None,
            "temporaries of an epoch, MB": planned,
        })  # fmt: skip
    return rows


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


def epoch(name: str, changes: dict[str, Any], compiler: Compiler) -> tuple[Callable[[], Any], float]:
    """A function that trains one epoch of `UPDATES` updates, through a study's own program; its temporaries in MB."""
    shape, strengths = shape_of(study.load(name, {"grid": {}, "baseline": "", **changes}))
    trainer = compiler.trainer(shape, strengths)
    progress = [trainer.start(jnp.uint32(0), strengths)]

    def run() -> Any:
        progress[0], loss, _ = trainer.epoch(progress[0], strengths, trainer.train)
        return loss

    return run, trainer.step_memory_mb


def gradients(spec: study.Spec, compiler: Compiler) -> Callable[[], Any]:
    """`UPDATES` plain gradients of the study's network on decoded batches: the speed at which the floor is counted.

    A scan, as training is, so that no gradient waits for Python.
    """
    recipe, size = Recipe.of(spec, compiler.dataset), spec.train.batch_size
    network = recipe.model.init(jax.random.key(0))
    loss, params = losses.of(recipe.model.at(network.state), recipe.criterion), network.params
    two = jax.jit(compiler.dataset.decode)(jax.tree.map(lambda x: x[: 2 * size], compiler.dataset.train))
    batches = jax.tree.map(lambda x: x.reshape(2, size, *x.shape[1:]), two)

    @jax.jit
    def run(params: Any, batches: Any) -> Any:
        def one(_: Any, index: jax.Array) -> tuple[Any, None]:
            return jax.grad(loss)(params, jax.tree.map(lambda x: x[index], batches)), None

        return jax.lax.scan(one, params, jnp.arange(UPDATES) % 2)[0]

    return lambda: run(params, batches)


# Networks that are not only dense


def network_rows(name: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each way to train a network of `networks`."""
    loss, params, batch = getattr(networks, name)()
    plain, layered, known_direct = methods.fa(0.0), methods.fa(0.01, probes=1, every=1), direct(1)
    # the first of ten updates, and the other nine: every 10 is one program with a branch, or two programs
    ways = {
        PLAIN: (plain, plain),
        TENTH: 2 * (methods.fa(0.01, probes=1),),
        "FA, every 10, two programs": (layered, plain),
        "direct, every 10, two programs": (known_direct, plain),
        SAM: 2 * (methods.sam(0.05),),
    }
    runs = {way: ten_updates(loss, first, other, params, batch) for way, (first, other) in ways.items()}
    times = timing.interleaved(runs, rounds)
    return [
        {"network": name, "way": way, "ms an update": timing.median(times, way) / 10,
         "against λ = 0": timing.ratio(times, way, PLAIN), "new pages an update": timing.new_pages(run) // 10}
        for way, run in runs.items()
    ]  # fmt: skip


def direct(probes: int) -> optax.GradientTransformationExtraArgs:
    """FA by ‖Hv‖² of sign probes, differentiated: an estimator that knows nothing of layers."""
    return methods.fa(0.01, every=1, curvature=networks.directly(probes))


def update(loss: Callable, tx: optax.GradientTransformationExtraArgs) -> Any:
    """One jitted training step, which consumes what it is given."""

    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        grads = jax.grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params, loss=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def ten_updates(loss: Callable, first: Any, other: Any, params: Any, batch: Any) -> Callable[[], Any]:
    """Ten updates, one call each, as a training loop makes them: one with the method `first`, nine with `other`."""
    chains = [optax.chain(method, optax.adam(1e-3)) for method in (first, other)]
    begin = update(loss, chains[0])
    go_on = begin if first is other else update(loss, chains[1])
    # what a step consumes must not be there twice
    carry = [jax.tree.map(jnp.copy, (params, chains[0].init(params)))]

    def run() -> Any:
        for step in (begin, *9 * (go_on,)):
            carry[0] = step(*carry[0], batch)
        return carry[0]

    return run


# Memory


def memory_rows() -> list[dict[str, Any]]:
    """Planned memory of one update with the penalty, with the direct estimator's, and without."""
    loss, params, batch = networks.mlp(SHAPES["fa-cifar100"], 128)
    ways = {
        PLAIN: methods.fa(0.0),
        "FA": methods.fa(0.01, probes=PROBES, every=1),
        "FA, direct": direct(PROBES),
        SAM: methods.sam(0.05),
    }
    plans = {}
    for way, method in ways.items():
        tx = optax.chain(method, optax.adam(1e-3))
        plans[way] = timing.memory(update(loss, tx), params, tx.init(params), batch)
    least = plans[PLAIN]
    return [
        {"way": way, "peak": plan.peak, "against λ = 0": plan.peak / least.peak,
         "temporaries": plan.temporaries, "their ratio": plan.temporaries / least.temporaries}
        for way, plan in plans.items()
    ]  # fmt: skip

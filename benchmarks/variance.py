"""Which estimator of tr(H²) is worth its time? Noise of value and gradient, and what a call costs."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import networks
import timing
from steppe import curvature, data

PROBES = 5
"""Of one call. The split spends as many Hessian-vector products."""

BASE = "direct, signs"

Estimator = Callable[[Any, Any, Any, jax.Array], jax.Array]
"""``(loss, params, batch, key) -> tr(H²)``."""


# Estimators


def direct(loss: Any, params: Any, batch: Any, key: jax.Array, distribution: str) -> jax.Array:
    """Hutchinson's estimate from Hessian-vector products."""
    return networks.directly(PROBES, distribution=distribution)(loss, params, batch, key).mean


def layered(loss: Any, params: Any, batch: Any, key: jax.Array, distribution: str) -> jax.Array:
    """What `methods.fa` uses."""
    return curvature.loss_moments(
        loss, params, batch, key, probes=PROBES, distribution=distribution
    ).frobenius_squared.mean


def quarter(loss: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """What `methods.fa` uses, on a random quarter of the batch: a quarter's Hessian has a larger norm."""
    rows_key, key = jax.random.split(key)
    rows = len(jax.tree.leaves(batch)[0])
    chosen = jax.random.permutation(rows_key, rows)[: rows // 4]
    return layered(loss, params, jax.tree.map(lambda x: x[chosen], batch), key, "rademacher")


def split(loss: Any, params: Any, batch: Any, key: jax.Array) -> jax.Array:
    """Exact on a plane that two products with H find, a probe beside it: ‖HQ‖² + E ‖H(I − QQᵀ)v‖², five products.

    As in Hutch++ (Meyer et al. 2021). The identity holds for any fixed Q, so that Q is not differentiated.
    """
    flat, unravel = ravel_pytree(params)
    operator = curvature.hessian(loss, params, [batch])
    product = lambda v: ravel_pytree(operator.matvec(unravel(v)))[0]
    *plane, probe = jax.random.rademacher(key, (3, flat.size), flat.dtype)
    Q = jax.lax.stop_gradient(jnp.linalg.qr(jnp.stack([product(v) for v in plane], axis=1))[0])
    rest = probe - Q @ (Q.T @ probe)
    return sum(jnp.sum(product(v) ** 2) for v in (*Q.T, rest))


ESTIMATORS: dict[str, Estimator] = {
    BASE: functools.partial(direct, distribution="rademacher"),
    "direct, normal": functools.partial(direct, distribution="gaussian"),
    "split, signs": split,
    "layers, signs (the default)": functools.partial(layered, distribution="rademacher"),
    "layers, normal": functools.partial(layered, distribution="gaussian"),
    "layers, signs, a quarter of the batch": quarter,
}
BIASED = {"layers, signs, a quarter of the batch"}


# Problems


class Problem(NamedTuple):
    """A loss, parameters at the start and after training, and the batch whose Hessian is meant."""

    loss: Any
    start: Any
    trained: Any
    batch: Any


def breast_cancer() -> Problem:
    """The study's data and network, with two logits."""
    train = data.load("breast-cancer").train
    return trained(*networks.mlp((30, 512, 256, 2), 32)[:2], jax.tree.map(jnp.asarray, train), 32)


def cifar() -> Problem:
    """CIFAR-shaped: normal inputs, labels of a linear teacher."""
    x = networks.normal(20 * 128, 3072)
    y = np.argmax(x @ np.random.default_rng(2).normal(size=(3072, 100)), axis=1)
    train = {"x": jnp.asarray(x), "y": jnp.asarray(y)}
    return trained(*networks.mlp((3072, 512, 256, 100), 128)[:2], train, 128)


PROBLEMS = {"Breast Cancer, 30-512-256-2, B = 32": breast_cancer, "CIFAR-shaped, 3072-512-256-100, B = 128": cifar}


def trained(loss: Any, params: Any, train: Any, rows: int, updates: int = 200) -> Problem:
    """The same network before and after `updates` Adam steps."""
    tx = optax.adam(1e-3)
    count = len(train["y"]) // rows
    pick = lambda i: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i % count * rows, rows), train)

    def update(carry: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, pick(i)), state)
        return (optax.apply_updates(params, updates), state), None

    (end, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, jnp.arange(updates)))((params, tx.init(params)))
    return Problem(loss, params, end, pick(0))


# Measurements


class Samples(NamedTuple):
    """Of many calls: the values, the gradients' mean, and the mean squared distance of one gradient from their mean."""

    values: np.ndarray
    mean: np.ndarray
    variance: float


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    rounds, calls = (1, 6) if quick else (7, 60)
    for name, make in list(PROBLEMS.items())[: 1 if quick else None]:
        problem = make()
        runs = {way: jax.jit(jax.value_and_grad(functools.partial(e, problem.loss))) for way, e in ESTIMATORS.items()}
        for moment in ("start", "trained"):
            params = getattr(problem, moment)
            rows = estimator_rows(runs, params, problem.batch, rounds, calls)
            note = f"{calls} calls of M = {PROBES}. {conclusion(rows)}"
            yield timing.Table(f"Estimators of tr(H²): {name}, {moment}", rows, note)


def estimator_rows(runs: dict[str, Any], params: Any, batch: Any, rounds: int, calls: int) -> list[dict[str, Any]]:
    """A row for each estimator."""
    key = jax.random.key(0)
    times = timing.interleaved({way: functools.partial(run, params, batch, key) for way, run in runs.items()}, rounds)
    samples = {way: sampled(run, params, batch, calls, i) for i, (way, run) in enumerate(runs.items())}
    unbiased = [s for way, s in samples.items() if way not in BIASED]
    value = float(np.mean([s.values.mean() for s in unbiased]))
    gradient = np.mean([s.mean for s in unbiased], axis=0)
    # means of different estimators have independent errors: their inner products estimate ‖g‖² without bias
    size = float(np.mean([a.mean @ b.mean for a, b in itertools.combinations(unbiased, 2)]))
    first = math.nan
    rows = []
    for way, s in samples.items():
        biased = way in BIASED
        # λ can make up for a gradient that is too long: a biased one is measured by its own length
        own = float(s.mean @ s.mean) - s.variance / calls if biased else size
        cost = timing.median(times, way) * s.variance / own
        first = cost if way == BASE else first
        rows.append({
            "estimator": way, "ms a call": timing.median(times, way),
            "value: deviation of a probe, %": 100 * math.sqrt(PROBES) * float(s.values.std(ddof=1) / s.values.mean()),
            "value: bias, %": 100 * (float(s.values.mean()) / value - 1) if biased else None,
            "gradient: noise of a probe": PROBES * s.variance / own,
            "gradient: cosine": float(s.mean @ gradient) / math.sqrt(own * size) if biased else None,
            "noise × time": cost / first,
        })  # fmt: skip
    return rows


def sampled(run: Any, params: Any, batch: Any, calls: int, stream: int) -> Samples:
    """Many calls with their own keys."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), stream), calls)
    values, total, squares = [], 0.0, 0.0
    for key in keys:
        value, gradient = run(params, batch, key)
        flat = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(gradient)])
        values.append(float(value))
        total, squares = total + flat, squares + flat @ flat
    mean = total / calls
    return Samples(np.array(values), mean, float(squares - calls * (mean @ mean)) / (calls - 1))


def conclusion(rows: list[dict[str, Any]]) -> str:
    """What to use, from the last column."""
    unbiased = sorted((r for r in rows if r["estimator"] not in BIASED), key=lambda r: r["noise × time"])
    best, second = (f"{row['estimator']} ({timing.digits(row['noise × time'])})" for row in unbiased[:2])
    return f"Least noise for its time, of those without bias: {best}, then {second}."

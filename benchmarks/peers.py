"""How does Steppe compare with the algorithm as it is printed, and with PyTorch?"""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import networks
import timing
from steppe import Estimate, Loss, curvature, methods

PRINTED = (10, 256, 100)
CIFAR = (3072, 512, 256, 100)
ADAM = optax.adam(1e-3)


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    rounds = 1 if quick else 7
    note = "Network 10-256-100, B = 64, M = 3, every step, Adam, no dropout. Not compiled: each operation is one call."
    yield timing.Table("Algorithm 1 as it is printed", printed_rows(rounds), note)
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed (pip install '.[bench]'): no comparison with it.\n", flush=True)
        return
    peer, threads = Torch(torch, CIFAR, 128), min(2, len(os.sched_getaffinity(0)))
    title = f"PyTorch {torch.__version__}: tr(H²) and its gradient"
    note = (
        f"Network {'-'.join(map(str, CIFAR))}, B = 128, M = 5, float32, {threads} threads, no optimiser. "
        "PyTorch is given its probes, Steppe draws its own. Two threads of PyTorch wait for each other: on a busy "
        "machine, believe one."
    )
    yield timing.Table(title, torch_rows(peer, threads, rounds), note)
    yield timing.Table("Do they estimate the same? tr(H²) on the same weights", agreement(peer), "64 probes each.")


# The printed algorithm


def printed_rows(rounds: int) -> list[dict[str, Any]]:
    """A training step line by line, without compilation, and Steppe's."""
    loss, params, batch = networks.mlp(PRINTED, 64)
    tx = optax.chain(methods.fa(0.01, probes=3, every=1), ADAM)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    state, key, plain = tx.init(params), jax.random.key(0), hand_written(PRINTED)
    plain_state, compiled = ADAM.init(plain), jax.jit(printed_step)
    ways = {
        "as printed": lambda: printed_step(plain, plain_state, batch, key),
        "as printed, but compiled": lambda: compiled(plain, plain_state, batch, key),
        "Steppe": lambda: step(params, state, batch),
    }
    times = timing.interleaved(ways, rounds)
    return [
        {"way": way, "ms a step": timing.median(times, way), "against Steppe": timing.ratio(times, way, "Steppe")}
        for way in ways
    ]


def printed_step(params: Any, state: Any, batch: Any, key: jax.Array, lam: float = 0.01) -> Any:
    """Algorithms 1 and 2 of the paper line by line: L_task + λ/B · C, C the mean over j of ‖∇(gᵀvⱼ)‖²."""

    def penalised(params: Any) -> jax.Array:
        total = 0.0
        for j in range(3):
            keys = jax.random.split(jax.random.fold_in(key, j), len(params))
            v = [jax.random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, params, strict=True)]
            slope = lambda p, v=v: sum(
                jnp.sum(g * part) for g, part in zip(jax.grad(perceptron)(p, batch), v, strict=True)
            )
            total = total + sum(jnp.sum(h * h) for h in jax.grad(slope)(params))
        return perceptron(params, batch) + lam / len(batch["y"]) * total / 3

    updates, state = ADAM.update(jax.grad(penalised)(params), state, params)
    return optax.apply_updates(params, updates), state


def perceptron(params: list[jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
    """The softmax cross-entropy of a network of two layers, in plain array operations."""
    w1, b1, w2, b2 = params
    z = jnp.maximum(batch["x"] @ w1 + b1, 0) @ w2 + b2
    z = z - jnp.max(z, axis=1, keepdims=True)
    log_p = z - jnp.log(jnp.sum(jnp.exp(z), axis=1, keepdims=True))
    return -jnp.mean(log_p[jnp.arange(len(z)), batch["y"]])


def hand_written(sizes: tuple[int, int, int]) -> list[jax.Array]:
    """Parameters for `perceptron`."""
    i, h, o = sizes
    normal = lambda *shape: jnp.asarray(networks.normal(*shape) / shape[0] ** 0.5)
    return [normal(i, h), jnp.zeros(h), normal(h, o), jnp.zeros(o)]


# PyTorch


class Torch:
    """The penalty by double backward, on the weights and the batch of `networks.mlp`."""

    def __init__(self, torch: Any, sizes: tuple[int, ...], rows: int) -> None:
        self.torch = torch
        self.loss, self.weights, self.batch = networks.mlp(sizes, rows)
        tensor = lambda x: torch.tensor(np.asarray(x))
        layers = self.weights["layers"]
        pairs = [(layers[i]["kernel"], layers[i]["bias"]) for i in range(len(sizes) - 1)]
        self.params = [tensor(x.get_value()).requires_grad_() for pair in pairs for x in pair]
        self.x, self.y = tensor(self.batch["x"]), tensor(self.batch["y"]).long()
        random = torch.Generator().manual_seed(0)
        sign = lambda p: 2.0 * torch.randint(0, 2, p.shape, generator=random) - 1
        self.probes = [[sign(p) for p in self.params] for _ in range(64)]  # beforehand: drawing is not timed

    def first(self, differentiable: bool = True) -> list[Any]:
        """The plain gradient."""
        grad, value = self.torch.autograd.grad, self.x
        for i in range(0, len(self.params), 2):
            value = value @ self.params[i] + self.params[i + 1]
            value = self.torch.relu(value) if i + 2 < len(self.params) else value
        return grad(self.torch.nn.functional.cross_entropy(value, self.y), self.params, create_graph=differentiable)

    def squares(self, count: int, differentiable: bool) -> list[Any]:
        """‖Hv‖² of `count` sign probes."""
        grads, product = self.first(), self.torch.autograd.grad
        products = (
            product(grads, self.params, v, retain_graph=True, create_graph=differentiable) for v in self.probes[:count]
        )
        return [sum((part**2).sum() for part in Hv) for Hv in products]

    def on(self, threads: int, run: Callable[[], Any]) -> Callable[[], Any]:
        """A function that runs on so many threads."""

        def limited() -> Any:
            self.torch.set_num_threads(threads)
            return run()

        return limited

    def penalty_gradient(self, probes: int = 5) -> Any:
        """The gradient of the mean over probes."""
        return self.torch.autograd.grad(sum(self.squares(probes, True)) / probes, self.params)


def torch_rows(peer: Torch, threads: int, rounds: int) -> list[dict[str, Any]]:
    """The penalty's value and gradient, and the plain gradient, in both."""
    key = jax.random.key(0)
    penalty = lambda params, batch, key: estimate(peer.loss, params, batch, key, 5).mean
    ours, plain = jax.jit(jax.value_and_grad(penalty)), jax.jit(jax.grad(peer.loss))
    ways = {
        "Steppe": lambda: ours(peer.weights, peer.batch, key),
        "PyTorch": peer.on(threads, peer.penalty_gradient),
        "PyTorch, one thread": peer.on(1, peer.penalty_gradient),
        "Steppe, a plain gradient": lambda: plain(peer.weights, peer.batch),
        "PyTorch, a plain gradient": peer.on(threads, lambda: peer.first(False)),
    }
    times = timing.interleaved(ways, rounds, settle=True)
    peer.torch.set_num_threads(threads)
    return [
        {"way": way, "ms": timing.median(times, way), "against Steppe": timing.ratio(times, way, "Steppe")}
        for way in ways
    ]


def estimate(loss: Loss, params: Any, batch: Any, key: jax.Array, probes: int) -> Estimate:
    """tr(H²) as `methods.fa` differentiates it."""
    return curvature.loss_moments(loss, params, batch, key, probes=probes).frobenius_squared


def agreement(peer: Torch) -> list[dict[str, Any]]:
    """Both libraries' estimates, and how far apart they are in standard errors of the difference."""
    ours = jax.jit(lambda params, batch, key: estimate(peer.loss, params, batch, key, 64))
    theirs = np.array([float(x) for x in peer.squares(64, False)])
    mean, sem = (float(x) for x in ours(peer.weights, peer.batch, jax.random.key(1)))
    their_mean, their_sem = float(theirs.mean()), float(theirs.std(ddof=1) / 8)
    apart = abs(mean - their_mean) / math.hypot(sem, their_sem)
    return [
        {"library": "Steppe", "tr(H²)": mean, "standard error": sem, "standard errors apart": None, "agree": None},
        {"library": "PyTorch", "tr(H²)": their_mean, "standard error": their_sem, "standard errors apart": apart,
         "agree": "yes" if apart < 4 else "NO"},
    ]  # fmt: skip

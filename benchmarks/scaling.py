"""How does the cost of a penalised step grow? An MLP, one quantity varied at a time."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import networks
import timing
from steppe import methods

UPDATES = 50
"""In a scan: a multiple of every interval below."""


class Case(NamedTuple):
    """What is varied: probes M, rows B, width of the hidden layers, depth (layers with weights)."""

    M: int = 5
    B: int = 64
    width: int = 256
    depth: int = 3


VARIED = {
    "M": (1, 2, 5, 10, 20),
    "B": (16, 32, 64, 128, 256),
    "width": (128, 256, 512, 1024),
    "depth": (2, 3, 4, 5, 6),
}
INTERVALS = (1, 2, 5, 10, 50)


def tables(quick: bool) -> Iterator[timing.Table]:
    """The questions of this file."""
    rounds = 1 if quick else 5
    rows = [row(name, value, rounds) for name, values in VARIED.items() for value in (values[-1:] if quick else values)]
    note = "Layers 256-width-…-10. A penalised step here is the plain gradient and the penalty's, without an optimiser."
    yield timing.Table("A penalised step against a plain gradient, M = 5, B = 64, width 256, depth 3", rows, note)
    note = f"Scans of {UPDATES} updates with plain SGD. Computed: 1 + (r − 1)/k, r the ratio at k = 1."
    yield timing.Table("The penalty every k steps", interval_rows(rounds), note)


def row(name: str, value: int, rounds: int) -> dict[str, Any]:
    """One value of one quantity, the others as they are."""
    case = Case()._replace(**{name: value})
    loss, params, batch = networks.mlp(sizes(case), case.B)
    tx = methods.fa(0.01, probes=case.M, every=1)
    state, plain = tx.init(params), jax.jit(jax.grad(loss))
    penalised = jax.jit(lambda p, s, b: tx.update(jax.grad(loss)(p, b), s, p, loss=loss, batch=b))
    ways = {"gradient": lambda: plain(params, batch), "penalised": lambda: penalised(params, state, batch)}
    times = timing.interleaved(ways, rounds)
    return {
        "varied": name, "value": value, "gradient, ms": timing.median(times, "gradient"),
        "penalised, ms": timing.median(times, "penalised"), "ratio": timing.ratio(times, "penalised", "gradient"),
    }  # fmt: skip


def sizes(case: Case) -> tuple[int, ...]:
    """Sizes of the layers."""
    return (256, *(case.depth - 1) * (case.width,), 10)


def interval_rows(rounds: int) -> list[dict[str, Any]]:
    """Measured ratios at each interval, and what the one at k = 1 foretells."""
    ways = {"plain": training(methods.fa(0.0))}
    ways |= {f"{k}": training(methods.fa(0.01, probes=Case().M, every=k)) for k in INTERVALS}
    times = timing.interleaved(ways, rounds)
    measured = {k: timing.ratio(times, f"{k}", "plain") for k in INTERVALS}
    return [{"k": k, "measured": measured[k], "computed": 1 + (measured[1].median - 1) / k} for k in INTERVALS]


def training(method: optax.GradientTransformationExtraArgs) -> Callable[[], Any]:
    """A scan of updates."""
    loss, params, batch = networks.mlp(sizes(Case()), Case().B)
    tx = optax.chain(method, optax.sgd(1e-3))

    @jax.jit
    def run(params: Any, state: Any, batch: Any) -> Any:
        def update(carry: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(update, (params, state), jnp.arange(UPDATES))[0]

    return lambda: run(params, tx.init(params), batch)

"""Recurrent layers of PyTorch as scans over time: unrolled they take a minute to compile at 16 steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

from steppe.core import checks

Cell = Callable[[Any, jax.Array, list[jax.Array]], tuple[Any, jax.Array]]
"""From the state before, the input's part of all gates and the weights to the state after and the output."""


def _hidden(h: jax.Array, weights: list[jax.Array]) -> jax.Array:
    """The part of all gates that comes from the state; the bias of the input is not in it."""
    part = h @ weights[1].T
    return part + weights[3] if len(weights) > 3 else part


def _lstm(state: tuple[jax.Array, jax.Array], gates: jax.Array, weights: list[jax.Array]) -> tuple[Any, jax.Array]:
    h, c = state
    i, f, g, o = jnp.split(gates + _hidden(h, weights), 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    if len(weights) in (3, 5):  # an output that is projected
        h = h @ weights[-1].T
    return (h, c), h


def _gru(state: tuple[jax.Array], gates: jax.Array, weights: list[jax.Array]) -> tuple[Any, jax.Array]:
    (h,) = state
    (r, z, n), (hr, hz, hn) = (jnp.split(part, 3, axis=-1) for part in (gates, _hidden(h, weights)))
    z = jax.nn.sigmoid(z + hz)
    h = (1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + z * h
    return (h,), h


def _plain(activation: Callable[[jax.Array], jax.Array]) -> Cell:
    def cell(state: tuple[jax.Array], gates: jax.Array, weights: list[jax.Array]) -> tuple[Any, jax.Array]:
        h = activation(gates + _hidden(state[0], weights))
        return (h,), h

    return cell


def _layer(cell: Cell, state: Any, x: jax.Array, weights: list[jax.Array], reverse: bool) -> tuple[Any, jax.Array]:
    """One layer in one direction over inputs (time, batch, features): its last state, and all outputs."""
    gates = x @ weights[0].T  # the same for all times: one product
    if len(weights) > 3:
        gates = gates + weights[2]
    step = lambda state, now: cell(state, now, weights)  # noqa: E731
    return jax.lax.scan(step, state, gates, reverse=reverse)


def _network(cell: Cell, env: Any, input: Any, hidden: Any, *rest: Any) -> Any:
    """``torch.lstm``, ``torch.gru`` and their like.

    Arguments are those of PyTorch: weights, biases (whether there are any), layers, dropout, train, bidirectional,
    batch_first.
    """
    if isinstance(hidden, torch.Tensor) and len(rest) == 7 and isinstance(rest[0], (list, tuple)):
        hidden = (hidden,)
    if len(rest) != 7 or not isinstance(hidden, (list, tuple)):
        checks.fail("from_torch", "module", "one whose recurrent layers take tensors", "a packed sequence",
                    "Pad the sequences, and give the module a mask.")  # fmt: skip
    flat, _, layers, dropout, train, both, first = rest
    x, weights = env.t2j_iso(input), env.t2j_iso(list(flat))
    before = [env.t2j_iso(part) for part in hidden]
    x = jnp.swapaxes(x, 0, 1) if first else x
    directions, after = 2 if both else 1, []
    each = len(weights) // (layers * directions)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            own = weights[place * each : (place + 1) * each]
            last, y = _layer(cell, tuple(part[place] for part in before), x, own, reverse=direction == 1)
            outputs.append(y)
            after.append(last)
        x = jnp.concatenate(outputs, axis=-1) if both else outputs[0]
        if layer < layers - 1 and train and dropout and env.param.prng is not None:
            kept = jax.random.bernoulli(env.get_and_rotate_prng_key(), 1 - dropout, x.shape)
            x = jnp.where(kept, x / (1 - dropout), 0)
    x = jnp.swapaxes(x, 0, 1) if first else x
    return env.j2t_iso((x, *(jnp.stack(part) for part in zip(*after, strict=True))))


OPERATIONS: dict[Any, Callable[..., Any]] = {
    torch.lstm: functools.partial(_network, _lstm),
    torch.gru: functools.partial(_network, _gru),
    torch.rnn_tanh: functools.partial(_network, _plain(jnp.tanh)),
    torch.rnn_relu: functools.partial(_network, _plain(jax.nn.relu)),
}
"""PyTorch's recurrent networks: functions of the translator and of PyTorch's arguments."""

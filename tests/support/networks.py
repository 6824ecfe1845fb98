"""Small networks with dense references, for tests.

References are compiled: operation by operation, each of a hundred operations is a program of its own.
"""

import functools

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from steppe import curvature
from steppe.core import losses


def mlp_params(key=0, sizes=(3, 4, 2), dtype=None):
    return _params(key, tuple(sizes), dtype or float)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _params(key, sizes, dtype):
    keys = jax.random.split(jax.random.key(key), len(sizes))
    normal = lambda key, shape: jax.random.normal(key, shape, dtype)
    return [
        {"w": normal(k, (i, o)) / i**0.5, "b": 0.1 * normal(k, (o,))}
        for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]


def mlp_apply(params, x, activation=jnp.tanh):
    for layer in params[:-1]:
        x = activation(x @ layer["w"] + layer["b"][None, :])
    return x @ params[-1]["w"] + params[-1]["b"][None, :]


def mlp_batch(key=1, size=6, inputs=3, classes=2, dtype=None):
    return _batch(key, size, inputs, classes, dtype or float)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _batch(key, size, inputs, classes, dtype):
    x_key, y_key = jax.random.split(jax.random.key(key))
    return {
        "x": jax.random.normal(x_key, (size, inputs), dtype),
        "y": jax.random.randint(y_key, (size,), 0, classes),
    }


def mlp_loss(params, batch, activation=jnp.tanh):
    log_p = jax.nn.log_softmax(mlp_apply(params, batch["x"], activation))
    return -jnp.mean(jnp.take_along_axis(log_p, batch["y"][:, None], axis=1))


mlp_network = losses.of(mlp_apply)
"""`mlp_loss`, as a loss whose outputs are known."""


def one_by_one(loss):
    """The loss of each example, for a loss that is their mean."""
    return lambda params, batch: jax.vmap(lambda one: loss(params, jax.tree.map(lambda x: x[None], one)))(batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def dense_ggn(apply, criterion, params, batch):
    flat, unravel = ravel_pytree(params)
    outputs = lambda p: apply(unravel(p), batch["x"])
    f, J = outputs(flat), jax.jacobian(outputs)(flat).reshape(-1, flat.size)
    C = jax.hessian(lambda f: criterion(f, batch["y"]))(f).reshape(f.size, f.size)
    return J.T @ C @ J


@functools.partial(jax.jit, static_argnums=0)
def dense_hessian(loss, params, batch):
    flat, unravel = ravel_pytree(params)
    return jax.hessian(lambda p: loss(unravel(p), batch))(flat)


def directly(probes=5, **options):
    """tr(H²) without looking for layers, as `fa(curvature=...)`: what micro-batches and `shard_map` get."""

    def measure(loss, params, batch, key):
        H = curvature.hessian(loss, params, [batch])
        return curvature.frobenius_squared(H, key, probes=probes, **options)

    return measure

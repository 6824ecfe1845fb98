"""Small networks of every kind with their data, for dense float64 references: ``(apply, params, batch, criterion)``."""

import functools

import jax
import jax.numpy as jnp
import pytest

from steppe.core import losses
from support.networks import mlp_apply, mlp_batch, mlp_params


def _normal(key, *shape):
    return _drawn(key, shape)


@functools.partial(jax.jit, static_argnums=1)
def _drawn(key, shape):
    return jax.random.normal(jax.random.key(key), shape, float)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _labels(key, size, classes):
    return jax.random.randint(jax.random.key(key), (size,), 0, classes)


def mlp():
    return mlp_apply, mlp_params(), mlp_batch(size=7), losses.cross_entropy


def regression():
    batch = {"x": _normal(3, 7, 3), "y": _normal(4, 7, 2)}
    return mlp_apply, mlp_params(), batch, losses.squared_error


def binary():
    batch = {"x": _normal(3, 7, 3), "y": _labels(4, 7, 2)}
    return mlp_apply, mlp_params(sizes=(3, 4, 1)), batch, losses.cross_entropy


def convnet():
    def apply(params, x):
        options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        x = jnp.tanh(jax.lax.conv_general_dilated(x, params["stem"], **options) + params["b"][None, None, None])
        x = x + jnp.tanh(jax.lax.conv_general_dilated(x, params["block"], **options))
        return jnp.mean(x, axis=(1, 2)) @ params["head"]

    shapes = {"stem": (2, 2, 1, 2), "b": (2,), "block": (2, 2, 2, 2), "head": (2, 3)}
    params = {name: 0.5 * _normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    return apply, params, {"x": _normal(9, 7, 4, 4, 1), "y": _labels(8, 7, 3)}, losses.cross_entropy


def transformer():
    def apply(params, tokens):
        x = params["embedding"][tokens]
        q, k, v = (x @ params[name] for name in ("q", "k", "v"))
        x = x + jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2)) @ v
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        x = centred / jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
        return jnp.mean(x + jax.nn.gelu(x @ params["up"]) @ params["down"], axis=1) @ params["head"]

    shapes = {"embedding": (4, 3), "q": (3, 2), "k": (3, 2), "v": (3, 3), "up": (3, 2), "down": (2, 3), "head": (3, 2)}
    params = {name: _normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    tokens = jax.random.randint(jax.random.key(3), (7, 3), 0, 4)
    return apply, params, {"x": tokens, "y": _labels(8, 7, 2)}, losses.cross_entropy


NETWORKS = {f.__name__: f for f in (mlp, regression, binary, convnet, transformer)}

EVERY = ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name != "mlp")]
"""Parameters of a test: all of them, the others among the slow ones."""

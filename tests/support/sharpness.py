"""Networks, data and references that the tests of several measures share."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from steppe.core import losses
from support.networks import mlp_apply, mlp_batch

CRITERIA = {"cross-entropy": losses.cross_entropy, "squared error": losses.squared_error}


def relu_apply(params, x):
    return mlp_apply(params, x, jax.nn.relu)


def tanh_apply(params, x):
    return mlp_apply(params, x, jnp.tanh)


def rescaled(params, factors):
    """The first hidden nodes of a ReLU network times positive factors, and what leaves them by the inverse."""
    first, second, *rest = params
    factors = jnp.broadcast_to(jnp.asarray(factors, first["w"].dtype), first["b"].shape)
    first = {"w": first["w"] * factors[None], "b": first["b"] * factors}
    return [first, {**second, "w": second["w"] / factors[:, None]}, *rest]


LAYER_WISE = 3.0
NODE_WISE = (0.5, 3.0, 2.0, 0.2)


def data(classes=3, criterion="cross-entropy", size=6):
    batch = mlp_batch(classes=max(classes, 2), size=size)
    if criterion == "squared error":
        batch["y"] = jax.random.normal(jax.random.key(3), (size, classes))
    return batch


def parts(batch, *sizes):
    ends = np.cumsum(sizes)
    return [jax.tree.map(lambda x, a=a, b=b: x[a:b], batch) for a, b in zip((0, *ends[:-1]), ends, strict=True)]


def example_gradients(apply, params, batch, criterion):
    """(N, n) gradients of single examples."""
    flat, unravel = ravel_pytree(params)

    def each(p):
        return losses.example_losses(criterion, apply(unravel(p), batch["x"]), batch["y"])

    return jax.jit(jax.jacrev(each))(flat)


COMPILED = []


@jax.monitoring.register_event_duration_secs_listener
def note(event, *_, **__):
    if "backend_compile" in event:
        COMPILED.append(event)

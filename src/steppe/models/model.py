"""Networks behind a pair of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from steppe.core.types import Moments, Params


class Model(NamedTuple):
    """A network: ``init(key) -> params`` and ``apply(params, x, key=None) -> logits``.

    A key turns dropout on; without one `apply` is deterministic. Logits are (B, K), or (B, 1) for two classes.
    ``moments(params, x, y)`` are tr H and tr(H²) of the cross-entropy, without dropout, where they have a closed form.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., jax.Array]
    moments: Callable[[Params, jax.Array, jax.Array], Moments] | None = None


def outputs(classes: int) -> int:
    """Logits for so many classes: two classes need one."""
    return 1 if classes == 2 else classes


def from_module(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A Flax NNX module as a Model; its parameters are a plain nested dictionary of arrays.

    The module's ``__call__(x, rngs)`` gets ``rngs=None`` when dropout is off.
    """
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, *states = nnx.split(abstract, nnx.Param, ...)
    rest = states[1]
    if jax.tree.leaves(rest):
        raise NotImplementedError("modules with state besides parameters (BatchNorm) need it threaded by the caller")

    def init(key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params: Params, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        module: Any = nnx.merge(graph, nnx.State(params), rest)
        return module(x, rngs=None if key is None else nnx.Rngs(dropout=key))

    return Model(init, apply)

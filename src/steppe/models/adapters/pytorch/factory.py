"""Networks whose every initial value is another module of PyTorch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from steppe.core import checks
from steppe.models.adapters.pytorch.modules import values_of
from steppe.models.base import Network, State, Trained, Variables


def network(trained: Trained, make: Callable[[], torch.nn.Module] | None, channels_last: bool) -> Network:
    """See `torch.from_factory`."""
    found, variables = trained.network, trained.variables
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)

    def drawn(seed: np.ndarray) -> Variables:
        assert make is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            values = values_of(make())
        if jax.tree.map(np.shape, values) != jax.tree.map(np.shape, shapes):
            checks.fail("network_of", "function", "one that makes the same modules but for their values",
                        "parameters or buffers of other names or shapes")  # fmt: skip
        return Variables(*jax.tree.map(lambda value, like: value.astype(like.dtype), tuple(values), tuple(shapes)))

    def init(key: jax.Array) -> Variables:
        made: Variables = jax.pure_callback(
            drawn, shapes, jax.random.bits(key, (), jnp.uint32), vmap_method="sequential"
        )
        return made

    found = found._replace(init=(lambda key: variables) if make is None else init)
    return _of_images(found) if channels_last else found


def channels_first(x: Any) -> Any:
    """Images (B, H, W, C) as PyTorch has them, (B, C, H, W)."""
    return jnp.moveaxis(jnp.asarray(x), -1, 1)


def _of_images(network: Network) -> Network:
    """A network that gets images with channels first, of such with channels last."""
    statistics = network.statistics

    def apply(variables: Variables, x: Any, *, key: jax.Array | None = None, train: bool = False) -> tuple[Any, State]:
        return network.apply(variables, channels_first(x), key=key, train=train)

    moved = network._replace(apply=apply)
    if statistics is None:
        return moved
    return moved._replace(statistics=lambda variables, x: statistics(variables, channels_first(x)))

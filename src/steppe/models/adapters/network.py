"""One network from whatever a user's function gives."""

import inspect
from collections.abc import Callable
from typing import Any

from flax import nnx

from steppe.core import checks
from steppe.models.adapters import equinox, torch
from steppe.models.adapters import nnx as flax_nnx
from steppe.models.base import Network, Trained


def network_of(
    thing: Any,
    example: Callable[[], Any] | None = None,
    make: Callable[[], Any] | None = None,
    *,
    channels_last: bool = False,
) -> Network:
    """What a user's function gives, as a network.

    Parameters
    ----------
    thing : Any
        A `Network`; an instance with values (`Trained`, a Flax NNX module, an Equinox model, the pair that
        ``eqx.nn.make_with_state`` gives, or a PyTorch module), with which every seed begins; or a function that draws
        one: of ``rngs``, an ``nnx.Rngs``, for Flax NNX, or of ``key`` for Equinox. Then every seed begins with its own.
    example : callable, optional
        Gives inputs of two examples, which a PyTorch module needs, see `from_torch`.
    make : callable, optional
        Gives another `thing`: every seed begins with a PyTorch module of its own, made after ``torch.manual_seed``.
    channels_last : bool
        Whether inputs are images, (B, H, W, C), of which a PyTorch module gets (B, C, H, W).

    Returns
    -------
    Network
        See `from_nnx`, `from_equinox` and `from_torch`.

    Raises
    ------
    InputError
        Something else; a module that cannot be a network.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> network = network_of(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    >>> jax.tree.map(jnp.shape, network.init(jax.random.key(0)).params)
    {'bias': (2,), 'kernel': (3, 2)}
    """
    if isinstance(thing, Network):
        return thing
    if (trained := _trained(thing)) is not None:
        return trained.network._replace(init=lambda key: trained.variables)
    if torch.is_module(thing):
        if example is None:
            checks.fail("network_of", "example", "given for a PyTorch module", "None",
                        "Give steppe.from_torch(module, example) in the place of the module.")  # fmt: skip
        return torch.from_factory(thing, example(), make, channels_last=channels_last)
    match random_argument(thing):
        case "rngs":
            return flax_nnx.from_factory(lambda rngs: thing(rngs=rngs))
        case "key":
            return equinox.from_factory(lambda key: thing(key=key))
    what = (
        "a steppe.models.Network, a Flax NNX module, an Equinox model, a PyTorch module, or a function of rngs or key "
        "that gives one"
    )
    return checks.fail("network_of", "thing", what, f"a value of type {type(thing).__name__}")


def _trained(thing: Any) -> Trained | None:
    """An instance with values, or None."""
    if isinstance(thing, nnx.Module):
        return flax_nnx.from_nnx(thing)
    if equinox.is_model(thing):
        return equinox.from_equinox(*thing) if isinstance(thing, tuple) else equinox.from_equinox(thing)
    return thing if isinstance(thing, Trained) else None


def random_argument(function: Callable[..., Any] | Any) -> str | None:
    """Of what a function draws a module: "rngs" for Flax NNX, "key" for Equinox, None for another thing.

    Examples
    --------
    >>> random_argument(lambda shape, classes, *, rngs: None)
    'rngs'
    """
    if isinstance(function, type) or not callable(function):
        return None
    accepted = inspect.signature(function).parameters
    return next((name for name in ("rngs", "key") if name in accepted), None)

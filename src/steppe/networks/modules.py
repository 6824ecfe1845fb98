"""A network that a user's function makes, as `checkpoints` fills it, of any framework or as a pair of functions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from steppe import extensions, models
from steppe.core import arrays, checks, losses, names, programs
from steppe.core.types import Batch
from steppe.models import Network
from steppe.models.adapters import equinox, torch
from steppe.networks.checkpoints import Blueprint

OPTION = "--network"


def build(command: str, text: str, settings: Mapping[str, Any], batch: Batch) -> tuple[Network, Blueprint]:
    """The network that ``module:function`` makes, and what is known of its arrays.

    A function whose first argument has no default is given the shape of one example and the number of classes, as
    ``[model] name`` of a study gives them; every other function is given neither. ``rngs`` and ``key`` are filled in.

    Parameters
    ----------
    command : str
        What is named in errors.
    text : str
        ``module:function``, or a class.
    settings : mapping
        Keyword arguments; ``shape`` and ``classes`` replace what the data say.
    batch : Batch
        All examples, as they were read.

    Returns
    -------
    Network, Blueprint
        The blueprint's values are those that the function gave.

    Raises
    ------
    InputError
        A function that cannot be had, fails, lacks a setting, or returns no network.
    """
    function = extensions.function(command, OPTION, text)
    thing = _called(command, function, text, settings, batch)
    network = models.network_of(thing, lambda: _two(command, batch))
    variables = network.init(jax.random.key(0))
    if torch.is_module(thing):
        return network, Blueprint(variables, *torch.names_of(thing), ignored=torch.IGNORED)
    return network, Blueprint(variables, ignored=_streams(thing), row=equinox.row(thing))


def _called(command: str, function: Callable[..., Any], text: str, settings: Mapping[str, Any], batch: Batch) -> Any:
    """What the function returns; where it fails, one sentence says how."""
    signature = inspect.signature(function)
    given, options = [], dict(settings)
    if _takes_data(signature):
        facts = {"shape": lambda: _shape(command, batch), "classes": lambda: _classes(command, batch)}
        given = [options.pop(name) if name in options else fact() for name, fact in facts.items()]
    known = list(signature.parameters.values())
    for name in options:
        if name not in signature.parameters and not any(p.kind is p.VAR_KEYWORD for p in known):
            checks.fail(command, "--set", f"a setting of {text}", checks.shown(f"network.{name}"),
                        checks.nearest(name, [p.name for p in known[len(given) :]]))  # fmt: skip
    drawn = {"rngs": lambda: nnx.Rngs(0), "key": lambda: jax.random.key(0)}
    options |= {name: make() for name, make in drawn.items() if name in signature.parameters and name not in options}
    label = programs.Label(command, OPTION)
    try:
        return programs.require_value(label, function(*given, **options))
    except (checks.InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also sys.exit()
        got = f"{text}, which fails: {programs.line(error)}"
        what = "a function of (shape, classes, **settings), or of settings alone, that returns a network"
        checks.fail(command, OPTION, what, got)


def _takes_data(signature: inspect.Signature) -> bool:
    """Whether the first argument is one that has to be given."""
    first = next(iter(signature.parameters.values()), None)
    return (
        first is not None
        and first.default is first.empty
        and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD, first.VAR_POSITIONAL)
        and first.name not in ("rngs", "key")
    )


def _two(command: str, batch: Batch) -> Any:
    """Inputs of two examples."""
    x, _ = checks.inputs_and_targets(command, batch)
    return jax.tree.map(lambda leaf: leaf[:2], x)


def _shape(command: str, batch: Batch) -> Any:
    """The shape of one example; of inputs in several parts, those of all."""
    x, _ = checks.inputs_and_targets(command, batch)
    return jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), x)


def _classes(command: str, batch: Batch) -> int:
    """How many classes there are: one more than the largest label; of real targets, how many numbers each has."""
    _, y = checks.inputs_and_targets(command, batch)
    y = arrays.numbers(command, "--data", losses.labels_of(y))
    if y.dtype.kind in "iub":
        return max(int(y.max()) + 1, 2)
    return int(y.shape[-1]) if y.ndim > 1 else 1


def _streams(thing: Any) -> frozenset[str]:
    """The names of streams of randomness, which checkpoints of Flax NNX modules hold."""
    return frozenset(names.names(nnx.state(thing, nnx.RngState))) if isinstance(thing, nnx.Module) else frozenset()

"""Flax NNX modules as networks."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Literal

from steppe.core import checks
from steppe.models.adapters import linen
from steppe.models.base import Network, State, Trained, Variables, conform

PARTS = (nnx.Param, nnx.RngState)
"""Parameters and streams of randomness; all other variables are state."""

MODES = ("rngs", "deterministic", "use_running_average", "train", "training")
"""Arguments of a module's call that say in which mode it is."""


def from_nnx(module: nnx.Module) -> Trained:
    """A user's Flax NNX module, with the parameters and statistics that it has now.

    Each ``nnx.Param`` is a parameter, shared ones once. Other variables, such as BatchNorm's statistics, are state,
    and so are bare arrays: training changes of them what the module itself changes, so that parameters of another
    variable type are frozen. Streams of randomness are neither: masks of dropout come from the key of `Network.apply`.
    The module itself is left alone, and later changes of it are not seen. Arguments ``rngs``, ``deterministic``,
    ``use_running_average``, ``train`` or ``training`` of its ``__call__`` are given as the mode asks. A Flax
    Linen module comes in as ``nnx.bridge.ToNNX(module, rngs).lazy_init(x)``.

    Parameters
    ----------
    module : nnx.Module
        An instance; its ``__call__(x)`` takes a batch.

    Returns
    -------
    Trained
        Parameters and state are nested dictionaries of arrays. `Network.init` gives the module's own values whatever
        the key: an instance does not know how it was drawn.

    Raises
    ------
    InputError
        Not an instance of a module, or one without values; keys of randomness that are no stream of `nnx.Rngs`; a
        Linen module with state inside another module. `Network.apply` refuses a module whose outputs are random in
        evaluation mode.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, steppe
    >>> from flax import nnx
    >>> net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(1)))
    >>> trained = from_nnx(net)
    >>> jax.tree.map(jnp.shape, trained.state)
    {'layers': {1: {'mean': (4,), 'var': (4,)}}}
    >>> trained.apply(trained.params, jnp.ones((2, 3))).shape
    (2, 4)
    """
    _check(module)
    graph, variables, streams = _taken_apart(nnx.clone(module))
    return Trained(_network(graph, streams, lambda key: variables, module), *variables)


def from_factory(make: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """The network whose parameters a function draws: ``init(key)`` is what ``make(nnx.Rngs(key))`` holds.

    See `from_nnx`.
    """
    trained = from_nnx(make(nnx.Rngs(0)))  # with values: under `eval_shape` NNX takes bare arrays for static
    return trained.network._replace(
        init=lambda key: _completed(_taken_apart(make(nnx.Rngs(key)))[1], trained.variables)
    )


def _taken_apart(module: nnx.Module) -> tuple[Any, Variables, nnx.State]:
    """A module's structure, its variables, and its streams of randomness; what it has sown is left out."""
    nnx.pop(module, nnx.Intermediate)
    graph, params, streams, rest = _apart(module)
    copied = (jax.tree.map(jnp.array, nnx.to_pure_dict(part)) for part in (params, rest))
    return graph, Variables(*copied), streams


def _completed(made: Any, known: Any) -> Any:
    """What a function made, and what is known of bare arrays, which NNX takes for static under `jit`."""
    if isinstance(known, Variables):
        return Variables(_completed(made.params, known.params), _completed(made.state, known.state))
    if isinstance(known, dict):
        return {name: _completed(made[name], part) if name in made else part for name, part in known.items()}
    return made


def _check(module: Any) -> None:
    """Fail for what is no module with values."""
    what = "an instance of a Flax NNX module"
    if isinstance(module, type):
        checks.fail("from_nnx", "module", what, f"the class {module.__name__}",
                    f"Make one, such as {module.__name__}(..., rngs=nnx.Rngs(0)).")  # fmt: skip
    if not isinstance(module, nnx.Module):
        checks.fail("from_nnx", "module", what, f"a value of type {type(module).__name__}")
    if not callable(module):
        checks.fail("from_nnx", "module", "a module with a method __call__(x)", type(module).__name__)
    leaves = jax.tree.leaves(nnx.state(module))
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        checks.fail("from_nnx", "module", "a module with values", "an abstract one, with shapes alone")
    if not jax.tree.leaves(nnx.state(module, nnx.Param)):
        checks.fail("from_nnx", "module", "a module with parameters (nnx.Param)", f"a {type(module).__name__} without")
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(_apart(module)[3])):
        checks.fail("from_nnx", "module", "a module whose keys of randomness are streams", "a key in another variable",
                    "Keep it in an nnx.Rngs, or as jax.random.key_data(key).")  # fmt: skip
    linen.check_parts(module)
    needed = [
        parameter.name
        for parameter in list(_call_of(module).values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in MODES
    ]
    if needed:
        checks.fail("from_nnx", "module", "a module that is called with one batch of inputs",
                    f"a {type(module).__name__}, whose __call__ also needs {', '.join(needed)}",
                    "Wrap it in a module that takes them together, as a tuple or a dictionary.")  # fmt: skip


def _call_of(module: nnx.Module) -> dict[str, inspect.Parameter]:
    """The arguments of a module's call, but for the module itself; those of Linen's module where it is one."""
    call = linen.call_of(module) if isinstance(module, nnx.bridge.ToNNX) else type(module).__call__
    return dict(list(inspect.signature(call).parameters.items())[1:])


def _network(graph: Any, streams: nnx.State, init: Callable[[jax.Array], Variables], module: nnx.Module) -> Network:
    """The pure functions of a module that was taken apart."""
    accepted, settled = _call_of(module), [] if jax.tree.leaves(streams) else [True]
    norms = [path for path, part in nnx.iter_modules(module) if isinstance(part, nnx.BatchNorm)]

    def called(variables: Variables, x: Any, key: jax.Array | None, train: bool, *, anew: bool = False) -> Any:
        """The outputs, and the module after the call; with `anew` statistics forget what was there before."""
        still = key is None or not train
        streamed = _drawn(streams, jax.random.key(0) if key is None else key)
        params, state = jax.tree.map(jnp.asarray, tuple(variables))  # arrays of NumPy would be written into
        made: Any = nnx.merge(graph, nnx.State(params), streamed, nnx.State(state))
        made.set_attributes(deterministic=still, use_running_average=not train, raise_if_not_found=False)
        if still:  # also where a module asks its layers by an argument of its own
            made.set_attributes(nnx.Dropout, rate=0.0, raise_if_not_found=False)
            made.set_attributes(nnx.MultiHeadAttention, dropout_rate=0.0, raise_if_not_found=False)
        if anew:
            made.set_attributes(nnx.BatchNorm, momentum=0.0, raise_if_not_found=False)
        mode = {
            "rngs": None if still else nnx.Rngs(dropout=cast(jax.Array, key)),
            "deterministic": still,
            "use_running_average": not train,
            "train": train,
            "training": train,
        }
        mode = {name: value for name, value in mode.items() if name in accepted}
        if not isinstance(made, nnx.bridge.ToNNX):
            return made(x, **mode), made
        return linen.called(made, x, mode, rngs=key if train else None, still=still, train=train, anew=anew), made

    def apply(variables: Variables, x: Any, *, key: jax.Array | None = None, train: bool = False) -> tuple[Any, State]:
        if train:
            outputs, made = called(variables, x, key, train)
            return outputs, _state_like(variables.state, made)
        if not settled:
            _check_still(lambda key: called(variables, x, key, False)[0])
            settled.append(True)
        return called(variables, x, None, False)[0], variables.state

    def statistics(variables: Variables, x: Any) -> State:
        after = _state_like(variables.state, called(variables, x, None, True, anew=True)[1])
        if isinstance(module, nnx.bridge.ToNNX):
            return linen.with_statistics(variables.state, after)
        return _with_parts(variables.state, after, norms)

    known = linen.has_statistics(module) if isinstance(module, nnx.bridge.ToNNX) else bool(norms)
    return Network(init, apply, statistics=statistics if known else None)


def _check_still(outputs: Callable[[jax.Array], Any]) -> None:
    """Fail for a module whose outputs in evaluation mode depend on the key that its streams begin from."""
    program = jax.make_jaxpr(outputs)(jax.random.key(0)).jaxpr
    random = set(program.invars)
    for equation in program.eqns:
        if any(not isinstance(v, Literal) and v in random for v in equation.invars):
            random |= set(equation.outvars)
    if any(not isinstance(v, Literal) and v in random for v in program.outvars):
        checks.fail("from_nnx", "module", "one that draws random numbers in training mode alone",
                    "one that draws some in evaluation mode", "Draw where an argument train of its __call__ is true, "
                    "or an attribute deterministic is false.")  # fmt: skip


def _apart(module: nnx.Module) -> tuple[Any, nnx.State, nnx.State, nnx.State]:
    """What a module is beside its arrays; its parameters, its streams of randomness, and its state."""
    graph, *parts = nnx.split(module, *PARTS, ...)
    params, streams, state = cast(Any, parts)
    return graph, params, streams, state


def _state_like(before: State, module: nnx.Module) -> State:
    """The state that a module holds now, in the dtypes from before; what it has sown is left out."""

    def part(before: Any, now: Any) -> Any:
        if not isinstance(before, dict):
            return now
        return {name: part(inner, now[name]) for name, inner in before.items() if name in now}

    return conform("from_nnx", part(before, nnx.to_pure_dict(_apart(module)[3])), before)


def _with_parts(before: State, after: State, paths: list[tuple[Any, ...]]) -> State:
    """A state with the parts after a call that lie at some paths, and all others as before."""
    if () in paths:
        return after
    inner = {name: [path[1:] for path in paths if path[0] == name] for name in before}
    return {name: _with_parts(part, after[name], inner[name]) if inner[name] else part for name, part in before.items()}


def _drawn(streams: nnx.State, key: jax.Array) -> nnx.State:
    """Streams of randomness that begin anew from a key."""
    leaves, structure = jax.tree.flatten(streams)

    def begin(place: int, leaf: jax.Array) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = jax.random.fold_in(key, place)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    fresh: nnx.State = jax.tree.unflatten(structure, [begin(place, leaf) for place, leaf in enumerate(leaves)])
    return fresh

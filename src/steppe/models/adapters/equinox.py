"""Equinox models as networks."""

import copy
import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, extras, names
from steppe.core.types import Params
from steppe.models.base import Network, State, Trained, Variables, conform

if TYPE_CHECKING:
    import equinox as eqx

AXIS = "batch"
"""The name of the batch axis where no BatchNorm asks for another."""


def from_equinox(model: "eqx.Module", state: "eqx.nn.State | None" = None) -> Trained:
    """A user's Equinox model, with the parameters and statistics that it has now.

    As usual with Equinox, ``model(x)`` takes one example, and the batch is made by ``jax.vmap``; its axis has the name
    that BatchNorm asks for. With `state` it is ``model(x, state)``; a ``key`` is given to a ``__call__`` that has such
    an argument. Each inexact array is a parameter. Evaluation is in ``eqx.nn.inference_mode``.

    Parameters
    ----------
    model : eqx.Module
        An instance.
    state : eqx.nn.State, optional
        As ``eqx.nn.make_with_state`` gives it, for a model with BatchNorm.

    Returns
    -------
    Trained
        Parameters are a dictionary from names, such as ``"layers.0.weight"``, to arrays; state is one from the numbers
        of its arrays. `Network.init` gives the model's own values whatever the key.

    Raises
    ------
    MissingExtra
        Equinox is not installed.
    InputError
        Not an Equinox model, or one half of a partitioned one; a model with state without its `state`; BatchNorm over
        more than one axis name; keys of randomness in its state.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> trained = from_equinox(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)))
    >>> trained.apply(trained.params, jnp.ones((5, 3))).shape
    (5, 2)
    >>> sorted(trained.params)
    ['layers.0.bias', 'layers.0.weight', 'layers.1.bias', 'layers.1.weight']
    """
    eqx = _equinox()
    _check(eqx, model, state)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    values, structure = jax.tree.flatten(state)
    variables = Variables(_named(params), {p: jnp.asarray(v, v.dtype) for p, v in enumerate(values)})
    network = _network(eqx, static, jax.tree.structure(params), _called(params), structure, lambda key: variables)
    return Trained(network, *variables)


def from_factory(make: Callable[[jax.Array], Any]) -> Network:
    """The network whose parameters a function draws: of a key, a model, or a model and its state.

    See `from_equinox`.
    """

    def trained(key: jax.Array) -> Trained:
        made = make(key)
        return from_equinox(*made) if isinstance(made, tuple) else from_equinox(made)

    return trained(jax.random.key(0)).network._replace(init=lambda key: trained(key).variables)


class Leaf(NamedTuple):
    """One of the values that ``eqx.tree_serialise_leaves`` writes, one after another, without names.

    Attributes
    ----------
    path : where it goes among variables, such as ("params", "layers.0.weight"); empty for what is neither parameter nor
        state.
    value : what the model has there.
    """

    path: tuple[str, ...]
    value: Any


def row(thing: Any) -> tuple[Leaf, ...]:
    """The values of a model, or of the pair of a model and its state, as files have them; none of another thing."""
    if not is_model(thing):
        return ()
    eqx = _equinox()
    model, state = thing if isinstance(thing, tuple) else (thing, None)
    called = iter(_called(eqx.filter(model, eqx.is_inexact_array)))
    leaves = [
        Leaf(("params", next(called)) if eqx.is_inexact_array(leaf) else (), leaf)
        for leaf in jax.tree.leaves(model)
        if eqx.is_array_like(leaf)
    ]
    more = [Leaf(("state", str(place)), leaf) for place, leaf in enumerate(jax.tree.leaves(state))]
    return (*leaves, *more)


def is_model(thing: Any) -> bool:
    """Whether it is a model, or the pair of a model and its state; none is before somebody has imported Equinox."""
    library = sys.modules.get("equinox")
    first = thing[0] if isinstance(thing, tuple) and len(thing) == 2 else thing
    return library is not None and isinstance(first, library.Module)


def _equinox() -> Any:
    """The library.

    Raises
    ------
    MissingExtra
        It is not installed.
    """
    if importlib.util.find_spec("equinox") is None:
        raise extras.MissingExtra("from_equinox needs equinox, which is not installed. Run: pip install equinox")
    import equinox

    return equinox


def _check(eqx: Any, model: Any, state: Any) -> None:
    """Fail for what is no model with its state."""
    if isinstance(model, type):
        checks.fail("from_equinox", "model", "an instance of an Equinox module", f"the class {model.__name__}",
                    f"Make one, such as {model.__name__}(..., key=jax.random.key(0)).")  # fmt: skip
    if not isinstance(model, eqx.Module) or not callable(model):
        hint = "Give the two as from_equinox(model, state)." if isinstance(model, tuple) else ""
        what = "an instance of an Equinox module with a method __call__(x)"
        checks.fail("from_equinox", "model", what, f"a value of type {type(model).__name__}", hint)
    has_state = any(isinstance(part, eqx.nn.StateIndex) for part in _parts(model, eqx.nn.StateIndex))
    if has_state and not isinstance(state, eqx.nn.State):
        checks.fail("from_equinox", "state", "the state of this model", checks.shown(state),
                    "Make both by eqx.nn.make_with_state(...) and give from_equinox(model, state).")  # fmt: skip
    if state is not None and not isinstance(state, eqx.nn.State):
        checks.fail("from_equinox", "state", "an equinox.nn.State", f"a value of type {type(state).__name__}")
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        checks.fail("from_equinox", "state", "arrays of numbers", "a key of randomness",
                    "Keep it as jax.random.key_data(key).")  # fmt: skip
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    if not leaves:
        checks.fail("from_equinox", "model", "a model with floating-point arrays", f"a {type(model).__name__} without")

    for part in _modules(eqx, model):
        gaps = [field.name for field in dataclasses.fields(part) if _is_gap(part, field)]
        if gaps:
            checks.fail("from_equinox", "model", "a whole model", f"a {type(part).__name__} whose {gaps[0]} is None",
                        "Give what was partitioned as eqx.combine(params, static).")  # fmt: skip


def _modules(eqx: Any, thing: Any) -> Iterator[Any]:
    """A module and all within it, also in lists and dictionaries."""
    if isinstance(thing, eqx.Module):
        yield thing
        thing = [getattr(thing, field.name, None) for field in dataclasses.fields(thing)]
    inner = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (list, tuple)) else ()
    for part in inner:
        yield from _modules(eqx, part)


def _is_gap(part: Any, field: "dataclasses.Field[Any]") -> bool:
    """Whether a layer of Equinox's own lacks what it always has: one half of a partitioned model."""
    may_be_none = field.type is Any or any(word in str(field.type) for word in ("None", "Optional", "~"))
    return type(part).__module__.startswith("equinox.") and getattr(part, field.name, None) is None and not may_be_none


def _parts(model: Any, kind: type) -> list[Any]:
    """The parts of one kind, and leaves."""
    return jax.tree.leaves(model, is_leaf=lambda part: isinstance(part, kind))


def _axis(eqx: Any, model: Any) -> Any:
    """The name of the batch axis that a model asks for."""
    found = set()
    for part in _parts(model, eqx.nn.BatchNorm):
        if isinstance(part, eqx.nn.BatchNorm):
            found |= set(part.axis_name) if isinstance(part.axis_name, (tuple, list)) else {part.axis_name}
    if len(found) > 1:
        listed = ", ".join(sorted(map(str, found)))
        checks.fail("from_equinox", "model", "one with a single name for the batch axis of BatchNorm", listed)
    return found.pop() if found else AXIS


def _called(params: Any) -> list[str]:
    """The names of parameters, in the order of their leaves; without slashes, which files keep for nested trees."""
    return [name.replace("/", ".") for name in names.names(params)]


def _named(params: Any) -> Params:
    return dict(zip(_called(params), jax.tree.leaves(params), strict=True))


def _network(
    eqx: Any, static: Any, shape: Any, names: list[str], state_shape: Any, init: Callable[[jax.Array], Variables]
) -> Network:
    """The pure functions of a model that was taken apart."""
    accepted = inspect.signature(type(static).__call__).parameters
    keyed, axis = "key" in accepted, _axis(eqx, static)
    stateful = state_shape.num_leaves > 0
    norms = [part for part in _parts(static, eqx.nn.BatchNorm) if isinstance(part, eqx.nn.BatchNorm)]

    def state_of(state: State) -> Any:
        return jax.tree.unflatten(state_shape, [state[place] for place in sorted(state)])

    def called(model: Any, x: Any, state: State, key: jax.Array | None) -> tuple[Any, Any]:
        """Outputs, and Equinox's state after the call."""
        size = jax.tree.leaves(x)[0].shape[0]
        keys = None if key is None or not keyed else jax.random.split(key, size)
        before = state_of(state)

        def one(x: Any, key: jax.Array | None) -> tuple[Any, Any]:
            options = {"key": key} if keyed else {}
            return model(x, before, **options) if stateful else (model(x, **options), before)

        return jax.vmap(one, (0, None if keys is None else 0), (0, None), axis_name=axis)(x, keys)

    def model_of(params: Params) -> Any:
        return eqx.combine(jax.tree.unflatten(shape, [params[name] for name in names]), static)

    def apply(variables: Variables, x: Any, *, key: jax.Array | None = None, train: bool = False) -> tuple[Any, State]:
        model, key = eqx.nn.inference_mode(model_of(variables.params), value=not train), key if train else None
        if train and key is None:
            model = _changed(model, eqx.nn.Dropout, inference=True)
        outputs, after = called(model, x, variables.state, key)
        if not train:
            return outputs, variables.state
        return outputs, conform("from_equinox", dict(enumerate(jax.tree.leaves(after))), variables.state)

    def statistics(variables: Variables, x: Any) -> State:
        model = eqx.nn.inference_mode(model_of(variables.params), value=False)
        model = _changed(_changed(model, eqx.nn.Dropout, inference=True), eqx.nn.BatchNorm, momentum=0.0)
        after, found = called(model, x, variables.state, None)[1], state_of(variables.state)
        for norm in norms:
            place = norm.batch_state_index if norm.mode == "batch" else norm.ema_state_index
            found = found.set(place, after.get(place))
            if norm.mode == "batch":  # a count of no updates: the statistics are whole, and nothing makes up for zeros
                found = found.set(norm.batch_counter, jnp.zeros((), jnp.result_type(after.get(norm.batch_counter))))
            else:
                found = found.set(norm.ema_first_time_index, jnp.array(False))
        return conform("from_equinox", dict(enumerate(jax.tree.leaves(found))), variables.state)

    return Network(init, apply, statistics=statistics if norms else None)


def _changed(model: Any, kind: type, **fields: Any) -> Any:
    """A model whose parts of one kind have other fields, also such as are static."""

    def part(found: Any) -> Any:
        if not isinstance(found, kind):
            return found
        other = copy.copy(found)
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other

    return jax.tree.map(part, model, is_leaf=lambda found: isinstance(found, kind))

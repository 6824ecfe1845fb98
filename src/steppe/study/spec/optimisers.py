"""Optimisers and learning-rate schedules of Optax by name, or a user's own, checked before anything runs."""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, programs
from steppe.core.types import Batch, Loss, Params
from steppe.study.spec import shares
from steppe.study.spec.settings import Source, build


def _named(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of a part of Optax that may be meant, by name."""
    kinds = types.FunctionType | functools.partial
    found = {name: made for name, made in vars(module).items() if isinstance(made, kinds)}
    return {name: found[name] for name in sorted(found) if not name.startswith(("_", "scale_by_"))}


def _is_optimiser(function: Callable[..., Any]) -> bool:
    """Whether it makes an optimiser of a learning rate; a few of Optax do not say what they return."""
    signature = inspect.signature(function)
    first, made = next(iter(signature.parameters), ""), signature.return_annotation
    known = made is signature.empty or (isinstance(made, type) and issubclass(made, optax.GradientTransformation))
    return first == "learning_rate" and known


def _is_schedule(function: Callable[..., Any]) -> bool:
    """Whether it makes a schedule of numbers."""
    signature = inspect.signature(function)
    return signature.return_annotation == optax.Schedule and "schedules" not in signature.parameters


_CORE, _CONTRIBUTED = _named(optax), _named(optax.contrib)

OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    name: made for name, made in {**_CONTRIBUTED, **_CORE}.items() if _is_optimiser(made) and name != "dpsgd"
}
"""Optax's, by name, and those of `optax.contrib`; the first argument is the learning rate. `dpsgd` takes the gradient
of each example."""

SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {name: made for name, made in _CORE.items() if _is_schedule(made)}
"""Optax's, by name: functions that make a function of the number of the update."""

LEAST = {"transition_steps": 1, "transition_begin": 0, "warmup_steps": 0}
"""Of settings of Optax's schedules: with less they are silently constant, or something else than they say."""

MEMORIES = ("momentum", "b1", "b2", "b3", "decay", "rho", "adam_b1", "adam_b2")
"""Settings of Optax's optimisers that say how much of an average is kept from update to update: at 1 or more it never
fades, and training diverges or stands still."""

TRIED = 100_000
"""Updates for which a schedule is made before it is known how many there are."""


def schedule(table: Mapping[str, Any], source: Source, updates: int) -> optax.Schedule:
    """The learning-rate schedule that a table names, for so many updates in all.

    Raises
    ------
    InputError : settings out of range; a user's function that makes no schedule.
    """
    counted = shares.counted(table, updates)
    if table["name"] in SCHEDULES:
        _check_counts(table, counted, updates)
    made = build(SCHEDULES, counted, source)
    if not callable(made):
        checks.fail("study", table["name"], "a function that returns a schedule", checks.returned(made),
                    "Return a function of the number of the update.")  # fmt: skip
    return typing.cast(optax.Schedule, made)


def _check_counts(table: Mapping[str, Any], counted: Mapping[str, Any], updates: int) -> None:
    """Fail for numbers of updates with which Optax makes a constant schedule, or another than was asked for."""
    alone = {"warmup_steps": 1} if table["name"] == "warmup_constant_schedule" else {}
    for name, least in {**LEAST, **alone}.items():
        count = counted.get(name, least)
        if count < least:
            got = f"{table[name]!r}, which is {count} of {updates} updates" if counted[name] != table[name] else count
            checks.fail("study", f"train.learning_rate.{name}", f"at least {least}", got)


def optimiser(table: Mapping[str, Any], rate: Any, key: jax.Array, source: Source) -> optax.GradientTransformation:
    """The optimiser that a table names, with a learning rate or a schedule; `key` is for one that draws.

    Raises
    ------
    InputError : settings out of range; a user's function that makes no optimiser.
    """
    made = build(OPTIMISERS, table, source, rate, key=key)
    if not isinstance(made, optax.GradientTransformation):
        checks.fail("study", table["name"], "a function that returns an Optax optimiser", checks.returned(made))
    return _without_keys(made) if table["name"] == "noisy_sgd" else made


def _without_keys(made: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimiser with random keys in its state as numbers, which checkpoints keep."""

    def init(params: Params) -> Any:
        state = made.init(params)
        return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)

    def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        def typed(like: Any, leaf: Any) -> Any:
            return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf

        updates, after = made.update(updates, jax.tree.map(typed, made.init(updates), state), params)
        return updates, jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, after)

    return optax.GradientTransformation(init, update)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def check_schedule(table: Mapping[str, Any], source: Source) -> None:
    """Check that a schedule gives one number for an update.

    Raises
    ------
    InputError : see `schedule`; a first rate that is none.
    """
    rate, label = schedule(table, source, TRIED), programs.Label("study", table["name"])

    def must(value: Any) -> Any:
        if isinstance(value, bool) or not _is_real(value):
            checks.fail("study", table["name"], "a schedule: a function of the number of the update, whose value is "
                        "one real number", checks.returned(value))  # fmt: skip
        return value

    programs.check(label, rate, (jnp.int32(0),), must)
    with programs.user_errors(label, own=True):
        first = float(rate(jnp.int32(0)))
    if not math.isfinite(first) or first < 0:
        checks.fail("study", table["name"], "a schedule of finite rates from 0 on", f"one that begins with {first}")


def _is_real(value: Any) -> bool:
    """Whether a value is one real number: of Python, NumPy or JAX."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, int | float)
    return value.shape == () and bool(jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def check_optimiser(table: Mapping[str, Any], weight_decay: float, source: Source, *, scheduled: bool) -> None:
    """Check an optimiser before the network is there, whose learning rate may be `scheduled`.

    Raises
    ------
    InputError : see `optimiser`, and `check_update` for one of Optax; weight decay said twice; a schedule for one that
        takes a number alone; an average that never fades.
    """
    name = table["name"]
    if weight_decay and "weight_decay" in table:
        checks.fail("study", "train.weight_decay", f"0 beside {name!r}, which has its own", weight_decay,
                    "Set it as train.optimizer.weight_decay.")  # fmt: skip
    if name in OPTIMISERS:
        _check_memories(table)
    made = optimiser(table, 0.1, jax.random.key(0), source)
    if name in OPTIMISERS:
        shapes = {"w": (2, 3), "b": (3,)}
        params = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
        check_update(name, made, params)
        if scheduled and not _takes_schedule(table, params, source):
            checks.fail("study", "train.schedule", f"'constant' with {name}, whose learning rate is one number",
                        "a schedule", "Write schedule = \"constant\" into [train].")  # fmt: skip


def _check_memories(table: Mapping[str, Any]) -> None:
    """Fail for averages that never fade, which Optax does not look at."""
    for key in MEMORIES:
        value = table.get(key, 0.0)
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 <= value < 1:
            checks.fail("study", f"train.optimizer.{key}", "at least 0 and below 1", value)


def _takes_schedule(table: Mapping[str, Any], params: Params, source: Source) -> bool:
    """Whether an optimiser of Optax, which takes a number, takes a schedule as well: not all say so."""
    try:
        check_update(table["name"], optimiser(table, optax.constant_schedule(0.1), jax.random.key(0), source), params)
    except checks.InputError:
        return False
    return True


def check_update(name: str, made: optax.GradientTransformation, params: Params) -> None:
    """Check that an optimiser needs what a study gives it, and nothing else.

    Raises
    ------
    InputError : one that needs more, or whose state changes its form.
    """
    made = optax.with_extra_args_support(made)

    def update(params: Params) -> Any:
        state = made.init(params)
        asked = values(lambda *_: jnp.float32(0), jnp.float32(0), params)
        return state, made.update(params, state, params, **asked)

    try:
        state, (updates, after) = jax.eval_shape(update, params)
    except Exception as error:
        what = f"an optimiser that needs gradients, its state, parameters, {checks.joined(VALUES)} only"
        checks.fail("study", name, what, f"one that fails with these: {programs.line(error)}", "Take another.")
    check_form(name, "an optimiser", updates, params, state, after)


VALUES = ("value", "grad", "value_fn")
"""What optimisers that search along a line ask for, by Optax's names."""


def values(objective: Loss, value: jax.Array, gradient: Params) -> dict[str, Any]:
    """What an optimiser is told beside gradients: the loss of the batch, its gradient before methods, and how to
    evaluate it elsewhere, to which Optax gives all that a study calls its chain with.
    """

    def value_fn(params: Params, *, batch: Batch = None, loss: Any = None, penalty_loss: Any = None) -> jax.Array:
        return objective(params, batch)

    return dict(zip(VALUES, (value, gradient, value_fn), strict=True))


def check_form(name: str, what: str, updates: Any, params: Any, state: Any, after: Any) -> None:
    """Check that updates have the form of the parameters, and that a state keeps its own and can be saved.

    Raises
    ------
    InputError : otherwise; `what` was made.
    """
    for leaf in jax.tree.leaves((state, after)):
        if not isinstance(leaf, bool | int | float) and not hasattr(leaf, "dtype"):
            checks.fail("study", name, f"{what} whose state is arrays", f"{checks.returned(leaf)} in it")
    if _form(updates) != _form(params) or _form(after) != _form(state):
        checks.fail("study", name, f"{what} whose updates have the form of the gradients, and whose state keeps "
                    "its own", "one that changes them")  # fmt: skip
    if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(state)):
        checks.fail("study", name, f"{what} whose state is numbers, which checkpoints keep", "one with a key",
                    "Keep jax.random.key_data(key).")  # fmt: skip


def _form(tree: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    return jax.tree.structure(tree), [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]

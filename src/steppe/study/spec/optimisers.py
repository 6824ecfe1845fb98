"""Optimisers and learning-rate schedules of Optax by name, or a user's own, checked before anything runs."""

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, programs
from steppe.study.spec import shares
from steppe.study.spec.settings import Source, build


def _is_optimiser(function: Callable[..., Any]) -> bool:
    signature = inspect.signature(function)
    made = signature.return_annotation if next(iter(signature.parameters), "") == "learning_rate" else None
    return isinstance(made, type) and issubclass(made, optax.GradientTransformation)


_FUNCTIONS = {
    name: made
    for name, made in vars(optax).items()
    if inspect.isfunction(made) and not name.startswith(("_", "scale_by_"))
}

OPTIMISERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    name: _FUNCTIONS[name] for name in sorted(_FUNCTIONS) if _is_optimiser(_FUNCTIONS[name])
}
"""Optax's, by name; the first argument is the learning rate."""

SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    name: _FUNCTIONS[name]
    for name in sorted(_FUNCTIONS)
    if name.endswith("_schedule") and inspect.signature(_FUNCTIONS[name]).return_annotation == optax.Schedule
}
"""Optax's, by name: functions that make a function of the number of the update."""


TRIED = 100_000
"""Updates for which a schedule is made before it is known how many there are."""


def schedule(table: Mapping[str, Any], source: Source, updates: int) -> optax.Schedule:
    """The learning-rate schedule that a table names, for so many updates in all.

    Raises
    ------
    InputError : settings out of range; a user's function that makes no schedule.
    """
    made = build(SCHEDULES, shares.counted(table, updates), source)
    if not callable(made):
        checks.fail("study", table["name"], "a function that returns a schedule", checks.returned(made),
                    "Return a function of the number of the update.")  # fmt: skip
    return typing.cast(optax.Schedule, made)


def optimiser(table: Mapping[str, Any], rate: Any, key: jax.Array, source: Source) -> optax.GradientTransformation:
    """The optimiser that a table names, with a learning rate or a schedule; `key` is for one that draws.

    Raises
    ------
    InputError : settings out of range; a user's function that makes no optimiser.
    """
    made = build(OPTIMISERS, table, source, rate, key=key)
    if not isinstance(made, optax.GradientTransformation):
        checks.fail("study", table["name"], "a function that returns an Optax optimiser", checks.returned(made))
    return made


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


def check_optimiser(table: Mapping[str, Any], weight_decay: float, source: Source) -> None:
    """Check that an optimiser needs gradients, its state and parameters, and nothing else.

    Raises
    ------
    InputError : see `optimiser`; one that needs more, or whose state changes its form; weight decay said twice.
    """
    name = table["name"]
    if weight_decay and "weight_decay" in table:
        checks.fail("study", "train.weight_decay", f"0 beside {name!r}, which has its own", weight_decay,
                    "Set it as train.optimizer.weight_decay.")  # fmt: skip
    made = optax.with_extra_args_support(optimiser(table, 0.1, jax.random.key(0), source))
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    try:
        state = jax.eval_shape(made.init, params)
        updates, after = jax.eval_shape(made.update, params, state, params)
    except Exception as error:
        checks.fail("study", name, "an optimiser that needs gradients, its state and parameters only",
                    f"one that fails with these: {programs.line(error)}", "Take another.")  # fmt: skip
    check_form(name, "an optimiser", updates, params, state, after)


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

"""The parts of training that a table names: a loss, transforms, methods; what a user's function gives is checked."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from steppe import data, extensions, methods
from steppe.core import checks, losses
from steppe.core.types import Criterion
from steppe.data.transforms import Transform
from steppe.methods import accumulation
from steppe.study.spec.settings import Source, build, with_closed_forms


def none() -> optax.GradientTransformationExtraArgs:
    """No method: the plain optimiser."""
    return optax.with_extra_args_support(optax.identity())


CHAIN: dict[str, Callable[..., optax.GradientTransformation]] = {**methods.METHODS, "none": none}
"""What may stand in a chain before the optimiser, by name."""


def criterion(table: Mapping[str, Any], source: Source) -> Criterion:
    """The loss that a table names, a function of outputs and labels.

    Raises
    ------
    InputError : settings out of range; a user's function that returns no function.
    """
    made: Criterion = build(losses.LOSSES, table, source)
    _check_callable(table["name"], "a loss", made, "Return a function of outputs and labels, whose value is the mean.")
    return made


def transform(table: Mapping[str, Any], source: Source, classes: int) -> Transform:
    """The transform of batches that a table names.

    Raises
    ------
    InputError : settings out of range; a user's function that returns no function.
    """
    made: Transform = build(data.TRANSFORMS, table, source, classes=classes)
    todo = "Return a function of (key, batch, loss), whose value is the batch."
    _check_callable(table["name"], "a transform", made, todo)
    return made


def method(
    table: Mapping[str, Any], source: Source, key: jax.Array, accumulate: int | None = None
) -> optax.GradientTransformation:
    """The method that a table names; it goes through the batch in so many parts, unless it has `microbatches` itself.

    A method of a user's own is given a loss that does so.

    Raises
    ------
    InputError : settings out of range; a user's function that returns no Optax transformation.
    """
    own = extensions.is_function(table["name"])
    parts = {"microbatches": accumulate} if accumulate and not own and "microbatches" not in table else {}
    made: optax.GradientTransformation = build(CHAIN, table, source, key=key, **parts)
    if not isinstance(made, optax.GradientTransformation):
        checks.fail("study", table["name"], "a function that returns an Optax transformation of gradients",
                    checks.returned(made), "Return optax.GradientTransformation(init, update).")  # fmt: skip
    return _in_parts(made, accumulate) if accumulate and own else made


def _in_parts(made: optax.GradientTransformation, parts: int) -> optax.GradientTransformationExtraArgs:
    """A method whose losses go through the batch in so many equal parts."""
    inner = optax.with_extra_args_support(made)

    def update(updates: Any, state: Any, params: Any = None, **given: Any) -> tuple[Any, Any]:
        for name in {"loss", "penalty_loss"} & given.keys():
            given[name] = accumulation.accumulate("study", given[name], parts)
        found: tuple[Any, Any] = inner.update(updates, state, params, **given)
        return found

    return optax.GradientTransformationExtraArgs(inner.init, update)


def check_method(table: Mapping[str, Any], source: Source) -> None:
    """Check a method before the network is there; see `method`."""
    method(with_closed_forms(table, None), source, jax.random.key(0))


def _check_callable(name: str, what: str, made: Any, todo: str) -> None:
    if not callable(made):
        checks.fail("study", name, f"a function that returns {what}", checks.returned(made), todo)

"""A user's own loss, transforms, methods and schedule, tried before training: on the first batch, over all updates."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from steppe import extensions
from steppe.analysis.quantities import Quantity
from steppe.core import checks, losses, programs
from steppe.core.types import Batch, Loss, Params
from steppe.data import transforms
from steppe.measures.answers import ask
from steppe.measures.table import heading
from steppe.models import Variables
from steppe.study.examination import Examination
from steppe.study.questions import BATCH, Question, Sample
from steppe.study.spec import parts
from steppe.study.spec.comparisons import ALWAYS, TRACKED, fail_unasked
from steppe.study.spec.optimisers import check_form
from steppe.study.training import preconditioning
from steppe.study.training.chain import learning_rate
from steppe.study.training.recipe import Recipe

RATES = 1000
"""Updates, spread over all, whose learning rates are looked at."""


def check_parts(recipe: Recipe) -> None:
    """Check what a user's own parts give for the first batch of a study.

    Cost: none where all parts are Steppe's; otherwise a trace of each, and one program of the loss of a batch.

    Raises
    ------
    InputError
        A transform whose batch has another form; a loss that is not one real scalar of the dtype of the outputs, or not
        finite at the start; a method whose updates have not the form of the gradients, or whose state changes its own;
        a learning rate that becomes negative or no number; an optimiser that has no preconditioner to track.
    """
    spec = recipe.spec
    if isinstance(spec.train.learning_rate, Mapping):
        _check_rates(recipe)
    if spec.track is not None and spec.track.preconditioned:
        preconditioning.settings_of(spec.train)
    named = [table["name"] for table in (spec.loss, *spec.augment) if _is_users(table)]
    methods = [table for table in (spec.method, *spec.then) if _is_users(table)]
    if not named and not methods:
        return
    variables = jax.jit(recipe.initial)(jnp.uint32(0))
    compact = jax.tree.map(lambda leaf: jnp.asarray(leaf[: spec.train.batch_size]), recipe.dataset.train)
    first, loss = recipe.dataset.decode(compact), losses.of(recipe.model.at(variables.state), recipe.criterion)
    batch = _transformed(recipe, first, functools.partial(loss, variables.params))
    if _is_users(spec.loss):
        outputs = jax.eval_shape(recipe.model.at(variables.state), variables.params, batch["x"])
        must = functools.partial(_one_scalar, spec.loss["name"], outputs)
        _check(spec.loss["name"], recipe.criterion, (outputs, batch["y"]), must)
    if named:
        _check_finite(recipe, " and ".join(named), loss, variables, first)
    for table in methods:
        _check_method(recipe, table, loss, variables.params, batch)


def unused_outputs(recipe: Recipe) -> str:
    """That a user's own network has outputs for which there are no classes; "" where it has not.

    They are trained down and are never right, and confidences, calibration and curvature are those of all outputs.
    A vocabulary that is padded is such a network, too, so that it is no error.

    Raises
    ------
    InputError
        Fewer outputs than classes.
    """
    dataset, spec = recipe.dataset, recipe.spec
    if not dataset.classes or not _is_users(spec.model) or _is_users(spec.loss):
        return ""
    variables = jax.eval_shape(recipe.model.init, jax.random.key(0))
    compact = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype), dataset.train)
    apply = lambda variables, batch: recipe.model.apply(variables, dataset.decode(batch)["x"])[0]  # noqa: E731
    width, needed = jax.eval_shape(apply, variables, compact).shape[-1], dataset.classes
    name = spec.model["name"]
    if width < needed and (width, needed) != (1, 2):
        what = f"a network of {needed} outputs, one for each class"
        checks.fail("study", name, what, f"one of {width}", "Its function is given their number, (shape, classes).")
    if width <= needed:
        return ""
    return (
        f"{name} has {width} outputs for {needed} classes: the others are never right, and take part in confidences "
        "and in curvature. Make as many as the second argument of the function says, unless you mean it."
    )


def check_measures(asked: list[Question], recipe: Recipe, margins: Mapping[str, float] = {}) -> None:
    """Ask measures of the untrained network, on a few examples: what fails stops before training.

    Asked are a user's own, those of Steppe with other settings than their defaults, and those that may give what a
    margin is declared for.

    Raises
    ------
    InputError
        One that is asked of a part that the data do not have; one of a user's own that fails, or one of Steppe that
        fails with its settings and not with its defaults; two whose quantities would be one column of the results; a
        margin of what the study does not ask, or that is none on the scale of its quantity.
    """
    for question in asked:
        question.sample.part(recipe.dataset)
    further = {name: margin for name, margin in margins.items() if name not in ALWAYS | TRACKED}
    uncertain = [q for q in asked if not q.measure.ships or q.settings != q.measure.defaults or further]
    if not uncertain:
        return
    variables = jax.jit(recipe.initial)(jnp.uint32(0))
    examination = Examination(recipe.model, recipe.dataset, [])
    columns: dict[str, str] = {}
    scales: dict[str, bool] = {}
    unknown = False
    for measure, settings, (split, *_), *_ in uncertain:
        subject = examination.subject(Sample(split, BATCH, BATCH), variables)
        answer = ask(subject, measure, settings)
        if answer.error is not None and not (measure.ships and ask(subject, measure, measure.defaults).error):
            raise answer.error
        unknown = unknown or answer.error is not None
        for quantity in answer.quantities:
            column = heading(measure.name, quantity.name, split)
            scales[column] = quantity.log
            other = columns.setdefault(column, measure.name)
            if other != measure.name:
                checks.fail("study", "measure.names", f"of different quantities than {other}",
                            f"{measure.name}, which gives {quantity.name!r}, too")  # fmt: skip
    for name, margin in further.items():
        if name not in scales and not unknown:
            fail_unasked(name, [*ALWAYS, *scales])
        Quantity(name, name, log=scales.get(name, False)).check_margin(f"equivalence.{name}", margin)


def _is_users(table: Any) -> bool:
    return isinstance(table, Mapping) and extensions.is_function(table["name"])


def _check(name: str, function: Callable[..., Any], arguments: tuple[Any, ...], must: Callable[[Any], Any]) -> None:
    programs.check(programs.Label("study", name), function, arguments, must)


def _made(recipe: Recipe) -> list[transforms.Transform]:
    """The study's transforms."""
    spec, classes = recipe.spec, recipe.dataset.classes
    return [parts.transform(table, spec.source, classes) for table in spec.augment]


def _transformed(recipe: Recipe, batch: Batch, loss: Callable[[Batch], Any]) -> Batch:
    """The form of a batch after the study's transforms, each of a user's own checked."""
    for made, table in zip(_made(recipe), recipe.spec.augment, strict=True):
        apply = _applied(made, loss)
        if _is_users(table):
            _check(table["name"], apply, (batch,), functools.partial(_batch, table["name"], batch))
        batch = jax.eval_shape(apply, batch)
    return batch


def _applied(made: transforms.Transform, loss: Callable[[Batch], Any]) -> Callable[[Batch], Batch]:
    return lambda batch: made(jax.random.key(0), batch, loss)


def _batch(name: str, before: Batch, after: Any) -> Any:
    """What a transform gave, if it is a batch of the same form; labels may have become probabilities."""
    what = "a transform whose value is a batch of arrays, with x and y as they came"
    if not isinstance(after, Mapping) or not {"x", "y"} <= set(after):
        checks.fail("study", name, what, checks.returned(after), 'Return {**batch, "x": …}.')
    for leaf in jax.tree.leaves(after):
        if not hasattr(leaf, "dtype"):
            checks.fail("study", name, what, f"one with {checks.returned(leaf)}")
    x, y = after["x"], after["y"]
    if _form(x) != _form(before["x"]):
        checks.fail("study", name, f"a transform whose x is {checks.returned(before['x'])}, as it came",
                    checks.returned(x))  # fmt: skip
    mixed = jnp.issubdtype(jnp.result_type(y), jnp.floating) and jnp.shape(y)[:1] == before["y"].shape[:1]
    if _form(y) != _form(before["y"]) and not mixed:
        checks.fail("study", name, f"a transform whose y is {checks.returned(before['y'])}, as it came, or floats",
                    checks.returned(y))  # fmt: skip
    return x


def _form(tree: Any) -> Any:
    return jax.tree.structure(tree), [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(tree)]


def _one_scalar(name: str, outputs: Any, value: Any) -> Any:
    """The value of a loss, if it is one real scalar of the outputs' dtype."""
    checks.one_scalar("study", name, value)
    if checks.is_traced(value) and value.dtype != outputs.dtype:
        checks.fail("study", name, f"a loss of the dtype of the outputs, {outputs.dtype}", f"one of {value.dtype}")
    return value


def _check_finite(recipe: Recipe, named: str, loss: Loss, variables: Variables, batch: Batch) -> None:
    """Fail where the loss of the first batch is NaN or infinite at the start."""
    transform = transforms.chain(*_made(recipe))

    def value(params: Params, batch: Batch) -> Any:
        return loss(params, transform(jax.random.key(0), batch, functools.partial(loss, params)))

    with programs.user_errors(programs.Label("study", named), own=True):
        start = float(jax.jit(value)(variables.params, batch))
    if not math.isfinite(start):
        what = "such that the loss of an untrained network is finite"
        checks.fail("study", named, what, f"{start} on the first batch")


def _check_method(recipe: Recipe, table: Mapping[str, Any], loss: Loss, params: Params, batch: Batch) -> None:
    """Fail for a method that does not keep the form of gradients and of its own state."""
    made = optax.with_extra_args_support(parts.method(table, recipe.spec.source, jax.random.key(0)))
    name = table["name"]

    def step(params: Params, batch: Batch) -> Any:
        state = made.init(params)
        return state, made.update(params, state, params, loss=loss, batch=batch, penalty_loss=loss)

    def must(value: Any) -> Any:
        state, pair = value
        if not isinstance(pair, tuple) or len(pair) != 2:
            what = "a method whose update returns updates and the new state"
            checks.fail("study", name, what, checks.returned(pair))
        check_form(name, "a method", pair[0], params, state, pair[1])
        return pair[0]

    _check(name, step, (params, batch), must)


def _check_rates(recipe: Recipe) -> None:
    """Fail where a schedule gives a rate that is negative or no number, or cannot be of so many updates."""
    train, updates = recipe.spec.train, recipe.steps * recipe.spec.train.epochs
    rate = learning_rate(train, updates, recipe.spec.source)
    counts = np.unique(np.linspace(0, updates - 1, min(updates, RATES)).astype(np.int32))
    name = train.learning_rate["name"]  # type: ignore[index]  # a table
    with programs.user_errors(programs.Label("study", name), own=True):
        rates = np.asarray(jax.lax.map(rate, jnp.asarray(counts)))
    wrong = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if len(wrong):
        got = f"{rates[wrong[0]]} at update {counts[wrong[0]]} of {updates}"
        checks.fail("study", name, "a schedule of finite rates from 0 on", got)

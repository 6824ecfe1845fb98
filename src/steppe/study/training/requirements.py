"""What a study's settings, its data and its network must be to go together; each is refused in a sentence."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from steppe import extensions, methods
from steppe.core import checks, losses, names
from steppe.core.types import Params
from steppe.data import Dataset
from steppe.models import Network, Variables
from steppe.study.spec import optimisers
from steppe.study.spec.tables import Spec
from steppe.study.training.chain import averages


def check_data(spec: Spec, dataset: Dataset) -> None:
    """Fail for data that are too few, lack a part, or have other targets than the loss.

    Raises
    ------
    InputError
        Such data.
    """
    examples, size = checks.batch_size("study", dataset.train), spec.train.batch_size
    if size > examples:
        checks.fail("study", "train.batch_size", f"at most the {examples} training examples", size)
    _check_loss(spec, dataset)
    stopping = spec.train.early_stopping
    if stopping and stopping.on and dataset.validation is None:
        checks.fail("study", "data.validation", f"given, for early stopping on {stopping.on} looks at it", "none",
                    "Say which share of the training examples to split off, such as 0.1.")  # fmt: skip


def _check_loss(spec: Spec, dataset: Dataset) -> None:
    """Fail for a loss of classes where targets are real numbers, and the other way round."""
    name, stopping = spec.loss["name"], spec.train.early_stopping
    if spec.is_regression and dataset.classes:
        checks.fail("study", "loss.name", "a loss of classes, which these data have", repr(name),
                    'Where they hold numbers to predict, say so: targets = "real" of data "file".')  # fmt: skip
    if not dataset.classes and name in losses.LOSSES and not spec.is_regression:
        what = "'squared_error' for data with real targets, or 'gaussian_negative_log_likelihood'"
        checks.fail("study", "loss.name", what, repr(name))
    if not dataset.classes and stopping and stopping.on == "validation_accuracy":
        checks.fail("study", "train.early_stopping.on", "'validation_loss' for data with real targets",
                    "'validation_accuracy'")  # fmt: skip


def check_network(spec: Spec, dataset: Dataset, model: Network) -> None:
    """Fail for a network that cannot be trained as the study says.

    Raises
    ------
    InputError
        Settings of training that are at odds with the network or with each other.
    """
    parts = _parts(spec)
    penalties = {name for name, method in methods.CATALOGUE.items() if method.family == "penalty"}
    _check_masks(spec, parts, penalties)
    variables = jax.eval_shape(model.init, jax.random.key(0))
    _check_dtype(spec, variables)
    _check_optimiser(spec, variables.params)
    averaging = averages(spec, variables.params)
    if jax.tree.leaves(variables.state):
        _check_parts(spec, {name for name in parts.keys() - penalties if parts[name] != (spec.train.accumulate or 1)})
        if averaging:
            _check_average(spec, dataset, model, variables)


def _parts(spec: Spec) -> dict[str, int]:
    """Into how many parts each method splits a batch."""
    whole = spec.train.accumulate or 1
    tables = (table for table in (spec.method, *spec.then) if table["name"] != "none")
    return {table["name"]: table.get("microbatches", whole) for table in tables}


def _check_masks(spec: Spec, parts: Mapping[str, int], penalties: set[str]) -> None:
    """Fail for dropout in what goes through parts of a batch, which cannot share the masks."""
    split = {name for name, count in parts.items() if count > 1}
    word = "train.accumulate" if (spec.train.accumulate or 1) > 1 else "microbatches"
    why = f"with {word}, whose parts cannot share the masks"
    if split and spec.train.penalty_dropout:
        checks.fail("study", "train.penalty_dropout", f"false {why}", "true")
    if split - penalties and spec.model.get("dropout", 0):
        checks.fail("study", "model.dropout", f"0 {why}", spec.model["dropout"])


def _check_dtype(spec: Spec, variables: Variables) -> None:
    """Fail where a network cannot be trained in bfloat16."""
    if spec.train.dtype != "bfloat16":
        return
    others = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(variables.params)} - {"float32"})
    if others:
        what = f"left out with this network, whose parameters are {others[0]}"
        checks.fail("study", "train.dtype", what, "'bfloat16'")
    if "closed_form" in {value for table in (spec.method, *spec.then) for value in map(str, table.values())}:
        checks.fail("study", "train.dtype", "left out with closed_form, which is in float32", "'bfloat16'")


def _check_optimiser(spec: Spec, params: Params) -> None:
    """Fail for an optimiser of a user's own that needs more than it is given, or does not keep its form."""
    table = spec.train.optimizer
    if isinstance(table, dict) and extensions.is_function(table["name"]):
        made = optimisers.optimiser(table, 0.1, jax.random.key(0), spec.source)
        optimisers.check_update(table["name"], made, params)


def _check_parts(spec: Spec, split: set[str]) -> None:
    """Fail where a network has state and methods of the loss see other parts of the batch than the gradient does."""
    if split:
        what = f"{spec.train.accumulate or 1} with a network that has state, such as BatchNorm"
        todo = "The statistics of a part are not those of its batch."
        checks.fail("study", "method.microbatches", what, "another number", todo)


def _check_average(spec: Spec, dataset: Dataset, model: Network, variables: Variables) -> None:
    """Fail for an average of weights where training changes state that is no statistic."""
    batch = jax.eval_shape(lambda train: dataset.decode(jax.tree.map(lambda leaf: leaf[:2], train)), dataset.train)
    x, leaves = batch["x"], jax.tree.leaves(variables.state)
    known = zip(
        names.names(variables.state),
        leaves,
        model.is_trained(variables, x),
        model.is_statistic(variables, x),
        strict=True,
    )
    unknown = [
        name
        for name, leaf, changes, statistic in known
        if changes and not statistic and jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    if unknown:
        todo = f"It is not known how to estimate {', '.join(unknown)} anew for averaged weights."
        whose = "train.optimizer" if spec.average is None else "average"
        got = "one that averages weights" if spec.average is None else repr(spec.average.name)
        checks.fail("study", whose, "left out, or another, with this network", got, todo)

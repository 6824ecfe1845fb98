"""One run as pure functions: a network, its data, its training, and what is measured; and those functions compiled."""

import functools
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from steppe import curvature, data, methods
from steppe.core import checks, losses, predictions
from steppe.core.types import Batch, Criterion, Estimate, Loss, Moments, Params
from steppe.data import Dataset, transforms
from steppe.models import Model
from steppe.study.spec import limits
from steppe.study.spec.settings import build
from steppe.study.spec.tables import Spec
from steppe.study.training.chain import Strengths, chain
from steppe.study.training.tracking import Tracker, shuffled

EVALUATION_CHUNK = 500
"""Examples in one step of an evaluation: bounds its memory."""

FITTED = 2048
"""Training examples at most on which the loss is measured after an epoch."""

SWEPT = ("lam", "rho")
"""Strengths of methods that enter a compiled program as an argument, so that a sweep over them compiles once."""


class Progress(NamedTuple):
    """All that training carries from one epoch to the next: saved, it is a checkpoint."""

    params: Params
    opt_state: Any
    epoch: jax.Array
    seed: jax.Array


class Metrics(NamedTuple):
    """Mean loss and accuracy over a data set, without dropout."""

    loss: jax.Array
    accuracy: jax.Array


def shape_of(spec: Spec) -> tuple[Spec, Strengths]:
    """What must be compiled, and the strengths it is given: runs of one shape share a program.

    A strength of exactly zero stays in the shape: it compiles to the plain optimiser.
    """
    strengths = {k: jnp.float32(v) for k, v in spec.method.items() if k in SWEPT and isinstance(v, (int, float)) and v}
    rest = {k: v for k, v in spec.method.items() if k not in strengths}
    return spec.model_copy(update={"method": rest}), strengths


def shape_key(shape: Spec) -> str:
    """Equal for equal shapes."""
    return json.dumps(shape.identity(), sort_keys=True)


@dataclass(frozen=True)
class Recipe:
    """Everything that one shape of run does, as pure functions.

    Attributes
    ----------
    spec : the shape (see `shape_of`).
    dataset : what it trains on.
    model : the network.
    """

    spec: Spec
    dataset: Dataset
    model: Model

    @classmethod
    def of(cls, spec: Spec, dataset: Dataset) -> "Recipe":
        """The recipe of a specification, for a data set.

        Raises
        ------
        InputError : a batch larger than the training data; settings of the model out of range, or at odds.
        """
        examples, size = checks.batch_size("study", dataset.train), spec.train.batch_size
        if size > examples:
            checks.fail("study", "train.batch_size", f"at most the {examples} training examples", size)
        split = {table["name"] for table in (spec.method, *spec.then) if table.get("microbatches", 1) > 1}
        if split and spec.train.penalty_dropout:
            checks.fail(
                "study", "train.penalty_dropout", "false with microbatches, which cannot share the masks", "true"
            )
        penalties = {name for name, method in methods.CATALOGUE.items() if method.family == "penalty"}
        if split - penalties and spec.model.get("dropout", 0):
            checks.fail("study", "model.dropout", "0 with microbatches, which cannot share the masks",
                        spec.model["dropout"])  # fmt: skip
        return cls(spec, dataset, spec.build_model(dataset))

    @property
    def examples(self) -> int:
        """Examples to train on."""
        return checks.batch_size("study", self.dataset.train)

    @property
    def steps(self) -> int:
        """Updates in an epoch: whole batches."""
        return self.examples // self.spec.train.batch_size

    @property
    def criterion(self) -> Criterion:
        """What is trained on."""
        return build(losses.LOSSES, self.spec.loss, self.spec.source)

    @property
    def measured_loss(self) -> Loss:
        """What networks are measured by, whatever they were trained on: cross-entropy without dropout."""
        return losses.of(self.model.apply)

    def compact_loss(self, params: Params, batch: Batch) -> jax.Array:
        """The measured loss of a batch as the data set holds it."""
        return self.measured_loss(params, self.dataset.decode(batch))

    def rehearse(self, strengths: Strengths) -> None:
        """Trace an epoch without running it.

        Raises
        ------
        InputError : settings of the method that do not fit the data or the batch.
        """
        progress = jax.eval_shape(self.start, jnp.uint32(0), strengths)
        limits.check_work(progress, self.steps * self.spec.train.epochs)
        jax.eval_shape(self.epoch, progress, strengths, self.dataset.train)

    def initial(self, seed: jax.Array) -> Params:
        """The parameters that a run begins with."""
        return self.model.init(_stream(seed, "init"))

    def start(self, seed: jax.Array, strengths: Strengths) -> Progress:
        """A run before its first epoch."""
        params = self.initial(seed)
        return Progress(params, self._chain(seed, strengths).init(params), jnp.int32(0), seed)

    def network(self, progress: Progress) -> Params:
        """The parameters that are tested, measured and kept: the average of the weights where there is one."""
        if self.spec.average is None:
            return progress.params
        return methods.averaged_params(progress.opt_state, progress.params)

    def epoch(self, progress: Progress, strengths: Strengths, train: Batch) -> tuple[Progress, jax.Array]:
        """One pass over the shuffled data, a scan of updates; also the mean training loss.

        Examples beyond the last whole batch sit this epoch out.
        """
        seed, size = progress.seed, self.spec.train.batch_size
        chained = self._chain(seed, strengths)
        order = jax.random.permutation(jax.random.fold_in(_stream(seed, "shuffle"), progress.epoch), self.examples)
        dropout, augmenting = (
            jax.random.fold_in(_stream(seed, purpose), progress.epoch) for purpose in ("dropout", "augment")
        )
        whole = losses.of(self.model.apply, self.criterion)
        penalised = {} if self.spec.train.penalty_dropout else {"penalty_loss": whole}

        def update(carry: tuple[Params, Any], now: tuple[jax.Array, jax.Array]) -> tuple[tuple[Params, Any], jax.Array]:
            (params, opt_state), (rows, step) = carry, now
            masked = functools.partial(self.model.apply, key=jax.random.fold_in(dropout, step))
            loss = losses.of(masked, self.criterion)
            batch = self._augmented(jax.random.fold_in(augmenting, step), self._batch(train, rows), loss, params)
            value, grads = jax.value_and_grad(loss)(params, batch)
            updates, opt_state = chained.update(grads, opt_state, params, loss=loss, batch=batch, **penalised)
            return (optax.apply_updates(params, updates), opt_state), value

        rows = order[: self.steps * size].reshape(self.steps, size)
        carry, values = jax.lax.scan(update, (progress.params, progress.opt_state), (rows, jnp.arange(self.steps)))
        return Progress(*carry, progress.epoch + 1, seed), jnp.mean(values)

    def evaluate(self, params: Params, examples: Batch, most: int | None = None) -> Metrics:
        """Mean loss and accuracy over all examples, or over `most` of them in a fixed shuffle, chunk by chunk."""
        count = checks.batch_size("study", examples)
        if most is not None and most < count:
            chosen = shuffled(count)[:most]
            examples, count = jax.tree.map(lambda leaf: leaf[chosen], examples), most
        chunks = -(-count // EVALUATION_CHUNK)

        def chunk(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            batch = self._batch(examples, jnp.minimum(rows, count - 1))
            logits, inside = self.model.apply(params, batch["x"]), rows < count
            loss = jnp.where(inside, losses.cross_entropies(logits, batch["y"]), 0.0)
            return jnp.sum(loss), jnp.sum(inside & predictions.correct(logits, batch["y"]))

        loss, correct = jax.lax.map(chunk, jnp.arange(chunks * EVALUATION_CHUNK).reshape(chunks, EVALUATION_CHUNK))
        return Metrics(jnp.sum(loss) / count, jnp.sum(correct) / count)

    def flatness(self, params: Params, train: Batch) -> Estimate:
        """tr(H²) of the measured loss on one training mini-batch: what a penalty acts on.

        The mean over `measure.batches` mini-batches and `measure.probes` sign probes on each, the same for every
        condition, seed and epoch; its standard error is that over mini-batches.
        """
        size, many = self.spec.measure.batch_size or self.spec.train.batch_size, self.spec.measure.batches
        key = jax.random.key(zlib.crc32(b"flatness"))

        def one(now: tuple[jax.Array, jax.Array]) -> jax.Array | float:
            rows, index = now
            H = curvature.hessian(self.measured_loss, params, self._batch(train, rows))
            return curvature.frobenius_squared(H, jax.random.fold_in(key, index), probes=self.spec.measure.probes).mean

        rows = jax.random.randint(key, (many, size), 0, self.examples)
        return curvature.estimate(jax.lax.map(one, (rows, jnp.arange(many))))

    def _batch(self, examples: Batch, rows: jax.Array) -> Batch:
        """Some rows of the data, decoded."""
        return self.dataset.decode(jax.tree.map(lambda leaf: leaf[rows], examples))

    def _augmented(self, key: jax.Array, batch: Batch, loss: Loss, params: Params) -> Batch:
        """A batch after the study's transforms, one after another."""
        made = [
            build(data.TRANSFORMS, table, self.spec.source, classes=self.dataset.classes) for table in self.spec.augment
        ]
        return transforms.chain(*made)(key, batch, functools.partial(loss, params))

    def _chain(self, seed: jax.Array, strengths: Strengths) -> optax.GradientTransformationExtraArgs:
        """Methods, optimiser, average."""
        updates = self.steps * self.spec.train.epochs
        return chain(self.spec, updates, _stream(seed, "probes"), strengths, self._closed_form)

    def _closed_form(self, loss: Loss, params: Params, batch: Batch, key: jax.Array) -> Moments:
        """The exact moments of the Hessian, where the network has them."""
        if self.model.moments is None or self.spec.loss["name"] != "cross_entropy" or self.spec.train.penalty_dropout:
            checks.fail("study", "method", "without closed_form for this study", "a network or loss that has none",
                        "It takes a linear model, or an mlp with one hidden layer and a smooth activation; "
                        "cross-entropy; and penalty_dropout = false.")  # fmt: skip
        return self.model.moments(params, batch["x"], batch["y"])


def _stream(seed: jax.Array, purpose: str) -> jax.Array:
    """A stream of randomness for each purpose: the same seed starts, shuffles and drops alike in every condition."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


class Trainer(NamedTuple):
    """The compiled training of one shape.

    Attributes
    ----------
    start, epoch, network : as in `Recipe`; `epoch` consumes its Progress.
    steps : updates in an epoch.
    compile_seconds : how long compilation took.
    step_memory_mb : what the compiler plans for an epoch beyond parameters and data, in megabytes (10⁶ bytes).
    """

    start: Callable[[jax.Array, Strengths], Progress]
    epoch: Callable[[Progress, Strengths, Batch], tuple[Progress, jax.Array]]
    network: Callable[[Progress], Params]
    steps: int
    compile_seconds: float
    step_memory_mb: float


class Meter(NamedTuple):
    """The compiled measurements of a network; they depend on no method. `fitted`: on some of the training examples."""

    train: Callable[[Params, Batch], Metrics]
    test: Callable[[Params, Batch], Metrics]
    flatness: Callable[[Params, Batch], Estimate]
    fitted: Callable[[Params, Batch], Metrics]


class Compiler:
    """Compiles what runs need, once for each shape. `train` and `test` are the data on the device."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.train, self.test = (jax.tree.map(jnp.asarray, part) for part in (dataset.train, dataset.test))
        self._trainers: dict[str, Trainer] = {}
        self._meters: dict[str, Meter] = {}
        self._trackers: dict[str, Tracker] = {}

    def trainer(self, shape: Spec, strengths: Strengths) -> Trainer:
        """The training of a shape (see `shape_of`)."""
        key = shape_key(shape)
        if key not in self._trainers:
            self._trainers[key] = self._compiled_trainer(Recipe.of(shape, self.dataset), strengths)
        return self._trainers[key]

    def meter(self, shape: Spec) -> Meter:
        """The measurements of a shape's network."""
        key = json.dumps([shape.model, shape.measure.model_dump(), shape.train.batch_size], sort_keys=True)
        if key not in self._meters:
            self._meters[key] = self._compiled_meter(Recipe.of(shape, self.dataset))
        return self._meters[key]

    def tracker(self, shape: Spec) -> Tracker | None:
        """What follows the curvature of a shape's network during training, if the study asks for it."""
        if shape.track is None:
            return None
        key = json.dumps([shape.model, shape.track.model_dump()], sort_keys=True)
        if key not in self._trackers:
            self._trackers[key] = Tracker(Recipe.of(shape, self.dataset).compact_loss, self.train, shape.track)
        return self._trackers[key]

    def _compiled_trainer(self, recipe: Recipe, strengths: Strengths) -> Trainer:
        began = time.perf_counter()
        start = jax.jit(recipe.start)
        progress = jax.eval_shape(start, jnp.uint32(0), strengths)
        epoch = jax.jit(recipe.epoch, donate_argnums=0).lower(progress, strengths, self.train).compile()
        memory = cast(Any, epoch.memory_analysis()).temp_size_in_bytes / 1e6
        network = jax.jit(recipe.network) if recipe.spec.average else recipe.network
        return Trainer(start, epoch, network, recipe.steps, time.perf_counter() - began, memory)

    def _compiled_meter(self, recipe: Recipe) -> Meter:
        params = jax.eval_shape(recipe.model.init, jax.random.key(0))
        evaluate = jax.jit(recipe.evaluate)
        return Meter(
            train=evaluate.lower(params, self.train).compile(),
            test=evaluate.lower(params, self.test).compile(),
            flatness=jax.jit(recipe.flatness).lower(params, self.train).compile(),
            fitted=jax.jit(functools.partial(recipe.evaluate, most=FITTED)).lower(params, self.train).compile(),
        )

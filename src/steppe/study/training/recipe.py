"""One run as pure functions: a network, its data and its training."""

import functools
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from steppe import data, methods
from steppe.core import checks, losses
from steppe.core.batches import Batches
from steppe.core.types import Batch, Criterion, Loss, Moments, Params
from steppe.curvature import layers
from steppe.data import Dataset, transforms
from steppe.methods import accumulation
from steppe.models import Network, Variables
from steppe.models.base import conform
from steppe.models.precision import mixed_precision
from steppe.sharpness import CriticalSharpness, critical_sharpness
from steppe.study.spec import limits, optimisers
from steppe.study.spec.settings import build
from steppe.study.spec.tables import Spec
from steppe.study.training import requirements, tracking
from steppe.study.training.chain import Strengths, averages, chain, learning_rate
from steppe.study.training.devices import ONE_DEVICE, Placement
from steppe.study.training.loader import Block

SWEPT = ("lam", "rho")
"""Strengths of methods that enter a compiled program as an argument, so that a sweep over them compiles once."""


class Progress(NamedTuple):
    """All that training carries from one epoch to the next: saved, it is a checkpoint."""

    params: Params
    state: Any
    opt_state: Any
    epoch: jax.Array
    seed: jax.Array


Epoch = tuple[Progress, jax.Array, CriticalSharpness | None]
"""What an epoch gives: its progress, the mean training loss, and what `[track]` asks of its updates."""

Carry = tuple[Params, Any, Any]
"""Parameters, state, and the state of the optimiser: what an update changes."""

Known: TypeAlias = tuple[jax.Array, Any]
"""What an update gives besides: its loss, and what is tracked; or what those of an epoch give, one row an update."""

Update: TypeAlias = Callable[[Carry, tuple[jax.Array, jax.Array]], tuple[Carry, Known]]
"""One update as a function of what it changes, and of the rows of its batch with its number."""


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
    placement : the devices that share each batch.
    """

    spec: Spec
    dataset: Dataset
    model: Network
    placement: Placement = ONE_DEVICE

    @functools.cached_property
    def trained(self) -> Network:
        """The network as training computes it: what is minimised, attacked and penalised."""
        return mixed_precision(self.model) if self.spec.train.dtype == "bfloat16" else self.model

    @classmethod
    def of(cls, spec: Spec, dataset: Dataset) -> "Recipe":
        """The recipe of a specification, for a data set.

        Raises
        ------
        InputError : a batch larger than the training data, or that the devices cannot share; settings of the model out
            of range, or at odds.
        """
        requirements.check_data(spec, dataset)
        recipe = cls(spec, dataset, spec.build_model(dataset), Placement.of(spec.train))
        requirements.check_network(spec, dataset, recipe.model)
        return recipe

    @property
    def examples(self) -> int:
        """Examples to train on."""
        return checks.batch_size("study", self.dataset.train)

    @property
    def steps(self) -> int:
        """Updates in an epoch: whole batches."""
        return self.examples // self.spec.train.batch_size

    @functools.cached_property
    def averages(self) -> bool:
        """Whether what is tested is an average of the weights."""
        return averages(self.spec, jax.eval_shape(self.initial, jnp.uint32(0)).params)

    @property
    def criterion(self) -> Criterion:
        """What is trained on."""
        criterion: Criterion = build(losses.LOSSES, self.spec.loss, self.spec.source)
        return criterion

    def rehearse(self, strengths: Strengths) -> None:
        """Trace an epoch without running it.

        Raises
        ------
        InputError : settings of the method that do not fit the data or the batch.
        """
        progress = jax.eval_shape(self.start, jnp.uint32(0), strengths)
        limits.check_work(progress, self.steps * self.spec.train.epochs)
        jax.eval_shape(self.epoch, progress, strengths, self.dataset.train)

    def initial(self, seed: jax.Array) -> Variables:
        """The parameters and the state that a run begins with."""
        return self.model.init(_stream(seed, "init"))

    def start(self, seed: jax.Array, strengths: Strengths) -> Progress:
        """A run before its first epoch."""
        params, state = self.initial(seed)
        return Progress(params, state, self._chain(seed, strengths).init(params), jnp.int32(0), seed)

    def network(self, progress: Progress, train: Batch) -> Variables:
        """What is tested, measured and kept: the average of the weights where there is one.

        The statistics of normalisation are not those of averaged weights: they are estimated anew, as the mean over
        one pass of the training data, in its order and by whole batches, as Izmailov et al. (2018) do.
        """
        if not self.averages:
            return Variables(progress.params, progress.state)
        params = methods.averaged_params(progress.opt_state, progress.params)
        variables = Variables(params, progress.state)
        if self.model.statistics is None:
            return variables
        whole = self.steps * self.spec.train.batch_size
        stacked = jax.tree.map(lambda leaf: leaf[:whole].reshape(self.steps, -1, *leaf.shape[1:]), train)
        state = self.model.estimate(variables, Batches((stacked,)), lambda batch: self.dataset.decode(batch)["x"])
        return Variables(params, state)

    def epoch(self, progress: Progress, strengths: Strengths, train: Batch) -> Epoch:
        """One pass over the shuffled data, a scan of updates; also the mean training loss, and what is tracked.

        Examples beyond the last whole batch sit this epoch out. The state changes by the plain forward pass of each
        update, at the parameters before it. Methods get the loss as a pure function with the state held: their
        perturbed passes normalise by the statistics of their own batch, and leave no trace in the running ones.
        Penalties see evaluation mode, with the statistics from before the update, or with `penalty_dropout` the
        function that is trained. Transforms see whole batches, also where the gradient is accumulated over parts.
        """
        chained = self._chain(progress.seed, strengths)
        order = self.order(progress.seed, progress.epoch)
        update = self._update(chained, progress, train)
        rows = order[: self.steps * self.spec.train.batch_size].reshape(self.steps, self.spec.train.batch_size)
        carry, (values, found) = jax.lax.scan(update, progress[:3], (rows, jnp.arange(self.steps)))
        return Progress(*carry, progress.epoch + 1, progress.seed), jnp.mean(values), found

    def order(self, seed: jax.Array, epoch: jax.Array) -> jax.Array:
        """The training examples as an epoch has them, one after another."""
        return jax.random.permutation(jax.random.fold_in(_stream(seed, "shuffle"), epoch), self.examples)

    def part_of_epoch(
        self, progress: Progress, known: Known, strengths: Strengths, block: Block
    ) -> tuple[Progress, Known, jax.Array]:
        """Some updates of an epoch, on a block of its batches.

        Each update is that of `epoch`, in a loop as there, and so is the mean loss after the last block: data on the
        host and on the device give the same bits.

        Parameters
        ----------
        progress : Progress
            Before the first of these updates, but `epoch`, which stays.
        known : Known
            What the updates of this epoch gave so far, one row an update.
        strengths : Strengths
            As in `epoch`.
        block : Block
            Its batches.

        Returns
        -------
        tuple[Progress, Known, jax.Array]
            After the updates; what is known then; the mean loss, once all updates are.
        """
        update = self._update(self._chain(progress.seed, strengths), progress, block.examples)

        def step(place: jax.Array, carried: tuple[Carry, Known]) -> tuple[Carry, Known]:
            carry, known = carried
            carry, new = update(carry, (block.rows[place], block.first + place))
            return carry, jax.tree.map(lambda rows, row: rows.at[block.first + place].set(row), known, new)

        carry, known = jax.lax.fori_loop(0, block.number, step, (progress[:3], known))
        params, state, opt_state = carry
        return Progress(params, state, opt_state, progress.epoch, progress.seed), known, jnp.mean(known[0])

    def _update(self, chained: optax.GradientTransformationExtraArgs, progress: Progress, train: Batch) -> Update:
        """One update in the epoch that comes, on the rows of a batch among `train`."""
        dropout, augmenting = (
            jax.random.fold_in(_stream(progress.seed, purpose), progress.epoch) for purpose in ("dropout", "augment")
        )

        def update(carry: Carry, now: tuple[jax.Array, jax.Array]) -> tuple[Carry, Known]:
            (params, state, opt_state), (rows, step) = carry, now
            key = jax.random.fold_in(dropout, step)
            loss = losses.of(lambda params, x: self._trained(Variables(params, state), x, key)[0], self.criterion)
            seen = accumulation.accumulate("study", loss, self.spec.train.accumulate)
            fast = layers.through(seen, kind="convolution")  # whose derivatives are slow in loops
            batch = self._augmented(jax.random.fold_in(augmenting, step), self._batch(train, rows), fast, params)
            (value, after), grads = self._gradient(Variables(params, state), batch, key)
            whole = losses.of(self.trained.at(state), self.criterion)
            given = {} if self.spec.train.penalty_dropout else {"penalty_loss": whole}
            if isinstance(self.spec.train.optimizer, dict):
                given |= optimisers.values(seen, value, grads)
            updates, opt_state = chained.update(grads, opt_state, params, loss=loss, batch=batch, **given)
            found = self._tracked(progress.epoch * self.steps + step, seen, params, updates, batch)
            return (optax.apply_updates(params, updates), after, opt_state), (value, found)

        return update

    def _tracked(
        self, count: jax.Array, loss: Loss, params: Params, updates: Params, batch: Batch
    ) -> CriticalSharpness | None:
        """What `[track]` asks of some updates; None where it asks nothing, and the program is that of a plain epoch."""
        every = self.spec.track and self.spec.track.every_updates
        if not every:
            return None
        rate = learning_rate(self.spec.train, self.steps * self.spec.train.epochs, self.spec.source)(count)
        ask = functools.partial(critical_sharpness, loss, params, updates, batch, learning_rate=jnp.asarray(rate))
        return tracking.of_update(every, count + 1, ask)

    def _gradient(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[tuple[jax.Array, Any], Params]:
        """The loss of a batch with the state after, and the gradient: over parts of the batch, where it accumulates.

        Each part has dropout masks of its own, is normalised by its own statistics, and changes the state.
        """
        parts = self.spec.train.accumulate or 1
        if parts == 1:
            return self._gradient_of_part(variables, batch, key)
        split = accumulation.split_batch("study", "train.accumulate", batch, parts)
        loss = losses.of(self.model.at(variables.state), self.criterion)
        shares = accumulation.part_shares(loss, split)

        def add(carry: Any, now: Any) -> tuple[Any, None]:
            ((value, state), total), (part, share, place) = carry, now
            at, own = Variables(variables.params, state), jax.random.fold_in(key, place)
            (more, after), grads = self._gradient_of_part(at, part, own)
            total = jax.tree.map(lambda whole, leaf: whole + losses.weigh(share, leaf), total, grads)
            return ((value + losses.weigh(share, more), after), total), None

        dtype = jax.eval_shape(loss, variables.params, batch).dtype
        start = (jnp.zeros((), dtype), variables.state), jax.tree.map(jnp.zeros_like, variables.params)
        found, _ = jax.lax.scan(add, start, (split, shares, jnp.arange(parts)))
        return found

    def _gradient_of_part(
        self, variables: Variables, batch: Batch, key: jax.Array
    ) -> tuple[tuple[jax.Array, Any], Params]:
        def plain(params: Params, batch: Batch) -> tuple[jax.Array, Any]:
            batch = self.placement.spread(batch)
            outputs, after = self._trained(Variables(params, variables.state), batch["x"], key)
            return self.criterion(outputs, batch["y"]), after

        fast = layers.through(plain, kind="convolution")  # whose derivatives are slow in loops
        return jax.value_and_grad(fast, has_aux=True)(variables.params, batch)

    def _trained(self, variables: Variables, x: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        """The function that is trained: outputs with dropout, and the state after."""
        outputs, state = self.trained.apply(variables, x, key=key, train=True)
        return outputs, conform("study", state, variables.state)

    def _batch(self, examples: Batch, rows: jax.Array) -> Batch:
        """Some rows of the data, decoded."""
        return self.placement.spread(self.dataset.decode(jax.tree.map(lambda leaf: leaf[rows], examples)))

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

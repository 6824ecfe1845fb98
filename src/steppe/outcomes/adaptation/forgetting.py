"""What is left of an old task when a network has been fine-tuned to a given loss on a new one."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from steppe.core import checks, entry, losses
from steppe.core.batches import Batches, gather, in_batches
from steppe.core.programs import compiled, label_of, user_errors
from steppe.core.types import Apply, Batch, Criterion, Loss, Params
from steppe.sharpness.evaluation import mean_loss, mean_loss_and_accuracy, scalar

Optimizer = Literal["adam", "sgd"]

OPTIMIZERS = get_args(Optimizer)

Fit = Callable[[Params], tuple[float, float]]
"""Loss and accuracy on the old task."""

NAME = "forgetting"


class Forgetting(NamedTuple):
    """What fine-tuning to a loss on a new task does to an old one; NaN where that loss was not passed.

    Attributes
    ----------
    forgetting : float
        The rise of the loss on the old task.
    old_loss, old_accuracy : float
        On the old task, after fine-tuning.
    steps : float
        Updates that it took.
    reason : str
        Why there are no numbers; "" where there are.
    """

    forgetting: float
    old_loss: float
    old_accuracy: float
    steps: float
    reason: str = ""


class FineTuning(NamedTuple):
    """How a network learns the new task, and when that ends; see `forgetting`."""

    target: float | None = None
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    batch_size: int = 64
    steps: int = 2000
    every: int = 10
    seed: int = 0

    def checked(self) -> "FineTuning":
        """These settings.

        Raises
        ------
        InputError : settings out of range.
        """
        checks.one_of(NAME, "optimizer", self.optimizer, OPTIMIZERS)
        checks.positive(NAME, "learning_rate", self.learning_rate)
        for name in ("batch_size", "steps", "every"):
            checks.whole(NAME, name, getattr(self, name))
        checks.whole(NAME, "seed", self.seed, least=0)
        if self.target is not None:
            checks.positive(NAME, "target", self.target)
        if self.steps % self.every:
            checks.fail(NAME, "steps", f"a multiple of every, {self.every}", self.steps)
        return self

    def aim(self, outputs: int) -> float:
        """The loss on the new task at which it ends: half of chance, ½ log K, unless somebody says otherwise."""
        return 0.5 * math.log(max(outputs, 2)) if self.target is None else float(self.target)

    def rows(self, examples: int) -> Iterator[np.ndarray]:
        """Which examples make the batches until the next look, (every, batch_size): each once in an epoch."""
        random = np.random.default_rng(self.seed)
        size, order = min(self.batch_size, examples), np.array([], np.int32)
        for _ in range(self.steps // self.every):
            while len(order) < self.every * size:
                order = np.concatenate([order, random.permutation(examples).astype(np.int32)])
            now, order = np.split(order, [self.every * size])
            yield now.reshape(self.every, size)


def forgetting(
    apply: Apply,
    params: Params,
    old: Batch | list[Batch],
    new: Batch,
    *,
    target: float | None = None,
    optimizer: Optimizer = "adam",
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    steps: int = 2000,
    every: int = 10,
    seed: int = 0,
    criterion: Criterion = losses.cross_entropy,
) -> Forgetting:
    """The rise of the loss on an old task when a network is fine-tuned to a given loss on a new one.

        L_old(θ_T) − L_old(θ_0),     L_new(θ_T) = target

    where θ_1, θ_2, … are the updates of a plain optimiser with a constant rate on random batches of the new task, and T
    is the first time at which the loss over all its examples has come down to the target. After every few updates
    that loss is looked at; between the last look above the target and the first one at or below it, the old loss and
    accuracy are interpolated linearly in the new loss, so that all networks are compared at one and the same new loss.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``: logits (B, K), or (B, 1) for two classes. What it fixes, such as statistics of
        normalisation, stays fixed.
    params : pytree of floating arrays
    old : batch, or list of batches
        ``{"x": …, "y": …}`` of the task that was learnt before.
    new : batch
        Of the task to learn, N examples of the same form. At most N of them are used, in whole batches.
    target : float, optional
        The loss on the new task, in nats. None: half of that of chance, ½ log K.
    optimizer : {"adam", "sgd"}
        Adam, or plain gradient descent without momentum.
    learning_rate, batch_size, steps, every : float and ints
        The rate; examples an update; updates at most; updates between two looks at the new loss.
    seed : int
        Of the order of the examples.
    criterion : callable
        ``criterion(outputs, y)``: of both tasks.

    Returns
    -------
    Forgetting
        NaN with a reason where the target was not reached, where the new loss was no higher than the target from the
        start, or where fine-tuning diverged. Cost: `steps` gradients of a batch, and steps/every passes over N
        examples, at most.

    Raises
    ------
    InputError
        Settings out of range; labels of the new task that are no classes of the network; a network, parameters or
        batches that cannot be used.

    Notes
    -----
    Watts et al. (2026, arXiv 2605.02105) compare networks by the trade-off between what they learn and what they
    forget; this is one point of it. A network that has not learnt the old task has nothing to forget: read it beside
    the loss before. The number depends on the new task, the optimiser and the target, and is no property of the network
    alone.

    See Also
    --------
    new_task : examples of one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> old = {"x": jnp.array([[1.0, 0.0]]), "y": jnp.array([1])}
    >>> new = {"x": jnp.array([[0.0, 1.0]]), "y": jnp.array([0])}
    >>> found = forgetting(lambda w, x: (x @ w)[:, None], jnp.array([3.0, 3.0]), old, new, optimizer="sgd",
    ...                    learning_rate=0.5, every=1)
    >>> found.forgetting, found.steps > 1
    (0.0, True)
    >>> forgetting(lambda w, x: (x @ w)[:, None], jnp.array([3.0, -3.0]), old, new).reason
    'the loss on the new task was 0.0486 before fine-tuning, no higher than the target, 0.347'
    """
    plan = FineTuning(target, optimizer, learning_rate, batch_size, steps, every, seed).checked()
    loss, known = entry.loss_and_batches(NAME, losses.of(apply, criterion), params, old)
    assert isinstance(loss, losses.NetworkLoss)

    def fit(params: Params) -> tuple[float, float]:
        value, accuracy = _loss_and_accuracy(loss, params, known)
        return float(value), float(accuracy)

    return forgotten(loss, params, new, plan, fit)


def forgotten(loss: losses.NetworkLoss, params: Params, new: Batch, plan: FineTuning, fit: Fit) -> Forgetting:
    """See `forgetting`; `fit` gives loss and accuracy on the old task."""
    given, (known, examples) = loss, _new_batches(loss, params, new, plan)
    x, _ = checks.inputs_and_targets(NAME, examples.first)
    target = plan.aim(jax.eval_shape(known.apply, params, x).shape[-1])
    with user_errors(label_of(given)):
        before, value = fit(params)[0], float(_mean_loss(known, params, examples))
        if not value > target:
            found = f"{value:.3g} before fine-tuning, no higher than the target, {target:.3g}"
            return _missing(f"the loss on the new task was {found}")
        for done, ends, values in _tuned(known, params, examples, plan, value):
            if not math.isfinite(values[1]):
                return _missing(f"fine-tuning had diverged after {done} updates")
            if values[1] <= target:
                share = (values[0] - target) / (values[0] - values[1])
                (loss0, accuracy0), (loss1, accuracy1) = map(fit, ends)
                after = loss0 + share * (loss1 - loss0)
                accuracy = accuracy0 + share * (accuracy1 - accuracy0)
                if not math.isfinite(after):
                    return _missing(f"the loss on the old task was not finite after {done} updates")
                return Forgetting(after - before, after, accuracy, done - (1 - share) * plan.every)
    last = f"{values[1]:.3g} after {done} updates, above the target, {target:.3g}"
    return _missing(f"the loss on the new task was {last}; raise steps, learning_rate or target")


def _missing(reason: str) -> Forgetting:
    return Forgetting(math.nan, math.nan, math.nan, math.nan, reason)


def _new_batches(
    loss: losses.NetworkLoss, params: Params, new: Batch, plan: FineTuning
) -> tuple[losses.NetworkLoss, Batches]:
    """The new task in whole batches of one shape, and the network captured for them."""
    count = checks.batch_size(NAME, new)
    size = min(plan.batch_size, count)
    whole = jax.tree.map(lambda leaf: leaf[: count // size * size], new)
    found, known = entry.loss_and_batches(NAME, loss, params, gather(NAME, in_batches(whole, size)), quiet=True)
    assert isinstance(found, losses.NetworkLoss)
    entry.check_targets(NAME, found, params, known)
    return found, known


def _tuned(
    loss: Loss, params: Params, examples: Batches, plan: FineTuning, value: float
) -> Iterator[tuple[int, tuple[Params, Params], tuple[float, float]]]:
    """Fine-tuning, look by look: updates done; the parameters and the new loss at the last look and at this one."""
    state = _optimizer(plan.optimizer).init(params)
    rate = jnp.asarray(plan.learning_rate, jnp.float32)
    for place, rows in enumerate(plan.rows(examples.examples), start=1):
        other, state, found = _updated(loss, params, state, examples, rows, rate, optimizer=plan.optimizer)
        yield place * plan.every, (params, other), (value, float(found))
        params, value = other, float(found)


def _optimizer(name: str) -> optax.GradientTransformation:
    return optax.scale_by_adam() if name == "adam" else optax.identity()


@compiled(static=("optimizer",))
def _updated(
    loss: Loss, params: Params, state: Any, examples: Batches, rows: Any, rate: jax.Array, *, optimizer: str
) -> tuple[Params, Any, jax.Array]:
    """Some updates, one for each of the rows, and the loss over all examples after them."""
    whole = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), examples.stacks[0])

    def update(both: tuple[Params, Any], row: jax.Array) -> tuple[tuple[Params, Any], None]:
        params, state = both
        gradient = jax.grad(scalar, 1)(loss, params, jax.tree.map(lambda leaf: leaf[row], whole))
        moves, state = _optimizer(optimizer).update(gradient, state, params)
        moved = jax.tree.map(lambda p, move: (p - rate * move).astype(p.dtype), params, moves)
        return (moved, state), None

    (params, state), _ = jax.lax.scan(update, (params, state), rows)
    return params, state, mean_loss(loss, params, examples)


@compiled
def _mean_loss(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    return mean_loss(loss, params, batches)


@compiled
def _loss_and_accuracy(loss: losses.NetworkLoss, params: Params, batches: Batches) -> tuple[jax.Array, jax.Array]:
    return mean_loss_and_accuracy(NAME, loss, params, batches)

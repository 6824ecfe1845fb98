"""Accuracy under attack: inputs moved within a small ball, so that the loss rises."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, entry, losses, predictions
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Key, Params

Attack = Literal["fgsm", "pgd", "apgd"]

Norm = Literal["linf", "l2"]

ATTACKS, NORMS = get_args(Attack), get_args(Norm)

TINY = 1e-30

Fit = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""The loss of each example at some inputs, and whether it is predicted right."""

MOMENTUM, RISES = 0.75, 0.75
"""Of Auto-PGD: the share of the new direction in a step; the share of steps that must raise the loss."""


def adversarial_accuracy(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    radius: float,
    attack: Attack = "apgd",
    norm: Norm = "linf",
    steps: int = 20,
    low: float | None = None,
    high: float | None = None,
    key: Key = 0,
) -> float:
    """The share of examples that are predicted right as they are, and wherever an attack has looked within a ball.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)``: logits (B, K), or (B, 1) for two classes.
    params : pytree of arrays
    batches : batch, or list of batches
        ``{"x": …, "y": …}`` with floating-point x, (B, …), and integer labels.
    radius : float
        ε ≥ 0, in the units of x.
    attack : {"apgd", "pgd", "fgsm"}
        Auto-PGD, which chooses its own step; projected ascent with steps of 2.5 ε/steps; one step of the sign. All
        climb cross-entropy from a random start, but for "fgsm", which starts at x and knows no steps.
    norm : {"linf", "l2"}
        What is at most ε: the largest change of a value, or the root of the sum of their squares. "fgsm" has the first.
    steps : int
        Gradients with respect to x.
    low, high : float, optional
        The range of x, such as 0 and 1 for pixels; nothing leaves it.
    key : int or key array
        Of the start.

    Returns
    -------
    float
        From 0 to the accuracy: an upper bound of what is left under the worst attack.

    Raises
    ------
    InputError
        Inputs that are no floating-point array; a radius, range or number of steps out of range.

    Notes
    -----
    FGSM: Goodfellow et al. 2015; PGD: Madry et al. 2018; Auto-PGD: Croce and Hein 2020, algorithm 1 with cross-entropy
    (the first of the four attacks of AutoAttack). A low accuracy is a fact; a high one may be a network whose gradients
    say little.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.array([[2.0], [0.5], [-3.0]]), "y": jnp.array([1, 1, 0])}
    >>> adversarial_accuracy(lambda w, x: w * x, jnp.array(1.0), batch, radius=1.0)
    0.666...
    """
    name = "adversarial_accuracy"
    plan = Plan(attack, norm, steps, radius, low, high).checked(name)
    loss, known = entry.loss_and_batches(name, losses.of(apply), params, batches)
    assert isinstance(loss, losses.NetworkLoss)
    return attacked(loss, params, known, plan, checks.key_array(name, key))


class Plan(NamedTuple):
    """What is attacked with."""

    attack: Attack
    norm: Norm
    steps: int
    radius: float
    low: float | None = None
    high: float | None = None

    def checked(self, function: str) -> "Plan":
        """These settings with infinite ends where none were given, if they can be used.

        Raises
        ------
        InputError : otherwise.
        """
        checks.one_of(function, "attack", self.attack, ATTACKS)
        checks.one_of(function, "norm", self.norm, NORMS)
        checks.whole(function, "steps", self.steps)
        checks.real(function, "radius", self.radius, least=0.0)
        low = -np.inf if self.low is None else checks.real(function, "low", self.low)
        high = np.inf if self.high is None else checks.real(function, "high", self.high)
        if low >= high:
            checks.fail(function, "low", f"below high, {high}", low)
        if self.attack == "fgsm" and self.norm != "linf":
            what = "'linf' for the attack fgsm"
            checks.fail(function, "norm", what, checks.shown(self.norm), "Take pgd with steps = 1.")
        return self._replace(low=float(low), high=float(high))


def attacked(loss: losses.NetworkLoss, params: Params, batches: Batches, plan: Plan, key: jax.Array) -> float:
    """The accuracy of a network under an attack, over all labels that count."""
    right = counted = 0
    for place, batch in enumerate(batches.members()):
        x, _ = checks.inputs_and_targets("adversarial_accuracy", batch)
        if not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)):
            checks.fail("adversarial_accuracy", "x", "one floating-point array, for the loss must have a slope in it",
                        checks.returned(x), "Ask `steppe measure` for runs, which decodes inputs.")  # fmt: skip
        bounds = tuple(jnp.asarray(value, x.dtype) for value in plan[3:])
        held, counts = _held(loss, params, batch, bounds, jax.random.fold_in(key, place), plan=plan[:3])
        right, counted = right + int(held), counted + int(counts)
    return right / counted if counted else float("nan")


@compiled(static=("plan",))
def _held(
    loss: losses.NetworkLoss, params: Params, batch: Batch, bounds: Any, key: jax.Array, *, plan: tuple[str, str, int]
) -> tuple[jax.Array, jax.Array]:
    """How many labels stay right, and how many count."""
    (attack, norm, steps), (radius, low, high) = plan, bounds
    x, y = checks.inputs_and_targets("adversarial_accuracy", batch)
    counts = losses.count_mask(loss.criterion, y)
    labels = losses.readable_labels(counts, y)

    def fit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The loss of each example and whether all its labels that count are right."""
        logits = loss.apply(params, x)
        values = jnp.where(counts, losses.cross_entropies(logits, labels), 0)
        within = tuple(range(1, values.ndim))
        return values.sum(axis=within), (predictions.correct(logits, labels, "adversarial_accuracy") | ~counts).all(
            axis=within
        )

    if attack == "apgd":
        held = _auto_pgd(fit, _Ball(x, radius, low, high, norm == "linf"), key, steps)
    else:
        from steppe.data.transforms import adversarial  # here: `steppe.data` needs the extra `study`

        transform: Any = adversarial.fgsm(radius, low=low, high=high)
        if attack == "pgd":
            step = 2.5 * radius / steps
            transform = adversarial.pgd(radius, steps, step, norm, low=low, high=high)  # type: ignore[arg-type]
        moved = transform(key, {"x": x, "y": labels}, lambda batch: jnp.sum(fit(batch["x"])[0]))
        held = fit(x)[1] & fit(moved["x"])[1]
    shaped = held.reshape(held.shape + (1,) * (counts.ndim - 1))
    return jnp.sum(shaped & counts), jnp.sum(counts)


class _Search(NamedTuple):
    """Auto-PGD after some steps, a row an example."""

    x: jax.Array
    before: jax.Array
    best: jax.Array
    best_loss: jax.Array
    best_gradient: jax.Array
    gradient: jax.Array
    loss: jax.Array
    step: jax.Array
    rises: jax.Array
    halved: jax.Array
    earlier_best: jax.Array
    held: jax.Array


class _Ball(NamedTuple):
    """What may be looked at: a ball around each example, within a range."""

    x: jax.Array
    radius: jax.Array
    low: jax.Array
    high: jax.Array
    is_cube: bool

    def rows(self, values: jax.Array) -> jax.Array:
        """One number an example, as it meets arrays of examples."""
        return values.reshape(values.shape + (1,) * (self.x.ndim - 1))

    def unit(self, d: jax.Array) -> jax.Array:
        """The longest step of length 1 along d: its sign, or d over its norm."""
        size = jnp.sqrt(jnp.sum(d**2, axis=tuple(range(1, d.ndim))))
        return jnp.sign(d) if self.is_cube else d / jnp.maximum(self.rows(size), TINY)

    def inside(self, z: jax.Array) -> jax.Array:
        """The nearest point."""
        d = z - self.x
        size = jnp.sqrt(jnp.sum(d**2, axis=tuple(range(1, d.ndim))))
        shrunk = d * jnp.minimum(1, self.radius / jnp.maximum(self.rows(size), TINY))
        near = jnp.clip(d, -self.radius, self.radius) if self.is_cube else shrunk
        return jnp.clip(self.x + near, self.low, self.high)

    def drawn(self, key: jax.Array) -> jax.Array:
        """Where a search begins: anywhere in a cube, on the surface of a ball."""
        x = self.x
        cube = lambda: jax.random.uniform(key, x.shape, x.dtype, -1, 1)  # noqa: E731
        move = cube() if self.is_cube else self.unit(jax.random.normal(key, x.shape, x.dtype))
        return self.inside(x + self.radius * move)


def _slope(fit: Fit, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss of each example, whether it is predicted right, and the gradient."""

    def total(z: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, right = fit(z)
        return jnp.sum(values), (values, right)

    (_, (values, right)), gradient = jax.value_and_grad(total, has_aux=True)(z)
    return values, right, gradient


def _auto_pgd(fit: Fit, ball: _Ball, key: jax.Array, steps: int) -> jax.Array:
    """Whether each example is predicted right wherever Auto-PGD looks (Croce and Hein 2020)."""
    start, count = ball.drawn(key), len(ball.x)
    values, right, gradient = _slope(fit, start)
    first = _Search(
        start, start, start, values, gradient, gradient, values, jnp.full(count, 2, start.dtype) * ball.radius,
        jnp.zeros(count, jnp.int32), jnp.ones(count, bool), values, fit(ball.x)[1] & right,
    )  # fmt: skip
    plan = tuple(map(jnp.asarray, _schedule(steps, start.dtype)))
    found, _ = jax.lax.scan(lambda search, at: (_advanced(fit, ball, search, at), None), first, plan)
    return found.held


def _advanced(fit: Fit, ball: _Ball, s: _Search, at: tuple[jax.Array, ...]) -> _Search:
    """One step with momentum; at a checkpoint where it has not risen enough, half the step from the best point."""
    share, is_check, length = at
    z = ball.inside(s.x + ball.rows(s.step) * ball.unit(s.gradient))
    new = ball.inside(s.x + share * (z - s.x) + (1 - share) * (s.x - s.before))
    values, right, gradient = _slope(fit, new)
    better = values > s.best_loss
    pick = lambda one, other: jnp.where(ball.rows(better), one, other)  # noqa: E731
    s = s._replace(
        x=new, before=s.x, gradient=gradient, loss=values, held=s.held & right,
        rises=s.rises + (values > s.loss), best=pick(new, s.best), best_gradient=pick(gradient, s.best_gradient),
        best_loss=jnp.where(better, values, s.best_loss),
    )  # fmt: skip
    stuck = (s.rises < RISES * length) | (~s.halved & (s.best_loss <= s.earlier_best))
    halve = is_check & stuck
    back = lambda best, here: jnp.where(ball.rows(halve), best, here)  # noqa: E731
    return s._replace(
        x=back(s.best, s.x), gradient=back(s.best_gradient, s.gradient),
        loss=jnp.where(halve, s.best_loss, s.loss), step=jnp.where(halve, s.step / 2, s.step),
        halved=jnp.where(is_check, halve, s.halved), rises=jnp.where(is_check, 0, s.rises),
        earlier_best=jnp.where(is_check, s.best_loss, s.earlier_best),
    )  # fmt: skip


def _schedule(steps: int, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each step: the share of the new direction, whether a checkpoint follows, and the steps since the last one."""
    points = [0.0, 0.22]
    while points[-1] < 1:
        points.append(points[-1] + max(points[-1] - points[-2] - 0.03, 0.06))
    ends = np.unique(np.ceil(np.array(points[1:]) * steps).astype(int))
    at = np.arange(1, steps + 1)
    since = at - np.array([max([0, *ends[ends < k]]) for k in at])
    share = np.where(at == 1, 1.0, MOMENTUM)
    return share.astype(dtype), np.isin(at, ends), since.astype(np.int32)

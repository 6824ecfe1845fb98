"""Adversarial examples, from the gradient of the loss with respect to the inputs."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from steppe.core import checks, trees
from steppe.core.types import Batch
from steppe.data.transforms.base import Transform, array_of


def fgsm(radius: float, *, low: float | None = None, high: float | None = None) -> Transform:
    """Adversarial examples of one step, x + r sign ∇ₓL (Goodfellow et al. 2015, the fast gradient sign method).

    Parameters
    ----------
    radius : r ≥ 0, in units of the decoded x (where features are standardised, in standard deviations); a traced value
        will do.
    low, high : the range that x is clipped to afterwards, in the same units, the same for every feature.

    Returns
    -------
    A transform of batches with floating-point x, (B, …). Labels stay. A feature whose gradient is zero stays. Cost: one
    gradient with respect to x.

    Raises
    ------
    InputError : settings out of range or low ≥ high, when made; an x that is not floating-point, when called.

    Notes
    -----
    The paper trains on a mixture of clean and adversarial losses; here the batch is replaced, as Madry et al. do.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.array([[1.0, -2.0, 0.0]]), "y": jnp.array([0])}
    >>> fgsm(0.5)(jax.random.key(0), batch, lambda batch: jnp.mean(batch["x"] ** 2))["x"].tolist()
    [[1.5, -2.5, 0.0]]
    """
    return _ascent("fgsm", radius, 1, radius, norm="linf", start=False, between=(low, high))


def pgd(
    radius: float,
    steps: int = 7,
    rate: float | None = None,
    norm: Literal["linf", "l2"] = "linf",
    *,
    start: bool = True,
    low: float | None = None,
    high: float | None = None,
) -> Transform:
    """Adversarial examples by projected gradient ascent, x + δ with ‖δ‖ ≤ r for each example (Madry et al. 2018).

    From a δ uniform in the ball, `steps` times: δ ← Π(δ + rate · v), with v = sign ∇ₓL for "linf" and ∇ₓL/‖∇ₓL‖ for
    "l2" (of each example alone), Π the projection on the ball, and after it x + δ clipped to [low, high].

    Parameters
    ----------
    radius : r ≥ 0, in units of the decoded x (where features are standardised, in standard deviations); a traced value
        will do.
    steps : of ascent.
    rate : of a step, in the units of r; 2.5 r/steps unless told, with which the far side can be reached.
    norm : "linf", the largest entry of δ, or "l2", the root of the sum of their squares.
    start : whether to begin at a random δ; otherwise at 0.
    low, high : the range of x, in its units, the same for every feature.

    Returns
    -------
    A transform of batches with floating-point x, (B, …). Labels stay. Where the gradient is zero δ stays. Cost: `steps`
    gradients with respect to x.

    Raises
    ------
    InputError : settings out of range or low ≥ high, when made; an x that is not floating-point, when called.

    Notes
    -----
    An x that lies outside [low, high] is brought into it, be that further than r away. The last δ is taken, as in the
    authors' code, not the one of highest loss. The loss must treat examples alike, a mean without BatchNorm, or else an
    example's perturbation depends on its batch.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.array([[3.0, 4.0], [0.0, 0.0]]), "y": jnp.array([0, 0])}
    >>> attack = pgd(0.5, norm="l2", start=False)
    >>> found = attack(jax.random.key(0), batch, lambda batch: jnp.sum(batch["x"] ** 2))["x"]  # x + 0.5 x/‖x‖; no slope
    >>> [[round(float(x), 3) for x in row] for row in found]
    [[3.3, 4.4], [0.0, 0.0]]
    """
    checks.whole("pgd", "steps", steps)
    if rate is None:
        rate = 2.5 * checks.real("pgd", "radius", radius, least=0.0) / steps
    checks.one_of("pgd", "start", start, (True, False))
    checks.one_of("pgd", "norm", norm, ("linf", "l2"))
    return _ascent("pgd", radius, steps, rate, norm=norm, start=start, between=(low, high))


def _ascent(
    name: str,
    radius: Any,
    steps: int,
    rate: Any,
    *,
    norm: str,
    start: bool,
    between: tuple[float | None, float | None],
) -> Transform:
    """The transform that `fgsm` and `pgd` make; `name` is named in errors."""
    checks.real(name, "radius", radius, least=0.0)
    checks.real(name, "rate", rate, least=0.0)
    for which, bound in zip(("low", "high"), between, strict=True):
        if bound is not None:
            checks.real(name, which, bound)
    least, most = between
    if least is not None and most is not None and not any(map(checks.is_traced, between)) and least >= most:
        checks.fail(name, "low", f"below high, {most}", least)
    towards = jnp.sign if norm == "linf" else jax.vmap(trees.unit)
    drawn, projected = (_in_cube, _onto_cube) if norm == "linf" else (_in_ball, _onto_ball)

    def transform(key: jax.Array, batch: Batch, loss: Callable[[Batch], jax.Array]) -> Batch:
        x = array_of(name, batch, "x", jnp.floating, "floating-point examples")
        r, by = (jnp.asarray(value).astype(x.dtype) for value in (radius, rate))
        low, high = (bound if bound is None else jnp.asarray(bound).astype(x.dtype) for bound in between)

        def inside(delta: jax.Array) -> jax.Array:
            return jnp.clip(x + projected(delta, r), low, high) - x

        def step(delta: jax.Array, _: None) -> tuple[jax.Array, None]:
            value = lambda x: checks.one_scalar(name, "loss", loss({**batch, "x": x}))  # noqa: E731
            gradient = jax.grad(value)(x + delta)
            # training takes the example as given: nothing is differentiated through the ascent
            return inside(delta + by * jax.lax.stop_gradient(towards(gradient))), None

        first = inside(drawn(key, x.shape, x.dtype) * r) if start else jnp.zeros_like(x)
        delta, _ = jax.lax.scan(step, first, length=steps)
        return {**batch, "x": jnp.clip(x + delta, low, high)}  # once more: x + (bound − x) is rounded

    return transform


def _in_cube(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform in [−1, 1]^D for each example."""
    return jax.random.uniform(key, shape, dtype, -1, 1)


def _in_ball(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform in the unit ball for each example: a direction, at a distance U^(1/D)."""
    directions, distances = jax.random.split(key)
    direction = jax.vmap(trees.unit)(jax.random.normal(directions, shape, dtype))
    entries = max(1, direction[0].size)
    points: jax.Array = _each(jax.random.uniform(distances, shape[:1], dtype) ** (1 / entries), direction) * direction
    return points


def _onto_cube(delta: jax.Array, radius: jax.Array) -> jax.Array:
    return jnp.clip(delta, -radius, radius)


def _onto_ball(delta: jax.Array, radius: jax.Array) -> jax.Array:
    length = jax.vmap(lambda d: jnp.sqrt(trees.norm_squared(d)).astype(d.dtype))(delta)
    return _each(jnp.where(length > radius, radius / jnp.where(length > radius, length, 1), 1), delta) * delta


def _each(values: jax.Array, like: jax.Array) -> jax.Array:
    """One value an example, (B,), of the rank of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))

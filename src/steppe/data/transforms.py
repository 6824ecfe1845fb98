"""Transforms of training batches, drawn anew at every step: noisy labels, mixtures, shifts, adversarial examples.

A transform is a pure function ``(key, batch, loss) -> batch`` of a decoded batch ``{"x": (B, …) floats, "y": …}``, made
by a function of its settings. ``loss(batch)`` is the mean loss of the present network, with its dropout masks; only
adversarial transforms call it. Whatever else a batch holds stays in it. All run under `jit`, `scan` and `vmap`, and
keep the dtype of x, and of y where labels stay labels.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, trees
from steppe.core.types import Batch

Transform: TypeAlias = Callable[[jax.Array, Batch, Callable[[Batch], jax.Array]], Batch]
"""``transform(key, batch, loss)``: the batch to train on; ``key`` is for this step alone."""


def label_noise(chance: float = 0.2, *, classes: int) -> Transform:
    """With chance p each label becomes another class, uniformly one of the K − 1 others (Damian et al. 2021).

    Parameters
    ----------
    chance : 0 ≤ p ≤ 1; a traced value will do.
    classes : K, the classes that the data have; a study fills it in.

    Returns
    -------
    A transform of batches with integer labels of any shape. Cost: two draws a label.

    Raises
    ------
    InputError : chance or classes out of range, when made; labels that are not integers, when called.

    Notes
    -----
    After Blanc et al. (2020), who change real targets (`target_noise`); flipped labels are what Damian et al. train
    classifiers with, p = 0.2 on CIFAR-10. Drawn anew at every step: labels that are wrong for good are another subject.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.array([0, 1, 0, 1])}
    >>> label_noise(1.0, classes=2)(jax.random.key(0), batch, None)["y"].tolist()
    [1, 0, 1, 0]
    """
    checks.real("label_noise", "chance", chance, least=0.0, most=1.0)
    checks.whole("label_noise", "classes", classes, least=2)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        y = _array("label_noise", batch, "y", jnp.integer, "integer labels")
        flips, others = jax.random.split(key)
        # 1 to K − 1 classes further on: every other class, and never the same; small dtypes may not hold the sum
        other = (y.astype(jnp.int32) + jax.random.randint(others, y.shape, 1, classes, jnp.int32)) % classes
        return {**batch, "y": jnp.where(jax.random.bernoulli(flips, chance, y.shape), other.astype(y.dtype), y)}

    return transform


def target_noise(sigma: float) -> Transform:
    """Real targets become y + σε, each ε = ±1 with chance ½ (Blanc et al. 2020).

    Parameters
    ----------
    sigma : σ ≥ 0, in units of the targets; a traced value will do.

    Returns
    -------
    A transform of batches with floating-point targets of any shape, each entry with a sign of its own.

    Raises
    ------
    InputError : sigma out of range, when made; targets that are not floating-point, when called.

    Notes
    -----
    With it, SGD on half the squared error, at rate η with batches of B, goes to stationary points of L + (ησ²/B) R, and
    R to ¼ tr H as η goes to 0 (Damian et al. 2021).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.zeros((4, 2)), "y": jnp.ones(4)}
    >>> sorted(set(target_noise(0.5)(jax.random.key(0), batch, None)["y"].tolist()))
    [0.5, 1.5]
    """
    checks.real("target_noise", "sigma", sigma, least=0.0)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        y = _array("target_noise", batch, "y", jnp.floating, "floating-point targets")
        return {**batch, "y": trees.add_scaled(y, sigma, jax.random.rademacher(key, y.shape, y.dtype))}

    return transform


def mixup(alpha: float = 0.2, *, classes: int) -> Transform:
    """Examples and labels become λ · themselves + (1 − λ) · another's of the batch, one λ ~ Beta(α, α) a batch.

    Zhang et al. (2018), eq. 1; the others are a random permutation of the batch.

    Parameters
    ----------
    alpha : α > 0; a traced value will do. Near 0 hardly anything is mixed, 1 is a uniform λ.
    classes : K, the classes that the data have; a study fills it in.

    Returns
    -------
    A transform of batches with integer labels (B,), or probabilities as it returns them itself: (B, K) in the dtype of
    x, and for K = 2 those of class 1, (B,), which is what `losses.cross_entropy` takes for networks of one logit.

    Raises
    ------
    InputError : alpha or classes out of range, when made; x that is not floating-point, or labels of another shape,
        when called.

    Notes
    -----
    One λ for the whole batch is what the authors' code draws; their equation has one for each pair.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.eye(3), "y": jnp.array([0, 1, 2])}
    >>> mixed = mixup(1.0, classes=3)(jax.random.key(0), batch, None)
    >>> mixed["y"].shape, bool(jnp.allclose(mixed["x"], mixed["y"]))  # here x is the one-hot label
    ((3, 3), True)
    """
    checks.positive("mixup", "alpha", alpha)
    checks.whole("mixup", "classes", classes, least=2)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _array("mixup", batch, "x", jnp.floating, "floating-point examples")
        q = _probabilities(batch["y"], classes, x)
        order_key, weight_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(x))
        a = jnp.asarray(alpha).astype(jnp.float32)
        weight = jax.random.beta(weight_key, a, a, dtype=jnp.float32).astype(x.dtype)
        return {**batch, "x": weight * x + (1 - weight) * x[order], "y": weight * q + (1 - weight) * q[order]}

    return transform


def _probabilities(y: Any, classes: int, x: jax.Array) -> jax.Array:
    """Labels as `mixup` mixes them: (B, K), or (B,) for two classes, in the dtype of x."""
    y = jnp.asarray(y)
    hard = jnp.issubdtype(y.dtype, jnp.integer)
    needed = x.shape[:1] if hard or classes == 2 else (x.shape[0], classes)
    if y.shape != needed:
        got = f"a {y.dtype} array of shape {y.shape}"
        checks.fail("mixup", "y", f"{'labels' if hard else 'probabilities'} of shape {needed}", got)
    return jax.nn.one_hot(y, classes, dtype=x.dtype) if hard and classes > 2 else y.astype(x.dtype)


def crop(padding: int = 4, *, flip: bool = True) -> Transform:
    """Each image is shifted by up to p pixels either way, and mirrored left to right with chance ½.

    Padded on all four sides by p rows and columns of zeros, then cut to its own size at one of (2p + 1)² places.

    Parameters
    ----------
    padding : p ≥ 0, in pixels.
    flip : whether to mirror.

    Returns
    -------
    A transform of batches of images x (B, H, W, C), each image with a shift and a mirroring of its own.

    Raises
    ------
    InputError : settings out of range, when made; an x that is not (B, H, W, C), when called.

    Notes
    -----
    Zeros are put into the *decoded* images: where channels are standardised they are the mean colour, where not, black.
    Lee et al. (2015) and He et al. (2016) with p = 4 for CIFAR's 32 × 32 pixels.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
    >>> crop(2)(jax.random.key(0), batch, None)["x"].shape
    (2, 8, 8, 3)
    """
    p = checks.whole("crop", "padding", padding, least=0)
    checks.one_of("crop", "flip", flip, (True, False))

    def one(image: jax.Array, place: jax.Array, mirrored: jax.Array) -> jax.Array:
        cut = jax.lax.dynamic_slice(jnp.pad(image, ((p, p), (p, p), (0, 0))), (*place, 0), image.shape)
        return jnp.where(mirrored, cut[:, ::-1], cut)

    def transform(key: jax.Array, batch: Batch, loss: Any) -> Batch:
        x = _array("crop", batch, "x", np.generic, "images (B, H, W, C)")
        if x.ndim != 4:
            checks.fail("crop", "x", "images (B, H, W, C)", f"a {x.dtype} array of shape {x.shape}")
        places, mirrors = jax.random.split(key)
        place = jax.random.randint(places, (len(x), 2), 0, 2 * p + 1)
        mirrored = jax.random.bernoulli(mirrors, 0.5, (len(x),)) & flip
        return {**batch, "x": jax.vmap(one)(x, place, mirrored)}

    return transform


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
        x = _array(name, batch, "x", jnp.floating, "floating-point examples")
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
    return _each(jax.random.uniform(distances, shape[:1], dtype) ** (1 / entries), direction) * direction


def _onto_cube(delta: jax.Array, radius: jax.Array) -> jax.Array:
    return jnp.clip(delta, -radius, radius)


def _onto_ball(delta: jax.Array, radius: jax.Array) -> jax.Array:
    length = jax.vmap(lambda d: jnp.sqrt(trees.norm_squared(d)).astype(d.dtype))(delta)
    return _each(jnp.where(length > radius, radius / jnp.where(length > radius, length, 1), 1), delta) * delta


def _each(values: jax.Array, like: jax.Array) -> jax.Array:
    """One value an example, (B,), of the rank of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def chain(*transforms: Transform) -> Transform:
    """One transform after another, each with randomness of its own.

    Parameters
    ----------
    transforms : the first is applied first; none at all leave the batch as it is. Every `loss` is that of the present
        network: an adversarial transform attacks what those before it made.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batch = {"x": jnp.ones((2, 8, 8, 3)), "y": jnp.array([0, 1])}
    >>> mixed = chain(crop(2), mixup(classes=10))(jax.random.key(0), batch, None)
    >>> mixed["x"].shape, mixed["y"].shape
    ((2, 8, 8, 3), (2, 10))
    """

    def transform(key: jax.Array, batch: Batch, loss: Callable[[Batch], jax.Array]) -> Batch:
        for place, one in enumerate(transforms):
            batch = one(jax.random.fold_in(key, place), batch, loss)
        return batch

    return transform


def _array(function: str, batch: Batch, part: str, kind: Any, needed: str) -> jax.Array:
    """The x or y of a batch as one array of a kind of dtype, checked."""
    found = batch[part]
    if not hasattr(found, "dtype"):
        checks.fail(function, part, f"{needed}, one array", f"a {type(found).__name__}")
    if not jnp.issubdtype(found.dtype, kind):
        checks.fail(function, part, needed, f"a {found.dtype} array of shape {found.shape}")
    return jnp.asarray(found)


AUGMENTATIONS: dict[str, Callable[..., Transform]] = {
    transform.__name__: transform for transform in (label_noise, mixup, crop, fgsm, pgd)
}
"""Transforms by the name that a study calls them: functions of their settings; `classes` is filled in from the data.

A study classifies: `target_noise`, for real targets, is for code."""

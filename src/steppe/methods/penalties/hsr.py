"""HSR regularization: the Wolkowicz-Styan bound on the Hessian's largest eigenvalue, brought down."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from steppe import curvature as curvature_
from steppe.core import checks, trees
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.methods.contract import Strength, whole
from steppe.methods.penalties.penalty import Matrix, MomentsOf, accumulated, added, hutchinson


def hsr(
    lam: Strength,
    *,
    moments: MomentsOf | None = None,
    bound: Literal["upper", "width", "variance"] = "upper",
    probes: int = 5,
    every: int = 10,
    step: Literal["penalty", "unit"] = "penalty",
    matrix: Matrix = "hessian",
    where: Any = None,
    microbatches: int | None = None,
    rematerialize: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of a bound on the largest eigenvalue of the Hessian to the gradients (HSR regularization).

    With m = tr H / n and s² = tr(H²)/n − m², H the n × n Hessian of the mini-batch loss (Wolkowicz and Styan 1980),

        upper     B = m + s √(n−1) ≥ λmax            width     2 s √(n−1) ≥ λmax − λmin
        variance  n s² = tr(H²) − (tr H)²/n,  smooth where the others have a kink, at s = 0

    is differentiated and added with weight λ, or λ times its direction ∇B/‖∇B‖ ("unit").

    Parameters
    ----------
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at
        no cost.
    moments : ``(loss, params, batch, key) -> Moments``, differentiable in params: tr H and tr(H²) in closed form, for
        example; see below. None: by Hutchinson's probes, for any network.
    bound : what is brought down, see above.
    probes : M, random vectors. For `moments` of one's own it does nothing.
    every : the bound acts on updates 0, k, 2k, ….
    matrix : "hessian", or "ggn": the bound on the largest eigenvalue of the generalised Gauss-Newton matrix, see `fa`.
        For `moments` of one's own it does nothing.
    step : "penalty" minimises L + λB. "unit" adds a step of length λ, in units of the gradient, whatever B is.
    where, microbatches, rematerialize, key : see `fa`.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``, and optionally
    ``penalty_loss``. ``state.monitor`` is the last bound; its standard error is that of the moments passed on to first
    order, at most (they are correlated). Cost: that of `fa` from probes, that of
    `moments` otherwise.

    Raises
    ------
    InputError : as `fa`.

    Notes
    -----
    Omae et al. 2026, for three-layer networks and cross-entropy; the closed form of their moments is ours, see
    `curvature.closed_form.three_layer`. They descend along the bound's gradient, in a way that we could not read:
    hence both steps. From probes the bound is for any network and any loss, but not without bias:

    - tr H and tr(H²) of a mini-batch are unbiased for that batch; over all data tr(H²) is overestimated. For a small
      network on 1,437 digits B of batches of 512, 128, 32 and 8 is 1.03, 1.18, 1.6 and 2.7 times that of all data
      before training, and 1.2, 1.9, 3.3 and 5.0 times after it.
    - (tr H)²/n is too large by Var(tr H)/n, which is small where n is.
    - The square root of an estimate of relative variance v is too small by a factor of about 1 − v/8, and so is s.
      There, after training: v = 0.27 from one probe, and B low by 2 ± 1.4 %; 0.05 from five, and low by 1.0 ± 0.6 %.
    - An estimate of s² at or below 0 counts as 0, without a gradient.

    "variance" has only the first two. With an activation without second derivative (ReLU) the Hessian lacks what the
    activation's curvature adds within a layer; what couples the layers stays.

    Where n is far above the rank, B ≈ √tr(H²) + m: much like the square root of what `fa` penalises.

    Examples
    --------
    In closed form, for a network of three layers:

    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> from steppe import curvature, losses
    >>> def apply(p, x):
    ...     return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    >>> def moments(loss, params, batch, key):
    ...     return curvature.closed_form.three_layer(params, batch["x"], batch["y"], jnp.tanh)
    >>> keys = jax.random.split(jax.random.key(0))
    >>> params = {"w1": jax.random.normal(keys[0], (2, 4)), "b1": jnp.zeros(4),
    ...           "w2": jax.random.normal(keys[1], (4, 2)), "b2": jnp.zeros(2)}
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
    >>> loss = losses.of(apply)
    >>> tx = optax.chain(steppe.methods.hsr(0.01, moments=moments, every=1), optax.sgd(0.1))
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
    >>> top = curvature.top_eigenpairs(curvature.hessian(loss, params, batch), 0).values[0]
    >>> bool(top <= steppe.monitor(state)["hsr"].mean)
    True
    """
    probes = whole("hsr", "probes", probes)
    parts = microbatches if microbatches is None else whole("hsr", "microbatches", microbatches)
    checks.one_of("hsr", "bound", bound, tuple(BOUNDS))
    checks.one_of("hsr", "step", step, ("penalty", "unit"))
    if moments is not None and not callable(moments):
        checks.fail("hsr", "moments", "None or a function (loss, params, batch, key) -> Moments", checks.shown(moments))

    known = hutchinson("hsr", matrix, probes, parts, rematerialize=rematerialize)
    measure = known if moments is None else accumulated("hsr", moments, parts)

    def value(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Estimate]:
        first, second = measure(loss, params, batch, key)
        of = lambda t1, t2: BOUNDS[bound](t1, t2, trees.size(params))  # noqa: E731
        means = jnp.asarray(first.mean), jnp.asarray(second.mean)
        found, slopes = jax.value_and_grad(of, argnums=(0, 1))(*means)
        sem = sum(jnp.abs(slope) * error for slope, error in zip(slopes, (first.sem, second.sem), strict=True))
        return found, jax.lax.stop_gradient(Estimate(found, sem))

    direction = trees.unit if step == "unit" else lambda gradient: gradient
    return added("hsr", value, lam, direction=direction, every=every, where=where, parts=parts, key=key)


def _upper(trace: jax.Array, frobenius_squared: jax.Array, size: int) -> jax.Array:
    return curvature_.wolkowicz_styan(trace, frobenius_squared, size).max_upper


def _width(trace: jax.Array, frobenius_squared: jax.Array, size: int) -> jax.Array:
    bounds = curvature_.wolkowicz_styan(trace, frobenius_squared, size)
    return bounds.max_upper - bounds.min_lower


def _variance(trace: jax.Array, frobenius_squared: jax.Array, size: int) -> jax.Array:
    return frobenius_squared - (trace / math.sqrt(size)) ** 2


BOUNDS = {"upper": _upper, "width": _width, "variance": _variance}

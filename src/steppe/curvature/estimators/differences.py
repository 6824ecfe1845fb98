"""tr(H²) and its gradient from gradients alone, for losses that can be differentiated once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, trees
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators import estimates
from steppe.curvature.estimators.probes import DISTRIBUTIONS

# (weight, steps along v, steps along w): Σ weight · ∇L(θ + s·v + t·w)
FIRST = np.array([[0.5, 1.0, 0.0], [-0.5, -1.0, 0.0]])
MIXED = np.array([[0.25, 1.0, 1.0], [-0.25, 1.0, -1.0], [-0.25, -1.0, 1.0], [0.25, -1.0, -1.0]])


def first_order(
    *, probes: int = 5, distribution: estimates.Distribution = "rademacher", step: float | None = None
) -> Callable[[Loss, Params, Batch, jax.Array], Estimate]:
    """Hutchinson's tr(H²) by central differences of gradients, for ``fa(curvature=first_order())``.

    For networks whose kernels have no second derivative, such as fused attention, and for memory: nothing but
    gradients, one after another. With displacements of length δ along v and along w = Hv,

        Hv ≈ (∇L(θ + αv) − ∇L(θ − αv)) / 2α,    α‖v‖ = δ,
        ∇‖Hv‖² = 2 D³L[v, w] ≈ 2 Σ± ± ∇L(θ ± αv ± βw) / 4αβ,    β‖w‖ = δ.

    Parameters
    ----------
    probes : the number M of random vectors.
    distribution : "rademacher" (signs) or "gaussian".
    step : δ as a fraction of ‖θ‖ (of 1 where θ = 0). None: the fourth root of the dtype's rounding, 0.019 in float32.

    Returns
    -------
    ``(loss, params, batch, key) -> Estimate`` of tr(H²). Its gradient in `params` is the second line above, not the
    derivative of the first; in the batch and in whatever else the loss holds it is zero. Cost: 6M gradients, in the
    memory of one and a vector w a probe. Errors: of the order of δ² by truncation and, in the penalty's gradient, ε/δ²
    by rounding, ε = 1.2e-7 in float32: a few per cent at the default step, where the loss is smooth. At the kinks of a
    ReLU it sees, as the exact penalty does not, the curvature that lies in kinks within δ.

    Raises
    ------
    InputError : arguments out of range.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, steppe
    >>> from steppe import curvature
    >>> tx = steppe.methods.fa(0.01, curvature=curvature.first_order(probes=2))
    >>> loss = lambda w, batch: jnp.mean((batch @ w) ** 2)
    >>> round(float(curvature.first_order()(loss, jnp.ones(2), jnp.eye(2), jax.random.key(0)).mean), 3)
    2.0
    """
    checks.whole("first_order", "probes", probes)
    checks.one_of("first_order", "distribution", distribution, DISTRIBUTIONS)
    if step is not None:
        checks.real("first_order", "step", step, least=1e-12)

    def curvature(loss: Loss, params: Params, batch: Batch, key: Key) -> Estimate:
        checks.floating("first_order", params)
        key = checks.key_array("first_order", key)

        gradient, held = _gradient(loss, params, batch)
        square = _squared_product(gradient, step, DISTRIBUTIONS[distribution])
        return estimates.estimate(jax.lax.map(lambda key: square(params, key, held), jax.random.split(key, probes)))

    return curvature


def _gradient(loss: Loss, params: Params, batch: Batch) -> tuple[Callable[[Params, Any], Params], Any]:
    """``gradient(params, held)`` and `held`: the batch and whatever else the loss closes over, as arguments."""
    traced = jax.make_jaxpr(jax.grad(loss))(params, batch)
    treedef = jax.tree.structure(params)

    def gradient(params: Params, held: Any) -> Params:
        consts, batch = held
        leaves = [*jax.tree.leaves(params), *batch]
        return jax.tree.unflatten(treedef, jax.core.eval_jaxpr(traced.jaxpr, consts, *leaves))

    return gradient, (traced.consts, jax.tree.leaves(batch))


def _squared_product(
    gradient: Callable[[Params, Any], Params], step: float | None, draw: Callable[[jax.Array, Params], Params]
) -> Callable[[Params, jax.Array, Any], jax.Array]:
    """``(params, key, held) -> ‖Hv‖²`` with a gradient of its own; v is drawn twice and never kept."""

    def product(params: Params, key: jax.Array, held: Any) -> Params:
        v = draw(key, params)
        alpha = _length(params, step) / trees.norm(v)
        return trees.scale(1 / alpha, _combination(gradient, params, held, FIRST, (trees.scale(alpha, v), v)))

    @jax.custom_vjp
    def square(params: Params, key: jax.Array, held: Any) -> jax.Array:
        return trees.norm_squared(product(params, key, held))

    def forward(params: Params, key: jax.Array, held: Any) -> tuple[jax.Array, Any]:
        w = product(params, key, held)
        return trees.norm_squared(w), (params, key, held, w)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Params, None, None]:
        params, key, held, w = saved
        v, length, size = draw(key, params), _length(params, step), trees.norm(w)
        alpha, beta = length / trees.norm(v), length / jnp.where(size > 0, size, 1)
        steps = trees.scale(alpha, v), trees.scale(beta, w)
        third = _combination(gradient, params, held, MIXED, steps)
        return trees.scale(2 * cotangent / alpha / beta, third), None, None

    square.defvjp(forward, backward)
    return square


def _combination(
    gradient: Callable[[Params, Any], Params],
    params: Params,
    held: Any,
    table: np.ndarray,
    along: tuple[Params, Params],
) -> Params:
    """Σ weight · ∇L(θ + s·v + t·w) over the rows (weight, s, t) of a table, one gradient after another."""

    def add(total: Params, row: Any) -> tuple[Params, None]:
        moved = params
        for direction, steps in zip(along, row[1:], strict=True):
            moved = trees.add_scaled(moved, steps, direction)
        return trees.add_scaled(total, row[0], gradient(moved, held)), None

    return jax.lax.scan(add, trees.zeros_like(params), table)[0]


def _length(params: Params, step: float | None) -> jax.Array:
    """δ."""
    coarsest = max(jnp.finfo(leaf.dtype).eps for leaf in jax.tree.leaves(params))
    size = trees.norm(params)
    return (float(coarsest) ** 0.25 if step is None else step) * jnp.where(size > 0, size, 1)

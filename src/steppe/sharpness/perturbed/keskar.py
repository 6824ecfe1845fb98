"""Sharpness over a box around the weights, found by L-BFGS-B."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from steppe.core import checks, entry, trees
from steppe.core.batches import Batches, average
from steppe.core.programs import compiled
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators.probes import gaussian
from steppe.sharpness.evaluation import moved, scalar, strength

Columns = Params | None
"""A as a pytree like the parameters with a leading axis of p columns; None for the identity."""


def keskar_sharpness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    *,
    epsilon: float = 1e-3,
    subspace: int | None = None,
    steps: int = 10,
    key: Key = 0,
) -> Estimate:
    """The relative rise of the loss over a box, φ = 100 · max (L(θ + Ay) − L(θ))/(1 + L(θ)) (Keskar et al. 2017).

    The box is |yᵢ| ≤ ε(|(A⁺θ)ᵢ| + 1), with A = I or an n × p matrix of standard normal entries.

    Parameters
    ----------
    loss, params : ``loss(params, batch)``, the mean over the batch; pytree of floating arrays, n scalars.
    batches : a list of batches, weighted by their sizes, or anything else: one batch. L is the mean over all examples.
    epsilon : ε > 0.
    subspace : the number p of random columns, 100 in the paper; None: A = I, all parameters.
    steps : iterations of L-BFGS-B.
    key : an int or a JAX key array, for A; also for a random start where the gradient is exactly zero.

    Returns
    -------
    Estimate of φ, in percent of 1 + L(θ): the best point of the search, so a *lower bound* of the maximum, never
    negative; its standard error is NaN, for how far it stayed below is not known. NaN or infinite where the loss is.
    Cost: steps + 1 gradients over all examples, a few times that where the line search is hard; memory for p (or, in
    float64, some 25) copies of the parameters.

    Raises
    ------
    InputError : epsilon not above 0, steps below 1, subspace outside 1..n, a loss of −1 or less at θ, a call inside
        `jax.jit`, parameters, batches or a key that cannot be used.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise or node by node.

    The search is SciPy's, on the host: call it outside `jax.jit`. Its variables are y in units of the box, its
    objective is the loss in units of a tenth of the mean slope at the start, and it makes all its steps. In the loss's
    own units ten steps found a hundredth to a third of this rise on small trained networks, and SciPy's default
    tolerance stops at once where no slope is above 10⁻⁵.

    From the paper we could confirm φ, the box and L-BFGS-B. That ε = 10⁻³ (and 5·10⁻⁴), that 10 iterations were made,
    and that the entries of A are standard normal, its columns not normalised, is from memory or our reading.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> slope = lambda w, batch: jnp.sum(w) + 0.0 * jnp.mean(batch)
    >>> phi = keskar_sharpness(slope, jnp.array([1.0, 0.0]), jnp.ones(1))  # 100 · (0.002 + 0.001)/(1 + 1)
    >>> round(float(phi.mean), 4)
    0.15
    """
    name = "keskar_sharpness"
    checks.whole(name, "steps", steps)
    loss, known = entry.loss_and_batches(name, loss, params, batches)
    if any(checks.is_traced(leaf) for leaf in jax.tree.leaves((params, known))):
        checks.fail(
            name, "params", "arrays with values", "traced ones", "It runs on the host: call it outside jit and vmap."
        )
    keys = jax.random.split(checks.key_array(name, key))
    columns = None
    if subspace is not None:
        if checks.whole(name, "subspace", subspace) > trees.size(params):
            checks.fail(name, "subspace", f"at most the number of parameters, {trees.size(params)}", subspace)
        columns = _columns(keys[0], params, subspace)
    box = strength(name, "epsilon", epsilon, params) * (jnp.abs(_coordinates(params, columns)) + 1)
    base, highest = _highest(lambda s: _value_and_gradient(loss, params, known, columns, s * box), box, steps, keys[1])
    if base <= -1:
        checks.fail(name, "loss", "above -1 at params, for 1 + L divides the rise", base)
    dtype = box.dtype
    return Estimate(jnp.asarray(100 * (highest - base) / (1 + base), dtype), jnp.full((), jnp.nan, dtype))


def _highest(
    value_and_gradient: Callable[[jax.Array], tuple[jax.Array, jax.Array]], box: jax.Array, steps: int, key: jax.Array
) -> tuple[float, float]:
    """A function of y at the middle s = 0 of the box, y = s·box, |s| <= 1, and at the highest point that is found."""
    from scipy import optimize  # imported where it is used: half of what importing Steppe would take

    def at(s: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(jnp.asarray(s, box.dtype))
        return float(value), np.asarray(gradient * box, np.float64)

    start = np.zeros(box.shape)
    base, gradient = at(start)
    if not gradient.any():
        start = np.asarray(jax.random.uniform(key, box.shape, box.dtype, -1, 1), np.float64)
        gradient = at(start)[1]
    # the first step, of length gradient / unit, then reaches the box along most axes
    unit = np.mean(np.abs(gradient)) / 10 or 1.0
    highest = base

    def fall(s: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal highest
        value, gradient = at(s)
        if not math.isfinite(value):
            raise _NotFinite(value)
        highest = max(highest, value)
        return (base - value) / unit, -gradient / unit

    try:
        options = {"maxiter": steps, "ftol": 0.0, "gtol": 0.0}
        bounds = optimize.Bounds(-np.ones(box.shape), np.ones(box.shape))
        optimize.minimize(fall, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    except _NotFinite as found:
        return base, found.value
    return base, highest


class _NotFinite(Exception):
    """The loss is infinite or not a number somewhere in the box: that ends the search."""

    def __init__(self, value: float) -> None:
        self.value = value


@compiled
def _value_and_gradient(
    loss: Loss, params: Params, batches: Batches, columns: Columns, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """L(θ + Ay) over all examples, and its gradient in y."""

    def at(y: jax.Array, batch: Batch) -> jax.Array:
        return scalar(loss, moved(params, _step(params, columns, y), adaptive=False), batch)

    return average(lambda batch: jax.value_and_grad(at)(y, batch), batches)


def _step(params: Params, columns: Columns, y: jax.Array) -> Params:
    """Ay as a pytree."""
    if columns is not None:
        return jax.tree.map(lambda a: jnp.tensordot(y, a, 1), columns)
    return ravel_pytree(_doubled(params))[1](y)


def _doubled(params: Params) -> Params:
    """Parameters in the dtype in which sums over them are kept."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, trees.accumulator_dtype(params)), params)


def _columns(key: jax.Array, params: Params, count: int) -> Params:
    """The columns of A: `count` pytrees of standard normal entries, stacked."""
    return jax.vmap(lambda key: gaussian(key, _doubled(params)))(jax.random.split(key, count))


def _coordinates(params: Params, columns: Columns) -> jax.Array:
    """A⁺θ: the coordinates of the point of A's range that is nearest to θ."""
    flat = ravel_pytree(_doubled(params))[0]
    if columns is None:
        return flat
    rows = jax.vmap(lambda column: ravel_pytree(column)[0])(columns)
    nearest: jax.Array = jnp.linalg.solve(rows @ rows.T, rows @ flat)
    return nearest

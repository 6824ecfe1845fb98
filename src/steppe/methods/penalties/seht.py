"""The trace of the Hessian as a penalty (SEHT)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe import curvature as curvature_
from steppe.core import checks, trees
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature import operators
from steppe.curvature.estimators.estimates import averaged
from steppe.curvature.estimators.probes import rademacher
from steppe.methods.contract import Strength, whole
from steppe.methods.draws import coordinates
from steppe.methods.penalties.penalty import Matrix, added, hutchinson, operator


def seht(
    lam: Strength,
    *,
    probes: int = 5,
    every: int = 10,
    drop: float = 0.0,
    matrix: Matrix = "hessian",
    where: Any = None,
    microbatches: int | None = None,
    rematerialize: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of the Hessian's trace to the gradients (Liu et al. 2022, "SEHT").

    Minimises ``L(θ) + λ tr H(θ)``, H the Hessian of the mini-batch loss, with tr H ≈ 1/M Σⱼ vⱼᵀHvⱼ, unbiased in value
    and in gradient.

    Parameters
    ----------
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at
        no cost.
    probes : M, the number of random vectors.
    every : the penalty acts on updates 0, k, 2k, ….
    drop : 0: random signs ("SEHT-H"). In (0, 1): an entry is zero with that chance ("SEHT-D"), and the others are
        ±1/√(1 − drop), so that the estimate stays unbiased.
    matrix : "hessian", or "ggn": the trace of the generalised Gauss-Newton matrix, see `fa`; never below 0 for a
        convex criterion.
    where, microbatches, rematerialize, key : see `fa`.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss`` and ``batch``, and optionally
    ``penalty_loss``. ``state.monitor`` is the last tr H with its standard error. Cost of a penalised update: about
    2M + 1 gradients for networks of dense or convolutional layers, 4M + 1 elsewhere and with `drop`; with "ggn" 3M + 1
    by count of operations.

    Raises
    ------
    InputError : as `fa`.

    Notes
    -----
    Far from a minimum tr H may be negative, and more so without bound: a small λ, "ggn", or `fa`, is safer there. The
    code released with the paper adds the trace as a number, which has no gradient: it does not regularise. This does.
    It also keeps each entry with probability 2p and does not rescale; here the expectation is tr H for every `drop`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.mean(jnp.tanh(batch["x"] @ w - batch["y"]) ** 2)
    >>> params, batch = jnp.ones(2), {"x": jnp.eye(2), "y": jnp.zeros(2)}
    >>> tx = optax.chain(steppe.methods.seht(0.01), optax.sgd(0.1))
    >>> state = tx.init(params)
    >>> updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
    >>> round(float(steppe.monitor(state)["seht"].mean), 3)
    -0.622
    """
    probes = whole("seht", "probes", probes)
    parts = microbatches if microbatches is None else whole("seht", "microbatches", microbatches)
    if checks.is_traced(drop):
        checks.fail("seht", "drop", "a Python number, for another estimator is taken at 0", "a traced value",
                    "Add 'drop' to static_args of optax.inject_hyperparams.")  # fmt: skip
    if checks.real("seht", "drop", drop, least=0.0, most=1.0) == 1:
        checks.fail("seht", "drop", "a number of at least 0 and below 1", drop)
    moments = hutchinson("seht", matrix, probes, parts, differentiate="trace", rematerialize=rematerialize)

    def value(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array | float, Estimate]:
        if drop:
            H = operator("seht", matrix, loss, params, batch, parts)
            found = _sparse_trace(H, jax.random.split(key, probes), drop)
        else:
            found = moments(loss, params, batch, key).trace
        return found.mean, found

    return added("seht", value, lam, every=every, where=where, parts=parts, key=key)


def _sparse_trace(H: curvature_.Operator, keys: jax.Array, drop: float) -> Estimate:
    """Tr H from sparse signs."""
    draw = lambda key: _sparse(key, H.like, drop)  # noqa: E731

    def one(H: curvature_.Operator, key: jax.Array) -> tuple[jax.Array]:
        v = draw(key)
        return (trees.dot(v, operators.apply(H, v)),)

    def every(H: curvature_.Operator, keys: jax.Array) -> tuple[jax.Array]:
        return (operators.samples(H, keys, draw, trees.dot),)

    return averaged(every, one, H, keys, (True,))[0]


def _sparse(key: jax.Array, like: Params, drop: float) -> Params:
    """Random signs of which some are zero, with covariance I."""
    stays = coordinates(jax.random.fold_in(key, 1), like, 1 - drop)
    larger = lambda x, stay: jnp.where(stay, x / (1 - drop) ** 0.5, 0).astype(x.dtype)  # noqa: E731
    return jax.tree.map(larger, rademacher(key, like), stays)

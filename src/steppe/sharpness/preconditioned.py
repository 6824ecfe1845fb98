"""Sharpness as an adaptive optimiser sees it: the largest eigenvalue of the Hessian in the units of its steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from steppe import curvature
from steppe.core import checks, trees
from steppe.core.types import Batch, Key, Loss, Params

NAME = "preconditioned_sharpness"

ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0, "nesterov": False, "weight_decay": 0.0}
RMS = {"decay": 0.9, "eps": 1e-8, "eps_in_sqrt": True, "momentum": 0.0, "nesterov": False}
"""Settings of Optax's optimisers that the preconditioner and the stability limit depend on, and their defaults."""

KNOWN = "Adam, AdamW, NAdam, AMSGrad or RMSProp"


class PreconditionedSharpness(NamedTuple):
    """The sharpness that decides whether an adaptive optimiser is stable, and the limit of stability.

    Attributes
    ----------
    sharpness : jax.Array
        λ_max of P^(-1/2) H P^(-1/2).
    limit : jax.Array
        Up to which steps on a quadratic are stable, with P as it is now.
    residual : jax.Array
        How far an eigenvalue can be from `sharpness`, see `curvature.Eigenpairs`.
    converged : jax.Array
        Whether `sharpness` is the largest eigenvalue to the tolerance.
    """

    sharpness: jax.Array
    limit: jax.Array
    residual: jax.Array
    converged: jax.Array

    @property
    def ratio(self) -> jax.Array:
        """The sharpness over its limit: at 1 the learning rate is at the edge of stability, above it beyond."""
        return self.sharpness / self.limit


def preconditioned_sharpness(
    loss: Loss,
    params: Params,
    batches: Batch | list[Batch],
    opt_state: Any,
    *,
    learning_rate: float | jax.Array | None = None,
    settings: Mapping[str, Any] | None = None,
    tol: float | None = None,
    max_products: int = 1000,
    key: Key = 0,
) -> PreconditionedSharpness:
    """The preconditioned sharpness λ_max(P^(-1/2) H P^(-1/2)) of Adam, and its stability limit (Cohen et al. 2022).

    P is what divides the steps of the optimiser, read from its state: for Adam after t updates

        P = (1 − β₁ᵗ) [√(ν/(1 − β₂ᵗ) + ε_root) + ε],      w ← w − η P⁻¹ m,   m ← β₁ m + (1 − β₁) g.

    With P held, steps on a quadratic are stable where the sharpness is below

        (2 + 2β₁)/((1 − β₁) η),      38/η for β₁ = 0.9:

    an eigenvalue λ of P⁻¹H has z² − (1 + β₁ − η (1 − β₁) λ) z + β₁ = 0, whose roots leave the unit circle there, at −1.
    Decoupled weight decay γ makes 2/η − γ of the 2/η in it, and Nesterov's form divides it by 1 + 2β₁. RMSProp has
    P = √(ν + ε), and (2 + 2μ)/η with momentum μ, 2/η without.

    Parameters
    ----------
    loss : callable
        ``loss(params, batch)``, the mean over the batch.
    params : pytree of floating arrays
        The parameters that the state belongs to.
    batches : batch, or list of batches
        L is the mean over all examples. Cohen et al. speak of the loss of all training data.
    opt_state : Any
        The state of any Optax chain in which there is one of Adam, AdamW, NAdam, AMSGrad or RMSProp, after an update.
    learning_rate : float, optional
        η, now. Not needed where ``optax.inject_hyperparams`` keeps it in the state.
    settings : Mapping, optional
        The optimiser's settings by Optax's names where they are not Optax's defaults: b1, b2, eps, eps_root, nesterov,
        weight_decay; of RMSProp decay, eps, eps_in_sqrt, momentum, nesterov. Those that `inject_hyperparams` keeps in
        the state are found there.
    tol, max_products, key
        Of the search, see `curvature.top_eigenpairs`.

    Returns
    -------
    PreconditionedSharpness
        (sharpness, limit, residual, converged), and ``ratio``: is the learning rate at the edge? Cost: that of
        `curvature.top_eigenpairs`, about 40 to 120 products of two to two and a half gradients each. On the host, not
        under `jax.jit`.

    Raises
    ------
    InputError
        No such optimiser in the state, or several; one before its first update, or of other parameters; a learning
        rate that is missing; settings that do not exist.

    Notes
    -----
    L2 regularisation (``optax.add_decayed_weights`` before Adam) belongs to the loss: add it there.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> loss = lambda w, batch: jnp.sum(jnp.array([1.0, 100.0]) * w**2) / 2
    >>> w, tx = jnp.array([1.0, 1.0]), optax.adam(0.01)
    >>> _, state = tx.update(jax.grad(loss)(w, None), tx.init(w), w)
    >>> found = preconditioned_sharpness(loss, w, jnp.ones(1), state, learning_rate=0.01)
    >>> [round(float(x), 2) for x in (found.sharpness, found.limit)]  # after one update P = 0.1 |g|, and |g| = (1, 100)
    [10.0, 3800.0]
    """
    state = _adaptive(opt_state)
    kept = _injected(opt_state)
    known = _settings(state, settings or {}, kept)
    rate = learning_rate if learning_rate is not None else kept.get("learning_rate")
    if rate is None:
        checks.fail(NAME, "learning_rate", "given", "nothing", "The state does not hold it.")
    checks.positive(NAME, "learning_rate", rate)
    scale = jax.tree.map(lambda p, w: (p**-0.5).astype(w.dtype), _divisor(state, params, known), params)
    H = curvature.hessian(loss, params, batches)
    found = curvature.top_eigenpairs(curvature.rescaled(H, scale), key, 1, tol=tol, max_products=max_products)
    limit = jnp.asarray(stability_limit(float(rate), known), found.values.dtype)
    return PreconditionedSharpness(found.values[0], limit, found.residuals[0], found.converged[0])


def stability_limit(rate: float, known: Mapping[str, Any]) -> float:
    """Up to which preconditioned sharpness steps on a quadratic are stable, by the settings of an optimiser.

    Examples
    --------
    >>> round(stability_limit(0.1, ADAM), 6), stability_limit(0.1, RMS)
    (380.0, 20.0)
    """
    momentum = float(known.get("b1", known.get("momentum")) or 0.0)
    limit = (2 / rate - float(known.get("weight_decay", 0.0))) * (1 + momentum)
    limit /= 1 - momentum if "b1" in known else 1  # an average of gradients, or their sum
    return limit / (1 + 2 * momentum) if known["nesterov"] else limit


def preconditioner(opt_state: Any, params: Params, settings: Mapping[str, Any] | None = None) -> Params:
    """What divides the steps of an adaptive optimiser, P, as a pytree like the parameters.

    Parameters
    ----------
    opt_state, params, settings
        See `preconditioned_sharpness`.

    Returns
    -------
    pytree
        The diagonal of P, in at least float32.

    Raises
    ------
    InputError
        As `preconditioned_sharpness`.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> tx, w = optax.adam(0.1, b1=0.0), jnp.zeros(2)
    >>> _, state = tx.update(jnp.array([3.0, -4.0]), tx.init(w), w)
    >>> preconditioner(state, w, {"b1": 0.0}).astype(int).tolist()
    [3, 4]
    """
    state = _adaptive(opt_state)
    return _divisor(state, params, _settings(state, settings or {}, _injected(opt_state)))


def _adaptive(opt_state: Any) -> Any:
    """The state of the one adaptive optimiser in a state."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_adaptive)
    found = [node for node in nodes if _is_adaptive(node)]
    if len(found) != 1:
        checks.fail(NAME, "opt_state", f"a state with one of {KNOWN}", f"one with {len(found) or 'none'}")
    return found[0]


def _is_adaptive(node: Any) -> bool:
    kinds = (optax.ScaleByAdamState, optax.ScaleByAmsgradState, optax.ScaleByRmsState)
    return isinstance(node, kinds) or type(node).__name__ == "ScaleByRmsWithCountState"


def _injected(opt_state: Any) -> dict[str, Any]:
    """The settings that `optax.inject_hyperparams` keeps in a state."""
    kept: dict[str, Any] = {}
    for _, node in trees.instances(opt_state, optax.InjectStatefulHyperparamsState):
        kept |= node.hyperparams
    return kept


def _settings(state: Any, given: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an optimiser: defaults, what its state holds, and what was given."""
    defaults = ADAM if hasattr(state, "mu") else RMS
    for name in given:
        if name not in defaults:
            checks.fail(NAME, "settings", "settings of the optimiser by Optax's names", checks.shown(name),
                        checks.nearest(name, defaults))  # fmt: skip
    return defaults | {name: value for name, value in kept.items() if name in defaults} | dict(given)


def _divisor(state: Any, params: Params, known: Mapping[str, Any]) -> Params:
    """P, from the state of an adaptive optimiser."""
    if trees.structure(state.nu) != trees.structure(params):
        checks.fail(NAME, "opt_state", "the state of an optimiser of all of these parameters", "one of others",
                    "Give it the parameters that it trains.")  # fmt: skip
    count = state.count if "count" in state._fields else None  # every tuple has a method of that name
    if count is not None and not checks.is_traced(count) and int(count) == 0:
        checks.fail(NAME, "opt_state", "a state after an update at least", "one before the first")
    second = jax.tree.map(lambda v: v.astype(trees.accumulator_dtype(v)), getattr(state, "nu_max", state.nu))
    if count is not None and not hasattr(state, "nu_max"):
        decay = known["b2" if "b2" in known else "decay"]
        second = jax.tree.map(lambda v: v / (1 - jnp.asarray(decay, v.dtype) ** count), second)
    dtype, eps = trees.accumulator_dtype(params), known["eps"]
    first = jnp.ones((), dtype)
    if "b1" in known:
        within, first = known["eps_root"], 1 - jnp.asarray(known["b1"], dtype) ** jnp.asarray(count)
    else:
        within, eps = (eps, 0.0) if known["eps_in_sqrt"] else (0.0, eps)
    return jax.tree.map(lambda v: (first * (jnp.sqrt(v + within) + eps)).astype(v.dtype), second)

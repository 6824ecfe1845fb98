"""The curvature of each layer's own parameters, from random vectors that all layers share."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from steppe.core import checks, names, trees
from steppe.core.types import Batch, Estimate, Key, Params
from steppe.curvature import operators
from steppe.curvature.estimators.estimates import estimate
from steppe.curvature.estimators.probes import rademacher
from steppe.curvature.hessians import hessian, per_layer
from steppe.curvature.operators import Operator
from steppe.curvature.spectrum.eigenpairs import top_eigenpairs


class LayerCurvature(NamedTuple):
    """The curvature of one layer: of the diagonal block A_ll of its own parameters.

    Attributes
    ----------
    layer : str
        Its name, see `steppe.core.names.layers`.
    size : int
        Its parameters.
    trace, frobenius_squared : Estimate
        tr A_ll and ‖A_ll‖²_F = tr(A_ll²), with standard errors.
    top_eigenvalue : float
        λ_max(A_ll); NaN where it was not asked for.
    residual : float
        How far an eigenvalue of A_ll can be from it.
    converged : bool
        Whether it is the largest one, to the tolerance.
    """

    layer: str
    size: int
    trace: Estimate
    frobenius_squared: Estimate
    top_eigenvalue: float
    residual: float
    converged: bool


def layer_table(
    function: Any,
    params: Params,
    batches: Batch | list[Batch],
    *,
    make: Callable[..., Operator] = hessian,
    probes: int = 32,
    eigenvalues: bool = True,
    tol: float | None = None,
    max_products: int = 1000,
    key: Key = 0,
    **options: Any,
) -> list[LayerCurvature]:
    """Trace, squared Frobenius norm and largest eigenvalue of each layer's diagonal block.

    With random signs v_1 … v_M for all parameters, and S_pq = ⟨v_p, A v_q⟩ summed over the entries of layer l alone,

        tr A_ll ≈ mean over p of S_pp,      ‖A_ll‖²_F ≈ mean over p ≠ q of S_pq S_qp,

    both unbiased: what other layers add to S_pq has mean zero, and is independent in S_pq and S_qp. So the products are
    those of one trace, whatever the number of layers.

    Parameters
    ----------
    function : callable
        The loss; with ``make=ggn`` or ``fisher`` the network's ``apply``.
    params : pytree of floating arrays
    batches : batch, or list of batches
        See `hessian`.
    make : callable
        `hessian`, `ggn` or `fisher`.
    probes : int
        M, at least 1. Standard errors need 2 of the trace, and 3 of the norm, whose is the jackknife's.
    eigenvalues : bool
        Whether to look for the largest eigenvalue of each block, which costs products for each layer.
    tol, max_products
        Of that search, see `top_eigenpairs`.
    key : int or key array
    **options
        Further arguments of `make`, such as ``criterion=``.

    Returns
    -------
    list of LayerCurvature
        In the order of the parameters; ``polars.DataFrame(rows)`` makes a table. An estimate of a small ‖A_ll‖² can be
        negative, within its standard error. Cost: M products, and M²/2 random vectors; with `eigenvalues` n_l products
        for a layer of up to 300 parameters, about 40 to 120 for others. Memory: of 10 copies of the parameters.

    Raises
    ------
    InputError
        Probes below 1; `where` among the options; what `make` refuses.

    Notes
    -----
    The blocks leave out what layers do to each other: their traces sum to tr A, their squared norms to less than ‖A‖².

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = lambda p, x: jnp.mean((x @ p["in"]["w"] * p["out"]["w"]) ** 2)
    >>> params = {"in": {"w": jnp.ones(3)}, "out": {"w": jnp.ones(1)}}
    >>> for row in layer_table(loss, params, jnp.eye(3), probes=200):
    ...     print(row.layer, row.size, abs(row.trace.mean - 2) <= 4 * row.trace.sem, round(row.top_eigenvalue, 3))
    in 3 True 0.667
    out 1 True 2.0
    """
    checks.whole("layer_table", "probes", probes)
    checks.one_of("layer_table", "eigenvalues", eigenvalues, (True, False))
    key = checks.key_array("layer_table", key)
    blocks = per_layer(make, function, params, batches, **options)
    A = make(function, params, batches, **options)
    traces, norms = layer_moments(A, jax.random.split(key, probes))
    rows = []
    for place, (layer, block) in enumerate(blocks.items()):
        value, residual, converged = float("nan"), float("nan"), False
        if eigenvalues:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the row says what has not converged
                found = top_eigenpairs(block, jax.random.fold_in(key, place), 1, tol=tol, max_products=max_products)
            value, residual, converged = (float(found.values[0]), float(found.residuals[0]), bool(found.converged[0]))
        trace, norm = (
            Estimate(*(float(jnp.asarray(part)[place]) for part in estimates)) for estimates in (traces, norms)
        )
        rows.append(LayerCurvature(layer, block.size, trace, norm, value, residual, converged))
    return rows


@operators.compiled
def layer_moments(A: Operator, keys: jax.Array) -> tuple[Estimate, Estimate]:
    """Tr A_ll and ‖A_ll‖²_F of every layer, arrays (L,)."""
    own = names.layers(A.like)
    layers = list(dict.fromkeys(own))

    def dots(v: Params, image: Params) -> jax.Array:
        """⟨v, Av⟩ layer by layer, (L,)."""
        pairs = zip(own, jax.tree.leaves(v), jax.tree.leaves(image), strict=True)
        parts = [(layer, trees.dot(a, b)) for layer, a, b in pairs]
        return jnp.stack([sum(part for other, part in parts if other == layer) for layer in layers])

    def against_all(v: Params, image: Params) -> jax.Array:
        """S_pq for one q and all p, (p, L); vectors are drawn again instead of being kept."""
        found: jax.Array = jax.lax.map(lambda key: dots(rademacher(key, A.like), image), keys)
        return found

    S = operators.samples(A, keys, lambda key: rademacher(key, A.like), against_all)
    traces = jax.vmap(estimate, in_axes=1)(jnp.diagonal(S, axis1=0, axis2=1).T)
    return traces, jax.vmap(_norm, in_axes=2)(S)


def _norm(S: jax.Array) -> Estimate:
    """The mean of S_pq S_qp over p ≠ q, and its standard error by the jackknife."""
    count = len(S)
    pairs = S * S.T * (1 - jnp.eye(count, dtype=S.dtype))
    whole, rows = jnp.sum(pairs), jnp.sum(pairs, axis=1)
    unknown = jnp.full((), jnp.nan, S.dtype)
    if count == 1:
        return Estimate(unknown, unknown)
    mean = whole / (count * (count - 1))
    if count == 2:
        return Estimate(mean, unknown)
    without = (whole - 2 * rows) / ((count - 1) * (count - 2))
    spread = jnp.sum((without - jnp.mean(without)) ** 2)
    return Estimate(mean, jnp.sqrt((count - 1) / count * spread))

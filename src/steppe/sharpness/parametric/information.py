"""Gaps between training and test loss that curvature predicts: Takeuchi's information criterion, the soft rank."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from steppe import curvature
from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Criterion, Estimate, Key, Params
from steppe.curvature import Operator
from steppe.curvature.estimators.estimates import exact
from steppe.curvature.spectrum.density import soft_share
from steppe.sharpness.evaluation import strength
from steppe.sharpness.parametric import gradient_moments
from steppe.sharpness.parametric.gradient_moments import quotient

DENSE = 5_000
"""The largest n for which matrices are made."""

OPERATORS = ("ggn", "hessian")


class InformationGap(NamedTuple):
    """How many parameters a network effectively uses, and what they cost.

    Attributes
    ----------
    complexity : an effective number of parameters.
    gap : complexity / N, by how much the test loss is predicted to exceed the training loss on N examples.
    """

    complexity: Estimate
    gap: Estimate


def takeuchi(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    criterion: Criterion = losses.cross_entropy,
    form: Literal["full", "diagonal", "trace"] = "trace",
    operator: Literal["ggn", "hessian"] = "ggn",
    damping: float = 0.0,
    probes: int | None = None,
    key: Key = 0,
) -> InformationGap:
    """Takeuchi's information criterion: the gap tr(H⁻¹C)/N between test and training loss (Takeuchi 1976).

    C = 1/N Σᵢ gᵢgᵢᵀ is the second moment of the gradients gᵢ of single examples' losses, and with a damping α ≥ 0

        full      tr((H + αI)⁻¹ C)             diagonal  Σⱼ Cⱼⱼ / (Hⱼⱼ + α)             trace  tr C / (tr H + α)

    in the place of tr(H⁻¹C). "full" with α > 0 is the gap of Shoham (2025); Thomas et al. (2020) propose "trace".

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs, each its own input's (no statistics of the batch).
    params : pytree of floating arrays, n scalars.
    batches : a list of batches ``{"x": …, "y": …}`` or ``(x, y)``, or anything else: one batch; N examples in all,
        without those whose labels are all ignored.
    criterion : ``criterion(outputs, y)``, the mean over the batch; a negative log-likelihood, for the theory.
    form : which of the three.
    operator : H: the Gauss-Newton matrix "ggn", never negative for a convex criterion; or the "hessian", whose negative
        eigenvalues, away from a minimum, count as they come.
    damping : α, in units of H. With 0, directions (entries) in which H is zero count for nothing: "full" is then with
        the pseudo-inverse.
    probes : None: exact. A number M: an estimate from M random vectors; for "full" (α > 0 and "ggn") and "trace".
    key : of the random vectors.

    Returns
    -------
    InformationGap, an effective number of parameters and that number over N. Standard errors are 0 where exact. With K
    outputs, the exact "diagonal" and "trace" cost K + 1 gradients of every single example (with "hessian": 1, and n
    products, n up to 5,000); exact "full" n products with each matrix and n³ operations, n up to 5,000. An estimate
    costs, for each probe, a gradient over the data and one product ("trace"; the ratio's bias is of the order of its
    relative variance) or a solution by up to 1,000 products ("full"; one that is cut short gives less).

    Raises
    ------
    InputError : an unknown form or operator; damping below 0; probes for what has no estimate; n too large for what is
        asked; parameters or batches that cannot be used.

    Notes
    -----
    When a ReLU network is rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node, "diagonal" without damping does not
    change, nor does "full" where C acts only where H does (always so with "ggn" and a usual criterion); "trace", and
    whatever is damped, does.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.ones((4, 1)), "y": jnp.array([-1.0, 1.0, -2.0, 2.0])}
    >>> found = takeuchi(lambda w, x: x @ w, jnp.zeros((1, 1)), batch, criterion=losses.squared_error)
    >>> float(found.complexity.mean), float(found.gap.mean)  # H = 2, C = mean of (2y)² = 10
    (5.0, 1.25)
    """
    name = "takeuchi"
    loss, known = entry.network_and_batches(name, apply, criterion, params, batches, single="network")
    checks.one_of(name, "form", form, ("full", "diagonal", "trace"))
    checks.one_of(name, "operator", operator, OPERATORS)
    alpha = jnp.asarray(checks.real(name, "damping", damping, least=0), trees.accumulator_dtype(params))
    H = _operator(operator, loss, params, known)
    if probes is None and (form == "full" or operator == "hessian") and H.size > DENSE:
        todo = {"full": "Take damping > 0, operator='ggn' and probes=10.", "diagonal": "Take operator='ggn'."}
        what = f"at most {DENSE:,} numbers for an exact {form!r}"
        checks.fail(name, "params", what, f"{H.size:,}", todo.get(form, "Say probes=10."))
    damped = checks.is_traced(damping) or damping > 0
    if probes is not None:
        checks.whole(name, "probes", probes)
        if form == "diagonal":
            checks.fail(name, "probes", "None for form='diagonal', which divides by each entry", probes)
        if form == "full" and (operator != "ggn" or not damped):
            checks.fail(name, "probes", "None for form='full' unless operator='ggn' and damping > 0", probes,
                        "Without them the solver may not end.")  # fmt: skip
        keys = jax.random.split(checks.key_array(name, key), probes)
        estimated = gradient_moments.solve if form == "full" else gradient_moments.ratio
        return _over(estimated(loss, params, known, H=H, alpha=alpha, keys=keys), loss.criterion, known)
    if form == "full":
        C = curvature.fisher(loss.apply, params, known, criterion=loss.criterion)
        return _over(_full(H, C, alpha, damped=damped), loss.criterion, known)
    C, own = gradient_moments.diagonals(loss, params, known, both=operator == "ggn")
    return _over(
        _divided(C, own if operator == "ggn" else _matrix_diagonal(H), alpha, form=form), loss.criterion, known
    )


def soft_rank_gap(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    damping: float,
    criterion: Criterion = losses.cross_entropy,
    operator: Literal["ggn", "hessian"] = "ggn",
    probes: int | None = 10,
    steps: int = 64,
    key: Key = 0,
) -> InformationGap:
    """The gap tr(H (H + αI)⁻¹)/N that the soft rank of H predicts for a calibrated network (Shoham 2025).

    It is the damped `takeuchi` with C = H, as is so where the network's own probabilities are right.

    Parameters
    ----------
    apply, params, batches, criterion, operator : see `takeuchi`.
    damping : α > 0: what the loss's penalty ½α‖θ‖² adds to its Hessian.
    probes, steps : see `curvature.soft_rank`. probes=None: exact, for n up to 5,000.
    key : an int or a JAX key array.

    Returns
    -------
    InformationGap: the soft rank, between 0 and n (negative eigenvalues count as zero), and that over N.

    Raises
    ------
    InputError : damping not above 0; otherwise as `takeuchi` and `curvature.soft_rank`.

    Notes
    -----
    Changes when the layers of a ReLU network are rescaled, layer-wise (aW₁, ab₁, W₂/a) or node by node: α does not
    follow.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batch = {"x": jnp.eye(2), "y": jnp.zeros(2)}
    >>> found = soft_rank_gap(
    ...     lambda w, x: x @ w, jnp.zeros((2, 1)), batch, damping=1.0, criterion=losses.squared_error, probes=None
    ... )
    >>> float(found.complexity.mean), float(found.gap.mean)  # eigenvalues 1 and 1, each counts a half
    (1.0, 0.5)
    """
    name = "soft_rank_gap"
    loss, known = entry.network_and_batches(name, apply, criterion, params, batches)
    alpha = strength(name, "damping", damping, params)
    checks.one_of(name, "operator", operator, OPERATORS)
    H = _operator(operator, loss, params, known)
    if probes is not None:
        return _over(curvature.soft_rank(H, key, damping=damping, probes=probes, steps=steps), loss.criterion, known)
    if H.size > DENSE:
        checks.fail(name, "params", f"at most {DENSE:,} numbers for an exact rank", f"{H.size:,}", "Say probes=10.")
    return _over(_exact_rank(H, alpha), loss.criterion, known)


def _operator(name: str, loss: losses.NetworkLoss, params: Params, batches: Batches) -> Operator:
    if name == "ggn":
        return curvature.ggn(loss.apply, params, batches, criterion=loss.criterion)
    return curvature.hessian(loss, params, batches)


def _over(complexity: Estimate, criterion: Criterion, batches: Batches) -> InformationGap:
    count = entry.examples_that_count(criterion, batches)
    return InformationGap(complexity, Estimate(complexity.mean / count, complexity.sem / count))


def _eigenvalues(H: Operator) -> tuple[jax.Array, jax.Array]:
    matrix = H.dense().astype(H.dtype)
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors


@compiled(static=("damped",))
def _full(H: Operator, C: Operator, alpha: jax.Array, *, damped: bool) -> Estimate:
    values, vectors = _eigenvalues(H)
    along = jnp.sum(vectors * (C.dense().astype(H.dtype) @ vectors), axis=0)
    if damped:
        return exact(jnp.sum(along / (values + alpha)))
    least = H.size * jnp.finfo(H.dtype).eps * jnp.max(jnp.abs(values))
    return exact(jnp.sum(quotient(along, jnp.where(jnp.abs(values) > least, values, 0))))


@compiled
def _exact_rank(H: Operator, alpha: jax.Array) -> Estimate:
    return exact(jnp.sum(soft_share(_eigenvalues(H)[0], alpha)))


@compiled
def _matrix_diagonal(H: Operator) -> jax.Array:
    diagonal: jax.Array = jnp.diagonal(H.dense()).astype(H.dtype)
    return diagonal


@compiled(static=("form",))
def _divided(C: Params, H: Params, alpha: jax.Array, *, form: str) -> Estimate:
    """The diagonal form, or that of traces, from diagonals."""
    c, h = (jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (C, H))
    if form == "trace":
        return exact(quotient(jnp.sum(c), jnp.sum(h) + alpha))
    return exact(jnp.sum(quotient(c, h + alpha)))

"""What all methods share that add the gradient of a penalty to the gradients."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import optax

from steppe import curvature
from steppe.core import checks, losses, trees
from steppe.core.types import Batch, Estimate, Key, Loss, Moments, Params
from steppe.curvature.estimators.estimates import Differentiated, Distribution
from steppe.methods.accumulation import accumulate, microbatches_of
from steppe.methods.contract import Call, Strength, method, unless_zero, whole

Matrix = Literal["hessian", "ggn"]
"""Whose curvature is penalised: the Hessian's, or that of the generalised Gauss-Newton matrix."""

MomentsOf = Callable[[Loss, Params, Batch, jax.Array], Moments]
"""``(loss, params, batch, key)`` -> estimates of tr A and tr(A²), differentiable in the parameters."""

Penalty = Callable[[Loss, Params, Batch, jax.Array], tuple[jax.Array | float, Estimate]]
"""``(loss, params, batch, key)`` -> what is differentiated, and what a person wants to log of it."""


def added(
    name: str,
    penalty: Penalty,
    lam: Strength,
    *,
    divisor: Callable[[Batch, Params], int] = lambda batch, chosen: 1,
    direction: Callable[[Params], Params] = lambda gradient: gradient,
    every: int = 1,
    where: Any = None,
    block: bool = True,
    parts: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """The method `name`, which adds λ/divisor · direction(∇ penalty) on updates 0, k, 2k, …; see `fa`.

    Only the parameters that `where` chooses receive the gradient. With `block` the penalty is a function of them alone;
    `parts` says by how many micro-batches it is computed.
    """

    def act(call: Call) -> tuple[Params, Estimate]:
        chosen, others = trees.partition(call.params, call.where if block else None)
        loss = _restricted(call.penalty_loss, others)

        def value(part: Params) -> tuple[jax.Array | float, Estimate]:
            return penalty(loss, part, call.batch, call.key)

        found, estimate = jax.grad(value, has_aux=True)(chosen)
        scaled = unless_zero(call.strength, call.strength / divisor(call.batch, chosen), direction(found))
        return trees.add(call.gradient, call.confined(trees.merge(scaled, trees.zeros_like(others)))), estimate

    return method(name, act, lam, every=every, where=where, parts=parts, key=key, replaces=False)


def _restricted(loss: Loss, others: Params) -> Loss:
    """The loss as a function of some parameters, with the others fixed; a network's, or a weighted one, stays so."""
    if isinstance(loss, losses.NetworkLoss):
        return losses.of(lambda p, x: loss.apply(trees.merge(p, others), x), loss.criterion)
    part = lambda p, b: loss(trees.merge(p, others), b)  # noqa: E731
    weight = losses.weight_of(loss)
    return part if weight is None else losses.weighted(part, weight)


def operator(
    name: str, matrix: Matrix, loss: Loss, params: Params, batch: Batch, microbatches: int | None
) -> curvature.Operator:
    """The penalised matrix of one batch; the Gauss-Newton matrix is that of a loss made by `losses.of`."""
    parts = microbatches_of(name, loss, batch, microbatches)
    if matrix == "hessian":
        return curvature.hessian(loss, params, parts)
    if not isinstance(loss, losses.NetworkLoss):
        checks.fail(name, "loss", "losses.of(apply, criterion) with matrix='ggn'", "a function that hides the outputs",
                    "Give such a one as loss= or as penalty_loss=.")  # fmt: skip
    return curvature.ggn(loss.apply, params, parts, criterion=loss.criterion)


def hutchinson(
    name: str,
    matrix: Matrix,
    probes: int,
    microbatches: int | None,
    distribution: Distribution = "rademacher",
    differentiate: Differentiated = "both",
    *,
    rematerialize: int | None = None,
) -> MomentsOf:
    """The moments of the penalised matrix from random vectors, as cheaply as there is a way.

    The cheapest needs the rows of the whole batch: by micro-batches, however many, every probe is a whole vector.
    """
    checks.one_of(name, "matrix", matrix, ("hessian", "ggn"))
    if rematerialize is not None:
        rematerialize = whole(name, "rematerialize", rematerialize, least=2)
        if matrix != "hessian" or microbatches is not None:
            checks.fail(name, "rematerialize", "None with matrix='ggn' or microbatches", rematerialize,
                        "Choose one way to take less memory.")  # fmt: skip
    options: dict[str, Any] = {"probes": probes, "distribution": distribution, "differentiate": differentiate}

    def measure(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> Moments:
        if matrix == "hessian" and microbatches is None:
            return curvature.loss_moments(loss, params, batch, key, rematerialize=rematerialize, **options)
        return curvature.moments(operator(name, matrix, loss, params, batch, microbatches), key, **options)

    return measure


def accumulated(name: str, measure: Callable[..., Any], microbatches: int | None) -> Callable[..., Any]:
    """A measure of a user's own, ``(loss, params, batch, key)``, given the loss that goes through micro-batches."""

    def of_parts(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> Any:
        return measure(accumulate(name, loss, microbatches), params, batch, key)

    return of_parts

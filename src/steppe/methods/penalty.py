"""What all methods share that add the gradient of a penalty to the gradients."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import optax

from steppe import checks, curvature, losses, trees
from steppe.curvature.estimates import Distribution
from steppe.methods.accumulation import in_microbatches
from steppe.methods.contract import Call, Strength, method, unless_zero
from steppe.typing import Batch, Estimate, Key, Loss, Moments, Params

Matrix = Literal["hessian", "ggn"]
"""Whose curvature is penalised: the Hessian's, or that of the generalised Gauss-Newton matrix."""

MomentsOf = Callable[[Loss, Params, Batch, jax.Array], Moments]
"""``(loss, params, batch, key)`` -> estimates of tr A and tr(A²), differentiable in the parameters."""

Penalty = Callable[[Loss, Params, Batch, jax.Array], tuple[jax.Array, Estimate]]
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
    microbatches: int = 1,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """The method `name`, which adds λ/divisor · direction(∇ penalty) on updates 0, k, 2k, …; see `fa`."""
    checks.whole(name, "microbatches", microbatches)

    def act(call: Call) -> tuple[Params, Estimate]:
        """What is added is zero on the parameters that are not penalised."""
        chosen, others = trees.partition(call.params, where)
        loss = _restricted(in_microbatches(name, call.penalty_loss, microbatches), others)

        def value(part: Params) -> tuple[jax.Array, Estimate]:
            return penalty(loss, part, call.batch, call.key)

        found, estimate = jax.grad(value, has_aux=True)(chosen)
        scaled = unless_zero(call.strength, call.strength / divisor(call.batch, chosen), direction(found))
        return trees.add(call.gradient, trees.merge(scaled, trees.zeros_like(others))), estimate

    return method(name, act, lam, every=every, key=key)


def _restricted(loss: Loss, others: Params) -> Loss:
    """The loss as a function of some parameters, with the others fixed; that of a network stays one."""
    if isinstance(loss, losses.NetworkLoss):
        return losses.of(lambda p, x: loss.apply(trees.merge(p, others), x), loss.criterion)
    return lambda p, b: loss(trees.merge(p, others), b)


def check_matrix(name: str, matrix: Matrix, microbatches: int) -> None:
    """A matrix that is known, and known from micro-batches."""
    checks.one_of(name, "matrix", matrix, ("hessian", "ggn"))
    if matrix == "ggn" and checks.whole(name, "microbatches", microbatches) > 1:
        checks.fail(name, "microbatches", "1 with matrix='ggn'", microbatches)


def operator(name: str, matrix: Matrix, loss: Loss, params: Params, batch: Batch) -> curvature.Operator:
    """The penalised matrix of one batch; the Gauss-Newton matrix is that of a loss made by `losses.of`."""
    one = [batch]  # one batch, even where it is a list [x, y]
    if matrix == "hessian":
        return curvature.hessian(loss, params, one)
    if not isinstance(loss, losses.NetworkLoss):
        checks.fail(name, "loss", "losses.of(apply, criterion) with matrix='ggn'", "a function that hides the outputs",
                    "Give such a one as loss= or as penalty_loss=.")  # fmt: skip
    return curvature.ggn(loss.apply, params, one, criterion=loss.criterion)


def hutchinson(name: str, matrix: Matrix, probes: int, distribution: Distribution = "rademacher") -> MomentsOf:
    """The moments of the penalised matrix from random vectors, as cheaply as there is a way."""

    def measure(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> Moments:
        options = {"probes": probes, "distribution": distribution}
        if matrix == "hessian":
            return curvature.loss_moments(loss, params, batch, key, **options)
        return curvature.moments(operator(name, matrix, loss, params, batch), key, **options)

    return measure

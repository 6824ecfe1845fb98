"""What all methods share that add the gradient of a penalty to the gradients."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from steppe import checks, trees
from steppe.methods.accumulation import in_microbatches
from steppe.methods.contract import Call, Strength, method, unless_zero
from steppe.typing import Batch, Estimate, Key, Loss, Params

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
        loss = in_microbatches(name, call.penalty_loss, microbatches)

        def value(part: Params) -> tuple[jax.Array, Estimate]:
            return penalty(lambda p, b: loss(trees.merge(p, others), b), part, call.batch, call.key)

        found, estimate = jax.grad(value, has_aux=True)(chosen)
        scaled = unless_zero(call.strength, call.strength / divisor(call.batch, chosen), direction(found))
        return trees.add(call.gradient, trees.merge(scaled, trees.zeros_like(others))), estimate

    return method(name, act, lam, every=every, key=key)

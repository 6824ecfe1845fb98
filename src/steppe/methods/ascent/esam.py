"""Efficient SAM: a part of the weights is perturbed, and a part of the batch gives the gradient."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, trees
from steppe.core.types import Estimate, Key, Params
from steppe.curvature.estimators.estimates import estimate
from steppe.methods.contract import Call, Strength, as_like, method
from steppe.methods.draws import coordinates


def esam(
    rho: Strength = 0.05,
    *,
    perturb: float = 0.6,
    select: float = 0.5,
    every: int = 1,
    where: Any = None,
    microbatches: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Replace the gradient by that of the examples whose loss rises most nearby (Du et al. 2022, "ESAM").

    With g the gradient that comes in, m random zeros and ones, E m = β, and B⁺ the k = ⌈γB⌉ examples of the batch
    whose loss rises most,

        ε = ρ m ∘ g/(β‖g‖),   B⁺ = top-k of ℓᵢ(θ + ε) − ℓᵢ(θ),   gradient = 1/k Σ over B⁺ of ∇ℓᵢ(θ + ε).

    Stands first in a chain, and asks for the loss of each example, unless the loss is made by `losses.of`:

        example_losses = lambda params, batch: losses.cross_entropies(apply(params, batch["x"]), batch["y"])
        tx.update(grads, state, params, loss=loss, batch=batch, example_losses=example_losses)

    Parameters
    ----------
    rho : ρ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at no
        cost; a traced 0 agrees with it (nothing rises, so nothing is selected).
    perturb : β in (0, 1], the chance of a weight to be perturbed. 1: all of them.
    select : γ in (0, 1], the part of the batch that is selected. 1: all of it, and with ``perturb=1`` this is `sam`.
    every, where, microbatches : see `sam`. The examples are selected from the whole batch.
    key : seed of m.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`; ``update`` takes ``loss``, ``batch`` and
    ``example_losses=(params, batch) -> (B,)``, whose mean is the loss, with the same dropout masks; a loss made by
    `losses.of` has them. ``state.monitor``
    is the mean rise of the selected examples' losses, with its standard error over them. Cost: one gradient and one
    forward pass more. That is *more* than `sam`: the forward pass at θ + ε is that of the whole batch, and which
    examples its gradient needs is known only to the compiled program. What is here is ESAM's step, not its saving.

    Raises
    ------
    InputError : arguments out of range, when made; a missing loss, batch, params or example_losses, when updated.

    Notes
    -----
    Exactly k examples, the earlier first where rises are equal. The weights are perturbed one by one, as in the paper's
    text; its released code drops whole tensors, from the next step's ascent, and keeps the examples strictly above the
    k-th rise, one fewer. In bfloat16 rises are seen to 0.4 % of a loss.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> each = lambda w, x: x * w**2
    >>> loss = lambda w, x: jnp.mean(each(w, x))
    >>> tx = steppe.methods.esam(0.5, perturb=1.0, select=0.5)
    >>> w, x = jnp.array(1.0), jnp.array([1.0, 3.0])
    >>> updates, state = tx.update(jax.grad(loss)(w, x), tx.init(w), w, loss=loss, batch=x, example_losses=each)
    >>> float(updates), float(state.monitor.mean)  # of the second example 2·3·1.5, and 3·(1.5² − 1)
    (9.0, 3.75)
    """
    _part("perturb", perturb)
    if checks.is_traced(_part("select", select)):
        checks.fail("esam", "select", "a Python number, for shapes depend on it", "a traced value",
                    "Add 'select' to static_args of optax.inject_hyperparams.")  # fmt: skip
    select = float(select)

    def act(call: Call) -> tuple[Params, Estimate]:
        losses, pull = jax.vjp(lambda p: _each(call, p), _perturbed(call, perturb))
        dtype = trees.accumulator_dtype(losses)
        rises = losses.astype(dtype) - _each(call, call.params).astype(dtype)
        # rounded first: 0.07 · 100 is 7.000000000000001
        rises, chosen = jax.lax.top_k(rises, max(math.ceil(round(select * len(rises), 6)), 1))
        (found,) = pull(jnp.zeros_like(losses).at[chosen].set(1 / len(chosen)))
        moved = jax.tree.map(
            lambda f, g: jnp.where(call.strength == 0, g, f), as_like(found, call.gradient), call.gradient
        )
        return moved, estimate(rises)

    settings = {"every": every, "where": where, "microbatches": microbatches, "key": key}
    return method("esam", act, rho, called="rho", **settings)


def _part(name: str, value: Any) -> Any:
    if not checks.is_traced(checks.real("esam", name, value, least=0.0, most=1.0)) and value == 0:
        checks.fail("esam", name, "a number above 0 and at most 1", checks.shown(value))
    return value


def _perturbed(call: Call, chance: float) -> Params:
    """θ + ρ m ∘ g/(β‖g‖)."""
    towards, moves = trees.unit(call.confined(call.gradient)), coordinates(call.key, call.params, chance)
    some = jax.tree.map(lambda u, m: jnp.where(m, u, jnp.zeros_like(u)), towards, moves)
    return trees.add_scaled(call.params, call.distance / chance, some)


def _each(call: Call, params: Params) -> jax.Array:
    """The loss of each example at some parameters, (B,)."""
    if call.example_losses is None:
        checks.fail("esam", "update", "given example_losses=, a function (params, batch) -> (B,)", "a call without")
    size, found = checks.batch_size("esam", call.batch), call.example_losses(params, call.batch)
    if jnp.shape(found) != (size,):
        checks.fail("esam", "example_losses", f"a function to shape {(size,)}", f"one to shape {jnp.shape(found)}")
    return found

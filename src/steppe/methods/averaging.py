"""Averages of the parameters along training, kept beside them: the transformations that stand last in a chain.

The average is evaluated in the place of the parameters; training itself never sees it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from steppe.core import checks, trees
from steppe.core.types import Params
from steppe.methods import place
from steppe.methods.contract import as_like, number_of_updates


class AverageState(NamedTuple):
    """State of `ema` and `swa`.

    Attributes
    ----------
    count : number of updates so far.
    mean : the average itself, nothing to correct, each leaf in at least float32; the initial parameters before the
        first update.
    """

    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples that nobody calls
    mean: Params


def ema(decay: float = 0.999, *, debias: bool = True) -> optax.GradientTransformation:
    """Keep an exponential average of the parameters, θ̄ ← d θ̄ + (1 − d) θ (after Polyak and Juditsky 1992).

    θ are the parameters *after* the update, and so it stands last in a chain; updates pass unchanged:

        tx = optax.chain(steppe.methods.sam(0.05), optax.sgd(0.1), steppe.methods.ema(0.999))
        averaged = steppe.methods.averaged_params(opt_state, params)

    Parameters
    ----------
    decay : 0 ≤ d < 1, about 1/(1 − d) updates of memory; a traced value will do. 0 is the last parameters.
    debias : whether the weights of the t updates so far, in proportion to dᵗ⁻¹, …, d, 1, sum to 1. Otherwise θ̄ begins
        at the initial parameters, which keep the weight dᵗ.

    Returns
    -------
    An `optax.GradientTransformation` whose state is an `AverageState`. Cost: one pass over the parameters, and their
    memory once more.

    Raises
    ------
    InputError : decay out of range, when made; parameters that are not floating-point, when initialised; a call without
        params, when updated.

    Notes
    -----
    ``optax.ema`` averages *updates*, and without debiasing begins at zeros, which as parameters mean nothing.

    Examples
    --------
    >>> import jax.numpy as jnp, optax, steppe
    >>> tx = optax.chain(optax.sgd(1.0), ema(0.5))
    >>> w = jnp.array(8.0)
    >>> state = tx.init(w)
    >>> for _ in range(2):  # 8 → 4 → 2
    ...     updates, state = tx.update(w / 2, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> round(float(averaged_params(state)), 3)  # (0.5 · 4 + 2)/(0.5 + 1)
    2.667
    """
    if not checks.is_traced(checks.real("ema", "decay", decay, least=0.0)) and decay >= 1:
        checks.fail("ema", "decay", "below 1", decay)
    checks.one_of("ema", "debias", debias, (True, False))

    def weight(count: jax.Array, dtype: Any) -> jax.Array:
        d = jnp.asarray(decay).astype(dtype)
        # (1 − d)/(1 − dᵗ): what averaging from zero and dividing by the sum of the weights comes to
        return (1 - d) / -jnp.expm1((count + 1).astype(dtype) * jnp.log(d)) if debias else 1 - d

    return _averaging("ema", weight)


def swa(start: int = 0, *, every: int = 1) -> optax.GradientTransformation:
    """Keep the mean of the parameters after updates s, s + c, s + 2c, … (stochastic weight averaging, Izmailov 2018).

    Updates count from 0. Until update s is done, the average is the current parameters. Stands last in a chain, and
    updates pass unchanged; see `ema`.

    Parameters
    ----------
    start : s ≥ 0.
    every : c ≥ 1; the updates in a cycle of the learning rate, or in an epoch, are usual.

    Returns
    -------
    As `ema`.

    Raises
    ------
    InputError : start below 0, every below 1, when made; otherwise as `ema`.

    Notes
    -----
    Izmailov, Podoprikhin, Garipov, Vetrov and Wilson (2018), with a constant or cyclical learning rate, which is the
    optimiser's affair. Networks with BatchNorm need its statistics anew for the average: a
    study estimates them over one pass of the training data; elsewhere that is the caller's affair.

    Examples
    --------
    >>> import jax.numpy as jnp, optax, steppe
    >>> tx = optax.chain(optax.sgd(1.0), swa(start=1))
    >>> w = jnp.array(8.0)
    >>> state = tx.init(w)
    >>> for _ in range(3):  # 8 → 4 → 2 → 1
    ...     updates, state = tx.update(w / 2, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> float(averaged_params(state))  # (2 + 1)/2
    1.5
    """
    start, every = number_of_updates("swa", "start", start, least=0), number_of_updates("swa", "every", every)

    def weight(count: jax.Array, dtype: Any) -> jax.Array:
        since = count - start
        share = 1 / (since // every + 1).astype(dtype)
        return jnp.where(since < 0, 1, jnp.where(since % every == 0, share, 0))

    return _averaging("swa", weight)


def _averaging(name: str, weight: Callable[[jax.Array, Any], jax.Array]) -> optax.GradientTransformation:
    """θ̄ ← θ̄ + w (θ − θ̄), with ``weight(number of the update, dtype)``; w = 1 is θ and w = 0 is θ̄, bitwise."""

    def init(params: Params) -> AverageState:
        checks.floating(name, params, if_masked=f"Put {name} after optax.masked, multi_transform or partition.")
        # a copy: a training step may donate the state's buffers, and none twice
        mean = jax.tree.map(lambda p: jnp.array(p, trees.accumulator_dtype(p), copy=True), params)
        return AverageState(jnp.zeros((), jnp.int32), mean)

    def update(updates: Params, state: AverageState, params: Params | None = None) -> tuple[Params, AverageState]:
        if params is None:
            checks.fail(name, "update", "given params", "a call without", "Call tx.update(grads, state, params).")
        place.refuse_later(name)

        def moved(mean: jax.Array, new: jax.Array) -> jax.Array:
            w, new = weight(state.count, mean.dtype), new.astype(mean.dtype)
            return jnp.where(w == 1, new, jnp.where(w == 0, mean, mean + w * (new - mean)))

        mean = jax.tree.map(moved, state.mean, optax.apply_updates(params, updates))
        return updates, AverageState(state.count + 1, mean)

    return optax.GradientTransformation(init, update)


def averaged_params(opt_state: Any, params: Params | None = None) -> Params:
    """The average that `ema`, `swa` or Optax's `schedule_free` keeps, found in the state of the whole chain.

    Parameters
    ----------
    opt_state : the state of an optimiser, however nested, with one average in it.
    params : the average comes in the dtypes of these; otherwise in those it is kept in, at least float32. Schedule-free
        optimisers need them: they keep x, what is to be tested, as y = b₁ x + (1 − b₁) z, which is what is trained.

    Returns
    -------
    A pytree like the parameters.

    Raises
    ------
    InputError : no average in the state, or more than one; a schedule-free one without params.

    Examples
    --------
    >>> import jax.numpy as jnp, optax, steppe
    >>> tx = optax.chain(optax.adam(0.1), ema())
    >>> averaged_params(tx.init({"w": jnp.ones(2)}))  # before the first update: the initial parameters
    {'w': Array([1., 1.], dtype=float32)}
    """
    found = _averages(opt_state)
    if len(found) != 1:
        got = f"one with {len(found) or 'none'}"
        checks.fail("averaged_params", "opt_state", "a state with one average", got, "Put one ema or swa in the chain.")
    (state,) = found
    if isinstance(state, AverageState):
        return state.mean if params is None else as_like(state.mean, params)
    if params is None:
        checks.fail("averaged_params", "params", "given with the state of a schedule-free optimiser", None)
    return optax.contrib.schedule_free_eval_params(state, params)


def is_averaging(opt_state: Any) -> bool:
    """Whether the state of an optimiser, or its shapes, hold an average that `averaged_params` finds."""
    return bool(_averages(opt_state))


def _averages(opt_state: Any) -> list[Any]:
    kinds: tuple[type[Any], ...] = (AverageState, optax.contrib.ScheduleFreeState)
    return [node for kind in kinds for _, node in trees.instances(opt_state, kind)]

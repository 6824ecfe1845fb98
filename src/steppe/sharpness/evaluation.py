"""What the measures that move the weights share: checks at the door, the loss over batches, moves, directions."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from steppe.core import checks, losses, predictions, trees
from steppe.core.batches import Batches, add_some, average, sum_from_host, weighted_sum
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Criterion, Estimate, Loss, Params
from steppe.curvature import layers

Norm = Literal["l2", "linf"]

NORMS = get_args(Norm)


def strength(function: str, name: str, value: Any, params: Params) -> jax.Array:
    """A scalar above 0, as an array of the dtype that sums over the parameters take: one program for every value."""
    return jnp.asarray(checks.positive(function, name, value), trees.accumulator_dtype(params))


def flag(function: str, name: str, value: Any) -> None:
    """A bool."""
    checks.one_of(function, name, value, (True, False))


def scalar(loss: Loss, params: Params, batch: Batch) -> jax.Array:
    """The loss of one batch, in float32 at least; its gradient is fast inside loops too."""
    value = jnp.asarray(layers.through(loss)(params, batch))
    return value.astype(trees.accumulator_dtype(value))


RESOLVED = 5
"""Roundings of a difference of two losses: what is no larger is mostly rounding."""


def rounding(loss: Loss, params: Params, batch: Batch, value: Any) -> Any:
    """How much of a difference of two losses is rounding: 2 ε |L|, ε of the coarsest dtype of parameters and loss."""
    dtypes = {jnp.result_type(leaf) for leaf in (*jax.tree.leaves(params), jax.eval_shape(loss, params, batch))}
    return 2 * _epsilon(dtypes) * abs(value)


def coarsest_epsilon(loss: Loss, params: Params, batch: Batch) -> float:
    """ε of the coarsest dtype in which anything within the loss is computed, such as bfloat16."""
    program = jax.make_jaxpr(loss)(params, batch).jaxpr
    return _epsilon({leaf.aval.dtype for leaf in (*program.invars, *_computed(program)) if hasattr(leaf.aval, "dtype")})


def _epsilon(dtypes: set[Any]) -> float:
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))


def _computed(program: Any) -> Iterator[Any]:
    """What a program computes, with what is computed inside its calls and loops."""
    for equation in program.eqns:
        yield from equation.outvars
        for inner in jaxprs_in_params(equation.params):
            yield from _computed(inner)


def with_rounding(found: Estimate, error: jax.Array | float, still: jax.Array | bool = False) -> Estimate:
    """A mean of differences of losses, with their rounding in its standard error where it is no more than that.

    `still` says that nothing was moved: a difference of 0 is then exact.
    """
    error = jnp.asarray(error, jnp.result_type(found.mean))
    lost = (jnp.abs(found.mean) <= RESOLVED * error) & ~jnp.asarray(still)
    return found._replace(sem=jnp.where(lost, jnp.hypot(found.sem, error), found.sem))


def mean_loss(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    """The loss over all examples, in float32 at least."""
    return average(lambda batch: scalar(loss, params, batch), batches)


def mean_gradient(loss: Loss, params: Params, batches: Batches) -> Params:
    """The gradient of `mean_loss`."""
    return average(lambda batch: jax.grad(scalar, 1)(loss, params, batch), batches)


def mean_accuracy(
    function: str, apply: Apply, params: Params, batches: Batches, criterion: Criterion | None = None
) -> jax.Array:
    """The part of all labels that is predicted right; `function` is named where targets are no labels.

    Labels that weigh nothing in the criterion, such as padding, do not count.
    """
    right, counted = weighted_sum(
        lambda batch: _right(function, apply(params, _inputs(function, batch)), batch, criterion),
        batches,
        _ones(batches),
    )
    return right / counted


def mean_loss_and_accuracy(
    function: str, loss: losses.NetworkLoss, params: Params, batches: Batches
) -> tuple[jax.Array, jax.Array]:
    """`mean_loss` and `mean_accuracy` of a network from one pass over the batches."""
    weights = tuple(zip(batches.shares, _ones(batches), strict=True))
    value, (right, counted) = weighted_sum(_loss_and_right(function, loss, params), batches, weights)
    return value, right / counted


def mean_loss_and_accuracy_from_host(
    function: str, loss: losses.NetworkLoss, params: Params, batches: Batches
) -> tuple[jax.Array, jax.Array]:
    """`mean_loss_and_accuracy` over batches that stay on the host: the same bits."""
    weights = tuple(zip(batches.shares, _ones(batches), strict=True))
    like = jax.eval_shape(_loss_and_right(function, loss, params), batches.first)
    add = functools.partial(_add_loss_and_right, loss, params, function=function)
    value, (right, counted) = sum_from_host(add, trees.zero_sums(like), batches, weights)
    return value, right / counted


def _loss_and_right(
    function: str, loss: losses.NetworkLoss, params: Params
) -> Callable[[Batch], tuple[jax.Array, tuple[jax.Array, jax.Array]]]:
    def of(batch: Batch) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        outputs = loss.apply(params, _inputs(function, batch))
        value = jnp.asarray(loss.criterion(outputs, checks.inputs_and_targets(function, batch)[1]))
        right = _right(function, outputs, batch, loss.criterion)
        return value.astype(trees.accumulator_dtype(value)), right

    return of


@compiled(static=("function",))
def _add_loss_and_right(
    loss: losses.NetworkLoss, params: Params, total: Any, stack: Batch, weights: Any, count: jax.Array, *, function: str
) -> Any:
    return add_some(_loss_and_right(function, loss, params), total, stack, weights, count)


def mean_loss_from_host(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    """`mean_loss` over batches that stay on the host: the same bits."""
    like = jax.eval_shape(functools.partial(scalar, loss, params), batches.first)
    add = functools.partial(_add_loss, loss, params)
    total: jax.Array = sum_from_host(add, trees.zero_sums(like), batches, batches.shares)
    return total


@compiled
def _add_loss(loss: Loss, params: Params, total: Any, stack: Batch, weights: Any, count: jax.Array) -> Any:
    return add_some(functools.partial(scalar, loss, params), total, stack, weights, count)


def _inputs(function: str, batch: Batch) -> Any:
    return checks.inputs_and_targets(function, batch)[0]


def _right(function: str, outputs: Any, batch: Batch, criterion: Criterion | None) -> tuple[jax.Array, jax.Array]:
    """How many labels are predicted right, and how many count: whole numbers, so that their sums are exact."""
    _, y = checks.inputs_and_targets(function, batch)
    counts = losses.count_mask(criterion, y)
    right = predictions.correct(outputs, losses.readable_labels(counts, y), function)
    dtype = trees.accumulator_dtype(outputs)
    return jnp.sum(right & counts, dtype=dtype), jnp.sum(counts, dtype=dtype)


def _ones(batches: Batches) -> tuple[np.ndarray, ...]:
    return tuple(np.ones(count) for count, _ in batches.shapes)


def single(batch: Batch) -> Batches:
    """One batch as batches."""
    return Batches((jax.tree.map(lambda leaf: leaf[None], batch),))


def each(function: Callable[[Batch, jax.Array], Any], batches: Batches, keys: jax.Array) -> tuple[Any, jax.Array]:
    """What a function of a batch and a key of its own gives for each batch, stacked; and the batches' shares."""
    shares = jnp.concatenate([jnp.asarray(share) for share in batches.shares])
    parts, start = [], 0
    for stack, (count, _) in zip(batches.stacks, batches.shapes, strict=True):
        own = keys[start : start + count]
        if count == 1:
            # no loop around one batch: a convolution inside a loop is slow on a CPU
            parts.append(jax.tree.map(lambda leaf: leaf[None], function(Batches((stack,)).first, own[0])))
        else:
            parts.append(jax.lax.map(lambda at: function(*at), (stack, own)))
        start += count
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), shares


def over_batches(values: jax.Array, shares: jax.Array) -> Estimate:
    """The mean of one value a batch, (n,), by their shares, and its standard error as a mean over random batches."""
    count, weights = len(shares), shares.astype(values.dtype)
    values = jnp.where(weights == 0, 0, values)
    mean = jnp.sum(weights * values)
    if count == 1:
        return Estimate(mean, jnp.full((), jnp.nan, values.dtype))
    return Estimate(mean, jnp.sqrt(count / (count - 1) * jnp.sum((weights * (values - mean)) ** 2)))


def moved(params: Params, step: Params, adaptive: bool) -> Params:
    """θ + c∘step, with c = |θ| if adaptive and 1 otherwise, in the dtypes of θ."""
    return jax.tree.map(
        lambda w, s: w + ((jnp.abs(w).astype(s.dtype) * s) if adaptive else s).astype(w.dtype), params, step
    )


def pick(condition: jax.Array, a: Any, b: Any) -> Any:
    """One of two pytrees."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)

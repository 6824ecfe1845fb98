"""What the measures that move the weights share: checks at the door, the loss over batches, moves, directions."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from steppe import checks, predictions, trees
from steppe.batches import Batches, average, gathered
from steppe.curvature import layers
from steppe.typing import Apply, Batch, Estimate, Loss, Params

Norm = Literal["l2", "linf"]

NORMS = get_args(Norm)


def at_the_door(function: str, params: Params, batches: Batch | list[Batch]) -> Batches:
    """The batches gathered, the parameters checked."""
    if not trees.size(checks.floating(function, params)):
        checks.fail(function, "params", "a pytree of arrays", params)
    return gathered(function, batches)


def strength(function: str, name: str, value: Any, params: Params) -> jax.Array:
    """A scalar above 0, as an array of the dtype that sums over the parameters take: one program for every value."""
    return jnp.asarray(checks.positive(function, name, value), trees.accumulator_dtype(params))


def flag(function: str, name: str, value: Any) -> None:
    """A bool."""
    checks.one_of(function, name, value, (True, False))


def scalar(loss: Loss, params: Params, batch: Batch) -> jax.Array:
    """The loss of one batch, in float32 at least; its gradient is fast inside loops too."""
    value = jnp.asarray(layers.through(loss)(params, batch))
    if value.ndim != 0:
        checks.fail("loss", "its value", "a scalar, the mean over the batch", f"an array of shape {value.shape}")
    return value.astype(trees.accumulator_dtype(value))


RESOLVED = 5
"""Roundings of a difference of two losses: what is no larger is mostly rounding."""


def rounding(loss: Loss, params: Params, batch: Batch, value: Any) -> Any:
    """How much of a difference of two losses is rounding: 2 ε |L|, ε of the coarsest dtype of parameters and loss."""
    dtypes = {jnp.result_type(leaf) for leaf in (*jax.tree.leaves(params), jax.eval_shape(loss, params, batch))}
    return 2 * float(max(jnp.finfo(dtype).eps for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating))) * abs(value)


def with_rounding(found: Estimate, error: jax.Array, still: jax.Array | bool = False) -> Estimate:
    """A mean of differences of losses, with their rounding in its standard error where it is no more than that.

    `still` says that nothing was moved: a difference of 0 is then exact.
    """
    error = jnp.asarray(error, found.mean.dtype)
    lost = (jnp.abs(found.mean) <= RESOLVED * error) & ~jnp.asarray(still)
    return found._replace(sem=jnp.where(lost, jnp.hypot(found.sem, error), found.sem))


def mean_loss(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    """The loss over all examples, in float32 at least."""
    return average(lambda batch: scalar(loss, params, batch), batches)


def mean_gradient(loss: Loss, params: Params, batches: Batches) -> Params:
    """The gradient of `mean_loss`."""
    return average(lambda batch: jax.grad(scalar, 1)(loss, params, batch), batches)


def mean_accuracy(function: str, apply: Apply, params: Params, batches: Batches) -> jax.Array:
    """The part of all examples that is predicted right; `function` is named where targets are no labels."""

    def of(batch: Batch) -> jax.Array:
        x, y = checks.inputs_and_targets(function, batch)
        logits = apply(params, x)
        if logits.shape[:-1] != y.shape or not jnp.issubdtype(y.dtype, jnp.integer):
            checks.fail(function, "y", f"integer labels of shape {logits.shape[:-1]}", f"{y.dtype} of shape {y.shape}")
        return jnp.mean(predictions.correct(logits, y), dtype=trees.accumulator_dtype(params))

    return average(of, batches)


def single(batch: Batch) -> Batches:
    """One batch as batches."""
    return Batches((jax.tree.map(lambda leaf: leaf[None], batch),))


def each(function: Callable[[Batch, jax.Array], Any], batches: Batches, key: jax.Array) -> tuple[Any, np.ndarray]:
    """What a function of a batch and a key of its own gives for each batch, stacked; and the sizes of the batches."""
    sizes = np.repeat([size for _, size in batches.shapes], [count for count, _ in batches.shapes])
    keys = jax.random.split(key, len(sizes))
    parts, start = [], 0
    for stack, (count, _) in zip(batches.stacks, batches.shapes, strict=True):
        own = keys[start : start + count]
        if count == 1:
            # no loop around one batch: a convolution inside a loop is slow on a CPU
            parts.append(jax.tree.map(lambda leaf: leaf[None], function(Batches((stack,)).first, own[0])))
        else:
            parts.append(jax.lax.map(lambda at: function(*at), (stack, own)))
        start += count
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), sizes


def over_batches(values: jax.Array, sizes: np.ndarray) -> Estimate:
    """The mean of one value a batch, (n,), weighted by size, and its standard error as a mean over random batches."""
    count = len(sizes)
    weights = jnp.asarray(sizes / np.sum(sizes), values.dtype)
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

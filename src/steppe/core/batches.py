"""Averages over the examples of a data set, batch by batch: memory is bounded by the largest batch.

Where a function takes `batches`, a Python *list* is a list of batches; anything else is one. A batch counts by its
size, or by the weight that its loss is divided by, see `losses.weighted`.
"""

import itertools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, trees
from steppe.core.types import Batch

Value = TypeVar("Value")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batches:
    """Batches on the device, those of one shape stacked, so that a loop over them compiles once.

    Attributes
    ----------
    stacks : one pytree for each shape of batch, leaves (count, size, ...).
    weights : of the batches, one array (count,) for each stack; or a pytree of such, a prefix of what is averaged.
        None: their sizes.
    """

    stacks: tuple[Batch, ...]
    weights: tuple[Any, ...] | None = None

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(count, size) of each stack."""
        leading = (jnp.shape(jax.tree.leaves(stack)[0])[:2] for stack in self.stacks)
        return tuple((count, size) for count, size in leading)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(count for count, _ in self.shapes)

    @property
    def examples(self) -> int:
        """How many examples there are in all."""
        return sum(count * size for count, size in self.shapes)

    @property
    def first(self) -> Batch:
        """One of the batches."""
        return _first(self.stacks[0])

    @property
    def shares(self) -> tuple[Any, ...]:
        """The share of each batch in an average, as `weights` are; they sum to 1."""
        if self.weights is None:
            return tuple(np.full(count, size / self.examples) for count, size in self.shapes)
        total = jax.tree.map(lambda *parts: sum(jnp.sum(part) for part in parts), *self.weights)
        return tuple(jax.tree.map(lambda part, whole: part / whole, part, total) for part in self.weights)

    def members(self) -> Iterator[Batch]:
        """The batches, one after another; those of one shape together."""
        for stack, (count, _) in zip(self.stacks, self.shapes, strict=True):
            for place in range(count):
                yield jax.tree.map(operator.itemgetter(place), stack)

    @property
    def by_size(self) -> "Batches":
        """The same batches, each counting by its size."""
        return Batches(self.stacks)

    @property
    def several(self) -> bool:
        """Whether there are more than one."""
        return self.count > 1

    def cut(self, values: jax.Array) -> list[jax.Array]:
        """One value an example, (N, ...), as the stacks have the examples: (count, size, ...) each."""
        parts = np.cumsum([count * size for count, size in self.shapes])[:-1]
        whole = [values[at:end] for at, end in itertools.pairwise([0, *map(int, parts), self.examples])]
        return [part.reshape(*shape, *part.shape[1:]) for part, shape in zip(whole, self.shapes, strict=True)]


def gather(function: str, batches: Batch | list[Batch] | Batches) -> Batches:
    """The batches that a user hands in, checked; `function` is named in errors.

    Raises
    ------
    InputError : an empty list; a batch whose leaves are no arrays of numbers, do not share a leading axis, or hold what
        JAX cannot compute with as it is, see `arrays.exact`.

    Examples
    --------
    >>> import numpy as np
    >>> gather("example", [np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((3, 2))]).shapes
    ((2, 4), (1, 3))
    """
    if isinstance(batches, Batches):
        return batches
    many = batches if isinstance(batches, list) else [batches]
    if not many:
        checks.fail(function, "batches", "a batch or a non-empty list of batches", many)
    alike: dict[Any, list[Batch]] = {}
    for batch in arrays.exact_batches(function, "batches", batches):
        checks.batch_size(function, batch)
        leaves, treedef = jax.tree.flatten(batch)
        shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        alike.setdefault((treedef, shapes), []).append(batch)
    return Batches(tuple(jax.tree.map(_stacked, *group) for group in alike.values()))


def _stacked(*leaves: Any) -> jax.Array:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack(leaves))


def in_batches(examples: Batch, size: int) -> list[Batch]:
    """A data set as a list of batches of `size` examples; the last one holds what is left.

    Examples
    --------
    >>> import numpy as np
    >>> [len(batch["x"]) for batch in in_batches({"x": np.zeros((10, 2)), "y": np.zeros(10)}, 4)]
    [4, 4, 2]
    """
    count = checks.batch_size("in_batches", examples)
    checks.whole("in_batches", "size", size)
    return [jax.tree.map(lambda leaf, at=at: leaf[at : at + size], examples) for at in range(0, count, size)]


def average(function: Callable[[Batch], Value], batches: Batches) -> Value:
    """The mean over all examples of what `function` gives for each batch, itself a mean over the batch's examples.

    Parameters
    ----------
    function : batch -> pytree of floating arrays.
    batches : from `gather`, or from `entry`, with their weights.

    Returns
    -------
    Σᵢ Wᵢ function(batchᵢ) / Σᵢ Wᵢ with Wᵢ the batches' weights, or their sizes; summed in at least float32, in the
    dtypes that `function` gives. A batch of weight 0 counts for nothing, whatever its value. Its derivatives take the
    memory of one batch, too: what a batch needs for them is computed again.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> batches = gather("example", [jnp.array([1.0, 2.0]), jnp.array([6.0])])
    >>> float(average(jnp.mean, batches))
    3.0
    """
    return weighted_sum(function, batches, batches.shares)


def weighted_sum(function: Callable[[Batch], Value], batches: Batches, weights: tuple[Any, ...]) -> Value:
    """Σᵢ wᵢ function(batchᵢ), as `average` is computed; a lone batch weighs 1, whatever is said.

    Parameters
    ----------
    function : batch -> pytree of floating arrays.
    batches : from `gather`.
    weights : one entry a stack, (count,), or a pytree of such, a prefix of what `function` gives.
    """
    if not batches.several:
        return function(batches.first)
    like = jax.eval_shape(function, batches.first)
    total = trees.zero_sums(like)

    def add(total: Any, at: tuple[Batch, Any]) -> tuple[Any, None]:
        batch, shares = at
        more = lambda share, t, p: jax.tree.map(lambda t, p: _more(t, share, p), t, p)  # noqa: E731
        return jax.tree.map(more, shares, total, jax.checkpoint(function)(batch)), None

    for both, (count, _) in zip(zip(batches.stacks, weights, strict=True), batches.shapes, strict=True):
        total = add(total, _first(both))[0] if count == 1 else jax.lax.scan(add, total, both)[0]
    mean: Value = jax.tree.map(lambda leaf, t: t.astype(leaf.dtype), like, total)
    return mean


def _more(total: jax.Array, share: Any, part: jax.Array) -> jax.Array:
    """A sum and a share of a part; a share of 0 counts for nothing, even where the part is a sum over nothing, 0/0."""
    share = jnp.asarray(share, total.dtype)
    return total + jnp.where(share == 0, jnp.zeros((), total.dtype), share * part.astype(total.dtype))


def _first(stack: Batch) -> Batch:
    return jax.tree.map(lambda leaf: leaf[0], stack)

"""Averages over the examples of a data set, batch by batch: memory is bounded by the largest batch.

Where a function takes `batches`, a Python *list* is a list of batches; anything else is one. A batch counts by its
size, or by the weight that its loss is divided by, see `losses.weighted`.
"""

import contextlib
import itertools
import operator
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import arrays, checks, programs, trees
from steppe.core.types import Batch

Value = TypeVar("Value")
Item = TypeVar("Item")

HOST_BYTES = 2**26
"""Of batches that come to the device together, or two batches where those are larger."""


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
    def on_host(self) -> bool:
        """Whether they are arrays of the host, which come to the device some at a time; see `sum_from_host`."""
        return any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(self.stacks))

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
    like, add = jax.eval_shape(function, batches.first), _adder(function)
    total = trees.zero_sums(like)
    for both, (count, _) in zip(zip(batches.stacks, weights, strict=True), batches.shapes, strict=True):
        total = add(total, _first(both))[0] if count == 1 else jax.lax.scan(add, total, both)[0]
    mean: Value = jax.tree.map(lambda leaf, t: t.astype(leaf.dtype), like, total)
    return mean


@jax.tree_util.register_static
@dataclass(frozen=True)
class Constant:
    """A weight that all batches of a stack have: a constant of the program, with which the compiler computes."""

    value: float


def add_some(function: Callable[[Batch], Any], total: Any, stack: Batch, weights: Any, count: jax.Array) -> Any:
    """A total of `weighted_sum` and the first `count` batches of a stack, added one by one as there.

    Parameters
    ----------
    function : callable
        Of a batch, as in `weighted_sum`.
    total : pytree
        What was added before; `trees.zero_sums` at first.
    stack, weights : pytree
        Batches of one shape, leaves (K, size, ...), and their weights, (K,) or `Constant`. A lone batch is added
        without a loop.
    count : jax.Array
        How many of the K count.
    """
    length = len(jax.tree.leaves(stack)[0])
    spread = jax.tree.map(
        lambda weight: jnp.asarray(np.full(length, weight.value)) if isinstance(weight, Constant) else weight,
        weights,
        is_leaf=lambda node: isinstance(node, Constant),
    )
    add, both = _adder(function), (stack, spread)
    if length == 1:
        return add(total, _first(both))[0]
    return jax.lax.fori_loop(
        0, count, lambda at, total: add(total, jax.tree.map(lambda leaf: leaf[at], both))[0], total
    )


def sum_from_host(add: Callable[..., Any], total: Any, batches: Batches, weights: tuple[Any, ...]) -> Any:
    """What `weighted_sum` adds up over batches that stay on the host: they come to the device some at a time.

    Parameters
    ----------
    add : callable
        ``add(total, stack, weights, count)``, compiled: `add_some` of a function.
    total : pytree
        Where to begin: `trees.zero_sums`.
    batches : Batches
        Arrays of NumPy, which may be mapped from files.
    weights : tuple
        As in `weighted_sum`.

    Raises
    ------
    InputError
        Arrays that cannot be read, or do not fit on the device.
    """
    for stack, shares, (count, _) in zip(batches.stacks, weights, batches.shapes, strict=True):
        both = stack, jax.tree.map(_constant, shares)
        each = sum(leaf.nbytes // count for leaf in jax.tree.leaves(both))
        most = min(count, max(2, HOST_BYTES // max(each, 1)))  # one alone would be added otherwise

        def part(place: int, both: Any = both, most: int = most) -> Any:
            return jax.tree.map(lambda array: jax.device_put(_padded(array[place * most :][:most], most)), both)

        with contextlib.closing(prefetched(part, -(-count // most))) as stream:
            for place, some in enumerate(stream):
                total = jax.block_until_ready(add(total, *some, np.int32(min(most, count - place * most))))
    return total


def prefetched(load: Callable[[int], Item], count: int) -> Generator[Item]:
    """``load(0)`` to ``load(count - 1)``, each begun in a thread when the one before it is taken.

    When this generator ends or is closed, its thread has ended.

    Raises
    ------
    InputError
        What `load` raises, in one sentence.

    Examples
    --------
    >>> list(prefetched(lambda place: place**2, 4))
    [0, 1, 4, 9]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="steppe-loader") as thread:
        ahead = thread.submit(load, 0)
        for place in range(count):
            try:
                item = ahead.result()
            except Exception as error:  # of the file system, of memory, of the device
                checks.fail("study", "data", "readable throughout", f"a failure: {programs.line(error)}")
            if place + 1 < count:
                ahead = thread.submit(load, place + 1)
            yield item


def _constant(weights: Any) -> Any:
    """Weights that are known before a program is, and equal, as one."""
    known = isinstance(weights, np.ndarray) and bool((weights == weights[0]).all())
    return Constant(float(weights[0])) if known else weights


def _padded(leaf: np.ndarray, count: int) -> np.ndarray:
    """An array with so many rows: zeros where it has fewer, so that all are of one shape."""
    return np.concatenate([leaf, np.zeros((count - len(leaf), *leaf.shape[1:]), leaf.dtype)])


def _adder(function: Callable[[Batch], Any]) -> Callable[[Any, tuple[Batch, Any]], tuple[Any, None]]:
    """Add one batch's share to a total; what its derivatives need is computed again."""

    def add(total: Any, at: tuple[Batch, Any]) -> tuple[Any, None]:
        batch, shares = at
        more = lambda share, t, p: jax.tree.map(lambda t, p: _more(t, share, p), t, p)  # noqa: E731
        return jax.tree.map(more, shares, total, jax.checkpoint(function)(batch)), None

    return add


def _more(total: jax.Array, share: Any, part: jax.Array) -> jax.Array:
    """A sum and a share of a part; a share of 0 counts for nothing, even where the part is a sum over nothing, 0/0."""
    share = jnp.asarray(share, total.dtype)
    return total + jnp.where(share == 0, jnp.zeros((), total.dtype), share * part.astype(total.dtype))


def _first(stack: Batch) -> Batch:
    return jax.tree.map(lambda leaf: leaf[0], stack)

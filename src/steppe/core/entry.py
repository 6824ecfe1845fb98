"""The entry of every function that takes a loss or a network: all is checked, and the functions are captured.

Equal programs compile once, whatever Python functions they came from; see `programs`.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from steppe.core import arrays, checks, losses, programs, trees
from steppe.core import batches as batches_
from steppe.core.batches import Batches
from steppe.core.losses import NetworkLoss
from steppe.core.programs import Label, Program
from steppe.core.types import Apply, Batch, Criterion, Loss, Params

COMPARED = 32
"""So many examples, at most, tell whether a loss is a mean over examples."""

Single = Literal["", "criterion", "network"]
"""What is asked of one example alone, besides batches: nothing, the criterion, or the network and the criterion."""


def checked_batches(function: str, params: Params, batches: Any) -> Batches:
    """The batches gathered, the parameters checked.

    Raises
    ------
    InputError
        Parameters that are no floating-point arrays, or none; batches that cannot be used.
    """
    arrays.exact_tree(function, "params", params)
    if not trees.size(checks.floating(function, params)):
        checks.fail(function, "params", "a pytree of arrays", params)
    return batches_.gather(function, batches)


def loss_and_batches(
    function: str, loss: Loss, params: Params, batches: Any, *, quiet: bool = False
) -> tuple[Loss, Batches]:
    """A loss as it is now, for these parameters and batches, and the batches gathered.

    Parameters
    ----------
    function : str
        What is named in errors.
    loss : callable
        ``loss(params, batch)``, the mean over the batch. The loss of a network stays one.
    params, batches
        As every measure takes them.
    quiet : bool
        Whether somebody else says where the loss is no mean over its examples, see `split_note`.

    Returns
    -------
    loss, batches
        The loss is a pytree, an argument of compiled functions. Cost: two traces of the loss for each shape of batch.

    Raises
    ------
    InputError
        As `checked_batches`; a loss whose value is not one floating-point scalar, that changes from call to call, or
        that fails: its own error is the cause.
    """
    gathered, known = checked_batches(function, params, batches), programs.is_captured(loss)
    loss, quiet = capture_loss(function, loss, params, shapes(gathered)), quiet or known
    if not known:
        check_targets(function, loss, params, gathered)
    if gathered.several and not quiet:
        warn_of_split(function, loss, params, gathered)
    return loss, weigh_batches(function, loss, gathered)


def network_and_batches(
    function: str, apply: Apply, criterion: Criterion, params: Params, batches: Any, *, single: Single = ""
) -> tuple[NetworkLoss, Batches]:
    """A network and its criterion as they are now, see `loss_and_batches`.

    `single` says which of them is asked of one example, too.
    """
    gathered, whole = checked_batches(function, params, batches), losses.of(apply, criterion)
    loss = capture_network(function, whole, params, shapes(gathered), single=single)
    if not programs.is_captured(whole):
        check_targets(function, loss, params, gathered)
    if (gathered.several or single) and not programs.is_captured(whole):
        warn_of_split(function, loss, params, gathered)
    return loss, weigh_batches(function, loss, gathered)


def check_targets(function: str, loss: Loss, params: Params, batches: Batches) -> None:
    """Fail where the targets of a network's loss, traced before, are known to be none; see `losses.check_targets`."""
    if not isinstance(loss, NetworkLoss):
        return
    targets = [checks.inputs_and_targets(function, stack)[1] for stack in batches.stacks]
    for y, batch in zip(targets, shapes(batches), strict=True):
        outputs = jax.eval_shape(loss.apply, params, checks.inputs_and_targets(function, batch)[0])
        if getattr(outputs, "shape", ()) and hasattr(losses.labels_of(y), "dtype"):
            flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), y)
            losses.check_targets(function, loss.criterion, outputs.shape[-1], flat)
    if not losses.any_counts(loss.criterion, targets):
        checks.fail(
            function,
            "labels",
            "such that some count",
            f"{getattr(loss.criterion, 'ignore', None)} alone, which is ignored",
        )


def capture_apply(function: str, apply: Apply, params: Params, inputs: list[Any]) -> Program:
    """A network as it is now, for these inputs."""

    def check(value: Any) -> Any:
        leaves = jax.tree.leaves(value)
        if not leaves or not all(isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, int)) for leaf in leaves):
            checks.fail(function, "apply", "a function whose value is an array, the outputs", checks.returned(value))
        return value

    return programs.capture(Label(function, "apply"), apply, [(params, x) for x in inputs], check)


def capture_classifier(
    function: str, apply: Apply, criterion: Criterion, params: Params, batches: Batches
) -> NetworkLoss:
    """A network as it is now, for these batches, with the criterion that says which labels count; all count otherwise.

    Raises
    ------
    InputError
        A network that fails; labels that are no classes of its outputs.
    """
    pairs = [checks.inputs_and_targets(function, batch) for batch in shapes(batches)]
    program = capture_apply(function, apply, params, [x for x, _ in pairs])
    loss = losses.of(program, criterion if losses.is_builtin(criterion) else losses.cross_entropy)
    if not programs.is_captured(apply):
        check_targets(function, loss, params, batches)
    return loss


def values_and_batches(
    function: str,
    values: Callable[[Any, Batch], Any],
    params: Params,
    batches: Any,
    prepare: Callable[[Params], Any] | None = None,
) -> tuple[Program, Program | None, Batches]:
    """A function of (params, batch) to a pytree of scalars as it is now, and the batches; see `loss_and_batches`.

    Its ``weight(batch)``, if it has one, is a prefix of what it gives. With `prepare`, also captured, it is a function
    of what that gives of the parameters.
    """

    def check(value: Any) -> Any:
        leaves = jax.tree.leaves(value)
        if not leaves or not all(_is_scalar(leaf) for leaf in leaves):
            checks.fail(function, "function", "a function whose value is one floating-point scalar, the mean over the "
                        "batch, or a pytree of such", checks.returned(value))  # fmt: skip
        return value

    gathered = checked_batches(function, params, batches)
    before = None if prepare is None else programs.capture(Label(function, "prepare"), prepare, [(params,)])
    given = params if before is None else jax.eval_shape(before, params)
    weight, known = losses.weight_of(values), programs.is_captured(values)
    batches = list(shapes(gathered))
    program = programs.capture(Label(function, "function"), values, [(given, batch) for batch in batches], check)
    if not known:
        check_targets(function, getattr(values, "scored", values), given, gathered)
    found: Loss = program
    if weight is not None:
        found = losses.Weighted(program, _capture_weight(function, weight, batches))
    if gathered.several and not known and before is None:  # what is prepared has no values yet
        warn_of_split(function, found, params, gathered)
    return program, before, weigh_batches(function, found, gathered)


def capture_loss(function: str, loss: Loss, params: Params, batches: Iterable[Batch]) -> Loss:
    """A loss as it is now, for batches of these shapes, with its weight if it has one."""
    batches = list(batches)
    if isinstance(loss, NetworkLoss):
        return capture_network(function, loss, params, batches)
    weight = losses.weight_of(loss)
    whole = loss.function if isinstance(loss, losses.Weighted) else loss
    calls = [(params, batch) for batch in batches]
    program = programs.capture(Label(function), whole, calls, _scalar(function, "loss"))
    for trace in program.traces.values():
        _refuse_added(function, "loss", trace.jaxpr, params)
    return program if weight is None else losses.Weighted(program, _capture_weight(function, weight, batches))


def capture_network(
    function: str, loss: NetworkLoss, params: Params, batches: Iterable[Batch], *, single: Single = ""
) -> NetworkLoss:
    """The loss of a network, network and criterion captured one by one."""
    pairs = [checks.inputs_and_targets(function, batch) for batch in batches]
    alone = [_alone(x) for x, _ in pairs] if single == "network" else []
    apply = capture_apply(function, loss.apply, params, [x for x, _ in pairs] + alone)
    calls = [(jax.eval_shape(apply, params, x), y) for x, y in pairs]
    if single:
        calls += [_alone(call) for call in calls]
    check = _scalar(function, "criterion")
    if losses.is_builtin(loss.criterion):
        for call in calls:
            _check_outputs(function, call[0])
            programs.check(Label(function, "criterion"), loss.criterion, call, check)
        return losses.of(apply, loss.criterion)
    weight = getattr(loss.criterion, "weight", None)
    whole = loss.criterion.function if isinstance(loss.criterion, losses.Weighted) else loss.criterion
    program = programs.capture(Label(function, "criterion"), whole, calls, check)
    for trace in program.traces.values():
        _refuse_added(function, "criterion", trace.jaxpr, calls[0][0])
    criterion: Criterion = program
    if weight is not None:
        criterion = losses.Weighted(program, _capture_weight(function, weight, [y for _, y in calls]))
    return losses.of(apply, criterion)


def _check_outputs(function: str, outputs: Any) -> None:
    """Fail where outputs are none that Steppe's criteria score."""
    shape = getattr(outputs, "shape", ())
    if not shape or 0 in shape or not jnp.issubdtype(outputs.dtype, jnp.floating):
        what = "a function whose value is one floating-point array, the outputs of each example, (B, ..., K)"
        checks.fail(function, "apply", what, checks.returned(outputs))


def _capture_weight(function: str, weight: Callable[[Any], Any], batches: list[Any]) -> Program:
    def check(value: Any) -> Any:
        leaves = jax.tree.leaves(value)
        if not leaves or any(jnp.shape(leaf) != () for leaf in leaves):
            checks.fail(function, "weight", "a function to one number, what divides the loss of a batch",
                        checks.returned(value))  # fmt: skip
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), value)

    calls = [(batch,) for batch in [*batches, *map(_alone, batches)]]
    return programs.capture(Label(function, "weight"), weight, calls, check)


def weigh_batches(function: str, loss: Loss, batches: Batches) -> Batches:
    """The batches with the weights that a captured loss gives them; by their sizes where it gives none."""
    if losses.weight_of(loss) is None or not batches.several:
        return batches.by_size
    weights = _weights(loss, batches.stacks)
    if not any(map(checks.is_traced, jax.tree.leaves(weights))):
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])
        if not np.all(np.isfinite(flat)) or np.any(flat < 0) or not np.any(flat > 0):
            checks.fail(function, "weight", "at least 0 for every batch, and above 0 for one", checks.shown(flat))
    return Batches(batches.stacks, weights)


@programs.compiled
def _weights(loss: Loss, stacks: tuple[Batch, ...]) -> tuple[Any, ...]:
    return tuple(jax.lax.map(losses.weight_of(loss), stack) for stack in stacks)


def warn_of_split(function: str, loss: Loss, params: Params, batches: Batches) -> None:
    """Warn where a captured loss is seen not to be a mean over the examples; see `split_note`."""
    note = split_note(function, loss, params, batches)
    if note:
        warnings.warn(f"{function}: {note}", UserWarning, stacklevel=4)


def warn_of_parts(function: str, loss: Loss, params: Params, batch: Batch) -> None:
    """Warn where the parts of one batch do not add up to the loss of the whole; see `split_note`."""
    gathered = batches_.gather(function, [batch])
    warn_of_split(function, capture_loss(function, loss, params, shapes(gathered)), params, gathered)


def split_note(function: str, loss: Loss, params: Params, batches: Batches) -> str:
    """What to say of a loss that is not the mean of its examples' losses; nothing where it is, or nobody can tell.

    Up to `COMPARED` examples, spread over the data, are taken together and one by one, weighted as the loss says; or in
    two halves, where one alone has no value, as under a variance divided by n − 1 or PyTorch's BatchNorm in training
    mode. What differs by more than rounding depends on how examples are split into batches: a sum, a ratio of two sums,
    statistics of the batch. Cost: a forward pass over twice these examples. Nothing is compared inside a JAX
    transformation.
    """
    if any(map(checks.is_traced, jax.tree.leaves((loss, params, batches)))):
        return ""
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batches.stacks[0])
    count = len(jax.tree.leaves(rows)[0])
    some = np.unique(np.linspace(0, count - 1, min(count, COMPARED)).astype(int))
    for size in (1, len(some) // 2) if len(some) > 3 else (1,):
        places = some[: len(some) // size * size].reshape(-1, size)
        parts = jax.tree.map(lambda leaf: leaf[places], rows)  # noqa: B023
        try:
            note = _split_into(function, loss, params, parts)
        except (checks.InputError, jax.errors.JaxRuntimeError):  # it takes no such parts: nobody can tell
            continue
        if note is not None:
            return note
    return ""


def _split_into(function: str, loss: Loss, params: Params, parts: Batch) -> str | None:
    """What to say of a loss over parts, (count, size, ...), of some examples; None where a part alone has no value."""
    count, size = jax.tree.leaves(parts)[0].shape[:2]
    whole_shape, part_shape = (
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape[2:]), leaf.dtype), parts)  # noqa: B023
        for length in (count * size, size)
    )
    both = capture_loss(function, loss, params, (whole_shape, part_shape))
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(both, params, whole_shape))]
    found = [map(float, jax.tree.leaves(part)) for part in _compared(both, params, parts)]
    for whole, mean, scale, dtype in zip(*found, dtypes, strict=True):
        if np.isnan(mean) and np.isfinite(whole):
            return None
        if abs(whole - mean) > 8 * float(jnp.finfo(dtype).eps) ** (2 / 3) * scale:
            return _no_mean(whole, mean, count * size, size)
    return ""


def _no_mean(whole: float, mean: float, count: int, size: int) -> str:
    parts = "single examples" if size == 1 else f"parts of {size}"
    return (f"the loss is not the mean over its examples: {whole:.6g} for {count} of them, "
            f"{mean:.6g} as the mean over {parts}. What is averaged over batches, or over examples, depends on "
            "how they are split. Give what divides it, steppe.losses.weighted(loss, weight); return a mean, not a sum; "
            "and take BatchNorm in evaluation mode.")  # fmt: skip


@programs.compiled
def _compared(loss: Loss, params: Params, parts: Batch) -> tuple[Any, Any, Any]:
    """The loss of some examples, the mean of their parts' losses, and how large the numbers are that are compared."""
    wide = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), tree)  # noqa: E731
    some = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)
    values, whole = jax.lax.map(lambda part: wide(loss(params, part)), parts), wide(loss(params, some))
    weight, count = losses.weight_of(loss), len(jax.tree.leaves(parts)[0])
    shares = jnp.full(count, 1 / count) if weight is None else losses.parts_of(jax.vmap(weight)(parts))

    def mean(tree: Any) -> Any:
        of = lambda share, part: jax.tree.map(lambda leaf: jnp.sum(losses.weigh(share, leaf)), part)  # noqa: E731
        return jax.tree.map(of, shares, tree)

    size = jax.tree.map(lambda a, b: jnp.abs(a) + b, whole, mean(jax.tree.map(jnp.abs, values)))
    return whole, mean(values), size


def example_shares(loss: Loss, batches: Batches) -> list[jax.Array]:
    """The share of each example in the mean over all, (count, size) for each stack; they sum to 1."""
    weight = losses.weight_of(loss)
    within = [jax.vmap(lambda batch: losses.shares(weight, batch))(stack) for stack in batches.stacks]
    return [share * jnp.asarray(of, share.dtype)[:, None] for share, of in zip(within, batches.shares, strict=True)]


def examples_that_count(criterion: Criterion | None, batches: Batches) -> Any:
    """How many examples have a label that counts in a criterion, see `losses.count_mask`; all where it ignores none."""
    if getattr(criterion, "weights", None) is None:
        return batches.examples
    labels = [checks.inputs_and_targets("labels", stack)[1] for stack in batches.stacks]
    known = [losses.count_mask(criterion, y) for y in labels]
    return sum(jnp.sum(jnp.any(y, axis=tuple(range(2, y.ndim)))) for y in known)


def _alone(batch: Batch) -> Batch:
    """The shapes of one example."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), batch)


def check_loss(function: str, name: str, loss: Loss, params: Params, batch: Batch) -> None:
    """Check a loss by one trace, without capturing it: for what is compiled as a part of a user's own function."""
    arrays.exact_tree(function, "batch", batch)
    jaxpr = programs.check(Label(function, name), loss, (params, batch), _scalar(function, name))
    _refuse_added(function, name, jaxpr, params)


def _refuse_added(function: str, name: str, jaxpr: core.Jaxpr, params: Any) -> None:
    """Refuse a loss that ends with a sum over devices which JAX takes for a value of each device's own.

    Its derivatives are then wrong. Where JAX knows which values vary over devices, that sum is another operation.
    """
    if programs.ends_with_sum(jaxpr, len(jax.tree.leaves(params))):
        what = "the loss of one device's own examples under pmap or shard_map(check_vma=False)"
        got = "one that adds over devices (pmean, psum), whose derivatives are wrong there"
        checks.fail(function, name, what, got, "Leave check_vma=True, or take jax.jit and a sharded batch.")


def shapes(batches: Batches) -> Iterator[Batch]:
    """One batch of each shape; without its values, unless they are traced."""
    for stack in batches.stacks:
        if any(map(checks.is_traced, jax.tree.leaves(stack))):
            yield jax.tree.map(lambda leaf: leaf[0], stack)
        else:
            yield jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack)


def _scalar(function: str, name: str) -> Callable[[Any], Any]:
    return lambda value: checks.one_scalar(function, name, value)


def _is_scalar(value: Any) -> bool:
    try:
        checks.one_scalar("", "", value)
    except checks.InputError:
        return False
    return True

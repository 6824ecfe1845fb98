"""A method's place among Optax's transformations, read from the calls that are under way when it is updated.

Python's stack says which chain is running, also while a program is traced, and costs a compiled program nothing.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType, MethodType
from typing import Any

import jax
import numpy as np
import optax

from steppe.core import checks, trees
from steppe.core.types import Params

Update = Callable[..., Any]

_CHAIN = optax.chain(optax.identity()).update.__code__
_NAMED_CHAIN = optax.named_chain(("", optax.identity())).update.__code__
_ACCUMULATION = optax.MultiSteps.update.__code__
_FLATTENED = optax.flatten(optax.identity()).update.__code__
_OPTIMISERS = optax.sgd.__module__
_CONTRIBUTED = {
    name
    for name, made in vars(optax.contrib).items()
    if isinstance(made, FunctionType) and "learning_rate" in inspect.signature(made).parameters
}
_METHODS, _AVERAGES = f"{__package__}.", f"{__package__}.averaging"

DOWNHILL = -0.5
"""What comes in agrees so little with the gradient, from −1 to 1, that it is no gradient: an optimiser's update."""


def refuse_accumulation(name: str) -> None:
    """Refuse to be updated inside `optax.MultiSteps`, which keeps the loss and all batches but the last to itself.

    With one mini-step it accumulates nothing, as where it only skips updates that are not finite.
    """
    for frame in _callers():
        if frame.f_code is _ACCUMULATION and frame.f_locals.get("k_steps") != 1:
            checks.fail(name, "its place", "outside optax.MultiSteps", "a call from inside it",
                        "It would see the last micro-batch only: leave MultiSteps out, give the whole batch as batch= "
                        "and say microbatches=k.")  # fmt: skip


def refuse_flattened(name: str) -> None:
    """Refuse to be updated inside `optax.flatten`, where parameters are one vector for the loss."""
    for frame in _callers():
        if frame.f_code is _FLATTENED and not jax.tree_util.all_leaves([frame.f_locals["updates"]]):
            checks.fail(name, "its place", "outside optax.flatten", "a call from inside it",
                        "The loss would be given one vector: flatten what comes after it alone, "
                        f"optax.chain({name}, optax.flatten(…)).")  # fmt: skip


def refuse_order(name: str, *, replaces: bool) -> None:
    """Refuse to come after an optimiser; and where the gradient is replaced, after another method."""
    for update in _earlier():
        for part in _parts(update):
            if _is_of_an_optimiser(part):
                checks.fail(name, "its place", "before the optimiser",
                            f"a chain in which {_named(part)} comes before it",
                            f"It takes a gradient, not an update: optax.chain({name}, …, optimiser).")  # fmt: skip
            other = _method(part)
            if replaces and other:
                checks.fail(name, "its place", "before other methods", f"a chain in which {other} comes before it",
                            f"It replaces what comes in: optax.chain({name}, {other}, …, optimiser).")  # fmt: skip


def refuse_later(name: str) -> None:
    """Refuse an optimiser that comes later in the chain."""
    for update in _later():
        for part in _parts(update):
            if _is_of_an_optimiser(part):
                checks.fail(name, "its place", "after the optimiser", f"a chain in which {_named(part)} follows",
                            f"It averages what the updates lead to: optax.chain(…, optimiser, {name}).")  # fmt: skip


def refuse_downhill(name: str, updates: Params, gradient: Params) -> None:
    """Refuse what leads downhill, entry by entry, where the gradient would lead uphill.

    Rescaling, clipping, noise and other masks of dropout leave the agreement Σ uᵢgᵢ / Σ |uᵢgᵢ| above zero; the first
    update of an optimiser has −1 or little more.
    """
    products = trees.multiply(updates, gradient)
    size = sum(abs(leaf).sum() for leaf in _leaves(products))
    agreement = float(sum(leaf.sum() for leaf in _leaves(products)) / size) if size > 0 else 0.0
    if agreement < DOWNHILL:
        checks.fail(name, "what comes in", "a gradient of the loss",
                    f"what leads downhill (its agreement with the gradient, from −1 to 1, is {agreement:.2f})",
                    f"Put {name} before the optimiser.")  # fmt: skip


def _leaves(tree: Params) -> Iterator[Any]:
    dtype = trees.accumulator_dtype(tree)
    return (leaf.astype(dtype) for leaf in jax.tree.leaves(tree))


def _callers() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _earlier() -> Iterator[Update]:
    """What comes before this transformation in the chains around it."""
    return (update for before, _ in _around() for update in before)


def _later() -> Iterator[Update]:
    """What comes after this transformation in the chains around it."""
    return (update for _, after in _around() for update in after)


def _around() -> Iterator[tuple[list[Update], list[Update]]]:
    """The updates before and after the one under way, of each chain around; done are as many as have a new state."""
    for frame in _callers():
        known = frame.f_locals if frame.f_code in (_CHAIN, _NAMED_CHAIN) else {}
        links = list(known.get("update_fns", ())) or [tx.update for _, tx in known.get("transforms", ())]
        done = len(known.get("new_state", ()))
        yield links[:done], links[done + 1 :]


def _parts(update: Any, seen: set[int] | None = None) -> Iterator[FunctionType]:
    """An update, and the functions and transformations that it is made of: what it closes over."""
    seen = set() if seen is None else seen
    if id(update) in seen:
        return
    seen.add(id(update))
    held: list[Any] = []
    if isinstance(update, FunctionType):
        yield update
        held = [cell.cell_contents for cell in update.__closure__ or () if _is_filled(cell)]
    elif isinstance(update, MethodType):
        held = [update.__func__, *vars(update.__self__).values()] if hasattr(update.__self__, "__dict__") else []
    elif isinstance(update, functools.partial):
        held = [update.func]
    elif isinstance(update, optax.GradientTransformation):
        held = [update.update]
    elif isinstance(update, (tuple, list)):
        held = list(update)
    elif isinstance(update, dict):
        held = list(update.values())
    for one in held:
        yield from _parts(one, seen)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _named(part: FunctionType) -> str:
    return part.__qualname__.partition(".")[0]


def _method(part: FunctionType) -> str | None:
    """The name of the method whose update this is, or which `optax.inject_hyperparams` makes anew at each update."""
    is_maker = (
        part.__module__.startswith(_METHODS) and part.__module__ != _AVERAGES and part.__qualname__.isidentifier()
    )
    return getattr(part, "method", None) or (part.__name__ if is_maker else None)


def _is_of_an_optimiser(part: FunctionType) -> bool:
    """Whether a function belongs to one of Optax's optimisers, or to what they are made of and no gradient leaves."""
    contributed = part.__module__.startswith(f"{optax.contrib.__name__}.") and _named(part) in _CONTRIBUTED
    if part.__module__ == _OPTIMISERS or contributed or _named(part).startswith("scale_by_"):
        return True
    step = inspect.getclosurevars(part).nonlocals.get("step_size") if _named(part) == "scale" else None
    return step is not None and not checks.is_traced(step) and bool((np.asarray(step) < 0).all())

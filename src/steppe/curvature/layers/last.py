"""The last layer of a network: the matrix after which no other one meets the data."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params

from steppe.core import checks, names
from steppe.core.types import Batch, Params
from steppe.curvature.layers import detection
from steppe.curvature.layers.detection import Layer, Program

NO_LAYER = "is no layer of its own: it is used more than once, in part, or inside a loop, a branch or remat"

NEW_AXES = ("reshape", "dot_general", "conv_general_dilated", "gather")
"""Operations whose result may have more axes of numbers of its own than what enters."""


def last_layer(function: Any, params: Params, batch: Batch) -> Layer:
    """The layer that `relative_flatness` and `fam` look at where none is named.

    It is the matrix that meets the data last: every other matrix has met it before, and reaches the outputs through
    this one alone.

    Parameters
    ----------
    function : Callable
        A loss of params and batch, or ``apply`` of params and inputs x.
    params : Params
        Pytree of floating arrays; or their shapes, `jax.ShapeDtypeStruct`.
    batch : Batch
        A batch, or inputs x; or their shapes.

    Returns
    -------
    Layer
        See `find_layers`; its `name` says which one it is. Cost: a trace.

    Raises
    ------
    InputError
        No layer at all; several last ones, as of a network with two heads; a last matrix that is no layer of its own,
        such as a head tied to an embedding.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> apply = lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"]
    >>> last_layer(apply, {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}, jnp.ones((5, 3))).name
    'out'
    """
    checks.floating("last_layer", params)
    return chosen("last_layer", "function", detection.traced(function, params, batch), params, None)


def chosen(name: str, argument: str, program: Program, params: Params, layer: str | None) -> Layer:
    """The layer of that path in the program of `argument`, the last one for None; `name` is named in errors."""
    found = {one.name: one for one in program.layers}
    if layer in found:
        return found[layer]
    arrays, others = names.names(params), f"Layers that can be named: {', '.join(map(repr, found))}." if found else ""
    if layer is not None and layer not in arrays:
        checks.fail(name, "layer", "the path of a layer's weights", checks.shown(layer),
                    checks.close_to(layer, found) or others)  # fmt: skip
    if layer is not None:
        checks.fail(name, "layer", "the path of a layer's weights", f"{layer!r}, which {NO_LAYER}", others)
    if not found:
        checks.fail(name, argument, "a network with a linear layer", "one in which none was found",
                    "Weights used more than once, or inside a loop, are not found.")  # fmt: skip
    ends = _ends(program, len(arrays))
    paths = {one.site.path: one for one in program.layers}
    if len(ends) == 1 and ends[0].path in paths:
        return paths[ends[0].path]
    last = " and ".join(dict.fromkeys(repr(arrays[leaf]) for end in ends for leaf in sorted(end.leaves)))
    made = "made of " if " and " in last else ""
    what = f"of which several come last: {last}" if len(ends) > 1 else f"whose last matrix, {made}{last}, {NO_LAYER}"
    checks.fail(name, "layer", "named", f"None, for a network {what}", others)


class _Meeting(NamedTuple):
    """Where a matrix of parameters meets data: the equation, the parameters, the meetings before it."""

    path: tuple[int, ...]
    leaves: frozenset[int]
    before: frozenset[int]


class _Value(NamedTuple):
    """What is known of a value.

    Attributes
    ----------
    leaves : the parameters that it is made of.
    data : whether it is made of data, too.
    axes : along which its own numbers differ, if it is made of parameters alone: a bias stays a vector when broadcast.
    before : the meetings that it rests on.
    """

    leaves: frozenset[int] = frozenset()
    data: bool = False
    axes: int = 0
    before: frozenset[int] = frozenset()


def _ends(program: Program, count: int) -> list[_Meeting]:
    """The meetings that the outputs rest on and no other meeting does; the first `count` inputs are parameters."""
    jaxpr = program.jaxpr.jaxpr
    weights = [_Value(frozenset([i]), axes=_axes(var.aval)) for i, var in enumerate(jaxpr.invars[:count])]
    known = [*weights, *(_Value(data=True) for _ in jaxpr.invars[count:])]

    def reach(walk: "_Walk") -> frozenset[int]:
        return frozenset().union(*(value.before for value in walk(jaxpr, known, ())))

    reached = reach(walk := _Walk(False))
    if not reached:  # where no data enter, the arrays that the function itself holds are the data
        reached = reach(walk := _Walk(True))
    earlier = frozenset().union(*(walk.meetings[i].before for i in reached))
    return [walk.meetings[i] for i in sorted(reached - earlier)]


class _Walk:
    """A walk over a program that notes every meeting of a matrix of parameters with data.

    `fixed` says that what is made of no parameter counts as data.
    """

    def __init__(self, fixed: bool) -> None:
        self.fixed, self.meetings = fixed, list[_Meeting]()

    def __call__(self, jaxpr: Jaxpr, known: Iterable[_Value], path: tuple[int, ...]) -> list[_Value]:
        held = [_Value(data=self.fixed)] * len(jaxpr.constvars)
        env: dict[Var, _Value] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*held, *known), strict=True))

        def read(atom: Any) -> _Value:
            return _Value() if isinstance(atom, Literal) else env[atom]

        for index, eqn in enumerate(jaxpr.eqns):
            values, here = [read(atom) for atom in eqn.invars], (*path, index)
            if eqn.primitive.name in detection.INLINED:
                results = self(detection.inner(eqn).jaxpr, values, here)
            else:
                results = self.met(eqn, values, here)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def met(self, eqn: JaxprEqn, values: list[_Value], path: tuple[int, ...]) -> list[_Value]:
        """What an equation makes of its operands; notes a meeting."""
        leaves = frozenset().union(*(value.leaves for value in values))
        before = frozenset().union(*(value.before for value in values))
        if not leaves and self.fixed:
            return [_Value(data=True)] * len(eqn.outvars)
        if not any(value.data for value in values):
            return [_Value(leaves, False, _axes_of(eqn, values, out.aval), before) for out in eqn.outvars]
        least = 1 if _multiplies(eqn) else 2
        matrices = [value.leaves for value in values if value.leaves and not value.data and value.axes >= least]
        if matrices:
            before |= {len(self.meetings)}
            self.meetings.append(_Meeting(path, frozenset().union(*matrices), before - {len(self.meetings)}))
        return [_Value(leaves, True, 0, before)] * len(eqn.outvars)


def _multiplies(eqn: JaxprEqn) -> bool:
    """Whether an equation is a product of matrices, or holds one."""
    inner = (sub for sub in jaxprs_in_params(eqn.params))
    return eqn.primitive.name in detection.SITES or any(_multiplies(each) for sub in inner for each in sub.eqns)


def _axes(aval: Any) -> int:
    return sum(length != 1 for length in aval.shape)


def _axes_of(eqn: JaxprEqn, values: list[_Value], aval: Any) -> int:
    own = max((value.axes for value in values), default=0)
    return _axes(aval) if eqn.primitive.name in NEW_AXES or any(jaxprs_in_params(eqn.params)) else min(own, _axes(aval))

"""A program in segments, of which only what passes between them is kept for derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var


def rematerialized(jaxpr: ClosedJaxpr, count: int) -> Callable[..., list[Any]]:
    """``(consts, *leaves) -> values`` of a program, in `count` segments whose insides are computed again in reverse.

    A derivative then keeps what passes between segments, and the insides of one at a time. Cuts are made where little
    passes.
    """
    inner = jaxpr.jaxpr
    pieces = _pieces(inner, count)

    def run(consts: Sequence[Any], *leaves: Any) -> list[Any]:
        env: dict[Var, Any] = dict(zip((*inner.constvars, *inner.invars), (*consts, *leaves), strict=True))
        for eqns, given, left in pieces:

            def segment(*values: Any, eqns: Any = eqns, given: Any = given, left: Any = left) -> list[Any]:
                inside = dict(zip(given, values, strict=True))
                for eqn in eqns:
                    read = [atom.val if isinstance(atom, Literal) else inside[atom] for atom in eqn.invars]
                    found = eqn.primitive.bind(*read, **eqn.primitive.get_bind_params(eqn.params))
                    inside.update(zip(eqn.outvars, found if eqn.primitive.multiple_results else [found], strict=True))
                return [inside[variable] for variable in left]

            env.update(zip(left, jax.checkpoint(segment)(*(env[variable] for variable in given)), strict=True))
        return [atom.val if isinstance(atom, Literal) else env[atom] for atom in inner.outvars]

    return run


def _pieces(jaxpr: Jaxpr, count: int) -> list[tuple[list[JaxprEqn], list[Var], list[Var]]]:
    """For each segment its equations, the variables that it reads, and those that it leaves to later ones."""
    eqns = list(jaxpr.eqns)
    last: dict[Var, int] = {}
    for at, eqn in enumerate(eqns):
        last.update((atom, at) for atom in eqn.invars if not isinstance(atom, Literal))
    last.update((atom, len(eqns)) for atom in jaxpr.outvars if not isinstance(atom, Literal))
    made = {variable: at for at, eqn in enumerate(eqns) for variable in eqn.outvars}
    ends = [*_cuts(eqns, made, last, count), len(eqns)]
    pieces, begin = [], 0
    for end in ends:
        some = eqns[begin:end]
        inside = {variable for eqn in some for variable in eqn.outvars}
        read = (atom for eqn in some for atom in eqn.invars if not isinstance(atom, Literal))
        given = list(dict.fromkeys(atom for atom in read if atom not in inside))
        left = [variable for eqn in some for variable in eqn.outvars if last.get(variable, -1) >= end]
        pieces.append((some, given, left))
        begin = end
    return pieces


def _cuts(eqns: list[JaxprEqn], made: dict[Var, int], last: dict[Var, int], count: int) -> list[int]:
    """Before which equations to cut: near equal shares of all that is made, where the least passes."""
    if not eqns:
        return []
    sizes = np.cumsum([sum(map(_size, eqn.outvars)) for eqn in eqns], dtype=float)
    passing = np.zeros(len(eqns) + 1)
    for variable, at in made.items():
        passing[at + 1 : last.get(variable, at) + 1] += _size(variable)
    cuts = set()
    for share in range(1, count):
        low, high = (np.searchsorted(sizes, (share + side) / count * sizes[-1]) for side in (-0.5, 0.5))
        places = range(max(int(low), 1), min(int(high) + 1, len(eqns)))
        if places:
            cuts.add(min(places, key=passing.__getitem__))
    return sorted(cuts)


def _size(variable: Any) -> int:
    """Its bytes."""
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    return int(np.prod(shape)) * getattr(dtype, "itemsize", 0)

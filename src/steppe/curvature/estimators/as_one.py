"""A function that JAX's partial evaluation takes as one operation.

Reverse mode divides a computation into what is known and what is linear in a tangent. A gradient that is computed on
the way, as that of each random vector is, is known altogether. JAX then opens its loops and each `jax.checkpoint`,
and the latter is lost, as if nothing were differentiated: what was to be computed again is kept. That holds for the
`jax.checkpoint` in a user's network, too. An operation of our own is not opened.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Primitive
from jax.interpreters import ad, batching, mlir


def as_one(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, differentiated and mapped as always, and never opened where all of it is known."""
    leaves, treedef = jax.tree.flatten(arguments)

    def flat(*leaves: Any) -> Any:
        return function(*jax.tree.unflatten(treedef, leaves))

    program, like = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    found = _one.bind(*program.consts, *leaves, jaxpr=program.jaxpr)
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _evaluate(*values: Any, jaxpr: Jaxpr) -> list[Any]:
    consts = len(jaxpr.constvars)
    found: list[Any] = jax.core.eval_jaxpr(jaxpr, values[:consts], *values[consts:])
    return found


def _differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Jaxpr) -> tuple[list[Any], list[Any]]:
    places = [at for at, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of(*part: Any) -> list[Any]:
        values = dict(enumerate(primals)) | dict(zip(places, part, strict=True))
        return _evaluate(*values.values(), jaxpr=jaxpr)

    chosen = [[values[at] for at in places] for values in (primals, tangents)]
    found: tuple[list[Any], list[Any]] = jax.jvp(of, chosen[0], chosen[1])
    return found


def _batch(values: Sequence[Any], axes: Sequence[int | None], *, jaxpr: Jaxpr) -> tuple[list[Any], list[int]]:
    found = jax.vmap(lambda *values: _evaluate(*values, jaxpr=jaxpr), in_axes=tuple(axes))(*values)
    return found, [0] * len(found)


_one = Primitive("as_one")
_one.multiple_results = True
_one.def_impl(_evaluate)
_one.def_abstract_eval(lambda *_, jaxpr: [variable.aval for variable in jaxpr.outvars])
mlir.register_lowering(_one, mlir.lower_fun(_evaluate, multiple_results=True))
ad.primitive_jvps[_one] = _differentiate
batching.primitive_batchers[_one] = _batch

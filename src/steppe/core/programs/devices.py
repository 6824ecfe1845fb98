"""What a program adds over devices that run it side by side, under `jax.pmap` or `jax.shard_map`."""

from collections.abc import Sequence

from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

APART, OWN, ADDED = range(3)
"""What a number is of the parameters: apart from them; a device's own; or a scalar that is a function of their sums."""

OPAQUE = ("shard_map", "xla_pmap", "custom_vjp_call")
"""Operations that say themselves what their devices have in common, or have a derivative of a user's own."""


def ends_with_sum(jaxpr: Jaxpr, count: int) -> bool:
    """Whether a value of a program is a scalar made of sums over devices (psum, pmean) of what parameters move.

    Each device then takes the derivative of its own copy, and JAX, which does not know that they are one, has another
    number for it. Sums inside a network, such as statistics of normalisation over all devices, are arrays, and right:
    what follows them is a device's own. Programs inside (`jax.jit`, `jax.checkpoint`, rules of derivatives, loops,
    branches) are looked into. Cost: one walk, no tracing.

    Parameters
    ----------
    jaxpr : Jaxpr
        As JAX traces a function; where it knows which values differ over devices, that sum is another operation.
    count : int
        How many of its arguments, the first ones, are parameters, or depend on them.
    """
    return ADDED in _kinds(jaxpr, [OWN] * count + [APART] * (len(jaxpr.invars) - count))


def _kinds(jaxpr: Jaxpr, given: Sequence[int]) -> list[int]:
    """What the values of a program are, of what its arguments are."""
    known = dict(zip(jaxpr.invars, given, strict=True))
    kind = lambda atom: APART if isinstance(atom, Literal) else known.get(atom, APART)  # noqa: E731
    for eqn in jaxpr.eqns:
        inside = _inside(eqn, [kind(atom) for atom in eqn.invars])
        for out, found in zip(eqn.outvars, inside, strict=True):
            known[out] = min(found, OWN) if getattr(out.aval, "shape", None) else found
    return [kind(atom) for atom in jaxpr.outvars]


def _inside(eqn: JaxprEqn, given: list[int]) -> list[int]:
    """What the values of one operation are."""
    name, most = eqn.primitive.name, max(given, default=APART)
    if name == "psum":
        return [ADDED if kind else APART for kind in given]
    if name == "stop_gradient":
        return [APART] * len(eqn.outvars)
    if name in OPAQUE:
        return [most] * len(eqn.outvars)
    parts = list(jaxprs_in_params(eqn.params))
    arguments = given[1:] if name == "cond" else given
    found = [
        _kinds(part, arguments)
        for part in parts
        if len(part.invars) == len(arguments) and len(part.outvars) == len(eqn.outvars)
    ]
    return [max(kinds) for kinds in zip(*found, strict=True)] if found else [most] * len(eqn.outvars)

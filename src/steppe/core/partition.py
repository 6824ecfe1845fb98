"""Arrays that lie among a network's parameters and are none: whole numbers, and statistics of normalisation."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, names, trees
from steppe.core.types import Params

HOMES = ("batch_stats", "batch_stat", "mean_ema", "var_ema")
"""Steps on the way to an array that only statistics have: Flax Linen's collection, Haiku's moving averages."""

KNOWN = re.compile(
    r"(.*_)?((running|moving|population|pop|ema)_(mean|var|variance|std|avg|average)\d*|num_batches_tracked)"
)
"""What statistics alone are called: in PyTorch and Keras, after ``runningMean`` has become ``running_mean``."""

PAIRED = re.compile(r"(.*_)?(mean|var|variance|std)(\d*)")
"""What statistics are called in Flax, and other things elsewhere: these count where a mean has a spread beside it."""


class Partition(NamedTuple):
    """A network's arrays, in two parts.

    Attributes
    ----------
    params, fixed : Params
        What is measured, and what stays as it is: each with None in the places of the other's arrays.
    mask : Params
        Which are measured, a pytree of bools.
    remark : str
        What a reader of the numbers must know of it; empty where every array is measured.
    """

    params: Params
    fixed: Params
    mask: Params
    remark: str


@dataclass(frozen=True, eq=False)
class Restriction:
    """A loss or an apply with some arrays beside the parameters, at their places, that stay as they are."""

    function: Callable[[Params, Any], jax.Array]
    fixed: Params

    def __call__(self, params: Params, data: Any) -> jax.Array:
        """The function's value on all arrays together."""
        return self.function(trees.merge(params, self.fixed), data)


def partition(
    everything: Params,
    *,
    perturb_statistics: bool = False,
    excluded: Sequence[bool] = (),
    ask: str,
    by_name: bool = True,
) -> Partition:
    """What is measured of a network's arrays, and what stays fixed: whole numbers, statistics, and what is excluded.

    Parameters
    ----------
    everything : Params
        All arrays that the network's function takes.
    perturb_statistics : bool
        Whether statistics count as parameters.
    excluded : Sequence[bool]
        For each array, whether somebody wants it fixed.
    ask : str
        How a user asks for statistics to be perturbed: words for the remark.
    by_name : bool
        Whether names tell statistics. False where these are a network's parameters, as its framework says.

    Returns
    -------
    Partition
        Its parameters may be empty.
    """
    leaves, treedef = jax.tree.flatten(everything)
    called, odd = names.names(everything), statistics(everything) if by_name else [False] * len(leaves)
    real = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    out = [not r or (o and not perturb_statistics) for r, o in zip(real, odd, strict=True)]
    out = [o or e for o, e in zip(out, excluded or [False] * len(out), strict=True)]
    texts = []
    if any(out):
        kept = [name for name, o in zip(called, out, strict=True) if o]
        texts.append(f"{len(kept)} of {len(called)} arrays stay fixed and go to the loss: {listed(kept)}.")
    judged = [name for name, o, r in zip(called, odd, real, strict=True) if o and r]
    if judged and perturb_statistics:
        texts.append(f"Perturbed as parameters, as asked: {listed(judged)}, which look like statistics.")
    elif judged:
        texts.append(f"Taken for statistics of normalisation: {listed(judged)}; {ask} perturbs them, too.")
    mask = jax.tree.unflatten(treedef, [not o for o in out])
    parts = ([leaf if o is side else None for leaf, o in zip(leaves, out, strict=True)] for side in (False, True))
    params, fixed = (jax.tree.unflatten(treedef, part) for part in parts)
    return Partition(params, fixed, mask, " ".join(texts))


def statistics(tree: Params) -> list[bool]:
    """Which arrays are statistics of normalisation, such as BatchNorm's running mean, and no parameters.

    Told by what holds an array, where that is known (a variable of Flax NNX that is no ``nnx.Param``), otherwise by its
    name: ``running_mean``, ``moving_variance``, ``batch_stats/…``; or a ``mean`` beside a ``var`` of its shape that
    is nowhere negative.

    Parameters
    ----------
    tree : Params
        Any pytree of arrays.

    Returns
    -------
    list[bool]
        One for each leaf.

    Examples
    --------
    >>> statistics({"norm": {"mean": np.zeros(2), "scale": np.ones(2), "var": np.ones(2)}, "mean": np.zeros(2)})
    [False, True, False, True]
    """
    called, held = [_snake(name) for name in names.names(tree)], names.variables(tree)
    paired = _paired(called, jax.tree.leaves(tree))
    return [
        "Param" not in kinds if kinds else pair or _is_known(name)
        for name, kinds, pair in zip(called, held, paired, strict=True)
    ]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_known(name: str) -> bool:
    steps = re.split(r"[./]", name)
    return any(step in HOMES for step in steps) or bool(KNOWN.fullmatch(steps[-1]))


def _paired(called: list[str], leaves: list[Any]) -> list[bool]:
    """For each array, whether it is a mean or a spread that has the other beside it."""
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for index, name in enumerate(called):
        last = re.split(r"[./]", name)[-1]
        if match := PAIRED.fullmatch(last):
            kind = "mean" if match[2] == "mean" else "spread"
            groups.setdefault((name.removesuffix(last), match[1] or "", match[3]), {})[kind] = index
    found = [False] * len(called)
    for pair in groups.values():
        if len(pair) == 2 and _fits(leaves[pair["mean"]], leaves[pair["spread"]]):
            found[pair["mean"]] = found[pair["spread"]] = True
    return found


def _fits(mean: Any, spread: Any) -> bool:
    return np.shape(mean) == np.shape(spread) and (checks.is_traced(spread) or bool(jnp.all(jnp.asarray(spread) >= 0)))


def listed(found: list[str]) -> str:
    """Four names, and how many more there are."""
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")

"""The arrays of a file laid into a network: names matched as frameworks write them, and what does not fit, in words.

A name is compared by its steps, ``layers/0/kernel`` and ``layers.0.kernel`` alike. What wraps a network leaves steps in
its names (``module.``, ``_orig_mod.``), and files hold networks beside other things (``{"model": …, "optimizer": …}``):
both are seen through. Which arrays are parameters and which are state is the network's to say.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks, names
from steppe.core.partition import listed
from steppe.models import Variables
from steppe.models.adapters.equinox import Leaf

Steps = tuple[str, ...]
"""What a name is made of."""

WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module"))
"""Steps that are left by PyTorch's DataParallel, compile and FSDP, and by Lightning."""

BOXES = ("value", "raw_value")
"""Last steps that are left by Flax's variables."""

PLACES = {
    "ema_model", "generator", "model", "model_state", "model_state_dict", "net", "network", "params", "state",
    "state_dict", "variables", "weights",
}  # fmt: skip
"""What the network is called in a file that holds more."""


SETTINGS = "Make the network with the settings with which it was trained: --set network.KEY=VALUE."


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network without trained values, and what its framework says of the names of its arrays.

    Attributes
    ----------
    variables : parameters and state as they were made: structures, shapes and kinds of numbers.
    aliases : other names of arrays that have several, such as tied weights in PyTorch: name -> name in `variables`.
    optional : names of arrays that a file may lack; they stay as they were made.
    ignored : names of arrays that a file may hold and that are neither parameters nor state, such as streams of
        randomness.
    row : what a file without names holds, one after another, see `equinox.row`.
    """

    variables: Variables
    aliases: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    row: tuple[Leaf, ...] = ()


class Filled(NamedTuple):
    """A network with the arrays of a file.

    Attributes
    ----------
    variables : with the shapes and the kinds of numbers of the blueprint's.
    note : a sentence on what else the file holds; empty where there is nothing.
    """

    variables: Variables
    note: str


def fill(command: str, blueprint: Blueprint, found: Any, file: str) -> Filled:
    """The network with the arrays of a file, whatever it is called in there.

    Parameters
    ----------
    command : str
        What is named in errors.
    blueprint : Blueprint
        What is looked for.
    found : pytree of arrays
        What the file holds.
    file : str
        Its name, for sentences.

    Returns
    -------
    Filled
        Every array of the file that belongs to the network is in its place.

    Raises
    ------
    InputError
        Arrays that are missing, too many, or of another shape or kind: all of them in one sentence. A file that holds
        several networks alike.

    Examples
    --------
    >>> blueprint = Blueprint(Variables({"fc": {"kernel": np.zeros((2, 3))}}, {}))
    >>> file = {"state_dict": {"module.fc.kernel": np.ones((2, 3))}, "epoch": np.array(9)}
    >>> filled = fill("example", blueprint, file, "net.npz")
    >>> float(filled.variables.params["fc"]["kernel"].sum()), filled.note
    (6.0, 'Beside the network, net.npz holds epoch.')
    """
    return _Filling(command, blueprint, found, file).filled()


def steps(name: str) -> Steps:
    """The steps of a name, without those of wrappers.

    Examples
    --------
    >>> steps("module.layers.0.weight"), steps("layers/0/kernel/value")
    (('layers', '0', 'weight'), ('layers', '0', 'kernel'))
    """
    found = [step for step in re.split(r"[./]", name) if step and step not in WRAPPERS]
    return tuple(found[:-1] if len(found) > 1 and found[-1] in BOXES else found)


class _Filling:
    """One file and one network."""

    def __init__(self, command: str, blueprint: Blueprint, found: Any, file: str):
        self.command, self.blueprint, self.file = command, blueprint, file
        found = self._with_names(found) if isinstance(found, list) else found
        called, self.arrays = names.names(found), jax.tree.leaves(found)
        self.short = self._short(called)
        self.called = dict(zip(self.short, called, strict=True))
        self.there = {short: place for place, short in enumerate(self.short)}
        self.ends: dict[str, list[Steps]] = defaultdict(list)
        for short in self.there:
            self.ends[short[-1] if short else ""].append(short)
        self.used: set[Steps] = set()

    def _with_names(self, row: list[Any]) -> dict[str, Any]:
        """Arrays that a file has one after another, by the names that they have in the network.

        Raises
        ------
        InputError
            The network is none of Equinox; it has another number of arrays; another value of what is no variable.
        """
        leaves, what = self.blueprint.row, "a file of the arrays of this --network"
        if not leaves:
            checks.fail(self.command, "TARGET", "a file of arrays with names", f"{self.file}, which has none",
                        "Let --network return the Equinox model itself.")  # fmt: skip
        model = [leaf for leaf in leaves if leaf.path[:1] != ("state",)]
        if len(row) not in (len(leaves), len(model)):
            got = f"{self.file}, with {len(row)} values in the place of {len(leaves)}"
            checks.fail(self.command, "TARGET", what, got, SETTINGS)
        found: dict[str, Any] = {}
        for place, (array, leaf) in enumerate(zip(row, leaves, strict=False)):
            if leaf.path:
                found["/".join(leaf.path)] = array
            elif not isinstance(leaf.value, bool) and not np.array_equal(array, leaf.value):  # flags say in which mode
                got = f"{self.file}, whose value {place} is {checks.shown(array)} in the place of {leaf.value}"
                checks.fail(self.command, "TARGET", what, got)
        return found

    def _short(self, called: list[str]) -> list[Steps]:
        """The steps of all names in the file, each once."""
        short = [steps(name) for name in called]
        doubled = [name for name, count in Counter(short).items() if count > 1]
        if doubled:
            both = [name for name, own in zip(called, short, strict=True) if own == doubled[0]]
            got = f"{checks.joined(both)} in {self.file}, which name one array"
            checks.fail(self.command, "TARGET", "a file whose arrays have names of their own", got)
        return short

    def filled(self) -> Filled:
        params, state = self.blueprint.variables
        root = self._place(params, None)
        roots = [root, self._place(state, root) if jax.tree.leaves(state) else root]
        missing: list[str] = []
        unfit: list[str] = []
        parts = [self._part(tree, at, missing, unfit) for tree, at in zip((params, state), roots, strict=True)]
        extra = [short for short in self._below(roots) if short not in self.used]
        if missing or unfit or extra:
            self._fail(missing, [self.called[short] for short in extra], unfit)
        return Filled(Variables(*parts), self._note(roots))

    def _place(self, tree: Any, before: Steps | None) -> Steps:
        """Under which steps the arrays of a tree lie in the file: where most of them are.

        Raises
        ------
        InputError
            Several places are alike.
        """
        counts: Counter[Steps] = Counter()
        for name, leaf in zip(names.names(tree), jax.tree.leaves(tree), strict=True):
            for own in self._names(name):
                for short in self.ends[own[-1] if own else ""]:
                    if short[len(short) - len(own) :] == own:
                        fits = np.shape(self.arrays[self.there[short]]) == np.shape(leaf)
                        counts[short[: len(short) - len(own)]] += 2 if fits else 1
        if not counts:
            return before or ()
        most = [place for place, count in counts.items() if count == max(counts.values())]
        known = [place for place in most if PLACES.issuperset(place)] or most
        if before in known:
            return before
        if len(known) > 1 and () not in known:
            got = f"{self.file}, which holds such under {checks.joined('/'.join(place) for place in sorted(known))}"
            todo = "Save the one that is meant in a file of its own."
            checks.fail(self.command, "TARGET", "a file of one network", got, todo)
        return () if () in known else known[0]

    def _names(self, name: str) -> list[Steps]:
        """What an array of the network may be called."""
        return [steps(name), *(steps(other) for other, own in self.blueprint.aliases.items() if own == name)]

    def _part(self, tree: Any, root: Steps, missing: list[str], unfit: list[str]) -> Any:
        """A tree with the file's arrays; what is missing or does not fit is added to lists."""
        leaves, structure = jax.tree.flatten(tree)
        found = []
        for name, leaf in zip(names.names(tree), leaves, strict=True):
            here = [root + own for own in self._names(name) if root + own in self.there]
            self.used.update(here)
            if here:
                array, *others = (self.arrays[self.there[short]] for short in here)
                if name in self.blueprint.optional and np.shape(array) == np.shape(leaf):
                    array = np.asarray(array).astype(jnp.result_type(leaf))  # a mean of counts is a fraction
                unfit += _unfit(name, array, leaf)
                if not all(np.array_equal(array, other) for other in others):
                    unfit.append(f"{checks.joined(map('/'.join, here))}, one array in the network, with two values")
                found.append(array)
            else:
                missing += [] if name in self.blueprint.optional else [name]
                found.append(leaf)
        return jax.tree.unflatten(structure, found)

    def _below(self, roots: list[Steps]) -> Iterator[Steps]:
        """What lies where the network does, and is not known to be none of it."""
        ignored = {root + steps(name) for root in roots for name in self.blueprint.ignored}
        for short in self.there:
            if short not in ignored and any(short[: len(root)] == root for root in roots):
                yield short

    def _note(self, roots: list[Steps]) -> str:
        """What else there is, by its first steps."""
        inside = set(self._below(roots))
        beside = dict.fromkeys(short[0] for short in self.there if short not in inside and () not in roots)
        ours = {root[0] for root in roots if len(root) == 1}
        others = [name for name in beside if name not in ours]
        return f"Beside the network, {self.file} holds {listed(others)}." if others else ""

    def _fail(self, missing: list[str], extra: list[str], unfit: list[str]) -> NoReturn:
        parts = {"it lacks": missing, "it has more": extra, "it has in another form": unfit}
        told = "; ".join(f"{words} {listed(those)}" for words, those in parts.items() if those)
        checks.fail(self.command, "TARGET", "a file of the arrays of this --network, and of no others",
                    f"{self.file}: {told}", _remedy(missing, extra, unfit))  # fmt: skip


def _unfit(name: str, array: Any, like: Any) -> list[str]:
    """In words, how an array does not fit where it should go; nothing where it fits."""
    shape, wanted = np.shape(array), np.shape(like)
    if shape != wanted:
        return [f"{name} of shape {shape} in the place of {wanted}"]
    kinds = [jnp.issubdtype(jnp.result_type(part), jnp.floating) for part in (array, like)]
    if kinds[0] != kinds[1]:
        return [f"{name} of {jnp.result_type(array)} in the place of {jnp.result_type(like)}"]
    return []


def _remedy(missing: list[str], extra: list[str], unfit: list[str]) -> str:
    """What a user may have done."""
    lost, more = ({steps(name)[-1:] for name in those} for those in (missing, extra))
    if ("kernel",) in lost and ("weight",) in more:
        return "These are PyTorch's names: let --network return the PyTorch module that they are of."
    if ("weight",) in lost and ("kernel",) in more:
        return "These are Flax's names: let --network return the Flax module that they are of."
    if missing and not extra and not unfit and lost <= {("mean",), ("var",)}:
        return "Save the network's state, too, and not its parameters alone."
    if unfit and not missing and not extra:
        return SETTINGS
    return ""

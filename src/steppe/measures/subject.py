"""What is measured: a network at its parameters, on data; and the numbers that come of it."""

import copy
import functools
import math
import zlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe import curvature
from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches
from steppe.core.programs import compiled, label_of, user_errors
from steppe.core.types import Apply, Batch, Criterion, Estimate, Key, Loss, Moments, Params
from steppe.curvature import Operator, Quadrature
from steppe.sharpness.evaluation import (
    mean_loss,
    mean_loss_and_accuracy,
    mean_loss_and_accuracy_from_host,
    mean_loss_from_host,
    rounding,
)

Value = TypeVar("Value")


class Quantity(NamedTuple):
    """One number that was measured.

    Attributes
    ----------
    name : what it is called; a measure may give several.
    value, sem : an estimate and its standard error: 0 where exact, NaN where unknown.
    residual : of an eigenvalue, how far one of the Hessian's can be from it; None for what has none.
    note : what to know when reading it: a bound, a residual, where a search ended.
    converged : whether the computation came to its end. Where it is False, `note` says why, and of what kind the value
        is then. A search that keeps the best of so many steps has come to its end: its note says "lower bound".
    log : whether it is positive, but for odd cases, and spans orders of magnitude: logarithms are what is compared.
    curve : arrays that belong to it, if it is a curve.
    """

    name: str
    value: float
    sem: float = 0.0
    note: str = ""
    converged: bool = True
    log: bool = False
    curve: Mapping[str, np.ndarray] | None = None
    residual: float | None = None

    @classmethod
    def of(cls, name: str, estimate: Estimate, **more: Any) -> "Quantity":
        """From an Estimate."""
        return cls(name, float(estimate.mean), float(estimate.sem), **more)


class Subject:
    """A network at its parameters, on data, with what several measures of it share.

    Attributes
    ----------
    loss, params, batches, key : as measures take them; batches are gathered.
    apply, criterion : the network's outputs and what the loss makes of them; None where only a loss is known.
    initial : the parameters before training, if they are known.
    note : what to know of the loss when reading any number: that it depends on how the examples are split.
    parts : gives the same network on another part of its data by its name, or None where there is none; see `part`.
    variables : gives the network as a function of parameters and statistics together, and both; see `joint`.
    """

    parts: Callable[[str], "Subject | None"] | None = None
    variables: Callable[[], tuple[Apply, Params]] | None = None

    def __init__(
        self,
        *,
        loss: Loss | None = None,
        apply: Apply | None = None,
        criterion: Criterion = losses.cross_entropy,
        params: Params,
        batches: Batch | list[Batch] | Batches,
        initial: Params | None = None,
        key: Key = 0,
    ) -> None:
        """A subject, checked.

        Raises
        ------
        InputError : neither loss nor apply, or both; parameters or batches that cannot be used; initial parameters of
            other shapes; a loss that is no scalar.
        """
        if (loss is None) == (apply is None):
            checks.fail("measure", "loss, apply", "one of the two", "neither" if loss is None else "both")
        self.apply: Any = apply  # None for a loss; a measure that needs outputs is not asked of one
        self.criterion = criterion
        whole: Loss = losses.of(cast(Apply, apply), criterion) if loss is None else loss
        self.loss, self.batches = entry.loss_and_batches("measure", whole, params, batches, quiet=True)
        per_example = apply is not None or self.batches.several
        self.note = entry.split_note("measure", self.loss, params, self.batches) if per_example else ""
        if isinstance(self.loss, losses.NetworkLoss) and apply is not None:
            self.apply, self.criterion = self.loss.apply, self.loss.criterion
        self.key = checks.key_array("measure", key)
        shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
        if initial is not None and shapes(initial) != shapes(params):
            checks.fail("measure", "initial", "of the parameters' structure and shapes", "something else")
        self.params, self.initial = (jax.tree.map(jnp.asarray, tree) for tree in (params, initial))
        self._known: dict[Hashable, Any] = {}

    def at(self, params: Params, apply: Apply | None = None) -> "Subject":
        """The same questions, data and draws for the same network later in its training.

        Parameters
        ----------
        params : Params
            Of the same structure and shapes.
        apply : callable, optional
            The network's outputs, where they depend on more than parameters: on statistics that have changed.

        Returns
        -------
        Subject
            It shares all compiled programs with this one. Its loss need not be finite.
        """
        other = copy.copy(self)
        other._known, other.parts, other.variables = {}, None, None  # whoever knows says so again
        other.params = jax.tree.map(jnp.asarray, params)
        if apply is not None:
            other.loss, _ = entry.loss_and_batches(
                "measure", losses.of(apply, self.criterion), params, self.batches, quiet=True
            )
            other.apply = cast(losses.NetworkLoss, other.loss).apply
        return other

    def check_loss(self) -> None:
        """Fail where the loss is not finite at these parameters.

        Raises
        ------
        InputError
            It says where the first number that is not finite was found.
        """
        if not math.isfinite(self.value):
            got = f"{self.value} over {self.batches.examples} examples"
            checks.fail("measure", "loss", "finite at these parameters", got, _remedy(self.params, self.batches))

    def part(self, name: str) -> "Subject | None":
        """The same network on the part of its data called "train", "validation" or "test"; None where there is none."""
        return None if self.parts is None else self.once(("part", name), lambda: cast(Any, self.parts)(name))

    def joint(self) -> "Subject":
        """The same network whose statistics, such as BatchNorm's, count as parameters.

        Raises
        ------
        InputError
            It is not known which arrays are statistics.
        """
        if self.variables is None:
            checks.fail("measure", "perturb_statistics", "False where statistics are not told from other arrays", True,
                        "Of files of your own, pass --perturb-statistics instead.")  # fmt: skip
        apply, variables = self.variables()
        return Subject(apply=apply, criterion=self.criterion, params=variables, batches=self.batches, key=self.key)

    @property
    def size(self) -> int:
        """The number n of parameters."""
        return trees.size(self.params)

    def rounding(self, loss: Loss | None = None) -> float:
        """How much of a difference of two losses is rounding, of `loss` or the subject's own."""
        value = self.value if loss in (None, self.loss) else float(_mean_loss(loss, self.params, self.batches))
        return float(rounding(loss or self.loss, self.params, self.batches.first, value))

    def key_of(self, purpose: str) -> jax.Array:
        """A key for each purpose, so that no two measures share their draws by accident."""
        return jax.random.fold_in(self.key, zlib.crc32(purpose.encode()))

    @property
    def value(self) -> float:
        """The loss over all examples."""
        return self._fit[0]

    @property
    def _fit(self) -> tuple[float, float]:
        """The loss, and the accuracy where there is one: from one pass over the data."""
        return self.once("fit", self._measured_fit)

    def _measured_fit(self) -> tuple[float, float]:
        with user_errors(label_of(self.loss)):
            if self.labelled:
                network = cast(losses.NetworkLoss, self.loss)
                loss, accuracy = _mean_loss_and_accuracy(network, self.params, self.batches)
                return float(loss), float(accuracy)
            return float(_mean_loss(self.loss, self.params, self.batches)), math.nan

    @property
    def hessian(self) -> Operator:
        """The loss's Hessian over all examples."""
        return self.once("hessian", lambda: curvature.hessian(self.loss, self.params, self.batches))

    def moments(self, probes: int) -> Moments:
        """Estimates of tr H and tr(H²) from the same random vectors."""
        key = self.key_of("moments")
        return self.once(("moments", probes), lambda: curvature.moments(self.hessian, key, probes=probes))

    def quadrature(self, probes: int, steps: int) -> Quadrature:
        """Lanczos quadrature of the Hessian's spectrum."""
        key = self.key_of("quadrature")
        compute = lambda: curvature.quadrature(self.hessian, key, probes=probes, steps=steps)  # noqa: E731
        return self.once(("quadrature", probes, steps), compute)

    def once(self, name: Hashable, compute: Callable[[], Value]) -> Value:
        """What several measures share, computed when the first of them asks."""
        if name not in self._known:
            self._known[name] = compute()
        known: Value = self._known[name]
        return known

    @functools.cached_property
    def outputs(self) -> jax.ShapeDtypeStruct | None:
        """The shape of the outputs for one batch; None where only a loss is known."""
        if self.apply is None:
            return None
        x, _ = checks.inputs_and_targets("measure", self.batches.first)
        shape: jax.ShapeDtypeStruct = jax.eval_shape(self.apply, self.params, x)
        return shape

    @property
    def labelled(self) -> bool:
        """Whether outputs are logits and targets are integer labels, or bools."""
        if self.outputs is None:
            return False
        y = losses.labels_of(checks.inputs_and_targets("measure", self.batches.first)[1])
        integers = hasattr(y, "dtype") and (jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == bool)
        return integers and getattr(self.outputs, "shape", ())[:-1] == y.shape

    def some(self, examples: int) -> Batch:
        """The first so many examples, at most one batch of them."""
        return jax.tree.map(lambda leaf: leaf[:examples], self.batches.first)

    def accuracy(self) -> float:
        """The part of all examples that is predicted right."""
        return self._fit[1]


def _remedy(params: Params, batches: Batches) -> str:
    """Where a loss that is not finite comes from, as far as arrays tell."""
    for name, tree in (("params", params), ("batches", batches.stacks)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(leaf))):
                if name == "params":
                    return f"params{jax.tree_util.keystr(path)} is not: has training diverged?"
                return f"batches{jax.tree_util.keystr(path[1:])} is not: fill or drop missing values."
    return "Parameters and data are: has training diverged, or are there labels that are no classes?"


def _mean_loss(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    return (mean_loss_from_host if batches.on_host else _compiled_loss)(loss, params, batches)


def _mean_loss_and_accuracy(loss: losses.NetworkLoss, params: Params, batches: Batches) -> tuple[jax.Array, jax.Array]:
    if batches.on_host:
        return mean_loss_and_accuracy_from_host("measure", loss, params, batches)
    return _compiled_loss_and_accuracy(loss, params, batches)


@compiled
def _compiled_loss(loss: Loss, params: Params, batches: Batches) -> jax.Array:
    return mean_loss(loss, params, batches)


@compiled
def _compiled_loss_and_accuracy(
    loss: losses.NetworkLoss, params: Params, batches: Batches
) -> tuple[jax.Array, jax.Array]:
    return mean_loss_and_accuracy("measure", loss, params, batches)

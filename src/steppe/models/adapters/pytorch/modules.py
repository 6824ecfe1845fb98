"""A PyTorch module as a function of its arrays and its inputs."""

import contextlib
import copy
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase
from torchax.tensor import OperatorNotFound, Tensor

from steppe.core import checks, programs
from steppe.core.checks import InputError
from steppe.models.adapters.pytorch.operations import NeedsKey, Translator, numbers_of
from steppe.models.base import State, Variables, conform

FUNCTION = "from_torch"
KINDS = ("_parameters", "_buffers")
"""Where a module keeps its tensors."""

_lock = threading.RLock()
"""The translator holds what belongs to one pass."""

_CUT = "Explicitly requested dtype.*|scatter inputs have incompatible types.*"
"""Warnings of JAX that integers of 64 bits, which PyTorch asks for everywhere, have 32."""


class Slot(NamedTuple):
    """A place of a module that holds a tensor, and the name of the tensor, the first one where it has several."""

    owner: torch.nn.Module
    kind: str
    key: str
    name: str

    @property
    def tensor(self) -> Any:
        """What is there now."""
        return getattr(self.owner, self.kind)[self.key]

    def put(self, tensor: Any) -> None:
        """Replace it, past PyTorch's checks of what a parameter is."""
        getattr(self.owner, self.kind)[self.key] = tensor


def slots(module: torch.nn.Module) -> list[Slot]:
    """All places of tensors; tied tensors, and modules that are reached in several ways, have one name."""
    names: dict[int, str] = {}
    found = []
    for path, owner in module.named_modules():
        for kind in KINDS:
            for key, tensor in getattr(owner, kind).items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{path}.{key}" if path else key)
                    found.append(Slot(owner, kind, key, name))
    return found


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All tensors by their names, each once."""
    named: dict[str, torch.Tensor] = {}
    for slot in slots(module):
        named.setdefault(slot.name, slot.tensor)
    return named


def variables_of(module: torch.nn.Module) -> Variables:
    """The values of parameters that ask for a gradient, and of all others: buffers and frozen parameters."""
    return Variables(*(jax.tree.map(jnp.asarray, part) for part in values_of(module)))


def values_of(module: torch.nn.Module) -> Variables:
    """Those of `variables_of` as arrays of NumPy."""
    params: dict[str, np.ndarray] = {}
    state: dict[str, np.ndarray] = {}
    for name, tensor in tensors(module).items():
        is_trained = isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad
        (params if is_trained else state)[name] = numbers_of(tensor)
    return Variables(params, state)


def skeleton(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module without the values of its tensors, so that later changes of the module are not seen.

    Raises
    ------
    InputError
        A module that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors(module).values():
        like = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(like, tensor.requires_grad) if is_parameter else like
    return copied(module, memo)


def copied(module: torch.nn.Module, memo: dict[int, Any] | None = None) -> torch.nn.Module:
    """A deep copy.

    Raises
    ------
    InputError
        A module that cannot be copied.
    """
    memo = memo or {}
    for owner in module.modules():  # weights that hooks have computed, which PyTorch does not copy
        for value in vars(owner).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        checks.fail(FUNCTION, "module", "one that copy.deepcopy can copy",
                    f"a {type(module).__name__} where that fails: {programs.line(error)}")  # fmt: skip


@dataclass(eq=False)
class Module:
    """A PyTorch module as a forward pass of `Network`.

    Every pass runs a copy of the skeleton, so that no pass sees what another one left in a plain attribute.

    Attributes
    ----------
    module : the user's own, to which `into_torch` writes.
    skeleton : its structure, without values.
    arguments : from inputs to positional and keyword arguments of the module.
    taken : the tensor of outputs in what it returns.
    untrained : why it has no training mode, or "".
    """

    module: torch.nn.Module
    skeleton: torch.nn.Module
    arguments: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
    taken: Callable[[Any], torch.Tensor]
    untrained: str = ""

    def __call__(
        self, variables: Variables, x: Any, /, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, State]:
        """See `Network.apply`."""
        if not train:
            return self.run(variables, x)[0], variables.state
        outputs, state = self.run(variables, x, key=key, train=True)
        return outputs, conform(FUNCTION, state, variables.state)

    def statistics(self, variables: Variables, x: Any) -> State:
        """See `Network.statistics`."""
        after, before = self.run(variables, x, train=True, anew=True)[1], variables.state
        known = statistics_of(self.skeleton)
        return {name: after[name] if name in known else before[name] for name in before}

    def run(
        self, variables: Variables, x: Any, *, key: jax.Array | None = None, train: bool = False, anew: bool = False
    ) -> tuple[jax.Array, State]:
        """Outputs, and the state after; `anew`: its statistics are those of this batch alone."""
        if train and self.untrained:
            raise InputError(self.untrained)
        with _lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", _CUT)
            env, module = translator(), copied(self.skeleton)
            places, values = slots(module), {**variables.params, **variables.state}
            _check_names(values.keys(), {slot.name for slot in places})
            wrapped = {name: Tensor(jnp.asarray(value), env) for name, value in values.items()}
            known = [(slot.tensor, wrapped[slot.name]) for slot in places]
            inputs = jax.tree.map(lambda leaf: Tensor(jnp.asarray(leaf), env) if hasattr(leaf, "dtype") else leaf, x)
            positional, keywords = self.arguments(inputs)
            for slot in places:
                slot.put(wrapped[slot.name])
            set_mode(module, train=train, drawn=key is not None)
            _set_averages(module, anew)
            with _explained(train), env.call(key, known):
                outputs = self.taken(module(*positional, **keywords))
            now = {slot.name: slot.tensor for slot in places}
            return env.t2j_iso(outputs), {name: env.t2j_iso(now[name]) for name in variables.state}


@functools.cache
def translator() -> Translator:
    """The one translator, made when it is first needed."""
    return Translator()


def statistics_of(module: torch.nn.Module) -> set[str]:
    """The names of the running statistics of its normalisation layers."""
    return {
        slot.name
        for slot in slots(module)
        if isinstance(slot.owner, _NormBase) and slot.key in ("running_mean", "running_var")
    }


def set_mode(module: torch.nn.Module, *, train: bool, drawn: bool) -> None:
    """Put a module into training or evaluation mode, as its own method `train` does.

    Where nothing may be `drawn`, training mode is that of the parts with buffers alone, such as BatchNorm: dropout, and
    whatever else a module drops at random, is in evaluation mode.
    """
    module.train(train)
    if train and not drawn:
        for part in module.modules():
            part.training = part.training and any(buffer is not None for buffer in part._buffers.values())


def _set_averages(module: torch.nn.Module, anew: bool) -> None:
    """Make running statistics those of the batch alone, or cumulative averages (momentum None) a rate.

    PyTorch computes that rate as a Python number, which a traced count is not.
    """
    for part in (part for part in module.modules() if isinstance(part, _NormBase)):
        if anew:
            part.momentum = 1.0
        elif part.momentum is None and part.training and part.num_batches_tracked is not None:
            part.momentum = cast(Any, 1.0 / (cast(Any, part.num_batches_tracked)._elem + 1.0))


def _check_names(given: Any, known: set[str]) -> None:
    """Fail where arrays are not those of the module."""
    if wrong := sorted(known ^ set(given)):
        verb = "missing" if wrong[0] in known else "unknown"
        checks.fail(FUNCTION, "params", f"the {len(known)} arrays of this module by their names",
                    f"{len(given)}, {wrong[0]} is {verb}")  # fmt: skip


VALUES = ("ConcretizationTypeError", "TracerArrayConversionError", "TracerIntegerConversionError",
          "TracerBoolConversionError", "NonConcreteBooleanIndexError", "UnexpectedTracerError")  # fmt: skip


_ELSEWHERE = ("one that writes into tensors that it makes from its inputs",
              "one that writes into another, such as torch.zeros(…)",
              "Make it by x.new_zeros(…), or with device=x.device and dtype=x.dtype.")  # fmt: skip
_REASONS = {
    "same device": _ELSEWHERE,
    "does not have a grad_fn": ("one that takes no derivatives by torch.autograd in its pass", "one that does",
                                "Take them by torch.func.grad, torch.func.vjp or torch.func.jvp."),
    "out of meta tensor": ("one whose parameters are used as they are", "one that has them in torch.vmap",
                           "Write that part for whole batches."),
}  # fmt: skip
"""Words of PyTorch's errors that a user could not understand, and what a module must be, is, and should do."""


def _failure(error: Exception) -> tuple[str, str, str]:
    """What a module must be that fails, and what to do."""
    known = [reason for words, reason in _REASONS.items() if words in str(error)]
    return known[0] if known else ("one that JAX can run on inputs of these shapes",
                                   f"one that fails: {programs.line(error)}",
                                   "Compare the shapes with those of the example.")  # fmt: skip


@contextlib.contextmanager
def _explained(train: bool) -> Iterator[None]:
    """Errors of the translation in one sentence, the original chained."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except NeedsKey as error:
        what, got = "one that draws random numbers in training mode alone", "one that draws some in evaluation mode"
        todo = "Draw where self.training is true, or call dropout with training=self.training."
        if train:
            what, got, todo = "given a key in training mode", "one that draws random numbers without one", ""
        refuse(error, what, got, todo)
    except OperatorNotFound as error:
        refuse(error, "made of operations that JAX has", f"one with another: {programs.line(error)}",
                "Write that part in other operations of PyTorch.")  # fmt: skip
    except AttributeError as error:
        refuse(error, *(_ELSEWHERE if "_elem" in str(error) or "_env" in str(error) else _failure(error)))
    except Exception as error:
        if {kind.__name__ for kind in type(error).__mro__} & set(VALUES):
            refuse(error, "one whose operations do not depend on the values of tensors",
                    "one that needs such a value (if, .item(), a mask as an index, the length of a sequence)",
                    "Use torch.where, or multiply by the mask.")  # fmt: skip
        refuse(error, *_failure(error))


def refuse(error: Exception, what: str, got: str, todo: str) -> NoReturn:
    """Fail for a module because of an error, which is chained."""
    try:
        checks.fail(FUNCTION, "module", what, got, todo)
    except InputError as refusal:
        raise refusal from error

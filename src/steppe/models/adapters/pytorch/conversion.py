"""From a user's module and an example to a network."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from steppe.core import checks
from steppe.models.adapters.pytorch import agreement
from steppe.models.adapters.pytorch.modules import FUNCTION, Module, skeleton, statistics_of, tensors, variables_of
from steppe.models.adapters.pytorch.operations import numbers_of
from steppe.models.base import Network, Trained

Arguments = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]


def trained(module: Any, example: Any, outputs: Callable[[Any], Any] | None) -> Trained:
    """See `from_torch`."""
    _check_module(module)
    if outputs is not None and not callable(outputs):
        checks.fail(FUNCTION, "outputs", "a function of what the module returns", checks.shown(outputs))
    inputs = _inputs(example)
    forward = Module(module, skeleton(module), _arguments(module, inputs), lambda given: _taken(given, outputs))
    params, state = variables = variables_of(module)
    checks.floating(FUNCTION, params)
    _check_numbers(params, inputs)
    agreement.check(forward, params, state, inputs)
    statistics = forward.statistics if statistics_of(forward.skeleton) and not forward.untrained else None
    return Trained(Network(lambda key: variables, forward, statistics=statistics), params, state)


def _check_module(module: Any) -> None:
    """Fail for what is no module with values."""
    what = "an instance of a torch.nn.Module"
    if isinstance(module, type):
        checks.fail(FUNCTION, "module", what, f"the class {module.__name__}", f"Make one: {module.__name__}(…).")
    if isinstance(module, Mapping):
        todo = "Make the module and fill it: module.load_state_dict(state)."
        checks.fail(FUNCTION, "module", what, f"a dictionary of {len(module)} entries", todo)
    if not isinstance(module, torch.nn.Module):
        checks.fail(FUNCTION, "module", what, f"a value of type {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        checks.fail(FUNCTION, "module", "a module of Python code", "one of TorchScript", "Give the module before it.")
    for inner in ("_orig_mod", "module"):  # of torch.compile, and of DataParallel and DistributedDataParallel
        if type(module).__module__.startswith("torch.") and isinstance(getattr(module, inner, None), torch.nn.Module):
            checks.fail(FUNCTION, "module", "the module itself", f"a {type(module).__name__} around it",
                        f"Give module.{inner}.")  # fmt: skip
    _check_tensors(module)


def _check_numbers(params: Any, inputs: Any) -> None:
    """Fail where nothing could be compared."""
    for name, value in params.items():
        if not bool(jnp.isfinite(value).all()):
            checks.fail(
                FUNCTION, "module", "one with finite parameters", f"{name}, which is not: has training diverged?"
            )
    for leaf in jax.tree.leaves(inputs):
        if hasattr(leaf, "dtype") and bool(jnp.isnan(leaf).any()):
            checks.fail(FUNCTION, "example", "inputs that are numbers", "one with a value nan")


def _check_tensors(module: torch.nn.Module) -> None:
    """Fail for a module whose tensors have no values, are changed by a pass, or are no parameters."""
    for path, part in module.named_modules():
        if "quantized" in type(part).__module__.split("."):
            checks.fail(FUNCTION, "module", "one of dense floating-point arrays",
                        f"{path or 'one'}, which is quantized", "Give the module before it was.")  # fmt: skip
        if isinstance(part, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and part.max_norm is not None:
            checks.fail(FUNCTION, "module", "one whose passes leave its parameters as they are",
                        f"{path or 'an embedding'} with max_norm, which rescales rows in every pass",
                        "Rescale its rows once, and set max_norm to None.")  # fmt: skip
    named = tensors(module)
    for name, tensor in named.items():
        if torch.nn.parameter.is_lazy(tensor):
            checks.fail(FUNCTION, "module", "one with values", f"a lazy one, without {name}", "Call it once before.")
        if tensor.device.type == "meta":
            checks.fail(FUNCTION, "module", "one with values", f"{name} on the device meta", "Load its weights before.")
        if tensor.layout != torch.strided or tensor.is_quantized:
            checks.fail(
                FUNCTION, "module", "one of dense floating-point arrays", f"{name}, which is quantized or sparse"
            )
        if tensor._backward_hooks:
            checks.fail(FUNCTION, "module", "one whose gradients are its derivatives",
                        f"one with a hook on the gradient of {name}",
                        "Remove the hook: Tensor.register_hook returns its handle.")  # fmt: skip
    if not any(isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad for tensor in named.values()):
        checks.fail(FUNCTION, "module", "one with parameters that ask for a gradient",
                    f"a {type(module).__name__} without", "Set requires_grad to True on what is trained.")  # fmt: skip


def _inputs(example: Any) -> Any:
    """The example, its tensors as arrays of JAX."""
    if isinstance(example, Mapping):
        return {name: _inputs(value) for name, value in example.items()}
    if isinstance(example, (tuple, list)) and not hasattr(example, "_fields"):
        if all(isinstance(value, (int, float)) for value in example):
            return jnp.asarray(example)
        return type(example)(map(_inputs, example))
    if isinstance(example, torch.Tensor):
        return jnp.asarray(numbers_of(example))
    if hasattr(example, "dtype"):
        if isinstance(example, jax.ShapeDtypeStruct):
            checks.fail(FUNCTION, "example", "an array with values", "a shape without values")
        return jnp.asarray(np.asarray(example))
    return example


def _arguments(module: torch.nn.Module, example: Any) -> Arguments:
    """How inputs of the example's form are given to the module."""
    call = inspect.signature(module.forward)

    def fits(*positional: Any, **keywords: Any) -> bool:
        try:
            call.bind(*positional, **keywords)
        except TypeError:
            return False
        return True

    if isinstance(example, Mapping) and all(isinstance(name, str) for name in example) and fits(**example):
        return lambda x: ((), dict(x))
    if isinstance(example, (tuple, list)) and fits(*example):
        return lambda x: (tuple(x), {})
    if fits(example):
        return lambda x: ((x,), {})
    given = f"the keys {', '.join(map(str, example))}" if isinstance(example, Mapping) else checks.returned(example)
    names = ", ".join(call.parameters) or "no argument"
    return checks.fail(FUNCTION, "example", f"the arguments of {type(module).__name__}.forward ({names})", given,
                       "Give a dictionary of keyword arguments, or a tuple of positional ones.")  # fmt: skip


def _taken(given: Any, outputs: Callable[[Any], Any] | None) -> torch.Tensor:
    """The tensor of outputs in what a module returns."""
    chosen = given if outputs is None else outputs(given)
    if outputs is None and not isinstance(given, torch.Tensor):
        chosen = given.get("logits") if isinstance(given, Mapping) else getattr(given, "logits", None)
    if isinstance(chosen, torch.Tensor):
        return chosen
    if isinstance(given, Mapping):
        given = dict(given)
    return checks.fail(FUNCTION, "outputs", "given for a module that returns no tensor and no logits",
                       checks.returned(given if outputs is None else chosen),
                       "Choose them: outputs=lambda returned: returned[0].")  # fmt: skip

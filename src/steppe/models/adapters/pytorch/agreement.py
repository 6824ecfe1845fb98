"""The check at the door: what JAX computes of a module, compared with what PyTorch computes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from steppe.core import checks, programs
from steppe.core.programs import Label
from steppe.models.adapters.pytorch.modules import FUNCTION, Module, copied, refuse, set_mode, slots, variables_of
from steppe.models.base import Variables

TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Differences that pass, relative to norms. Modules may round to float32 inside, whatever they are given."""

HASTE: Any = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""How XLA compiles what runs once."""


class Twin(NamedTuple):
    """A copy of the user's module that PyTorch computes, with inputs in its precision.

    Attributes
    ----------
    module : the copy, on the CPU.
    dtype : of its floats.
    inputs : the example, as tensors.
    variables : its values before any pass, for a module may write into its buffers in evaluation mode, too.
    """

    module: torch.nn.Module
    dtype: torch.dtype
    inputs: Any
    variables: Variables

    @property
    def tolerance(self) -> float:
        """What may differ, relative to norms."""
        return TOLERANCES[self.dtype]

    def fresh_inputs(self) -> Any:
        """The example as tensors of its own, into which a module may write."""
        return jax.tree.map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, self.inputs)

    def arrays(self) -> Any:
        """The example for JAX."""
        return jax.tree.map(lambda leaf: jnp.asarray(_numpy(leaf)) if isinstance(leaf, torch.Tensor) else leaf,
                            self.inputs)  # fmt: skip

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """JAX computes as exactly as PyTorch."""
        with jax.enable_x64(self.dtype == torch.float64), jax.default_matmul_precision("highest"):
            yield


def check(forward: Module, params: Any, state: Any, example: Any) -> None:
    """Compare outputs and a directional derivative, and find out whether the module can be trained.

    Parameters
    ----------
    forward : Module
        Its `untrained` is set where the statistics after a pass in training mode are not PyTorch's, or are not known.
    params, state : pytrees
        Its arrays.
    example : Any
        Inputs as `arguments` of the module takes them.

    Raises
    ------
    InputError
        An example that the module does not take; one that differs, with numbers; a module that JAX cannot trace, or
        whose program changes from call to call, or has no second derivatives. Cost: in float64, one pass of PyTorch
        and its gradient, and one pass of JAX with its derivative, compiled in haste; and two traces.
    """
    apply = lambda params, x: forward.run(Variables(params, state), x)[0]  # noqa: E731
    twin, given = _run(forward, example)
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf, example)
    _check_curvature(programs.capture(Label(FUNCTION, "module"), apply, [(params, x)]), params, x)
    rng = np.random.default_rng(0)
    cotangent = rng.normal(size=tuple(given.shape))
    slopes = _gradient(twin.module, given, cotangent)
    with twin.precision():
        variables = twin.variables
        directions = {name: rng.normal(size=value.shape) for name, value in sorted(variables.params.items())}
        tangents = {name: jnp.asarray(directions[name], value.dtype) for name, value in variables.params.items()}
        wide = lambda params: forward.run(Variables(params, variables.state), twin.arrays())[0]  # noqa: E731
        outputs, tangent = _hastily(lambda params, tangents: jax.jvp(wide, (params,), (tangents,)), variables.params,
                                    tangents)  # fmt: skip
        _compare_outputs(np.asarray(outputs), _numpy(given), twin)
        theirs = sum(float(np.vdot(slopes[name], directions[name])) for name in slopes)
        ours = float(np.vdot(np.asarray(tangent, np.float64), cotangent))
        norm = np.sqrt(sum(float(np.sum(slope**2)) for slope in slopes.values()))
        if not abs(ours - theirs) <= twin.tolerance * norm:
            _differs(wide, variables.params, slopes, cotangent, (ours, theirs), twin)
        forward.untrained = _why_untrained(forward, variables, twin)


def _check_curvature(program: Callable[..., Any], params: Any, x: Any) -> None:
    """Fail where JAX has no Hessian-vector product of a program; nothing is computed."""
    total = lambda params: jnp.sum(program(params, x))  # noqa: E731
    try:
        jax.eval_shape(lambda params: jax.jvp(jax.grad(total), (params,), (params,)), params)
    except Exception as error:
        refuse(error, "one that JAX can differentiate twice", f"one where that fails: {programs.line(error)}",
               "Write that part in other operations of PyTorch.")  # fmt: skip


def _hastily(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function's value, for one call: compiled in a tenth of the time, to a slow program."""
    lowered = jax.jit(function).lower(*arguments)
    try:
        compiled = lowered.compile(compiler_options=HASTE)
    except jax.errors.JaxRuntimeError as error:  # other devices and versions of JAX have other options
        if "compile option" not in str(error):
            raise
        compiled = lowered.compile()
    return compiled(*arguments)


def _run(forward: Module, example: Any) -> tuple[Twin, torch.Tensor]:
    """The module and the example in the widest precision in which PyTorch runs it, and its outputs."""
    failure: Exception | None = None
    for dtype in TOLERANCES:
        module = copied(forward.module).to("cpu", dtype).eval()
        with jax.enable_x64(dtype == torch.float64):
            variables = variables_of(module)
        twin = Twin(module, dtype, jax.tree.map(lambda leaf: _tensor(leaf, dtype), example), variables)  # noqa: B023
        positional, keywords = forward.arguments(twin.fresh_inputs())
        try:
            with torch.enable_grad():
                returned = module(*positional, **keywords)
        except Exception as error:
            failure = error
            continue
        outputs = forward.taken(returned)
        if not outputs.is_floating_point():
            checks.fail(FUNCTION, "module", "one whose outputs are floating-point numbers", f"{outputs.dtype}",
                        "Choose them: outputs=lambda returned: …")  # fmt: skip
        return twin, outputs
    assert failure is not None
    try:
        shapes = jax.tree.map(lambda leaf: tuple(np.shape(leaf)), example)
        checks.fail(FUNCTION, "example", "inputs that the module takes, as an array, a tuple or a dictionary",
                    f"{checks.shown(shapes)}, on which PyTorch fails: {programs.line(failure)}")  # fmt: skip
    except checks.InputError as refusal:
        raise refusal from failure


def _tensor(leaf: Any, dtype: torch.dtype) -> Any:
    """A tensor of PyTorch on the CPU, floats in a dtype; what is no array stays as it is."""
    if not hasattr(leaf, "dtype"):
        return leaf
    if not isinstance(leaf, torch.Tensor):
        array = np.asarray(leaf)
        array = array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array
        leaf = torch.from_numpy(array.copy())
    leaf = leaf.detach().cpu()
    if leaf.is_floating_point():
        return leaf.to(dtype)
    return leaf if leaf.dtype == torch.bool or leaf.is_complex() else leaf.long()


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def _gradient(module: torch.nn.Module, outputs: torch.Tensor, cotangent: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's gradient of ⟨cotangent, outputs⟩ in each parameter."""
    trained = {slot.name: slot.tensor for slot in slots(module) if slot.kind == "_parameters"}
    trained = {name: tensor for name, tensor in trained.items() if tensor.requires_grad}
    weights = torch.tensor(cotangent, dtype=outputs.dtype)
    found: tuple[torch.Tensor | None, ...] = (None,) * len(trained)
    if outputs.requires_grad:
        try:
            found = torch.autograd.grad(outputs, list(trained.values()), weights, allow_unused=True)
        except Exception as error:
            checks.fail(FUNCTION, "module", "differentiable by PyTorch",
                        f"one whose backward pass fails: {programs.line(error)}")  # fmt: skip
    slopes = {
        name: np.zeros(tuple(tensor.shape)) if slope is None else _numpy(slope.to_dense()).astype(np.float64)
        for (name, tensor), slope in zip(trained.items(), found, strict=True)
    }
    for name, slope in slopes.items():
        if not np.all(np.isfinite(slope)):
            checks.fail(FUNCTION, "module", "one that has a finite gradient on the example",
                        f"one in {name} that is not, in PyTorch, too",
                        "Look for a root, a logarithm or a quotient at zero, or for masks of whole rows.")  # fmt: skip
    return slopes


AGREES = "one whose {0} are the same in JAX as in PyTorch on the example"


def _compare_outputs(ours: np.ndarray, theirs: np.ndarray, twin: Twin) -> None:
    if ours.shape != theirs.shape:
        checks.fail(FUNCTION, "module", AGREES.format("outputs"), f"the shape {ours.shape}, not {theirs.shape}")
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    difference, norm = np.where(same, 0, ours - theirs), float(np.linalg.norm(theirs[np.isfinite(theirs)]))
    apart = float(np.linalg.norm(difference)) / max(norm, 1e-30)
    if not apart <= twin.tolerance:
        checks.fail(FUNCTION, "module", AGREES.format("outputs"),
                    f"outputs that differ by {apart:.1e} of their norm ({twin.dtype}; {twin.tolerance:.0e} would pass)",
                    "An operation of it is translated wrongly, or depends on a random number.")  # fmt: skip


def _differs(
    outputs: Callable[[Any], jax.Array], params: Any, slopes: dict[str, np.ndarray], cotangent: np.ndarray,
    derivatives: tuple[float, float], twin: Twin,
) -> None:  # fmt: skip
    """Refuse a derivative that differs, and name the parameter whose gradient differs most."""
    found = _hastily(jax.grad(lambda params: jnp.vdot(jnp.asarray(cotangent), outputs(params))), params)
    apart = {name: float(np.linalg.norm(np.asarray(found[name], np.float64) - slope)) for name, slope in slopes.items()}
    name = max(apart, key=apart.__getitem__)
    size = float(np.linalg.norm(slopes[name]))
    checks.fail(FUNCTION, "module", AGREES.format("derivatives"),
                f"{derivatives[0]:.6g} along a random direction where PyTorch has {derivatives[1]:.6g} ({twin.dtype}); "
                f"the gradients in {name} differ by {apart[name]:.1e}, PyTorch's norm being {size:.1e}",
                "Look there for .data, detach() or an operation with a derivative of its own.")  # fmt: skip


def _why_untrained(forward: Module, variables: Variables, twin: Twin) -> str:
    """Why a module cannot be trained, or "": its buffers after a pass in training mode are compared with PyTorch's."""
    if not any(slot.kind == "_buffers" for slot in slots(twin.module)):
        return ""
    try:
        variables = Variables(variables.params, variables_of(twin.module).state)
        set_mode(twin.module, train=True, drawn=False)
        positional, keywords = forward.arguments(twin.fresh_inputs())
        with torch.no_grad():
            twin.module(*positional, **keywords)
    except Exception as error:
        return _untrained(f"PyTorch fails on the example in training mode: {programs.line(error)}",
                          "Give an example of two inputs or more.")  # fmt: skip
    try:
        after = _hastily(lambda variables: forward.run(variables, twin.arrays(), train=True)[1], variables)
    except checks.InputError as error:
        return _untrained(f"in training mode it cannot be translated: {str(error).removeprefix(FUNCTION + ': ')}")
    theirs = variables_of(twin.module).state
    for name, value in theirs.items():
        ours, expected = np.asarray(after[name]), np.asarray(value)
        apart = float(np.max(np.abs(ours.astype(np.float64) - expected), initial=0)) if ours.size else 0.0
        if not apart <= twin.tolerance * max(1.0, float(np.max(np.abs(expected), initial=0))):
            return _untrained(f"after a pass {name} differs by {apart:.1e} from PyTorch's")
    return ""


def _untrained(why: str, todo: str = "") -> str:
    try:
        checks.fail(FUNCTION, "train", "left out for this module", f"True; {why.rstrip('.')}", todo)
    except checks.InputError as error:
        return str(error)

"""What goes wrong in a user's function, told in one sentence: what JAX and Flax are known to say, and all else."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from steppe.core import checks

OWN = "The error is its own."
OTHERS = "It takes the first batches: give it batches of shapes that it takes, or make all alike."
"""What is said of a function's own error, and of one that comes with batches of other shapes alone."""


class Label(NamedTuple):
    """What a function is called in errors: the argument `name` of the public `function`."""

    function: str
    name: str = "loss"


class UncapturedShapes(KeyError):
    """A program is called with arguments of shapes that it was not captured at."""

    @property
    def examples(self) -> int | None:
        """The length of the last argument, which is that of a batch; None for a number."""
        shape: tuple[int, ...] = self.args[0].avals[-1][0]
        return shape[0] if shape else None


def require_value(label: Label, value: Any) -> Any:
    """What a user's function returned, unless it has only begun: a coroutine, or a generator."""
    kinds = {"an async function": inspect.iscoroutine(value) or inspect.isasyncgen(value),
             "a generator, a function with yield": inspect.isgenerator(value)}  # fmt: skip
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that nobody waited for it
    for kind, is_one in kinds.items():
        if is_one:
            checks.fail(
                label.function, label.name, "a function that returns its value", kind, "Define it with def and return."
            )
    return value


@contextlib.contextmanager
def user_errors(label: Label, *, own: bool = False, todo: str = OWN) -> Iterator[None]:
    """Errors of a user's function told in one sentence, as `InputError`, the original chained.

    `own` says that whatever is raised inside comes from that function, also what is no `Exception`, such as sys.exit();
    otherwise only what JAX and Flax are known to say of functions that they cannot treat. KeyboardInterrupt is the
    user's, not the function's; shapes that were not captured are for who captured the function.
    """
    try:
        yield
    except (KeyboardInterrupt, UncapturedShapes):
        raise
    except BaseException as error:
        if own or isinstance(error, Exception):
            explain(error, label, own=own, todo=todo)
        raise


def explain(error: BaseException, label: Label, *, own: bool = False, todo: str = OWN) -> None:
    """Raise the `InputError` that tells of an error; return where there is none to be told."""
    if isinstance(error, checks.InputError):
        return
    sentence = next((cause.sentence for cause in CAUSES if cause.is_of(error)), None)
    if sentence is None and own:
        sentence = ("a function of the parameters and data that are given", line(error), todo)
    if sentence is not None:
        what, got, todo = sentence
        try:
            checks.fail(label.function, label.name, what, got.format(last=_last(error)), todo)
        except checks.InputError as refusal:
            raise refusal from error


def line(error: BaseException) -> str:
    """An error's kind and first line, short."""
    text = f"{type(error).__name__}: {(_text(error).splitlines() or [''])[0]}".rstrip(": .")
    return text if len(text) <= 200 else text[:197] + "..."


def _last(error: BaseException) -> str:
    """An error's last line, short: where it holds another's traceback, what that was."""
    text = (_text(error).splitlines() or [""])[-1].rstrip(": .")
    return text if len(text) <= 200 else text[:197] + "..."


def _text(error: BaseException) -> str:
    """What an error says; nothing where it fails to."""
    try:
        return str(error).strip()
    except Exception:
        return ""


LARGE = (
    "small enough for the available memory",
    "one that needs more for these parameters and batches",
    "Take smaller batches.",
)
"""What is said of a function that memory does not suffice for."""


class _Cause(NamedTuple):
    """What an error of JAX or Flax says of a user's function.

    Attributes
    ----------
    kinds : names of its class, or of a class above it.
    words : of which one is in its text; none where the kind says enough.
    sentence : what the function must be, what it is ("{last}" in it is the last line of the error), and what to do.
    """

    kinds: tuple[str, ...]
    words: tuple[str, ...]
    sentence: tuple[str, str, str]

    def is_of(self, error: BaseException) -> bool:
        """Whether this is the cause of an error."""
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return bool(kinds & set(self.kinds)) and (not self.words or any(word in _text(error) for word in self.words))


CAUSES = (
    _Cause(
        ("TypeError",),
        ("with tangent float32[]{V:", "with tangent float64[]{V:"),
        (
            "the same on all devices under shard_map",
            "the loss of one device's own examples, for parameters that lie on all",
            "Put jax.lax.pmean around the loss, or take jax.jit and a sharded batch.",
        ),
    ),
    _Cause(
        ("SystemExit",),
        (),
        ("a function that returns its value", "one that ends the program (sys.exit)", "Let it raise an error instead."),
    ),
    _Cause(("MemoryError",), (), LARGE),
    _Cause(("JaxRuntimeError",), ("RESOURCE_EXHAUSTED", "Out of memory"), LARGE),
    _Cause(
        ("JaxRuntimeError",),
        ("Gloo ", "NCCL ", "heartbeat timeout"),
        (
            "one that all processes of jax.distributed compute",
            "another process that has ended, or lost its connection",
            "Start all of them again, from their last checkpoint.",
        ),
    ),
    _Cause(
        ("TraceContextError",),
        (),
        (
            "a function that changes nothing outside itself",
            "one that updates a variable of Flax (nnx.update, a BatchNorm in training mode, an Rngs counter)",
            "Call model.eval(), or build the module inside: nnx.merge(graphdef, params, state).",
        ),
    ),
    _Cause(
        (
            "ConcretizationTypeError",
            "TracerArrayConversionError",
            "TracerIntegerConversionError",
            "NonConcreteBooleanIndexError",
        ),
        (),
        (
            "a function that JAX can trace",
            "one that needs the value of an array (if, while, int(), float(), NumPy, a mask as an index)",
            "Use jnp.where, jax.lax.cond or jax.lax.scan, and jnp in the place of np.",
        ),
    ),
    _Cause(
        ("UnexpectedTracerError",),
        (),
        (
            "a function that changes nothing outside itself",
            "one that keeps an array of an earlier trace",
            "Return what is needed later; do not store it in a list, an attribute or a global.",
        ),
    ),
    _Cause(
        ("ValueError",),
        ("Reverse-mode differentiation does not work for lax.while_loop",),
        (
            "differentiable in reverse",
            "one with a jax.lax.while_loop, or a fori_loop whose number of iterations is not known when it is traced",
            "Use jax.lax.scan, or a fori_loop between Python numbers.",
        ),
    ),
    _Cause(
        ("ValueError", "NotImplementedError"),
        ("callbacks do not support JVP", "Callbacks do not support JVP", "callback does not support JVP"),
        (
            "differentiable",
            "one that calls back to Python (pure_callback, io_callback), which has no derivative",
            "Write that part in jnp, give it a jax.custom_jvp, or put jax.lax.stop_gradient around its arguments.",
        ),
    ),
    _Cause(
        ("TypeError",),
        ("forward-mode differentiation (jvp) to a custom_vjp", "forward-mode autodiff (jvp) to a custom_vjp"),
        (
            "differentiable forwards as well as in reverse",
            "one with a jax.custom_vjp, which is differentiable in reverse only",
            "Use jax.custom_jvp; a penalty can take curvature=steppe.curvature.first_order().",
        ),
    ),
    _Cause(
        ("NotImplementedError",),
        ("ifferentiation rule for", "ranspose rule", "ransposition rule"),
        (
            "differentiable",
            "one with an operation that has no derivative",
            "Write that part in other operations, or give it a jax.custom_jvp.",
        ),
    ),
    _Cause(
        ("JaxRuntimeError",),
        ("Callback error", "callback failed", "error calling callback"),
        (
            "a function that runs",
            "one whose callback to Python (pure_callback, io_callback) fails: {last}",
            "Call that part by itself.",
        ),
    ),
    _Cause(
        ("ValueError",),
        ("incompatible devices",),
        (
            "of parameters and data that lie on the same devices",
            "one of arrays that were put on different ones",
            "Give all of them a sharding over one mesh: jax.device_put(params, jax.NamedSharding(mesh, jax.P())).",
        ),
    ),
    _Cause(
        ("RuntimeError", "ValueError"),
        ("has been deleted", "deleted or donated"),
        (
            "of arrays that are still there",
            "one that holds an array which was deleted or donated",
            "Make it, or its operator, anew after a step that donates its buffers, or keep a copy.",
        ),
    ),
)
"""What is known of foreign errors."""

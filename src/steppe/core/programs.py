"""What a user's function computes, captured as a program.

A function may close over what changes: a list, a trainer, statistics of BatchNorm. Compiled programs that are looked up
by the function would then give the numbers of its first call again. So Steppe captures, once at the entry of each
public function, what a function computes *now*: its program, and the arrays in it. Programs are compared by what they
compute, and their arrays are arguments of compiled functions, whatever their size: equal programs compile once, and
nothing that changes afterwards is in them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from steppe.core import checks

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

Check = Callable[[Any], Any]
"""What a function must return: gives the value on, or raises an `InputError`."""

OWN = "The error is its own."
OTHERS = "It takes the first batches: give it batches of shapes that it takes, or make all alike."
"""What is said of a function's own error, and of one that comes with batches of other shapes alone."""

RULES = ("custom_jvp_call", "custom_vjp_call")
"""Operations that carry Python functions for their derivatives."""

ORDERS = 3
"""Derivatives by which rules are told apart, at most: no method or measure takes more."""


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


@jax.tree_util.register_pytree_node_class
class Program:
    """A function as what it computed when it was captured, for arguments of the shapes it was captured at.

    A pytree: the arrays that the function held are its leaves, its operations are static, equal where they compute the
    same. So it is an argument of compiled functions, and can be called inside them.

    Rules of `jax.custom_jvp` and `jax.custom_vjp` are told apart by the derivatives they give when captured.
    """

    def __init__(self, traces: dict["Signature", "Trace"], consts: Sequence[Any], label: Label, function: Any = None):
        self.traces, self.consts, self.label, self.function = traces, tuple(consts), label, function

    def __call__(self, *arguments: Any) -> Any:
        """What the function gave."""
        trace = self._trace(arguments)
        leaves = map(_array, jax.tree.leaves(arguments))
        found = jax.core.eval_jaxpr(trace.jaxpr, [self.consts[i] for i in trace.consts], *leaves)
        return jax.tree.unflatten(trace.structure, found)

    def closed(self, *arguments: Any) -> ClosedJaxpr:
        """Its operations for arguments of these shapes, with its arrays."""
        trace = self._trace(arguments)
        return ClosedJaxpr(trace.jaxpr, [self.consts[i] for i in trace.consts])

    def exchange(self, before: Any, after: Any, function: Callable[..., Any]) -> "Program":
        """The same operations with other arrays: those that are leaves of `before` become the leaves of `after`.

        Parameters
        ----------
        before, after : pytrees of one structure
            The arrays of `before` are told by what they are, not by their values.
        function : callable
            What has become of the function that was captured, for shapes to come.
        """
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        others = {id(old): new for old, new in pairs}
        return Program(self.traces, [others.get(id(const), const) for const in self.consts], self.label, function)

    def computes(self, other: "Program") -> bool:
        """Whether another program has the same operations, and arrays of the same bytes."""
        alike = self.traces == other.traces and len(self.consts) == len(other.consts)
        return alike and all(map(_same, self.consts, other.consts))

    def structure(self, *arguments: Any) -> Any:
        """Of its value for arguments of these shapes, as a pytree."""
        return self._trace(arguments).structure

    def _trace(self, arguments: tuple) -> "Trace":
        signature = Signature.of(arguments)
        if signature not in self.traces:
            raise UncapturedShapes(signature)
        return self.traces[signature]

    @property
    def digest(self) -> str:
        """Of its operations, without its arrays: the same in every process."""
        return hashlib.sha256(b"".join(trace.digest for trace in self.traces.values())).hexdigest()

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """As a pytree: its arrays are its leaves."""
        return self.consts, (tuple(self.traces.items()), _Unkeyed(self.label))

    @classmethod
    def tree_unflatten(cls, static: Any, consts: Sequence[Any]) -> "Program":
        """The inverse of `tree_flatten`; it knows only the shapes that it was captured at."""
        traces, unkeyed = static
        return cls(dict(traces), consts, unkeyed.value)


class _Unkeyed:
    """A value that goes along with a program and is no part of what it is."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unkeyed)

    def __hash__(self) -> int:
        return 0


class Signature(NamedTuple):
    """The structure, shapes and dtypes of a function's arguments."""

    structure: Any
    avals: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, arguments: tuple) -> "Signature":
        """That of some arguments."""
        leaves, structure = jax.tree.flatten(arguments)
        return cls(structure, tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves))


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A function's operations for arguments of one signature; equal where they compute the same.

    Attributes
    ----------
    jaxpr : the operations.
    structure : of the value.
    consts : which of the program's arrays it holds, in its order.
    digest : of all that can be written down.
    opaque : what cannot, such as callbacks to Python.
    """

    jaxpr: Jaxpr
    structure: Any
    consts: tuple[int, ...]
    digest: bytes
    opaque: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def _key(self) -> tuple:
        return self.digest, self.structure, self.consts, self.opaque


def capture(
    label: Label, function: Callable[..., Any], calls: Sequence[tuple], check: Check = lambda value: value
) -> Program:
    """What a function computes now, for arguments of the shapes of `calls`.

    Parameters
    ----------
    label : Label
        What the function is called in errors.
    function : callable
        The function, or a program.
    calls : sequence of tuples
        Arguments; only their structure, shapes and dtypes are read.
    check : callable
        What the function's value must be.

    Returns
    -------
    Program
        Cost: two traces for each shape, one inside a JAX transformation; derivatives of what has rules of its
        own. Arrays of NumPy are copied.

    Raises
    ------
    InputError
        A function that fails, that changes from call to call, or whose value is not what it must be.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> held = [2.0]
    >>> double = capture(Label("example", "function"), lambda x: held[0] * x, [(jnp.ones(()),)])
    >>> held[0] = 5.0
    >>> float(double(jnp.ones(())))
    2.0
    """
    known: dict[Signature, Trace] = {}
    if isinstance(function, Program):
        if all(Signature.of(arguments) in function.traces for arguments in calls):
            return function
        # further shapes of what is captured already: the function must still be the same
        known, checked = function.traces, function.function
    else:
        checked = lambda *arguments: check(require_value(label, function(*arguments)))  # noqa: E731
    arrays: dict[int, Any] = {}
    traces: dict[Signature, Trace] = {}
    for arguments in calls:
        signature = Signature.of(arguments)
        if signature not in traces:
            traces[signature] = _traced(label, checked, arguments, arrays, OTHERS if traces else OWN)
    for signature, trace in known.items():
        if signature in traces and traces[signature].digest != trace.digest:
            _changed(label)
    return Program(traces, [_held(array) for array in arrays.values()], label, checked)


def check(label: Label, function: Callable[..., Any], arguments: tuple, must: Check) -> Jaxpr:
    """Trace a function once, for what its value must be; its own errors are told as `capture` tells them."""
    with user_errors(label, own=True):
        traced = jax.make_jaxpr(lambda *a: must(require_value(label, function(*a))))(*arguments)
    return cast(Jaxpr, traced.jaxpr)


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


def _traced(label: Label, function: Callable[..., Any], arguments: tuple, arrays: dict[int, Any], todo: str) -> Trace:
    """One trace of a function; the arrays that it holds join `arrays`. `todo` follows an error of its own."""
    with user_errors(label, own=True, todo=todo), full_precision(arguments):
        closed, value = _jaxpr(function, arguments)
        if not any(map(checks.is_traced, jax.tree.leaves(arguments))):
            with untraced():
                again = _jaxpr(function, arguments)[0]
            same = _fingerprint(closed).digest == _fingerprint(again).digest and len(closed.consts) == len(again.consts)
            if not same or not all(map(_same, closed.consts, again.consts)):
                _changed(label)
    written = _fingerprint(closed)
    for eqn in _ruled(closed.jaxpr):
        written = written.joined(_rule(eqn))
    places = {array: place for place, array in enumerate(arrays)}
    for const in closed.consts:
        if id(const) not in places:
            places[id(const)] = len(arrays)
            arrays[id(const)] = const
    consts = tuple(places[id(const)] for const in closed.consts)
    return Trace(closed.jaxpr, jax.tree.structure(value), consts, written.digest, written.opaque)


def full_precision(arguments: Any) -> contextlib.AbstractContextManager:
    """A context in which products of float32 are those of float32, for what measures.

    GPUs and TPUs multiply in fewer bits unless told otherwise (TF32: a Hessian with errors of 2 %). A precision that
    the user set stays, and so does that of a program which is being traced: a training step is its author's.

    Parameters
    ----------
    arguments : pytree
        Of the function that measures; traced ones say that the program is another's.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> with full_precision(jnp.ones(2)):
    ...     print(jax.config.jax_default_matmul_precision)
    highest
    """
    is_set = jax.config.jax_default_matmul_precision is not None  # type: ignore[attr-defined]  # set by JAX itself
    if is_set or any(map(checks.is_traced, jax.tree.leaves(arguments))):
        return contextlib.nullcontext()
    return cast(contextlib.AbstractContextManager, jax.default_matmul_precision("highest"))


def _jaxpr(function: Callable[..., Any], arguments: tuple) -> tuple[ClosedJaxpr, Any]:
    return jax.make_jaxpr(fresh(function), return_shape=True)(*arguments)


def fresh(function: Callable[..., R]) -> Callable[..., R]:
    """A function whose program JAX does not remember from an earlier call, for transformations that look there."""
    return lambda *arguments: function(*arguments)  # noqa: PLW0108


_untraced = jax.make_user_context(None)


def untraced() -> contextlib.AbstractContextManager[Any]:
    """A context in which JAX remembers no trace.

    Bodies of loops, branches and jitted parts that were traced before are otherwise not traced again, whatever changed
    in what they close over.
    """
    return cast(contextlib.AbstractContextManager[Any], _untraced(object()))


def _changed(label: Label) -> None:
    checks.fail(label.function, label.name, "the same twice for the same arguments",
                "a function that changes from call to call, or holds a part traced before something in it changed",
                "Turn dropout and shuffling off, or fix their key outside the function; pass what changes to jitted "
                "parts, and to bodies of loops and branches, as an argument.")  # fmt: skip


def _rule(eqn: JaxprEqn) -> "_Fingerprint":
    """What the rule of an operation computes: its derivatives in all numbers, as many as have rules themselves.

    The arrays in a rule are a part of what it is, by their values: no argument reaches them.
    """
    operands = [jax.ShapeDtypeStruct(*_shape_and_dtype(atom.aval)) for atom in eqn.invars]
    numbers = [at for at, operand in enumerate(operands) if jnp.issubdtype(operand.dtype, jnp.inexact)]
    kept = [jnp.issubdtype(_shape_and_dtype(atom.aval)[1], jnp.inexact) for atom in eqn.outvars]

    def value(*operands: Any) -> list[Any]:
        found = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
        return [x for x, is_number in zip(found, kept, strict=True) if is_number]

    def derivative(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def along_ones(*operands: Any) -> list[Any]:
            def of(*own: Any) -> list[Any]:
                others = dict(enumerate(operands)) | dict(zip(numbers, own, strict=True))
                return function(*others.values())

            own = [operands[at] for at in numbers]
            if eqn.primitive.name == "custom_jvp_call":
                return list(jax.jvp(of, own, [jnp.ones_like(x) for x in own])[1])
            values, pull = jax.vjp(of, *own)
            return list(pull([jnp.ones_like(x) for x in values]))

        return along_ones

    found, function = _Fingerprint(b"", ()), value
    for order in range(ORDERS):
        function = derivative(function)
        try:
            closed = _jaxpr(function, tuple(operands))[0]
        except Exception:  # what has no derivative is not differentiated; of a first one nobody knows
            return found if order else _Fingerprint(b"", (eqn.params,))
        found = found.joined(_fingerprint(closed, values=True))
        if not any(_ruled(closed.jaxpr)):
            break
    return found


def _shape_and_dtype(aval: Any) -> tuple[tuple[int, ...], Any]:
    return aval.shape, aval.dtype


def _array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def unchanging(leaf: Any) -> Any:
    """An array that nobody changes in place: one of NumPy is copied."""
    return jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def _held(const: Any) -> Any:
    """An array in a program, as it is now: JAX keeps those of NumPy by reference."""
    return const if isinstance(const, jax.Array) else unchanging(np.asarray(const))


def _same(a: Any, b: Any) -> bool:
    if a is b or (checks.is_traced(a) and checks.is_traced(b)):
        return True
    if checks.is_traced(a) or checks.is_traced(
        b
    ):  # an array of the first trace, kept for the second: a key split again
        return False
    return _plain(a).dtype == _plain(b).dtype and _plain(a).tobytes() == _plain(b).tobytes()


def _plain(array: Any) -> np.ndarray:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array)


class _Fingerprint(NamedTuple):
    """A program written down: a digest of what can be, and a tuple of what cannot."""

    digest: bytes
    opaque: tuple[Any, ...]

    def joined(self, more: "_Fingerprint") -> "_Fingerprint":
        """That of a program and of what belongs to it."""
        return _Fingerprint(hashlib.sha256(self.digest + more.digest).digest(), (*self.opaque, *more.opaque))


def _fingerprint(closed: ClosedJaxpr, *, values: bool = False) -> _Fingerprint:
    """That of the operations, and of the `values` of the arrays that they hold."""
    writer = _Writer()
    writer.jaxpr(closed.jaxpr)
    writer.value(list(closed.consts) if values else [])
    return _Fingerprint(writer.hash.digest(), tuple(writer.opaque))


class _Writer:
    """Writes programs down, exactly: numbers by their bytes, variables by their place."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.opaque: list[Any] = []

    def text(self, *words: Any) -> None:
        self.hash.update(("\x00".join(map(str, words)) + "\x01").encode())

    def jaxpr(self, jaxpr: Jaxpr) -> None:
        places: dict[Any, int] = {}

        def new(variables: Sequence[Any]) -> None:
            for variable in variables:
                places[variable] = len(places)
                self.text(variable.aval, variable.aval.weak_type if hasattr(variable.aval, "weak_type") else "")

        def known(atoms: Sequence[Any]) -> None:
            for atom in atoms:
                if isinstance(atom, Literal):
                    self.text("literal", atom.aval)
                    self.value(atom.val)
                else:
                    self.text(places[atom])

        new([*jaxpr.constvars, *jaxpr.invars])
        for eqn in jaxpr.eqns:
            self.text(eqn.primitive.name)
            known(eqn.invars)
            for name in sorted(eqn.params):
                value = eqn.params[name]
                if eqn.primitive.name in RULES and not isinstance(value, (ClosedJaxpr, int)):
                    continue  # another function at every trace: see `_rule`
                self.text(name)
                self.value(value)
            new(eqn.outvars)
        known(jaxpr.outvars)

    def value(self, value: Any) -> None:
        if isinstance(value, ClosedJaxpr):
            self.jaxpr(value.jaxpr)
            self.value(list(value.consts))
        elif isinstance(value, Jaxpr):
            self.jaxpr(value)
        elif checks.is_traced(value):
            self.opaque.append(value)
        elif isinstance(value, (jax.Array, np.ndarray, np.generic)) or type(value).__name__ == "TypedNdArray":
            plain = _plain(value)
            self.text("array", plain.dtype, plain.shape)
            self.hash.update(plain.tobytes())
        elif isinstance(value, dict):
            self.value(sorted(value.items(), key=repr))
        elif isinstance(value, (tuple, list)):
            self.text(type(value).__name__, len(value))
            for item in value:
                self.value(item)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype, type)):
            self.text(type(value).__name__, repr(value))
        else:
            self.text(type(value).__name__)
            self.opaque.append(value)


def _ruled(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations that carry rules of derivatives."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in RULES:
            yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _ruled(inner)


HOLDERS: list[type] = []
"""Classes of functions that are made of functions; see `holder`."""


def holder(cls: C) -> C:
    """Register a frozen dataclass as a pytree: fields that hold programs are its children, all others are static."""
    names = [field.name for field in dataclasses.fields(cls)]

    def flatten(self: Any) -> tuple[tuple[Any, ...], Any]:
        values = {name: getattr(self, name) for name in names}
        static = {name: value for name, value in values.items() if not is_program(value)}
        return tuple(v for name, v in values.items() if name not in static), tuple(static.items())

    def unflatten(static: Any, children: Sequence[Any]) -> Any:
        known = dict(static)
        others = (name for name in names if name not in known)
        return cls(**known, **dict(zip(others, children, strict=True)))

    HOLDERS.append(cls)
    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls


def is_program(value: Any) -> bool:
    """Whether a value is a program, or made of such."""
    return isinstance(value, (Program, *HOLDERS))


def is_captured(value: Any) -> bool:
    """Whether a function has been captured already, or is made of what has."""
    if isinstance(value, tuple(HOLDERS)):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]  # every holder is a dataclass
        return any(is_captured(getattr(value, field.name)) for field in fields)
    return isinstance(value, Program)


def jit(function: Callable[P, R], /) -> Callable[P, R]:
    """`jax.jit`, with the types of the function."""
    return cast(Callable[P, R], jax.jit(function))


@overload
def compiled(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def compiled(*, static: Sequence[str]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def compiled(function: Callable[..., Any] | None = None, /, *, static: Sequence[str] = ()) -> Callable[..., Any]:
    """`jax.jit`, with what goes wrong in a user's function told in a sentence; `static` names static arguments."""
    if function is None:
        return functools.partial(compiled, static=static)
    fast = jax.jit(function, static_argnames=tuple(static))

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            with _unlogged(), full_precision((arguments, options)):
                return fast(*arguments, **options)
        except Exception as error:
            explain(error, label_of((arguments, options)))
            raise

    return called


def label_of(tree: Any) -> Label:
    """The label of the first program in a pytree."""
    programs = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Program))
    return next((program.label for program in programs if isinstance(program, Program)), Label("steppe", "function"))


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


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """JAX logs tracebacks of callbacks that fail, and raises them too: the second is enough."""
    log = logging.getLogger("jax._src.callback")
    log.addFilter(_nothing)
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


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

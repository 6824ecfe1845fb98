"""Every check of what a user hands in, and the one error that says what was wrong.

A message reads ``<function>: <name> must be <what>, got <value>. <what to do>.`` Values that JAX
traces have no range yet, so range checks let them pass: sweeps check on the host, before tracing.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any, NoReturn, cast

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import process
from steppe.core.types import Batch, Key, Params


class InputError(ValueError):
    """Something a user handed in cannot be used; the message says what, and what to do."""


def fail(function: str, name: str, what: str, got: Any, todo: str = "") -> NoReturn:
    """Raise the one form of error. `got` is a value, or words for what came (give strings through `shown`)."""
    came = got if isinstance(got, str) else shown(got)
    raise InputError(process.printable(f"{function}: {name} must be {what}, got {came}.{' ' + todo if todo else ''}"))


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not write integers of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."


def joined(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of three or more semicolons where items hold commas themselves."""
    *head, last = list(items)
    mark = "; " if len(head) > 1 and any(", " in item for item in (*head, last)) else ", "
    return f"{mark.join(head)}{';' if mark == '; ' else ''} and {last}" if head else last


def nearest(word: str, known: Iterable[str]) -> str:
    """``Did you mean 'x'?`` where a known name is near, otherwise the names there are."""
    known = list(known)
    return close_to(word, known) or f"There are: {', '.join(known) or 'none'}."


def close_to(word: Any, known: Iterable[Any]) -> str:
    """``Did you mean 'x'?`` where a known name is near, otherwise nothing."""
    folded = {name.casefold(): name for name in known if isinstance(name, str)}
    close = difflib.get_close_matches(str(word).casefold(), folded, n=1)
    return f"Did you mean {folded[close[0]]!r}?" if close and folded[close[0]] != word else ""


def one_of(function: str, name: str, value: Any, options: Iterable[Any]) -> Any:
    """`value` itself, if it is among the options."""
    options = list(options)
    if not any(type(value) is type(option) and value == option for option in options):
        fail(function, name, "one of " + ", ".join(map(repr, options)), shown(value), close_to(value, options))
    return value


def is_traced(value: Any) -> bool:
    """Whether a value is known only to a JAX transformation."""
    return isinstance(value, jax.core.Tracer)


def whole(function: str, name: str, value: Any, *, least: int = 1, most: int = 2**31 - 1, todo: str = "") -> int:
    """A Python int within [least, most]; JAX counts in 32 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        fail(function, name, f"a whole number of at least {least}", shown(value), todo)
    if value > most:
        fail(function, name, f"a whole number of at most {most}", shown(value), todo)
    return int(value)


def real(function: str, name: str, value: Any, *, least: float = -math.inf, most: float = math.inf) -> Any:
    """A finite real scalar within [least, most]; a traced scalar passes unread."""
    what = (
        "a finite number"
        + (f" >= {least:g}" if least > -math.inf else "")
        + (f" <= {most:g}" if most < math.inf else "")
    )
    if is_traced(value):
        if value.ndim != 0:
            fail(function, name, "a scalar", f"a traced array of shape {value.shape}")
        return value
    try:
        number = float(value) if np.ndim(value) == 0 and not isinstance(value, (bool, str)) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        fail(function, name, what, shown(value))
    return value


def positive(function: str, name: str, value: Any) -> Any:
    """A finite real scalar above 0; a traced scalar passes unread."""
    if not is_traced(real(function, name, value, least=0.0)) and value == 0:
        fail(function, name, "above 0", value)
    return value


def real_or_schedule(function: str, name: str, value: Any, *, least: float = -math.inf) -> Any:
    """A real scalar (see `real`) or an Optax schedule, a function of the step."""
    return value if callable(value) else real(function, name, value, least=least)


def key_array(function: str, key: Key) -> jax.Array:
    """A JAX key array from a seed, an integer that may be traced, or a key."""
    dtype = getattr(key, "dtype", None)
    is_int = isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63
    if is_int or (dtype is not None and jnp.issubdtype(dtype, jnp.integer) and jnp.ndim(key) == 0):
        return jax.random.key(key)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or jnp.issubdtype(dtype, jnp.integer)):
        fail(function, "key", "an int or a JAX key array", shown(key))
    if jnp.issubdtype(dtype, jnp.integer) and not _is_key_data(key):
        fail(function, "key", "an int or a JAX key array", returned(key), "Make one: jax.random.key(0).")
    return cast(jax.Array, key)


def _is_key_data(key: Any) -> bool:
    """Whether integers are one key of the old form, as jax.random.PRNGKey makes it."""
    return key.dtype == jnp.uint32 and jnp.shape(key) == jax.random.key_data(jax.random.key(0)).shape


def floating(function: str, params: Params, *, if_masked: str = "Give it the whole parameters.") -> Params:
    """Parameters whose leaves are all floating-point arrays (not integers, not Optax's MaskedNode).

    `if_masked` says what to do instead of ``optax.masked``.
    """
    for path, leaf in jax.tree.leaves_with_path(params, is_leaf=lambda x: type(x).__name__ == "MaskedNode"):
        name = "params" + jax.tree_util.keystr(path)
        if type(leaf).__name__ == "MaskedNode":
            fail(function, name, "an array", "a MaskedNode, which hides it from the loss", if_masked)
        if type(leaf).__module__.partition(".")[0] == "torch":
            fail(function, name, "an array of JAX or NumPy", "a tensor of PyTorch",
                 "Take the params of steppe.from_torch(module, example).")  # fmt: skip
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            fail(
                function,
                name,
                "a floating-point array",
                f"a leaf of dtype {jnp.result_type(leaf)}",
                "Keep other state outside params.",
            )
    return params


def batch_size(function: str, batch: Batch) -> int:
    """The length B of the leading axis that all leaves of a batch share."""
    leaves = jax.tree.leaves(batch)
    if not leaves or any(jnp.ndim(leaf) == 0 for leaf in leaves):
        lists = any(isinstance(node, list) for node in jax.tree.leaves(batch, is_leaf=lambda n: isinstance(n, list)))
        todo = "Give lists of numbers as arrays: numpy.array(numbers)." if lists else ""
        bare = not leaves or leaves[0] is batch
        got = returned(batch) if bare else f"the shapes {shown(jax.tree.map(jnp.shape, batch))}"
        fail(function, "batch", "a pytree of arrays with a leading axis of examples", got, todo)
    sizes = {jnp.shape(leaf)[0] for leaf in leaves}
    if sizes == {0}:
        fail(function, "batch", "a batch with examples", "an empty one")
    if len(sizes) != 1:
        fail(
            function,
            "batch",
            "a pytree whose leaves share their leading axis",
            f"a batch with leading axes {sorted(sizes)}",
        )
    return sizes.pop()


def inputs_and_targets(function: str, batch: Batch) -> tuple[Any, Any]:
    """The x and y of a batch ``{"x": …, "y": …}`` or ``(x, y)``."""
    if isinstance(batch, dict) and {"x", "y"} <= batch.keys():
        return batch["x"], batch["y"]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    got = f"keys {sorted(map(str, batch))}" if isinstance(batch, dict) else returned(batch)
    fail(function, "batch", 'of the form {"x": …, "y": …} or (x, y)', got)


def one_scalar(function: str, name: str, value: Any) -> Any:
    """What a loss returned, if it is one real floating-point scalar; a Python float or one of NumPy is a constant."""
    if isinstance(value, (float, np.longdouble)):  # also np.float64
        return float(value) if isinstance(value, np.longdouble) else value
    if getattr(value, "shape", None) == () and jnp.issubdtype(value.dtype, jnp.floating):
        return value
    several = isinstance(value, (dict, tuple, list))
    todo = "Return the loss alone, without the other outputs." if several else "Return the mean over the batch."
    fail(function, name, "a function whose value is one floating-point scalar, the mean over the batch",
         returned(value), todo)  # fmt: skip


def returned(value: Any) -> str:
    """What a function returned, in words: kinds, dtypes and shapes, no numbers."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = f"{value.dtype} array of shape {tuple(value.shape)}" if value.shape else f"scalar of dtype {value.dtype}"
        return f"a{'n' if kind[0] in 'iu' and not kind.startswith('uint') else ''} {kind}"
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value)) or 'nothing in it'}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a value of type {type(value).__name__}"

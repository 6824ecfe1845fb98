"""A user's arrays as they are computed with: the same numbers, or one sentence on what would be lost.

JAX cuts integers to 32 bits and rounds floats to float32, in silence, unless it is told to compute in float64. What is
handed in passes through here first, while it is still what the user wrote.
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from steppe.core import checks

RESOLVED = 10
"""A feature's standard deviation is at least so many roundings, or else most of what it says would be lost."""

NOISE = 64
"""What varies by no more than so many roundings of its own dtype is a constant."""

WIDER = "Scale it, or compute in float64 (--dtype float64; jax_enable_x64 in Python)."


def exact_tree(function: str, name: str, tree: Any, *, dtype: Any = None) -> Any:
    """Every leaf of a pytree as `exact` gives it, named by its place in the tree."""

    def one(path: Any, leaf: Any) -> Any:
        return exact(function, name + jax.tree_util.keystr(path), leaf, dtype=dtype)

    try:
        return jax.tree.map_with_path(
            one, tree, is_leaf=lambda node: hasattr(node, "__next__")
        )  # JAX warns of iterators
    except checks.InputError:
        raise
    except (ValueError, TypeError, RecursionError) as error:  # keys of several types, a dictionary that holds itself
        checks.fail(function, name, "a pytree that JAX can take apart", f"one that it cannot: {_first(error)}")


def exact_batches(function: str, name: str, batches: Any, *, dtype: Any = None) -> list[Any]:
    """Each of a list of batches, or the only one, as `exact_tree` gives it; all together tell their examples apart.

    Raises
    ------
    InputError
        As `exact`; features whose values in all batches vary by hardly more than they are rounded: timestamps.
    """
    named = [(name, batches)]
    if isinstance(batches, list):
        named = [(f"{name}[{place}]", batch) for place, batch in enumerate(batches)]
    taken = [exact_tree(function, *pair, dtype=dtype) for pair in named]
    rounded: dict[Any, list[tuple[str, np.ndarray]]] = {}
    for (called, given), batch in zip(named, taken, strict=True):
        paths = jax.tree.leaves_with_path(given)
        for (path, leaf), own in zip(paths, jax.tree.leaves(batch), strict=True):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                _refused(function, called + jax.tree_util.keystr(path), "a shape without values")
            if isinstance(leaf, jax.Array) or not jnp.issubdtype(own.dtype, jnp.floating) or not np.ndim(own):
                continue
            wide = np.asarray(leaf)
            if wide.dtype.itemsize > own.dtype.itemsize:
                place = jax.tree_util.keystr(path)
                rounded.setdefault((place, own.dtype, own.shape[1:]), []).append((called + place, wide))
    for (_, target, _), parts in rounded.items():
        arrays = [wide for _, wide in parts]
        check_resolved(function, parts[-1][0], arrays[0] if len(arrays) == 1 else np.concatenate(arrays), target)
    return taken


def exact(function: str, name: str, value: Any, *, dtype: Any = None) -> Any:
    """An array of numbers as JAX computes with it, equal to what was handed in up to the usual rounding of floats.

    Parameters
    ----------
    function, name : str
        What is named in errors.
    value : array
        Of any library. An array of JAX, traced or not, is what it is already.
    dtype : dtype, optional
        For floats; otherwise the one that JAX gives theirs.

    Returns
    -------
    numpy.ndarray, numpy.generic, or jax.Array
        Whole numbers keep their values, in 32 bits where JAX has no more.

    Raises
    ------
    InputError
        What is no array of numbers; whole numbers beyond 32 bits; floats beyond the dtype, or that vanish in it.

    Examples
    --------
    >>> exact("example", "x", np.array([1, 2**31 - 1])).dtype
    dtype('int32')
    """
    if isinstance(value, jax.ShapeDtypeStruct):
        return value
    if isinstance(value, jax.Array):
        if not checks.is_traced(value) and value.is_deleted():
            _refused(function, name, "one that was deleted or donated", "Make it anew, or keep a copy.")
        floats = dtype is not None and jnp.issubdtype(value.dtype, jnp.floating)
        return value.astype(dtype) if floats else value
    array = numbers(function, name, value)
    if array.dtype.kind in "iu":
        return _whole(function, name, array)
    if array.dtype.kind in "fc":
        return _rounded(function, name, array, dtype)
    floats = dtype is not None and jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16 and its like
    return array.astype(dtype) if floats else array


def numbers(function: str, name: str, value: Any) -> np.ndarray:
    """A value of any library as an array of numbers of NumPy, in this machine's order of bytes.

    Raises
    ------
    InputError
        What is none: text, dates, Python objects, structures, masked values, whatever is no array at all.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        _refused(function, name, "one with masked values", "Fill them, or leave those examples out.")
    try:
        array = np.asarray(value)
    except Exception as error:  # another library's array that cannot leave its device, or a ragged list
        _refused(function, name, f"a {type(value).__name__}, which fails to become one: {_first(error)}")
    if array.dtype.kind in "biufc" or array.dtype.isbuiltin == 2:  # 2: registered by ml_dtypes, such as bfloat16
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "O":
        _refused(function, name, *_of_objects(value, array))
    if array.dtype.kind in "mM":
        _refused(function, name, f"dates or times ({array.dtype})", "Give the seconds since the first one, as floats.")
    if array.dtype.kind == "V":
        fields = ", ".join(map(repr, array.dtype.names or ())) or "none"
        _refused(function, name, f"a structured array with the fields {fields}", "Give each field as an array.")
    todo = "Number classes: numpy.unique(labels, return_inverse=True)[1]."
    _refused(function, name, f"text, {checks.shown(array.ravel()[0].item() if array.size else '')}", todo)


def _of_objects(value: Any, array: np.ndarray) -> tuple[str, str]:
    """What an array of Python objects is, and what to do."""
    if hasattr(value, "__next__") or hasattr(value, "__aiter__"):
        return f"a {type(value).__name__}, which gives its parts once", "Give a list: list(batches)."
    if array.ndim == 0 and not isinstance(value, (np.ndarray, int)):
        todo = "Call it, and give what it returns." if callable(value) else "Give arrays of NumPy or JAX."
        return f"a value of type {type(value).__name__}", todo
    large = next((item for item in array.ravel() if isinstance(item, int)), None)
    if large is not None and all(isinstance(item, (int, float)) for item in array.ravel()):
        return f"whole numbers beyond 64 bits, {checks.shown(max(array.ravel(), key=abs))}", "Scale or renumber them."
    kinds = sorted({type(item).__name__ for item in array.ravel()[:1000]})
    return f"an array of Python objects ({', '.join(kinds[:3]) or 'none'})", "Give it a dtype of numbers."


def _refused(function: str, name: str, got: str, todo: str = "") -> NoReturn:
    checks.fail(function, name, "an array of numbers", got, todo)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _whole(function: str, name: str, array: np.ndarray) -> np.ndarray:
    target = jax.dtypes.canonicalize_dtype(array.dtype)
    if target == array.dtype or not array.size:
        return array.astype(target)
    least, most = (int(of(array)) for of in (np.min, np.max))
    bounds = np.iinfo(target)
    if least < bounds.min or most > bounds.max:
        what = f"of whole numbers from {bounds.min} to {bounds.max}, which 32 bits hold"
        checks.fail(function, name, what, str(most if most > bounds.max else least), WIDER)
    return array.astype(target)


def _rounded(function: str, name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    is_complex = array.dtype.kind == "c"
    double = jax.dtypes.canonicalize_dtype(np.complex128 if is_complex else np.float64)
    target = np.dtype(double if dtype is None or is_complex else dtype)
    if array.dtype.itemsize <= target.itemsize and (dtype is None or is_complex):
        return array
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = array.astype(target)
    if array.dtype.itemsize <= target.itemsize or not array.size:
        return narrow
    lost = np.isfinite(array) & ~np.isfinite(narrow)
    if lost.any():
        what = f"of numbers that {target} holds, at most {jnp.finfo(target).max:.2g}"
        checks.fail(function, name, what, f"{array[lost].flat[0]:g}", WIDER)
    if np.all(np.abs(narrow) < jnp.finfo(target).tiny) and np.any(array != 0):
        what = f"of numbers that {target} tells from 0, at least {jnp.finfo(target).tiny:.2g} in size"
        checks.fail(function, name, what, f"{array[array != 0].flat[0]:g}", WIDER)
    return narrow


def check_resolved(function: str, name: str, array: np.ndarray, dtype: Any, *, todo: str = "") -> None:
    """Fail where a feature of the examples, (N, …), varies by hardly more than it is rounded in a dtype: timestamps.

    What the dtype holds as it is loses nothing, however little it varies: a constant, rounded by another program.

    Examples
    --------
    >>> check_resolved("example", "x", np.array([0.0, 1.0]) + 1e5, np.float32)
    >>> check_resolved("example", "x", np.array([1.0, 1.0 + 2**-23]), np.float32)
    """
    if array.ndim == 0 or len(array) < 2:
        return
    whole = array.dtype.kind in "iuO"
    with np.errstate(all="ignore"):
        wide = array.astype(np.longdouble) if whole else array
        size, spread = np.max(np.abs(wide), axis=0), np.std(wide, axis=0)
        noise = NOISE * float(np.finfo(wide.dtype).eps) * size
        varies = np.min(wide, axis=0) < np.max(wide, axis=0) if whole else spread > noise
        rounding = float(jnp.finfo(dtype).eps) / 2
        lost = varies & (spread < RESOLVED * rounding * size)
        if np.any(lost) and not whole:
            error = np.sqrt(np.mean(np.square(wide - wide.astype(dtype)), axis=0))
            lost &= RESOLVED * error > spread
    if np.any(lost):
        place = tuple(int(i) for i in np.argwhere(lost)[0])
        feature = f" (feature {', '.join(map(str, place))})" if place else ""
        got = f"values around {float(size[place]):.3g} that differ by {float(spread[place]):.2g}{feature}"
        checks.fail(
            function,
            name,
            f"of values that {np.dtype(dtype)} tells apart",
            got,
            todo or f"Subtract their mean. {WIDER}",
        )


# --- Labels


def check_labels(function: str, labels: Any, outputs: int, *, ignore: int | None = None) -> None:
    """Fail where whole-number labels, if their values are known, are none of the classes that outputs stand for.

    Parameters
    ----------
    function : str
        What is named in errors.
    labels : array
        Whole numbers or bools.
    outputs : int
        K for the classes 0 to K − 1; 1 for 0 and 1.
    ignore : int, optional
        The label of what does not count.

    Raises
    ------
    InputError
        Labels outside, with what they seem to be.
    """
    if not _is_known(labels):
        return
    known, last = np.asarray(labels), max(outputs, 2) - 1
    counts = np.ones(known.shape, bool) if ignore is None else known != ignore
    outside = counts & ((known < 0) | (known > last))
    many = f"{outputs} outputs" if outputs > 1 else "one output"
    what = f"whole numbers from 0 to {last}, the classes of {many}" + (f", or {ignore}" if ignore is not None else "")
    if outside.any():
        row = int(np.argwhere(outside)[0][0]) if known.ndim else 0
        got = f"{int(known[outside].flat[0])} in example {row}"
        checks.fail(function, "labels", what, got, _remedy(known[counts], last, outputs))


def _remedy(labels: np.ndarray, last: int, outputs: int) -> str:
    """What to do with labels that are no classes."""
    kinds = set(np.unique(labels).tolist())
    outside = sorted(kind for kind in kinds if not 0 <= kind <= last)
    if outputs == 1 and kinds <= {-1, 1}:
        return "For one output, give (labels + 1) // 2."
    if outside == [last + 1] and 0 not in kinds:
        return "If they are counted from 1, subtract 1."
    if len(outside) == 1 and (outside[0] < 0 or outside[0] == 255):
        return f"If {outside[0]} marks what does not count, say so: ignore={outside[0]} (--ignore-label {outside[0]})."
    return "Are there more classes than outputs?" if outside[0] >= 0 else "Number the classes from 0."


def check_weights(function: str, weights: Any) -> None:
    """Fail where weights of labels, if their values are known, are negative or not finite.

    Raises
    ------
    InputError
        Such a weight.
    """
    if not _is_known(weights):
        return
    known = np.asarray(weights).astype(np.float64)
    outside = ~((known >= 0) & np.isfinite(known))
    if outside.any():
        got = f"{known[outside].flat[0]:g} in example {int(np.argwhere(outside)[0][0])}"
        checks.fail(function, "weights", "finite numbers of at least 0", got)


def check_probabilities(function: str, targets: Any, outputs: int) -> None:
    """Fail where probabilities of classes, if their values are known, are none: (…, K), or (…,) of class 1.

    Raises
    ------
    InputError
        Values outside 0 to 1, or that do not sum to 1.
    """
    if not _is_known(targets):
        return
    known = np.asarray(targets).astype(np.float64)
    slack = max(1e-3, 8 * float(jnp.finfo(targets.dtype).eps))
    whole = "If they are labels, give whole numbers: labels.astype(int)."
    outside = ~((known >= -slack) & (known <= 1 + slack))  # true for NaN as well
    if outside.any():
        got = f"{known[outside].flat[0]:g} in example {int(np.argwhere(outside)[0][0]) if known.ndim else 0}"
        checks.fail(function, "targets", "whole-number labels, or probabilities from 0 to 1", got, whole)
    if outputs > 1:
        sums = known.sum(axis=-1)
        odd = np.abs(sums - 1) > slack
        if odd.any():
            got = f"{sums[odd].flat[0]:.4g} in example {int(np.argwhere(odd)[0][0]) if sums.ndim else 0}"
            checks.fail(function, "targets", "whole-number labels, or probabilities that sum to 1", got)


def _is_known(array: Any) -> bool:
    """Whether an array's values can be looked at here."""
    traced = checks.is_traced(array) or isinstance(array, jax.ShapeDtypeStruct)
    return not traced and getattr(array, "is_fully_addressable", True)

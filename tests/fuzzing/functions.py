"""A user's functions and batches in `steppe.measure`: odd dtypes and labels, no arrays, functions that misbehave.

Whatever is measured must equal the closed form of NumPy, in float64, on the numbers that the user wrote.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from fuzzing import Ending, Verdict, judged
from steppe import measures

LARGE, SMALL = 400, 40

PARAMS = {"w": np.full((2, 3), 0.25, np.float32)}
COUNT = 4

SHAPE = jax.ShapeDtypeStruct((), jnp.float32)


def apply(params: Any, x: Any) -> Any:
    """A linear network of three classes."""
    return jnp.asarray(x, jnp.float32) @ params["w"]


def mean_of_squares(params: Any, batch: Any) -> Any:
    """A loss that reads the features alone."""
    return jnp.mean(jnp.square(apply(params, batch["x"])))


async def _waits(params: Any, batch: Any) -> Any:
    return mean_of_squares(params, batch)


def _yields(params: Any, batch: Any) -> Any:
    yield mean_of_squares(params, batch)


def _recurs(params: Any, batch: Any) -> Any:
    return _recurs(params, batch)


def _raises(error: BaseException) -> Callable:
    def loss(params: Any, batch: Any) -> Any:
        raise error

    return loss


def _splits_outside() -> Callable:
    held = [jax.random.key(0)]

    def loss(params: Any, batch: Any) -> Any:
        held[0], key = jax.random.split(held[0])
        return mean_of_squares(params, batch) + jax.random.normal(key, ())

    return loss


def _warns(params: Any, batch: Any) -> Any:
    warnings.warn("careful", stacklevel=1)
    return mean_of_squares(params, batch)


GOOD = {
    "plain": mean_of_squares,
    "partial": functools.partial(lambda more, p, b: more * mean_of_squares(p, b), 1.0),
    "jitted": jax.jit(mean_of_squares),
    "while": lambda p, b: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1]), (0, mean_of_squares(p, b))
    )[1],
    "callback": lambda p, b: jax.pure_callback(np.float32, SHAPE, mean_of_squares(p, b)),
    "debug": lambda p, b: (jax.debug.callback(lambda v: None, b["x"]), mean_of_squares(p, b))[1],
}
"""Losses whose value is known."""

BAD = {
    "warns": _warns,
    "async": _waits,
    "generator": _yields,
    "recursion": _recurs,
    "class": dict,
    "no arguments": lambda: 1.0,
    "keys": _splits_outside(),
    "exit": lambda p, b: sys.exit(3),
    "exits later": lambda p, b: jax.pure_callback(lambda v: sys.exit(3), SHAPE, mean_of_squares(p, b)),
    "fails later": lambda p, b: jax.pure_callback(lambda v: 1 // 0, SHAPE, mean_of_squares(p, b)),
    "branches": lambda p, b: 1.0 if mean_of_squares(p, b) > 0 else 2.0,
    "memory": _raises(MemoryError()),
    "generator exit": _raises(GeneratorExit()),
    "two lines": _raises(ValueError("two\nlines \x1b[31m")),
    "silent": _raises(type("Silent", (Exception,), {"__str__": lambda self: 1 // 0})()),
    "text": "mine:loss",
    "number": 3,
}
"""Losses that must be refused."""

RETURNED = (None, "a", b"a", [1.0], (1.0, 2.0), {"loss": 1.0}, 1, True, 1j, np.datetime64("2020"), np.array(None),
            np.zeros((), [("a", "f4")]), np.str_("a"), np.zeros(1), jax.random.key(0), object())  # fmt: skip
"""What no loss returns."""

DTYPES = ("f2", "f4", "f8", ">f8", "longdouble", "i1", "i4", "i8", ">i8", "u1", "u4", "u8", "?", "c8", "c16", "O", "U4",
          "S4", "M8[s]", "m8[s]", "V4")  # fmt: skip
VALUES = (0, 1, -1, 3, 100, 2**24 + 1, 2**31 - 1, 2**31, 1_700_000_000_000, 2**63 - 1, 0.5, 1e-3, 1e-300, 1e300, 1e38)
LABELS = (
    [0, 1, 2, 0], [-1, 0, 1, 2], [1, 2, 3, 1], [-100, 0, 1, 2], [0, 255, 1, 2], [0.0, 1.0, 2.0, 0.0],
    [0.0, 1e19, 2e19, 0.0], [True, False, True, True], ["a", "b", "a", "b"], [10**30, 0, 1, 2], [2**31, 0, 1, 2],
    [[1, 0, 0]] * 4, [[0.5, 0.25, 0.25]] * 4, [[1.0, 1.0, 1.0]] * 4, [[0], [1], [2], [0]], [float("nan")] * 4,
    [-100] * 4,
)  # fmt: skip
SHAPES = ("list", "generator", "nothing", "empty", "text", "function", "lists", "unequal", "tuple", "masked", "ragged")

SETTINGS = ({"probes": 10**12}, {"probes": 0}, {"probes": 1e3}, {"settings": 3}, {"key": "a"}, {"names": None},
            {"settings": {"trace": 3}}, {"ignore": 0.5})  # fmt: skip


@st.composite
def cases(draw):
    """(kind, what makes the case of it)."""
    kind = draw(st.sampled_from(["features", "labels", "function", "returned", "batches", "settings"]))
    if kind == "features":
        values = draw(st.lists(st.one_of(st.sampled_from(VALUES), st.floats(-1e6, 1e6)), min_size=8, max_size=8))
        return kind, (draw(st.sampled_from(DTYPES)), values)
    if kind == "labels":
        return kind, (draw(st.sampled_from(LABELS)), draw(st.sampled_from([None, None, -100, -1, 255])))
    if kind == "function":
        return kind, draw(st.sampled_from([*GOOD, *BAD]))
    if kind == "returned":
        return kind, draw(st.integers(0, len(RETURNED) - 1))
    if kind == "batches":
        return kind, draw(st.sampled_from(SHAPES))
    return kind, draw(st.sampled_from(SETTINGS))


CASES = cases()


def attempt(case: tuple[str, Any]) -> Verdict:
    """Measure the loss, and compare it with NumPy's."""
    kind, what = case
    given, expected = globals()[f"_{kind}"](what)
    found: list[float] = []

    def measure() -> None:
        arguments = {"names": ["loss"], "params": PARAMS, "batches": {"x": np.ones((COUNT, 2), np.float32)}} | given
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(measures.measure(**arguments)[0].value)

    verdict = judged(measure)
    if verdict.ending is not Ending.ACCEPTED:
        return verdict
    right = expected is not None and np.isclose(found[0], expected, rtol=1e-3, atol=1e-6)
    return Verdict(Ending.ACCEPTED if right else Ending.WRONG, f"{found[0]} for {expected}")


def _features(what: tuple[str, list[float]]) -> tuple[dict[str, Any], float | None]:
    dtype, values = what
    try:
        with np.errstate(all="ignore"):
            if np.dtype(dtype).kind in "iu":
                bounds = np.iinfo(dtype)
                values = [min(max(int(value), bounds.min), bounds.max) for value in values]
            x = np.array([v if np.dtype(dtype).kind != "M" else int(v) % 2**31 for v in values]).astype(dtype)
    except (ValueError, TypeError, OverflowError):
        x = np.zeros(8, "O")
    x = x.reshape(COUNT, 2)
    if x.dtype.kind not in "biuf":
        return {"loss": mean_of_squares, "batches": {"x": x}}, None if x.dtype.kind != "c" else _squares(x.real)
    return {"loss": mean_of_squares, "batches": {"x": x}}, _squares(x)


def _squares(x: np.ndarray) -> float:
    """The closed form of `mean_of_squares`."""
    with np.errstate(all="ignore"):
        return float(np.mean(np.square(x.astype(np.float64) @ np.full((2, 3), 0.25))))


def _labels(what: tuple[list[Any], int | None]) -> tuple[dict[str, Any], float | None]:
    y, ignore = what
    x = np.arange(2 * COUNT, dtype=np.float32).reshape(COUNT, 2) / 8
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3) / 4}
    given = {"apply": apply, "params": params, "batches": {"x": x, "y": np.array(y)}, "ignore": ignore}
    z = x.astype(float) @ params["w"]
    log_p = z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))
    labels = np.array(y)
    if labels.dtype.kind == "f" and labels.shape == z.shape and ignore is None:
        return given, -float(np.mean(np.sum(labels * log_p, axis=-1)))
    if labels.dtype.kind not in "bi" or labels.ndim != 1:
        return given, None
    counts = np.ones(COUNT, bool) if ignore is None else labels != ignore
    known = labels.astype(int)
    if not counts.any() or not np.isin(known[counts], [0, 1, 2]).all():
        return given, None
    return given, -float(np.mean([log_p[i, known[i]] for i in range(COUNT) if counts[i]]))


def _function(what: str) -> tuple[dict[str, Any], float | None]:
    if what in GOOD:
        return {"loss": GOOD[what]}, _squares(np.ones((COUNT, 2)))
    return {"loss": BAD[what]}, None


def _returned(what: int) -> tuple[dict[str, Any], float | None]:
    return {"loss": lambda params, batch: RETURNED[what]}, None


def _batches(what: str) -> tuple[dict[str, Any], float | None]:
    x = np.arange(2.0 * COUNT).reshape(COUNT, 2)
    batch = {"x": x}
    made: dict[str, tuple[Any, float | None]] = {
        "list": ([{"x": x[:3]}, {"x": x[3:]}], _squares(x)),
        "generator": ((batch for _ in range(3)), None),
        "nothing": ([], None),
        "empty": ({"x": x[:0]}, None),
        "text": ("data.npz", None),
        "function": (lambda: batch, None),
        "lists": ({"x": x.tolist()}, None),
        "unequal": ([batch, {"x": np.ones((COUNT, 5))}], None),
        "tuple": ((x, x), None),
        "masked": ({"x": np.ma.masked_less(x, 3)}, None),
        "ragged": ({"x": x, "z": x[:2]}, None),
    }
    batches, expected = made[what]
    return {"loss": mean_of_squares, "batches": batches}, expected


def _settings(what: dict[str, Any]) -> tuple[dict[str, Any], None]:
    return {"loss": mean_of_squares, "names": ["trace"]} | what, None

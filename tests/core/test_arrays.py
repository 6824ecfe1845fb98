"""A user's arrays: the same numbers where they are computed with, or one sentence on what would be lost."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, curvature, landscape, measures, methods, sharpness
from steppe.core import arrays, losses, predictions
from steppe.core.batches import gather
from steppe.networks.measurement import read_targets
from steppe.networks.settings import Settings, UserNetwork

W = {"w": jnp.asarray(np.arange(6).reshape(2, 3) / 4, jnp.float32)}
X = np.arange(8, dtype=np.float32).reshape(4, 2) / 8


def apply(params, x):
    return x @ params["w"]


def complaint(call, *arguments, **settings):
    """The one sentence that a call is refused with."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    message = str(caught.value)
    assert message.isprintable() and message.endswith((".", "?"))
    return message


REFUSED = {
    "beyond 32 bits": (np.full((2, 2), 1_700_000_000_000), "whole numbers from -2147483648 to 2147483647"),
    "below 32 bits": (np.full((2, 2), -(2**31) - 1), "got -2147483649"),
    "unsigned": (np.full((2, 2), 2**63, np.uint64), "from 0 to 4294967295"),
    "beyond 64 bits": (np.full((2, 2), 10**30), "beyond 64 bits"),
    "beyond float32": (np.full((2, 2), 1e300), "that float32 holds, at most 3.4e+38, got 1e+300"),
    "below float32": (np.full((2, 2), 1e-300), "tells from 0"),
    "timestamps": (1.7e12 + np.arange(4.0).reshape(2, 2), "values that float32 tells apart"),
    "dates": (np.zeros((2, 2), "M8[s]"), "dates or times (datetime64[s])"),
    "text": (np.array(["a", "b"]), "got text, 'a'. Number classes"),
    "objects": (np.array([1.5, None], object), "Python objects (NoneType, float)"),
    "structure": (np.zeros(2, [("a", "f4")]), "structured array with the fields 'a'"),
    "masked": (np.ma.masked_less(np.arange(4.0), 2), "masked values"),
    "generator": ((i for i in range(3)), "a generator, which gives its parts once. Give a list"),
    "function": (lambda: 3, "a value of type function. Call it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_jax_would_change_in_silence_is_refused(name):
    value, words = REFUSED[name]
    assert words in complaint(gather, "measure", {"x": value})
    if isinstance(value, np.ndarray) and not np.ma.isMaskedArray(value) and value.dtype.kind in "iuf":
        assert "measure: batches[1]['x'] must be" in complaint(gather, "measure", [{"x": X}, {"x": value}])


KEPT = (
    np.array([2**31 - 1, -(2**31)]), np.array([2**32 - 1], np.uint64), np.array([1, 2], ">i8"), np.array([True, False]),
    np.array([1.5, -2.0], np.longdouble), np.array([0.5], ">f8"), np.array([1.0, 2.0], np.float16),
    np.array([np.nan, np.inf, 1.0]), np.array([0.0, 1e-300]) + 1.0, np.full(3, 1.7e18), np.zeros(0), np.array([1 + 2j]),
)  # fmt: skip


def test_what_rounding_loses_is_judged_by_all_batches_together():
    far = [{"x": np.array([1e6, 9e6])}, {"x": np.array([5e6, 5e6 + 0.4])}]
    assert gather("measure", far).examples == 4
    near = [{"x": 1.7e12 + np.array([i])} for i in range(3)]
    assert "measure: batches[2]['x'] must be of values that float32 tells apart" in complaint(gather, "measure", near)


def test_a_constant_that_another_program_rounded_to_float32_is_taken():
    assert gather("measure", {"x": np.float32([1, 1 - 2**-24, 1 + 2**-23]).astype(float)}).examples == 3


ODD = {
    "lists": ({"x": [0, 1]}, "got the shapes {'x': [(), ()]}. Give lists of numbers as arrays"),
    "a number": (3.0, "leading axis of examples, got a"),
    "keys of two types": ({1: X, "x": X}, "a pytree that JAX can take apart"),
    "a shape": ({"x": jax.ShapeDtypeStruct((4, 2), np.float32)}, "got a shape without values"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_batch_is_refused(name):
    batch, words = ODD[name]
    assert words in complaint(gather, "measure", batch)


def test_an_array_that_was_deleted_is_refused():
    array = jnp.ones((4, 2))
    array.delete()
    assert "got one that was deleted or donated" in complaint(gather, "measure", {"x": array})


def test_batches_of_shapes_that_a_function_does_not_take_are_told_apart_from_its_own_errors():
    wide = [{"x": X, "y": np.zeros(4, int)}, {"x": np.ones((4, 5), np.float32), "y": np.zeros(4, int)}]
    assert "It takes the first batches" in complaint(curvature.hessian, losses.of(apply), W, wide)
    assert "The error is its own." in complaint(curvature.hessian, losses.of(apply), W, wide[1:])


def test_a_key_is_no_array_of_numbers():
    loss = losses.of(apply)
    batch = {"x": X, "y": np.zeros(4, int)}
    assert "Make one: jax.random.key(0)." in complaint(curvature.loss_moments, loss, W, batch, jnp.arange(3))


@pytest.mark.parametrize("array", KEPT, ids=lambda a: a.dtype.str)
def test_what_is_taken_has_the_values_that_were_given(array):
    taken = jnp.asarray(arrays.exact_batches("example", "x", array)[0])
    np.testing.assert_allclose(np.asarray(taken), array.astype(taken.dtype), rtol=0)
    assert taken.shape == array.shape


def test_in_float64_all_64_bits_are_taken(x64):
    large = np.array([1_700_000_000_000, -(2**62)])
    np.testing.assert_array_equal(jnp.asarray(arrays.exact("example", "x", large)), large)
    assert arrays.exact("example", "x", np.array([1e300])).dtype == np.float64


def test_every_entry_refuses_what_would_be_cut():
    batch = {"x": X, "y": np.array([0, 1, 2, 2**40])}
    loss = losses.of(apply)
    for call in (
        lambda: measures.measure(["loss"], apply=apply, params=W, batches=batch),
        lambda: measures.measure(["loss"], loss=loss, params={"w": W["w"], "n": np.array(2**40)}, batches={"x": X}),
        lambda: curvature.hessian(loss, W, batch),
        lambda: sharpness.sam_sharpness(loss, W, [batch]),
        lambda: losses.cross_entropy(apply(W, X), batch["y"]),
        lambda: curvature.loss_moments(loss, W, batch, 0),
        lambda: methods.sam(0.1).update(W, methods.sam(0.1).init(W), W, loss=loss, batch=batch),
    ):
        assert "must be of whole numbers from -2147483648 to 2147483647" in complaint(call)


# --- Labels

LABELS = {
    "negative": ([0, -1, 2, 1], "got -1 in example 1. If -1 marks what does not count, say so: ignore=-1"),
    "ignored": ([0, 1, -100, -100], "ignore=-100 (--ignore-label -100)"),
    "unsigned": (np.array([0, 255, 1, 2], np.uint8), "ignore=255"),
    "from one": ([1, 2, 3, 1], "got 3 in example 2. If they are counted from 1, subtract 1."),
    "too many": ([0, 1, 2, 9], "from 0 to 2, the classes of 3 outputs, got 9 in example 3. Are there more classes"),
    "floats": ([0.0, 1e19, 2e19, 0.0], "If they are labels, give whole numbers: y.astype(int)."),
    "one hot": (np.eye(3, dtype=int)[[0, 1, 2, 0]], "Of one-hot labels give y.argmax(axis=-1)."),
    "no sum": (np.full((4, 3), 0.5, np.float32), "probabilities that sum to 1, got 1.5 in example 0"),
    "no probability": (np.full((4, 3), np.nan, np.float32), "probabilities from 0 to 1, got nan in example 0"),
    "a column": ([[0], [1], [2], [0]], "Drop the last axis: y[..., 0]."),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_none_are_refused_with_what_they_seem_to_be(name):
    y, words = LABELS[name]
    y = np.array(y)
    assert words in complaint(losses.cross_entropy, apply(W, X), y)
    assert words in complaint(measures.measure, ["loss"], apply=apply, params=W, batches=[{"x": X, "y": y}])
    if y.ndim == 1 and y.dtype.kind in "iu":
        assert words in complaint(losses.unhinged, apply(W, X), y)
        assert words in complaint(predictions.correct, apply(W, X), y)
        assert words in complaint(sharpness.pac_bayes_sigma, apply, W, {"x": X, "y": y})


def test_every_entry_reads_the_labels():
    batch, loss = {"x": X, "y": np.array([0, 1, 2, 3])}, losses.of(apply)
    for call in (
        lambda: curvature.hessian(loss, W, batch),
        lambda: curvature.loss_moments(loss, W, batch, 0),
        lambda: landscape.surface(loss, W, batch, [W], np.zeros((1, 1))),
        lambda: landscape.surface(landscape.loss_and_accuracy(apply), W, batch, [W], np.zeros((1, 1))),
        lambda: landscape.interpolation(loss, W, W, batch, points=3),
    ):
        assert "from 0 to 2, the classes of 3 outputs, got 3 in example 3" in complaint(call)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with parameters, and a module of a user's functions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    monkeypatch.delitem(sys.modules, "hers", raising=False)
    Path("hers.py").write_text(
        "def apply(params, x):\n    return x @ params['w']\n\n\ndef nothing():\n    return None\n"
    )
    np.savez("net.npz", w=np.asarray(W["w"]))
    yield lambda data: next(
        iter(read_targets([Path("net.npz")], UserNetwork(apply="hers:apply", data=data), Settings(("loss",))))
    )
    sys.modules.pop("hers", None)


def test_a_wrong_label_is_told_by_its_row_in_the_file(mine):
    for row in range(4):
        np.savez("data.npz", x=X, y=np.where(np.arange(4) == row, 7, 1))
        assert f"got 7 in example {row}." in complaint(mine, "data.npz")


def test_a_function_of_data_that_returns_nothing_is_told_so(mine):
    assert "hers:nothing, which returned None" in complaint(mine, "hers:nothing")
    assert "--data must be a function without arguments, got hers:apply: TypeError" in complaint(mine, "hers:apply")
    assert "of the form module:function" in complaint(
        read_targets, [Path("net.npz")], UserNetwork(apply="../hers:apply", data="a.npz"), Settings(("loss",))
    )


def test_logits_need_an_axis_of_classes():
    assert "Add an axis: outputs[..., None]." in complaint(losses.cross_entropy, jnp.zeros(4), np.zeros(4, int))


def test_one_logit_takes_0_and_1_alone():
    z = jnp.zeros((4, 1))
    assert "For one output, give (labels + 1) // 2." in complaint(losses.cross_entropy, z, np.array([1, -1, 1, -1]))
    assert "from 0 to 1, the classes of one output, got 2" in complaint(losses.cross_entropy, z, np.array([0, 1, 2, 0]))
    for y in (
        np.array([0, 1, 1, 0]),
        np.array([False, True, True, False]),
        np.array([0.0, 1.0, 0.5, 0.25], np.float32),
    ):
        assert float(losses.cross_entropy(z, y)) == pytest.approx(np.log(2))


@pytest.mark.slow
def test_examples_of_ignored_labels_are_none_of_those_that_a_bound_counts():
    y = np.array([0, -100, 2, -100])
    known, criterion = y != -100, losses.weighted_cross_entropy(ignore=-100)
    batches = [{"x": X[:3], "y": y[:3]}, {"x": X[3:], "y": y[3:]}]
    for call in (
        lambda batches: sharpness.pac_bayes(apply, W, batches, criterion=criterion, steps=2, draws=2).flatness,
        lambda batches: sharpness.takeuchi(apply, W, batches, criterion=criterion).gap.mean,
    ):
        assert float(call(batches)) == pytest.approx(float(call({"x": X[known], "y": y[known]})), rel=1e-4)


@pytest.mark.slow
def test_an_ignored_label_counts_nowhere_however_the_examples_are_split():
    y = np.array([0, -100, 2, -100])
    known = y != -100
    batches = [{"x": X[:3], "y": y[:3]}, {"x": X[3:], "y": y[3:]}]
    names = ["loss", "accuracy"]
    given = {"apply": apply, "params": W}
    found = measures.measure(names, batches=batches, ignore=-100, **given)
    expected = measures.measure(names, batches={"x": X[known], "y": y[known]}, **given)
    np.testing.assert_allclose([r.value for r in found], [r.value for r in expected], rtol=1e-5)
    assert "such that some count, got -100 alone" in complaint(
        measures.measure, ["loss"], batches={"x": X, "y": np.full(4, -100)}, ignore=-100, **given
    )
    with pytest.raises(InputError, match="ignore must be left out"):
        measures.measure(["loss"], batches=batches, ignore=-100, criterion=losses.unhinged, **given)
    ignoring = losses.weighted_cross_entropy(ignore=-100)  # which no label of 8 bits is
    assert float(ignoring(apply(W, X), y[known].astype(np.uint8).repeat(2))) > 0


def test_a_loss_that_is_not_finite_says_what_is_not():
    loss = lambda p, b: jnp.mean(b["x"] @ p["w"])
    holes = np.where(X > 0.5, np.nan, X)
    assert "batches['x'] is not: fill" in complaint(
        measures.measure, ["loss"], loss=loss, params=W, batches={"x": holes}
    )
    diverged = jax.tree.map(lambda w: w * jnp.nan, W)
    assert "params['w'] is not: has" in complaint(
        measures.measure, ["loss"], loss=loss, params=diverged, batches={"x": X}
    )

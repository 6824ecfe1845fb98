"""What is left of a task after fine-tuning to a loss on another one: the definition, and when there is no number."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from steppe import InputError, models, outcomes
from steppe.measures import measure
from steppe.outcomes.adaptation.forgetting import FineTuning
from support.properties import cheap

RANDOM = np.random.default_rng(0)
OLD, NEW = ({"x": RANDOM.normal(size=(size, 4)).astype(np.float32), "y": None} for size in (24, 40))
OLD["y"], NEW["y"] = (OLD["x"][:, 0] > 0).astype(np.int32), (NEW["x"][:, 1] > 0).astype(np.int32)
PARAMS = np.array([3.0, -1.0, 0.2, 0.0], np.float32)
PLAIN = {"optimizer": "sgd", "learning_rate": 0.3, "batch_size": 8, "every": 5, "target": 0.4}


def linear(w, x):
    return (x @ w)[:, None]


def cross_entropy(w, batch):
    z = batch["x"].astype(np.float64) @ w
    return float(np.mean(np.logaddexp(0, z) - batch["y"] * z))


def by_hand(w, plan):
    """The same in NumPy, float64: losses on both tasks at each look, until the new one is at the target."""
    w, seen = w.astype(np.float64), [(cross_entropy(w, NEW), cross_entropy(w, OLD))]
    for rows in plan.rows(len(NEW["y"])):
        for row in rows:
            x, y = NEW["x"][row].astype(np.float64), NEW["y"][row]
            w = w - plan.learning_rate * x.T @ (special.expit(x @ w) - y) / len(row)
        seen.append((cross_entropy(w, NEW), cross_entropy(w, OLD)))
        if seen[-1][0] <= plan.target:
            break
    return seen


def test_it_is_the_rise_of_the_old_loss_where_the_new_one_passes_the_target():
    found = outcomes.forgetting(linear, jnp.asarray(PARAMS), OLD, NEW, **PLAIN)
    seen = by_hand(PARAMS, FineTuning(**PLAIN))
    (above, before), (below, after) = seen[-2:]
    assert above > 0.4 >= below and len(seen) > 3
    old = before + (after - before) * (above - 0.4) / (above - below)
    assert found.old_loss == pytest.approx(old, rel=1e-4)
    assert found.forgetting == pytest.approx(old - seen[0][1], rel=1e-4) and found.forgetting > 0.05
    assert 5 * (len(seen) - 2) < found.steps <= 5 * (len(seen) - 1)
    assert 0 <= found.old_accuracy <= 1 and found.reason == ""


def test_looking_more_often_finds_the_same():
    often = outcomes.forgetting(linear, jnp.asarray(PARAMS), OLD, NEW, **PLAIN | {"every": 1})
    seldom = outcomes.forgetting(linear, jnp.asarray(PARAMS), OLD, NEW, **PLAIN | {"every": 5})
    assert often.old_loss == pytest.approx(seldom.old_loss, rel=0.1)
    assert often.steps == pytest.approx(seldom.steps, abs=5)
    parts = [{name: leaf[at : at + 12] for name, leaf in OLD.items()} for at in (0, 12)]
    again = outcomes.forgetting(linear, jnp.asarray(PARAMS), parts, NEW, **PLAIN)
    assert again.forgetting == pytest.approx(seldom.forgetting, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": 5}, r"was 1\.\d+ after 5 updates, above the target, 0\.4"),
        ({"target": 5.0}, "before fine-tuning, no higher than the target, 5"),
        ({"learning_rate": 1e38}, r"diverged after 5 updates|not finite after \d+ updates"),
    ],
)
def test_without_the_target_there_is_a_reason_and_no_number(settings, reason):
    found = outcomes.forgetting(linear, jnp.asarray(PARAMS), OLD, NEW, **PLAIN | settings)
    assert np.isnan(found[:4]).all()
    assert re.search(reason, found.reason)


# --- new tasks


@cheap
@given(st.integers(0, 10**6), st.sampled_from([(7,), (4, 3), (4, 4, 3), (3, 4, 4)]))
def test_a_permutation_is_one_for_all_examples_and_loses_nothing(seed, shape):
    x = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    found = outcomes.new_task(x, [0, 1], seed=seed)["x"]
    assert found.shape == x.shape and found.dtype == x.dtype
    np.testing.assert_array_equal(found[1] - found[0], np.prod(shape))
    np.testing.assert_array_equal(np.sort(found[0].ravel()), x[0].ravel())
    assert not np.array_equal(found, x)
    if len(shape) == 3:  # the colours of a pixel stay together
        colours = found[0] if shape[-1] == 3 else np.moveaxis(found[0], 0, -1)
        own = x[0] if shape[-1] == 3 else np.moveaxis(x[0], 0, -1)
        assert {tuple(p) for p in colours.reshape(-1, 3)} == {tuple(p) for p in own.reshape(-1, 3)}


def test_words_change_places_and_padding_stays():
    tokens = np.array([[3, 5, 3, 0], [9, 0, 0, 0]], np.uint16)
    found = outcomes.new_task(tokens, [0, 1], seed=3)["x"]
    assert found.dtype == tokens.dtype and set(found.ravel()) == {0, 3, 5, 9} and found[0, 0] == found[0, 2]
    np.testing.assert_array_equal(found == 0, tokens == 0)
    rows = {"index": np.array([[0, 2], [1, 0]]), "value": np.array([[1.0, 2.0], [3.0, 0.0]])}
    sparse = outcomes.new_task(rows, [0, 1], seed=3)["x"]
    assert sorted(np.unique(sparse["index"])) == [0, 1, 2]
    np.testing.assert_array_equal(sparse["value"], rows["value"])


def test_images_are_turned_by_a_quarter():
    images = RANDOM.integers(0, 255, (2, 5, 5, 3)).astype(np.uint8)
    found = images
    for turn in range(1, 5):
        found = outcomes.new_task(found, [0, 1], "rotate")["x"]
        assert np.array_equal(found, images) == (turn == 4)
    first = np.moveaxis(images, -1, 1)
    turned = outcomes.new_task(first, [0, 1], "rotate")["x"]
    np.testing.assert_array_equal(np.moveaxis(turned, 1, -1), np.rot90(images, axes=(1, 2)))


# --- as a measure


def ask(**settings):
    rows = measure("forgetting", apply=linear, params=jnp.asarray(PARAMS), batches=[OLD],
                   settings={"forgetting": PLAIN | settings})  # fmt: skip
    return {row.quantity: row for row in rows}


def test_the_measure_makes_the_new_task_of_the_examples_there_are():
    found = ask()
    order = np.random.default_rng(0).permutation(24)
    new = outcomes.new_task(OLD["x"][order], OLD["y"][order])
    direct = outcomes.forgetting(linear, jnp.asarray(PARAMS), OLD, new, **PLAIN)
    for name, value in (("forgetting", direct.forgetting), ("old_task_loss", direct.old_loss),
                        ("old_task_accuracy", direct.old_accuracy), ("new_task_steps", direct.steps)):  # fmt: skip
        assert found[name].value == pytest.approx(value, rel=1e-4) and "the same examples" in found[name].note
    missing = ask(steps=5, target=0.01)["forgetting"]
    assert np.isnan(missing.value) and not missing.converged and "above the target, 0.01" in missing.note


def test_a_network_with_batch_norm_forgets_with_its_statistics_as_they_are():
    network = models.build("resnet", (4, 4, 1), 2, widths=[2], blocks=[1])
    params, state = network.init(jax.random.key(0))
    x = RANDOM.normal(size=(32, 4, 4, 1)).astype(np.float32)
    images = {"x": x, "y": (x[:, :2].mean((1, 2, 3)) > 0).astype(np.int32)}
    plan = {"target": 0.6, "learning_rate": 0.05, "batch_size": 16, "every": 5, "steps": 300}
    rows = measure("forgetting", apply=network.at(state), params=params, batches=images, settings={"forgetting": plan})
    assert all(np.isfinite(row.value) and row.converged for row in rows)
    logit = np.asarray(network.at(state)(params, x), float)[:, 0]
    start = float(np.mean(np.logaddexp(0, logit) - images["y"] * logit))
    assert rows[1].value - rows[0].value == pytest.approx(start, rel=1e-4)
    assert ("little to forget" in rows[0].note) == (start >= np.log(2))


def test_a_data_set_is_a_new_task_where_its_examples_have_the_form():
    circles = {"x": RANDOM.normal(size=(8, 2)).astype(np.float32), "y": np.array([0, 1] * 4, np.int32)}
    settings = {"task": {"name": "moons", "noise": 0.1}, "learning_rate": 0.1}
    rows = measure("forgetting", apply=linear, params=jnp.array([5.0, 1.0]), batches=circles,
                   settings={"forgetting": settings})  # fmt: skip
    assert rows[0].value != 0 and np.isfinite(rows[0].value) and "the same examples" not in rows[0].note
    with pytest.raises(InputError, match=r"float32 \(4,\), got one with float32 \(2,\)"):
        ask(task="moons")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: outcomes.forgetting(linear, PARAMS, OLD, NEW, optimizer="adm"), "Did you mean 'adam'"),
        (lambda: outcomes.forgetting(linear, PARAMS, OLD, NEW, target=-1.0), "target"),
        (lambda: outcomes.forgetting(linear, PARAMS, OLD, NEW, steps=15), "a multiple of every, 10"),
        (lambda: outcomes.forgetting(linear, PARAMS, OLD, NEW | {"y": NEW["y"] + 5}), "labels"),
        (lambda: outcomes.new_task(np.ones((2, 3)), [0, 1], "rotate"), "square images"),
        (lambda: outcomes.new_task(np.ones((2, 3)), [0, 1], "permutation"), "task"),
        (lambda: outcomes.new_task({"a": np.ones((2, 3))}, [0, 1]), "sparse rows"),
        (lambda: ask(task="moon"), "Did you mean 'moons'"),
        (lambda: ask(task=3), "the name of a data set"),
        (lambda: ask(examples=0), "examples"),
    ],
)
def test_what_cannot_be_asked_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()

"""Updates that Python calls by itself, outside of `jax.jit`."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import curvature, losses, methods
from steppe.core.types import Estimate
from steppe.methods import updates
from steppe.methods.settings import reads_of, settings_of

PARAMS = {"w": jnp.array([[0.3, -0.2], [0.1, 0.4]]), "b": jnp.zeros(2)}
BATCH = {"x": jnp.array([[1.0, 2.0], [0.5, -1.0], [0.0, 1.0], [2.0, 1.0]]), "y": jnp.array([0, 1, 1, 0])}


def logits(params, x):
    return jnp.tanh(x @ params["w"]) + params["b"]


LOSS = losses.of(logits, losses.cross_entropy)


def update(tx, loss=LOSS, state=None):
    gradient = jax.grad(loss)(PARAMS, BATCH)
    return tx.update(gradient, tx.init(PARAMS) if state is None else state, PARAMS, loss=loss, batch=BATCH)


@pytest.mark.parametrize("name", ["fa", "sam", pytest.param("esam", marks=pytest.mark.slow)])
def test_an_update_outside_of_jit_has_the_bits_of_a_jitted_one(name):
    tx, gradient = getattr(methods, name)(0.1), jax.grad(LOSS)(PARAMS, BATCH)
    given = (gradient, tx.init(PARAMS), PARAMS, BATCH)

    def step(gradient, state, params, batch):
        return tx.update(gradient, state, params, loss=LOSS, batch=batch)

    jax.tree.map(np.testing.assert_array_equal, step(*given), jax.jit(step)(*given))


def test_a_loss_made_anew_at_every_update_is_compiled_once_and_its_changes_are_seen(compilations):
    tx, zeros, seen, counts = methods.fa(0.1, probes=1), jax.tree.map(jnp.zeros_like, PARAMS), [], []
    for factor in (jnp.asarray(1.0), jnp.asarray(1.0), jnp.asarray(2.0)):
        loss = lambda params, batch, factor=factor: factor * LOSS(params, batch)
        seen.append(tx.update(zeros, tx.init(PARAMS), PARAMS, loss=loss, batch=BATCH)[0]["w"])
        counts.append(len(compilations))
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_allclose(seen[2], 4 * seen[0], rtol=1e-5)
    assert counts[0] > 0 and counts[2] == counts[1] == counts[0]


def scaled(factor):
    """A user's own function, made anew with a number that it holds."""
    return lambda loss, params, batch, key: Estimate(factor * loss(params, batch), 0.0)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(optax.inject_hyperparams(methods.sam), id="a scheduled strength"),
        pytest.param(lambda rho: methods.sam(float(rho(0)), microbatches=2), id="micro-batches"),
        pytest.param(
            lambda lam: optax.inject_hyperparams(methods.fa, static_args="curvature")(lam, curvature=scaled(2.0)),
            id="a user's function",
        ),
    ],
)
def test_a_method_that_is_made_anew_at_every_update_is_compiled_once(compilations, make):
    state, counts = None, []
    for number in range(3):
        tx = make(optax.linear_schedule(0.1 + number, 1.0, 5))
        _, state = update(tx, state=state)
        counts.append(len(compilations))
    assert counts[0] > 0 and counts[2] == counts[1]


def test_methods_share_programs_where_their_settings_are_equal():
    value = lambda **settings: np.asarray(update(methods.fa(0.1, probes=1, **settings))[0]["w"])
    np.testing.assert_array_equal(value(), value())
    assert not np.array_equal(value(), value(normalize=None))
    none, once, twice = (value(curvature=scaled(factor)) for factor in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(twice - once, once - none, rtol=1e-5)
    held = [jnp.ones(3), None, "a", (1, 2.0), {"b": True}]
    assert settings_of(held) == settings_of([*held]) != settings_of([jnp.zeros(3), *held[1:]])
    assert settings_of(True) != settings_of(1)
    assert settings_of([LOSS]) is None, "what is a user's own is kept for nobody"


FACTOR = 1.0


class Trainer:
    factor = 1.0
    array = jnp.ones(())


def set_factor(value):
    global FACTOR
    FACTOR, Trainer.factor, Trainer.array = value, value, jnp.asarray(value)


def in_module():
    return FACTOR


@pytest.mark.parametrize(
    ("read", "recompiled"),
    [
        pytest.param(in_module, True, id="a module's number"),
        pytest.param(lambda: Trainer.factor, True, id="an attribute"),
        pytest.param(lambda: Trainer.array, False, id="an array"),
    ],
)
def test_what_a_users_function_reads_is_seen_when_it_changes(compilations, read, recompiled):
    def curvature_of(loss, params, batch, key):
        value = read() * loss(params, batch)
        return Estimate(value, value)

    tx, zeros, seen, counts = methods.fa(0.1, curvature=curvature_of), jax.tree.map(jnp.zeros_like, PARAMS), [], []
    for factor in (1.0, 1.0, 2.0, 2.0):
        set_factor(factor)
        seen.append(tx.update(zeros, tx.init(PARAMS), PARAMS, loss=LOSS, batch=BATCH)[0]["w"])
        counts.append(len(compilations))
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_allclose(seen[3], 2 * seen[0], rtol=1e-6)
    assert counts[0] == counts[1] and counts[2] == counts[3]
    assert (counts[2] > counts[1]) == recompiled


def test_what_where_chooses_is_asked_at_every_update(compilations):
    chosen, counts = [True], []
    tx = methods.sam(0.5, where=lambda params: {"w": True, "b": chosen[0]})
    for flag in (True, True, False):
        chosen[0] = flag
        found = update(tx)[0]
        counts.append(len(compilations))
    jax.tree.map(np.testing.assert_array_equal, found, update(methods.sam(0.5, where="w"))[0])
    assert counts[0] == counts[1] < counts[2]


def test_a_function_that_reads_plain_values_is_not_traced_twice():
    held = {"a": [1.0]}
    plain = lambda loss, *given: curvature.loss_moments(loss, *given, probes=len(held["a"]))
    assert reads_of(plain) == reads_of(plain) is not None
    before = reads_of(plain)
    held["a"].append(2.0)
    assert reads_of(plain) != before
    assert reads_of(lambda: Trainer.factor) is reads_of(jax.vmap(plain)) is None


def test_a_method_that_is_gone_keeps_no_data_of_the_user():
    data = jnp.ones(())
    tx = methods.fa(0.1, curvature=scaled(data))
    update(tx)
    gone = [weakref.ref(thing) for thing in (tx.update, data)]
    del tx, data
    gc.collect()
    assert [thing() for thing in gone] == [None, None]


def test_programs_made_by_a_python_number_that_changes_are_said_once(monkeypatch):
    monkeypatch.setattr(updates, "MANY", 2)
    tx = methods.sam(0.2)
    step = lambda factor: update(tx, lambda params, batch: factor * LOSS(params, batch))
    step(1.0)
    with pytest.warns(UserWarning, match="sam: .* compiled 2 times. A Python number in the loss") as seen:
        step(2.0), step(3.0)
    assert len({str(warning.message) for warning in seen}) == 1


def test_a_loss_that_changes_from_call_to_call_runs_as_it_comes():
    calls = []

    def loss(params, batch):
        calls.append(1)
        return (1 + len(calls)) * LOSS(params, batch)

    found, _ = update(methods.fa(0.1, probes=1), loss)
    assert np.isfinite(found["w"]).all()


def test_a_schedule_may_be_plain_python():
    found = update(methods.fa(lambda number: 0.1 if int(number) < 3 else 0.0, probes=1))[0]
    jax.tree.map(np.testing.assert_array_equal, found, update(methods.fa(0.1, probes=1))[0])


def test_updates_in_between_run_no_program(monkeypatch):
    tx = methods.fa(0.1, probes=1, every=2)
    _, state = update(tx)
    monkeypatch.setattr(updates.entry, "capture_loss", lambda *_: pytest.fail("captured"))
    found, state = update(tx, state=state)
    jax.tree.map(np.testing.assert_array_equal, found, jax.grad(LOSS)(PARAMS, BATCH))
    assert int(state.count) == 2


def test_micro_batches_have_the_numbers_of_the_whole_batch():
    whole, parts = (update(methods.sam(0.05, microbatches=count))[0] for count in (None, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole, parts)

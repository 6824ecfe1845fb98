"""A training step as two programs: the one that acts, and the one that does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError, methods
from steppe.methods.contract import Phase, state_of


def loss(w, batch):
    return jnp.mean(jnp.tanh(batch @ w) ** 2)


def training(every=3):
    tx = optax.chain(methods.fa(0.5, every=every, probes=2), optax.sgd(0.1))

    @jax.jit
    def step(params, state, batch):
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    params = jnp.array([1.0, -2.0, 0.5])
    return step, (params, tx.init(params)), jnp.eye(4, 3)


def test_two_programs_train_as_one_with_a_branch():
    step, start, batch = training()
    whole, apart = start, start
    both = methods.specialize(step, every=3)
    for _ in range(7):
        whole, apart = step(*whole, batch), both(*apart, batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, apart)
    assert jax.tree.structure(apart) == jax.tree.structure(start)
    assert step._cache_size() == 3  # with a branch, acting, and not


def test_neither_program_has_a_branch():
    step, (params, (state, other)), batch = training()
    programs = [str(jax.make_jaxpr(step)(params, (state, other), batch))]
    for acts in (True, False):
        known = state_of("fa", Phase(3, acts))(*state)
        programs.append(str(jax.make_jaxpr(step)(params, (known, other), batch)))
    assert ["cond[" in program for program in programs] == [True, False, False]


def test_a_state_from_elsewhere_is_asked_for_its_number():
    step, start, batch = training()
    both = methods.specialize(step, every=3)
    one = both(*start, batch)
    two = both(*one, batch)
    for again, expected in ((both(*start, batch), one), (both(*one, batch), two)):
        jax.tree.map(np.testing.assert_array_equal, again, expected)


def test_a_method_of_another_every_keeps_its_branch():
    step, start, batch = training(every=2)
    both, whole, apart = methods.specialize(step, every=3), start, start
    for _ in range(4):
        whole, apart = step(*whole, batch), both(*apart, batch)
    np.testing.assert_allclose(whole[0], apart[0], rtol=1e-6)


def test_bad_calls_get_one_sentence():
    step, (params, state), batch = training()
    with pytest.raises(InputError, match="every must be a whole number of at least 1, got 0"):
        methods.specialize(step, every=0)
    with pytest.raises(InputError, match="step must be called with the state of a method among its arguments"):
        methods.specialize(lambda x: x, every=2)(params)
    with pytest.raises(InputError, match="a call inside jit or scan"):
        jax.jit(methods.specialize(step, every=3))(params, state, batch)

"""A training step as two programs: the one that acts, and the one that does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from steppe import InputError, methods
from steppe.methods.contract import Phase, state_of


def loss(w, batch):
    return jnp.mean(jnp.tanh(batch @ w) ** 2)


def training(every=3, updates=1, around=lambda tx: tx):
    tx = around(optax.chain(methods.fa(0.5, every=every, probes=2), optax.sgd(0.1)))

    @jax.jit
    def step(params, state, batch):
        for _ in range(updates):
            gradient = jax.grad(loss)(params, batch)
            found, state = tx.update(gradient, state, params, loss=loss, batch=batch)
            params = optax.apply_updates(params, found)
        return params, state

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


def test_states_are_numbered_by_the_updates_that_a_step_makes_of_each():
    step, start, batch = training(updates=2)
    once, other, _ = training()

    @jax.jit
    def swapped(one, two):
        return once(*two, batch), step(*one, batch)

    both = methods.specialize(swapped, every=3)
    whole, apart = (start, other), (start, other)
    for _ in range(4):
        whole, apart = swapped(*whole)[::-1], both(*apart)[::-1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, apart)


def test_steps_whose_number_of_updates_is_not_known_are_refused():
    step, start, batch = training()
    skipping = training(around=lambda tx: optax.apply_if_finite(tx, 3))
    scanned = jax.jit(lambda *start: jax.lax.scan(lambda carry, _: (step(*carry, batch), None), start, length=2)[0])

    @jax.jit
    def chosen(params, state):
        return jax.tree.map(lambda a, b: jnp.where(a > 0, a, b), step(params, state, batch), (params, state))

    for function, arguments in ((skipping[0], (*skipping[1], batch)), (scanned, start), (chosen, start)):
        with pytest.raises(InputError, match="step must be one whose number of updates is known"):
            methods.specialize(function, every=3)(*arguments)


def test_a_state_that_keeps_its_kind_is_asked_for_its_number():
    step, start, batch = training()

    @jax.jit
    def leafwise(*start):
        return jax.tree.unflatten(jax.tree.structure(start), jax.tree.leaves(step(*start, batch)))

    both, whole, apart = methods.specialize(leafwise, every=3), start, start
    for _ in range(5):
        whole, apart = step(*whole, batch), both(*apart)
    np.testing.assert_allclose(whole[0], apart[0], rtol=1e-6)


def test_objects_that_change_in_place_are_refused():
    step, start, batch = training()
    with pytest.raises(InputError, match="given what it does not change in place, got a Linear of NNX"):
        methods.specialize(step, every=3)(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), start[1], batch)


def test_bad_calls_get_one_sentence():
    step, (params, state), batch = training()
    with pytest.raises(InputError, match="every must be a whole number of at least 1, got 0"):
        methods.specialize(step, every=0)
    with pytest.raises(InputError, match="step must be called with the state of a method among its arguments"):
        methods.specialize(lambda x: x, every=2)(params)
    with pytest.raises(InputError, match="a call inside jit or scan"):
        jax.jit(methods.specialize(step, every=3))(params, state, batch)

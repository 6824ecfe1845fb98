"""What `steppe.monitor` finds: every method, wherever its state is, under a name of its own."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import steppe
from steppe.methods import METHODS, fa, nso, sam, seht, swa
from steppe.methods.contract import MethodState
from support.methods import EVERY


def quadratic(w, batch):
    return jnp.sum(w["a"] ** 2) / 2 + jnp.sum(w["b"] ** 2) + 0 * jnp.mean(batch)


W, BATCH = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(1)}, jnp.ones(2)
"""The gradient is (3, 4, 0), the Hessian diag(1, 1, 2): SAM logs ρ · 5, `fa` and `seht` 6 and 4, exactly."""


def stepped(tx, wrap=lambda update: update):
    """The state after one update."""
    update = wrap(lambda state: tx.update(jax.grad(quadratic)(W, BATCH), state, W, loss=quadratic, batch=BATCH)[1])
    return update(tx.init(W))


def means(state):
    return {name: round(float(value.mean), 4) for name, value in steppe.monitor(state).items()}


AROUND = {
    "a chain": lambda *parts: optax.chain(*parts, optax.adam(0.1)),
    "after clipping": lambda *parts: optax.chain(optax.clip(9.0), *parts, optax.sgd(0.1), swa()),
    "a chain within a chain": lambda *parts: optax.chain(optax.chain(*parts), optax.adamw(0.1)),
    "MultiSteps": lambda *parts: optax.chain(*parts, optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()),
    "apply_if_finite": lambda *parts: optax.apply_if_finite(optax.chain(*parts, optax.sgd(0.1)), 3),
    "masked": lambda *parts: optax.chain(*parts, optax.masked(optax.adam(0.1), {"a": True, "b": False})),
    "multi_transform": lambda *parts: optax.chain(
        *parts, optax.multi_transform({"x": optax.adam(0.1), "y": optax.set_to_zero()}, {"a": "x", "b": "y"})
    ),
    "a named chain": lambda *parts: optax.named_chain(
        *((f"part{i}", part) for i, part in enumerate(parts)), ("optimiser", optax.sgd(0.1))
    ),
}


@pytest.mark.parametrize("around", AROUND)
def test_methods_are_found_by_what_they_are_whatever_is_around_them(around):
    assert means(stepped(AROUND[around](sam(0.1), fa(0.01)))) == {"sam": 0.5, "fa": 6.0}


def test_a_method_with_injected_settings_is_found():
    injected = optax.inject_hyperparams(fa, static_args=("probes",))(lam=0.01, probes=3)
    assert means(stepped(optax.chain(injected, optax.sgd(0.1)))) == {"fa": 6.0}


def test_the_values_are_the_same_under_jit_and_the_program_computes_nothing_more():
    tx = optax.chain(fa(0.01), optax.sgd(0.1))
    assert means(stepped(tx, jax.jit)) == {"fa": 6.0}
    state = tx.init(W)
    inside = jax.make_jaxpr(lambda state: jax.tree.leaves(steppe.monitor(state)))(state)
    assert not inside.eqns


def test_an_ensemble_has_a_value_for_each_member():
    tx = optax.chain(fa(0.01), optax.sgd(0.1))
    states = jax.vmap(lambda scale: stepped_from(tx, scale))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(steppe.monitor(states)["fa"].mean, [6.0, 24.0])


def stepped_from(tx, scale):
    loss = lambda w, batch: scale * quadratic(w, batch)
    return tx.update(jax.grad(loss)(W, BATCH), tx.init(W), W, loss=loss, batch=BATCH)[1]


def test_methods_of_one_kind_have_names_of_their_own():
    state = stepped(optax.chain(fa(0.01), seht(0.01), fa(0.02), optax.sgd(0.1)))
    assert means(state) == {"fa_1": 6.0, "seht": 4.0, "fa_2": 6.0}
    named = stepped(optax.named_chain(("late", fa(0.01)), ("early", fa(0.02)), ("optimiser", optax.sgd(0.1))))
    assert means(named) == {"early/fa": 6.0, "late/fa": 6.0}


def test_what_has_not_acted_is_nan_and_no_method_is_nothing():
    assert np.isnan(steppe.monitor(optax.chain(fa(0.01), optax.sgd(0.1)).init(W))["fa"].mean)
    assert np.isnan(steppe.monitor(stepped(fa(0.0)))["fa"].mean)
    assert steppe.monitor(optax.adam(0.1).init(W)) == {} == steppe.monitor(None)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_found_by_its_name(name):
    made = next(make for key, make in EVERY.items() if key.partition(" ")[0] == name)
    assert list(steppe.monitor(made(0.1).init(W))) == [name]


def test_a_state_that_was_pickled_copied_or_rebuilt_keeps_its_name():
    state = nso(0.1).init(W)
    for again in (
        pickle.loads(pickle.dumps(state)),
        copy.deepcopy(state),
        jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(state)),
    ):
        assert list(steppe.monitor(again)) == ["nso"] and jax.tree.structure(again) == jax.tree.structure(state)
    assert list(steppe.monitor(MethodState(*state))) == ["method"]


def test_the_optimiser_of_flax_nnx_is_looked_into():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimiser = nnx.Optimizer(model, optax.chain(fa(0.01), optax.sgd(0.1)), wrt=nnx.Param)
    found = steppe.monitor(optimiser.opt_state)
    assert isinstance(found["fa"].mean, jax.Array) and np.isnan(found["fa"].mean)

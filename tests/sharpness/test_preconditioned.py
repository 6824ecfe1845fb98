"""The Hessian in the units of an adaptive optimiser's steps, against dense matrices; and where steps diverge."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError
from steppe.sharpness import preconditioned_sharpness, preconditioner
from steppe.sharpness.preconditioned import ADAM, RMS, stability_limit
from support.networks import dense_hessian, mlp_batch, mlp_loss, mlp_params

OPTIMISERS = {
    "adam": (lambda: optax.adam(0.01), {}),
    "adamw in a chain": (lambda: optax.chain(optax.clip(5.0), optax.adamw(0.01, b1=0.8, b2=0.99, eps=1e-4)),
                         {"b1": 0.8, "b2": 0.99, "eps": 1e-4, "weight_decay": 1e-4}),
    "adam with a root": (lambda: optax.adam(0.01, eps_root=1e-3), {"eps_root": 1e-3}),
    "nadam": (lambda: optax.nadam(0.01), {"nesterov": True}),
    "amsgrad": (lambda: optax.amsgrad(0.01), {}),
    "rmsprop": (lambda: optax.rmsprop(0.01), {}),
    "rmsprop with bias correction": (lambda: optax.rmsprop(0.01, eps_in_sqrt=False, bias_correction=True),
                                     {"eps_in_sqrt": False}),
    "injected": (lambda: optax.inject_hyperparams(optax.adam)(0.01, b1=0.5, b2=0.9, eps=1e-3), {}),
}  # fmt: skip
"""How each is made, and the settings of which nobody knows but the user."""


def trained(tx, updates=5):
    params, batch = mlp_params(0, (3, 2)), mlp_batch(0, 8, 3, 2)
    state = tx.init(params)
    for _ in range(updates):
        change, state = tx.update(jax.grad(mlp_loss)(params, batch), state, params)
        params = optax.apply_updates(params, change)
    return params, batch, state


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_preconditioner_is_what_divides_the_steps(name, x64):
    make, settings = OPTIMISERS[name]
    tx, w, g = make(), jnp.array([1.0, -2.0]), jnp.array([0.3, 2.0])
    state = tx.init(w)
    for factor in (1.0, 0.5):
        change, state = tx.update(factor * g, state, w)
    P = np.asarray(preconditioner(state, w, settings))
    if "rms" in name:  # no momentum
        first = 0.5 * np.asarray(g)
    else:
        adam = next(node for node in jax.tree.leaves(state, is_leaf=lambda n: hasattr(n, "mu")) if hasattr(node, "mu"))
        first, known = np.asarray(adam.mu), ADAM | settings
        if name == "nadam":  # what Nesterov's form puts in its place, over what P has of the first moment's correction
            b1 = known["b1"]
            first = (b1 * first / (1 - b1**3) + (1 - b1) * 0.5 * np.asarray(g) / (1 - b1**2)) * (1 - b1**2)
        first = first + known["weight_decay"] * P * np.asarray(w)
    np.testing.assert_allclose(change, -0.01 * first / P, rtol=1e-9)


@pytest.mark.parametrize("name", ["adamw in a chain", "rmsprop"])
def test_it_is_the_largest_eigenvalue_of_the_dense_preconditioned_hessian(name, x64):
    make, settings = OPTIMISERS[name]
    params, batch, state = trained(make())
    H, P = dense_hessian(mlp_loss, params, batch), np.asarray(ravel_pytree(preconditioner(state, params, settings))[0])
    expected = np.linalg.eigvalsh(H / np.sqrt(np.outer(P, P)))[-1]
    found = preconditioned_sharpness(mlp_loss, params, batch, state, learning_rate=0.01, settings=settings)
    np.testing.assert_allclose(found.sharpness, expected, rtol=1e-9)
    assert found.converged and found.ratio == found.sharpness / found.limit


LIMITS = {
    "adam": (ADAM, optax.adam),
    "slow adam": (ADAM | {"b1": 0.5}, lambda rate: optax.adam(rate, b1=0.5)),
    "adamw": (ADAM | {"weight_decay": 5.0}, lambda rate: optax.adamw(rate, weight_decay=5.0)),
    "nadam": (ADAM | {"nesterov": True}, optax.nadam),
    "rmsprop": (RMS, optax.rmsprop),
    "rmsprop with momentum": (RMS | {"momentum": 0.9}, lambda rate: optax.rmsprop(rate, momentum=0.9)),
    "rmsprop with Nesterov's": (
        RMS | {"momentum": 0.9, "nesterov": True},
        lambda rate: optax.rmsprop(rate, momentum=0.9, nesterov=True),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_steps_on_a_quadratic_diverge_just_beyond_the_limit_and_not_just_below(name, x64):
    known, make = LIMITS[name]
    limit = stability_limit(0.1, known)

    def growth(curvature):
        """What |w| grows by in many steps with P held: ν is put back before each, and g² is too small to change it.

        So many updates are counted that nothing is left to correct.
        """

        def held(node):
            late = {"count": jnp.asarray(2**30, jnp.int32)} if "count" in getattr(node, "_fields", ()) else {}
            return node._replace(nu=jnp.asarray(1e30), **late) if hasattr(node, "nu") else node

        def step(carry, _):
            w, state = carry
            state = jax.tree.map(held, state, is_leaf=lambda node: hasattr(node, "nu"))
            change, state = tx.update(curvature * w, state, w)
            return (w + change, state), None

        tx, start = make(0.1), jnp.array(1e-12)
        (w, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=800)
        return abs(float(w / start))

    scale = 1e15 * (known["b2" if "b2" in known else "decay"]) ** 0.5  # what divides the steps
    assert growth(1.02 * limit * scale) > 1e2 and growth(0.98 * limit * scale) < 1


def test_the_known_limits():
    np.testing.assert_allclose(stability_limit(0.01, ADAM), 38 / 0.01)  # Cohen et al. 2022
    np.testing.assert_allclose(stability_limit(0.01, RMS), 2 / 0.01)


def test_bad_input_is_one_sentence():
    params, batch, state = trained(optax.adam(0.01), 1)
    ask = lambda *given, **more: preconditioned_sharpness(mlp_loss, params, batch, *given, **more)
    for call, words in (
        (lambda: ask(optax.sgd(0.1).init(params), learning_rate=0.1), "a state with one of Adam"),
        (lambda: ask((state, state), learning_rate=0.1), "one with 2"),
        (lambda: ask(optax.adam(0.1).init(params), learning_rate=0.1), "one before the first"),
        (lambda: ask(state), "learning_rate must be given"),
        (lambda: ask(state, learning_rate=0.1, settings={"beta1": 0.9}), "There are: b1, b2"),
        (lambda: ask(optax.adam(0.1).init({"w": jnp.ones(2)}), learning_rate=0.1), "of all of these parameters"),
    ):
        with pytest.raises(InputError, match=words):
            call()

"""FA-Regularization against dense float64 references, and in every setting it promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import steppe
from steppe import InputError
from steppe.curvature.estimators.probes import DISTRIBUTIONS
from steppe.methods import fa
from support.networks import dense_hessian, directly, mlp_batch, mlp_loss, mlp_params

few = functools.partial(fa, every=1, probes=2)
"""Where the number of probes does not matter, few compile faster."""


def penalty(tx, params, batch, loss=mlp_loss, jit=jax.jit, **extra):
    """What the method adds to a zero gradient, and the state after."""

    def update(params, batch):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return tx.update(zeros, tx.init(params), params, loss=loss, batch=batch, **extra)

    return jit(update)(params, batch)


def assert_trees_close(a, b, **tolerance):
    np.testing.assert_allclose(ravel_pytree(a)[0], ravel_pytree(b)[0], **tolerance)


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_gradient_equals_the_dense_gradient_on_the_same_probes(x64, distribution):
    params, batch, probes, keys = mlp_params(), mlp_batch(), 3, []
    estimate = directly(probes, distribution=distribution)

    def recorded(loss, params, batch, key):
        jax.debug.callback(keys.append, jax.random.key_data(key))
        return estimate(loss, params, batch, key)

    added, state = penalty(fa(0.7, every=1, curvature=recorded), params, batch, jit=lambda f: f)
    jax.effects_barrier()
    flat, unravel = ravel_pytree(params)
    drawn = [
        DISTRIBUTIONS[distribution](key, params) for key in jax.random.split(jax.random.wrap_key_data(keys[0]), probes)
    ]
    vectors = jnp.stack([ravel_pytree(v)[0] for v in drawn])
    assert vectors.shape == (probes, flat.size)

    def dense(p):
        products = vectors @ jax.hessian(lambda q: mlp_loss(unravel(q), batch))(p)
        return jnp.mean(jnp.sum(products**2, axis=1))

    value, gradient = jax.jit(jax.value_and_grad(dense))(flat)
    np.testing.assert_allclose(state.monitor.mean, value, rtol=1e-9)
    np.testing.assert_allclose(ravel_pytree(added)[0], 0.7 / 6 * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_estimate_and_gradient_are_unbiased(x64, distribution):
    params, batch = mlp_params(), mlp_batch()
    flat, unravel = ravel_pytree(params)
    squared = lambda p: jnp.sum(jax.hessian(lambda q: mlp_loss(unravel(q), batch))(p) ** 2)
    value, gradient = jax.jit(jax.value_and_grad(squared))(flat)

    @jax.jit
    @jax.vmap
    def sample(seed):
        added, state = penalty(
            fa(1.0, probes=1, every=1, normalize=None, distribution=distribution, key=jax.random.key(seed)),
            params,
            batch,
        )
        return state.monitor.mean, ravel_pytree(added)[0]

    values, gradients = sample(jnp.arange(4000))
    for samples, exact in ((values[:, None], value[None]), (gradients, gradient)):
        sem = samples.std(axis=0, ddof=1) / samples.shape[0] ** 0.5
        # one random seed fixed; with 27 coordinates at 4 standard errors chance alone fails 1 in 600
        assert jnp.all(jnp.abs(samples.mean(axis=0) - exact) <= 4 * sem + 1e-12)


@pytest.mark.optimised
def test_lam_zero_is_the_plain_optimiser_bitwise_and_at_no_cost():
    params, batch = mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32)

    def step(tx):
        def run(params, batch):
            grads = jax.grad(mlp_loss)(params, batch)
            updates, _ = tx.update(grads, tx.init(params), params, loss=mlp_loss, batch=batch)
            return optax.apply_updates(params, updates)

        return jax.jit(run).lower(params, batch).compile()

    with_zero, plain = (
        step(optax.chain(fa(0.0), optax.adam(1e-2))),
        step(optax.with_extra_args_support(optax.adam(1e-2))),
    )
    assert_trees_equal(with_zero(params, batch), plain(params, batch))
    assert with_zero.cost_analysis()["flops"] == plain.cost_analysis()["flops"]


def test_lam_zero_needs_no_loss_and_reports_flatness_as_not_computed():
    tx = fa(0.0)
    params = mlp_params()
    updates, state = tx.update(params, tx.init(params))
    assert_trees_equal(updates, params)
    assert np.isnan(state.monitor.mean)


def test_traced_zero_agrees_with_plain_even_where_the_penalty_overflows():
    def loss(w, batch):
        return jnp.sum(jnp.exp(100 * w)) * jnp.mean(batch)

    w = jnp.ones(2)
    added, _ = jax.jit(lambda lam: penalty(fa(lam, every=1), w, jnp.ones(3), loss))(0.0)
    assert_trees_equal(added, jnp.zeros(2))


def train(tx, params, batches, loss=mlp_loss):
    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
        return (optax.apply_updates(params, updates), state), state[0].monitor

    return jax.lax.scan(step, (params, tx.init(params)), batches)


OPTIMISERS = {
    "adam": optax.adam(1e-2),
    "momentum": optax.sgd(1e-1, momentum=0.9),
    "adamw": optax.adamw(1e-2),
    "l2": optax.chain(optax.add_decayed_weights(5e-4), optax.adam(1e-2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
def test_lowers_curvature_with_any_optimiser_after_it(name):
    params = mlp_params(sizes=(3, 8, 2))
    batches = jax.vmap(lambda i: mlp_batch(i, size=16))(jnp.arange(200))
    final = {}
    for lam in (0.0, 1.0):
        (trained, _), _ = jax.jit(
            lambda p, lam=lam: train(optax.chain(fa(lam, every=2), OPTIMISERS[name]), p, batches)
        )(params)
        final[lam] = steppe.curvature.frobenius_squared(
            steppe.curvature.hessian(mlp_loss, trained, jax.tree.map(lambda x: x[0], batches)), 0
        ).mean
    assert final[1.0] < final[0.0]


@pytest.mark.slow
def test_penalty_acts_every_k_updates_and_the_state_keeps_the_last_estimate():
    batches = jax.vmap(mlp_batch)(jnp.arange(6))
    _, flatness = train(optax.chain(fa(0.1, every=3), optax.sgd(0.1)), mlp_params(), batches)
    changes = np.flatnonzero(np.diff(np.asarray(flatness.mean), prepend=-1.0))
    assert changes.tolist() == [0, 3]
    assert np.all(np.asarray(flatness.sem) > 0)


@pytest.mark.slow
def test_sweep_over_lam_and_seeds_equals_single_runs():
    batches = jax.vmap(mlp_batch)(jnp.arange(5))
    run = lambda lam, seed: train(optax.chain(fa(lam, every=2, key=seed), optax.adam(1e-2)), mlp_params(), batches)[0][
        0
    ]
    lams, seeds = jnp.array([0.0, 0.1, 1.0]), jnp.arange(3)
    swept = jax.vmap(lambda lam, seed: run(lam, jax.random.key(seed)))(lams, seeds)
    for i in range(3):
        alone = run(lams[i] if i else 0.0, jax.random.key(i))
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], swept), alone, rtol=2e-4, atol=1e-6)


@pytest.mark.slow
def test_schedule_acts_on_lam(x64):
    params, batch = mlp_params(), mlp_batch()
    tx = fa(lambda count: 0.5 * count, every=1, key=3)
    zeros, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
    first, state = tx.update(zeros, state, params, loss=mlp_loss, batch=batch)
    second, _ = tx.update(zeros, state, params, loss=mlp_loss, batch=batch)
    assert_trees_equal(first, zeros)
    fixed, _ = fa(0.5, every=1, key=3).update(zeros, state, params, loss=mlp_loss, batch=batch)
    assert_trees_close(second, fixed, rtol=1e-12)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("normalize", "scale"), [("batch", 6), ("params", 26), (None, 1)])
def test_normalisations(x64, normalize, scale):
    params, batch = mlp_params(), mlp_batch()
    bare, _ = penalty(few(1.0, normalize=None), params, batch)
    added, _ = penalty(few(1.0, normalize=normalize), params, batch)
    assert_trees_close(added, jax.tree.map(lambda g: g / scale, bare), rtol=1e-12)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_microbatches_equal_the_big_batch(x64, parts):
    params, batch = mlp_params(), mlp_batch()
    big, big_state = penalty(fa(1.0, every=1, curvature=directly(2)), params, batch)
    split, split_state = penalty(few(1.0, microbatches=parts), params, batch)
    assert_trees_close(split, big, rtol=1e-10, atol=1e-14)
    assert_trees_close(split_state.monitor, big_state.monitor, rtol=1e-10)


@pytest.mark.optimised
@pytest.mark.slow
def test_microbatches_bound_memory():
    params = mlp_params(sizes=(8, 32, 32, 4), dtype=jnp.float32)
    batch = mlp_batch(size=4096, inputs=8, classes=4, dtype=jnp.float32)

    def peak(parts):
        tx = few(1.0, microbatches=parts)
        return (
            jax.jit(lambda p, b: penalty(tx, p, b)).lower(params, batch).compile().memory_analysis().temp_size_in_bytes
        )

    assert peak(16) < 0.25 * peak(1)


@pytest.mark.slow
def test_where_penalises_the_block_of_the_chosen_parameters(x64):
    params, batch = mlp_params(), mlp_batch()
    where = [{"w": True, "b": False}, False]
    added, state = penalty(fa(1.0, every=1, probes=2000, normalize=None, where=where), params, batch)
    assert_trees_equal((added[0]["b"], added[1]), jax.tree.map(jnp.zeros_like, (params[0]["b"], params[1])))
    of_weights = lambda w: mlp_loss([{"w": w, "b": params[0]["b"]}, params[1]], batch)
    block = jax.jit(jax.hessian(of_weights))(params[0]["w"])
    assert abs(state.monitor.mean - jnp.sum(block**2)) <= 4 * state.monitor.sem
    by_function, _ = penalty(fa(1.0, every=1, probes=2000, normalize=None, where=lambda p: where), params, batch)
    assert_trees_equal(by_function, added)


@pytest.mark.slow
def test_adaptive_penalty_is_invariant_under_rescaling_of_relu_layers(x64):
    relu_loss = lambda p, b: mlp_loss(p, b, jax.nn.relu)
    params, batch, factor = mlp_params(), mlp_batch(), 3.0
    scaled = [jax.tree.map(lambda x: factor * x, params[0]), {"w": params[1]["w"] / factor, "b": params[1]["b"]}]
    values = {
        adaptive: [penalty(few(1.0, adaptive=adaptive), p, batch, relu_loss)[1].monitor.mean for p in (params, scaled)]
        for adaptive in (True, False)
    }
    np.testing.assert_allclose(*values[True], rtol=1e-10)
    assert abs(values[False][0] / values[False][1] - 1) > 0.1


def test_curvature_takes_any_differentiable_function(x64):
    params, batch = mlp_params(), mlp_batch()
    exact = lambda loss, p, b, key: steppe.Estimate(jnp.sum(dense_hessian(loss, p, b) ** 2), 0.0)
    added, state = penalty(few(1.0, curvature=exact), params, batch)
    assert state.monitor.sem == 0
    flat, unravel = ravel_pytree(params)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(dense_hessian(mlp_loss, unravel(p), batch) ** 2) / 6))(flat)
    np.testing.assert_allclose(ravel_pytree(added)[0], gradient, rtol=1e-10)


def test_penalty_loss_is_the_function_whose_curvature_is_penalised(x64):
    params, batch = mlp_params(), mlp_batch()
    added, state = penalty(few(1.0), params, batch, loss=lambda p, b: 0.0 * mlp_loss(p, b), penalty_loss=mlp_loss)
    expected, expected_state = penalty(few(1.0), params, batch)
    assert_trees_equal((added, state.monitor), (expected, expected_state.monitor))


@pytest.mark.slow
def test_eager_equals_jit_without_retracing(strict):
    traces, tx = [], fa(0.1, every=2)
    params, batch = mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32)

    @jax.jit
    def step(state):
        traces.append(1)
        return tx.update(jax.tree.map(jnp.zeros_like, params), state, params, loss=mlp_loss, batch=batch)

    eager, compiled = tx.init(params), tx.init(params)
    for _ in range(3):
        a, eager = tx.update(jax.tree.map(jnp.zeros_like, params), eager, params, loss=mlp_loss, batch=batch)
        b, compiled = step(compiled)
        assert_trees_close(a, b, rtol=1e-4, atol=1e-7)
    assert len(traces) == 1


@pytest.mark.first_is_fast
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_keeps_dtypes(strict, dtype):
    params, batch = mlp_params(dtype=dtype), mlp_batch(dtype=dtype)
    added, state = penalty(fa(0.1), params, batch)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(added))
    assert state.monitor.mean.dtype == jnp.float32
    assert jnp.isfinite(state.monitor.mean)


def test_flat_loss_gives_a_finite_zero():
    added, state = penalty(few(1.0), mlp_params(), mlp_batch(), loss=lambda p, b: 0.0 * mlp_loss(p, b))
    assert_trees_equal(added, jax.tree.map(jnp.zeros_like, added))
    assert state.monitor == (0.0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam": -0.1}, "fa: lam must be a finite number >= 0, got -0.1."),
        ({"lam": float("nan")}, "fa: lam must be a finite number >= 0, got nan."),
        ({"lam": "big"}, "fa: lam must be a finite number >= 0, got 'big'."),
        ({"lam": 1.0, "probes": 0}, "fa: probes must be a whole number of at least 1, got 0."),
        ({"lam": 1.0, "every": 2.5}, "fa: every must be a whole number of at least 1, got 2.5."),
        ({"lam": 1.0, "distribution": "rademacer"}, "Did you mean 'rademacher'?"),
        ({"lam": 1.0, "normalize": "size"}, "fa: normalize must be one of 'batch', 'params', None, got 'size'."),
        ({"lam": 1.0, "key": 0.5}, "fa: key must be an int or a JAX key array, got 0.5."),
        ({"lam": 1.0, "key": 2**70}, "fa: key must be an int or a JAX key array"),
        ({"lam": 1.0, "adaptive": "no"}, "fa: adaptive must be one of True, False, got 'no'."),
        ({"lam": 1.0, "curvature": 3}, "fa: curvature must be None or a function"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, message):
    with pytest.raises(InputError) as error:
        fa(**arguments)
    assert message in str(error.value)


def test_a_batch_may_be_a_tuple_or_a_list(x64):
    params, batch = mlp_params(), mlp_batch()
    expected, _ = penalty(few(1.0), params, batch)
    for kind in (tuple, list):
        loss = lambda p, b: mlp_loss(p, {"x": b[0], "y": b[1]})
        added, _ = penalty(few(1.0), params, kind((batch["x"], batch["y"])), loss)
        assert_trees_equal(added, expected)


def test_seeds_may_be_traced():
    params, batch = mlp_params(), mlp_batch()
    swept = jax.vmap(lambda seed: penalty(few(1.0, key=seed), params, batch)[1].monitor.mean)(jnp.arange(2))
    np.testing.assert_allclose(swept[1], penalty(few(1.0, key=1), params, batch)[1].monitor.mean, rtol=1e-5)


def test_bad_calls_get_one_sentence():
    params, batch = mlp_params(), mlp_batch()
    with pytest.raises(InputError, match=r"given params, loss= and batch=, got a call without loss, batch\."):
        fa(1.0).update(params, fa(1.0).init(params), params)
    with pytest.raises(InputError, match="rematerialize must be a whole number of at least 2, got 1"):
        fa(1.0, rematerialize=1)
    with pytest.raises(InputError, match="rematerialize must be None with matrix='ggn' or microbatches, got 8"):
        fa(1.0, rematerialize=8, microbatches=2)
    with pytest.raises(InputError, match="rematerialize must be None with adaptive, got 8"):
        fa(1.0, rematerialize=8, adaptive=True)
    with pytest.raises(InputError, match="microbatches must be a divisor of the batch size 6, got 4"):
        penalty(fa(1.0, microbatches=4), params, batch)
    with pytest.raises(InputError, match=r"share their leading axis, got a batch with leading axes \[5, 6\]"):
        penalty(
            fa(1.0), params, {"x": batch["x"], "y": batch["y"][:5]}, lambda p, b: mlp_loss(p, batch) * jnp.mean(b["x"])
        )
    with pytest.raises(InputError, match="batch must be a batch with examples, got an empty one"):
        penalty(fa(1.0), params, mlp_batch(size=0))
    with pytest.raises(
        InputError, match="where: mask must be a prefix of the parameters' pytree, got another structure"
    ):
        penalty(fa(1.0, where={"w": True}), params, batch)
    with pytest.raises(InputError, match="where: mask must be a pytree of bools"):
        penalty(fa(1.0, where=jax.tree.map(jnp.ones_like, params)), params, batch)
    with pytest.raises(InputError, match=r"params\['n'\] must be a floating-point array"):
        fa(1.0).init({"n": jnp.arange(3)})

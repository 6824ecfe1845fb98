"""The contract that every method keeps, and what each promises of its own, against dense float64 references."""

import functools
import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature, data, methods, sharpness, study
from steppe.core import losses, trees
from steppe.core.types import Moments
from steppe.curvature.estimators.estimates import estimate, exact
from steppe.curvature.estimators.probes import gaussian, rademacher, uniform
from steppe.methods import (
    asam,
    cr_sam,
    det_sam,
    entropy_sgd,
    esam,
    fa,
    fam,
    frob_sam,
    gam,
    hsr,
    m_sam,
    nso,
    sam,
    seht,
    trace_sam,
    universal,
)
from steppe.methods.draws import coordinates
from support.methods import EVERY, updated
from support.networks import (
    dense_ggn,
    dense_hessian,
    mlp_apply,
    mlp_batch,
    mlp_loss,
    mlp_network,
    mlp_params,
    one_by_one,
)

NO_ZERO = {"entropy_sgd"}
"""Where a strength of 0 is not the plain gradient."""

each = pytest.mark.parametrize("name", EVERY)

each_method = pytest.mark.parametrize("name", list({key.partition(" ")[0]: key for key in reversed(EVERY)}.values()))
"""One of each method, for what its variants share."""


def close(a, b, **tolerance):
    np.testing.assert_allclose(ravel_pytree(a)[0], ravel_pytree(b)[0], **({"rtol": 1e-9, "atol": 1e-12} | tolerance))


def run(tx, params, batch, updates=3, state=None):
    """Some updates in a scan."""
    chain = optax.chain(tx, optax.sgd(0.05))

    def step(carry, _):
        params, state = carry
        given = {"loss": mlp_network, "batch": batch, "example_losses": one_by_one(mlp_network)}
        update, state = chain.update(jax.grad(mlp_network)(params, batch), state, params, **given)
        return (optax.apply_updates(params, update), state), None

    return jax.lax.scan(step, (params, chain.init(params) if state is None else state), length=updates)[0]


def test_every_method_is_in_the_contract():
    assert {name.partition(" ")[0] for name in EVERY} == set(methods.METHODS)


@pytest.mark.first_is_fast
@each
def test_a_zero_gradient_stays_zero_and_dtypes_are_kept_without_silent_promotion(strict, name):
    dtype = jnp.bfloat16
    params, batch = mlp_params(dtype=dtype), mlp_batch(dtype=dtype)

    @jax.jit
    def after(factor):
        loss = losses.of(mlp_apply, lambda f, y: factor * losses.cross_entropy(f, y).astype(factor.dtype))
        return updated(EVERY[name](0.5), params, batch, loss)

    flat, _ = after(jnp.zeros((), dtype))
    assert not np.any(ravel_pytree(flat)[0])
    update, state = after(jnp.ones((), dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(update)} == {jnp.dtype(dtype)}
    assert state.monitor.mean.dtype == jnp.float32 and np.isfinite(state.monitor.mean)


@pytest.mark.slow
@each
def test_a_strength_is_a_number_traced_or_scheduled_and_zero_is_the_plain_gradient(x64, name):
    params, batch = mlp_params(), mlp_batch()
    plain = jax.grad(mlp_network)(params, batch)
    after = lambda strength, count: updated(EVERY[name](strength), params, batch, count=count)[0]
    traced = jax.jit(after)
    assert not np.allclose(ravel_pytree(traced(0.5, 0))[0], ravel_pytree(plain)[0])
    if name not in NO_ZERO:
        jax.tree.map(np.testing.assert_array_equal, after(0.0, 0), plain)
        close(traced(0.0, 0), plain)
    if name in methods.METHODS:
        scheduled = jax.jit(lambda count: after(lambda at: 0.25 * at, count))
        for count in (1, 3):
            close(scheduled(count), traced(0.25 * count, count))


@pytest.mark.slow
@each_method
def test_runs_under_jit_scan_and_vmap_over_the_strength_and_is_compiled_once(x64, name):
    params, batch, traces = mlp_params(), mlp_batch(), []

    def final(strength):
        traces.append(1)
        return run(EVERY[name](strength), params, batch)[0]

    jitted, strengths = jax.jit(final), (0.05, 0.2)
    singles = [jitted(strength) for strength in strengths]
    assert len(traces) == 1
    together = jax.vmap(final)(jnp.array(strengths))
    for i, single in enumerate(singles):
        close(jax.tree.map(lambda x, i=i: x[i], together), single, rtol=1e-8, atol=1e-10)


def test_a_run_that_is_saved_and_restored_goes_on_with_the_same_bits(tmp_path):
    """Every state is arrays, and so survives; that a run goes on from one is the same for all."""
    params, batch = mlp_params(dtype=jnp.float32), mlp_batch(dtype=jnp.float32)
    further = jax.jit(lambda p, state: run(EVERY["fa"](0.1), p, batch, 2, state))
    start = run(EVERY["fa"](0.1), params, batch, 2)
    saved = {"run": start} | {name: make(0.1).init(params) for name, make in EVERY.items()}
    with ocp.StandardCheckpointer() as checkpoints:
        checkpoints.save(tmp_path / "run", saved)
    with ocp.StandardCheckpointer() as checkpoints:
        restored = checkpoints.restore(tmp_path / "run", jax.eval_shape(lambda: saved))
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    jax.tree.map(np.testing.assert_array_equal, further(*restored["run"])[0], further(*start)[0])


@each
def test_a_call_without_loss_or_with_a_bad_strength_gets_one_sentence(name):
    method, params = name.partition(" ")[0], mlp_params()
    with pytest.raises(
        InputError, match=f"{method}: update must be given params, loss= and batch=, got a call without"
    ):
        EVERY[name](0.1).update(params, EVERY[name](0.1).init(params), params)
    with pytest.raises(InputError, match=rf"{method}: (lam|rho|sigma|gamma) must be a finite number >= 0, got -1"):
        EVERY[name](-1.0)


@pytest.mark.parametrize(
    "name", [name for name, make in EVERY.items() if "every" in inspect.signature(make).parameters]
)
@pytest.mark.first_is_fast
def test_between_its_updates_a_method_lets_the_gradient_through(name):
    params, batch = mlp_params(), mlp_batch()
    update, state = updated(EVERY[name](0.5, every=2), params, batch, count=1)
    jax.tree.map(np.testing.assert_array_equal, update, jax.grad(mlp_network)(params, batch))
    assert np.isnan(state.monitor.mean) and state.count == 2


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from support.networks import mlp_batch, mlp_params
from steppe.methods import METHODS, m_sam, sam
from support.methods import EVERY, updated

assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
params, batch = mlp_params(dtype=jnp.float32), mlp_batch(size=12, dtype=jnp.float32)
split = jax.device_put(batch, NamedSharding(mesh, P("data")))
everywhere = jax.device_put(params, NamedSharding(mesh, P()))
close = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)

for name, make in EVERY.items():
    if name in METHODS or name == "fa ggn":
        update = jax.jit(lambda p, b: updated(make(0.1), p, b)[0])
        close(update(everywhere, split), update(params, batch))

def on_each_device(params, batch):
    params = jax.lax.pcast(params, "data", to="varying")
    return jax.lax.pmean(updated(sam(0.1), params, batch)[0], "data")

mapped = jax.jit(jax.shard_map(on_each_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))
close(mapped(params, batch), jax.jit(lambda p, b: updated(m_sam(0.1, shards=4), p, b)[0])(params, batch))
print("sharded equals unsharded")
"""


@pytest.mark.slow
def test_a_sharded_batch_is_one_batch_and_sam_on_each_device_is_m_sam(on_four_devices):
    assert on_four_devices(SHARDED) == "sharded equals unsharded"


@pytest.mark.slow
def test_every_method_runs_in_a_study_by_its_name(without_surfaces, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "toy.npz", x=x, y=(x.sum(axis=1) > 0).astype(int))
    given = {name: ", lam = 0.1" for name in ("fa", "hsr", "seht", "fam")} | {"gam": ", beta = [0.4, 0.6]"}
    tables = [
        f'[[conditions]]\nname = "{name}"\nmethod = {{name = "{name}"{given.get(name, "")}}}\n'
        for name in methods.METHODS
    ]
    text = f"""
name = "all"
seeds = 1
data = {{name = "file", file = "{tmp_path / "toy.npz"}", label = "y"}}
model = {{name = "mlp", hidden = [4]}}
method = {{name = "fa", lam = 0.0}}
train = {{learning_rate = 0.1, batch_size = 8, epochs = 1}}
landscape = {{points = 3, grid_points = 3}}
{"".join(tables)}"""
    runs = study.run(study.spec.parse(text), tmp_path / "out").runs
    assert set(runs["condition"]) == set(methods.METHODS) and set(runs["status"]) == {"finished"}
    assert runs["test_loss"].n_unique() == len(methods.METHODS)


# --- what each promises of its own


def test_sam_is_the_plain_gradient_at_the_perturbed_point(x64):
    params, batch = mlp_params(), mlp_batch()
    g, unravel = ravel_pytree(jax.grad(mlp_loss)(params, batch))
    update, state = updated(sam(0.3), params, batch)
    close(update, jax.grad(mlp_loss)(unravel(ravel_pytree(params)[0] + 0.3 * g / jnp.linalg.norm(g)), batch))
    np.testing.assert_allclose(state.monitor.mean, 0.3 * jnp.linalg.norm(g))
    assert state.monitor.sem == 0


def test_sam_sees_the_same_dropout_masks_at_both_points(x64):
    params, batch, key, calls = mlp_params(), mlp_batch(), jax.random.key(3), []

    def loss(p, b):
        calls.append(1)
        return mlp_loss(p, {**b, "x": b["x"] * jax.random.bernoulli(key, 0.5, b["x"].shape)})

    update, _ = jax.jit(lambda p: updated(sam(1e-9), p, batch, loss))(params)
    assert len(calls) == 4  # for what its value is, for its layers, and for two gradients
    close(update, jax.grad(loss)(params, batch), rtol=1e-6)


def test_m_sam_is_the_mean_of_sam_on_its_shards(x64):
    params, batch = mlp_params(), mlp_batch()
    shards = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], batch) for i in range(3)]
    single = [updated(sam(0.3), params, shard) for shard in shards]
    mean = jax.tree.map(lambda *x: sum(x) / 3, *(update for update, _ in single))
    update, state = updated(m_sam(0.3, shards=3), params, batch)
    close(update, mean)
    rises = np.array([s.monitor.mean for _, s in single])
    np.testing.assert_allclose([state.monitor.mean, state.monitor.sem], [rises.mean(), rises.std(ddof=1) / 3**0.5])
    close(updated(m_sam(0.3, shards=1), params, batch)[0], updated(sam(0.3), params, batch)[0])
    with pytest.raises(InputError, match="m_sam: shards must be a divisor of the batch size 6, got 4"):
        updated(m_sam(shards=4), params, batch)


def relu_loss(p, batch):
    return losses.squared_error(jax.nn.relu(batch["x"] @ p["in"]) @ p["out"], batch["y"])


def test_asam_does_not_see_the_scale_of_layers_and_sam_does(x64):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"in": jax.random.normal(keys[0], (3, 4)), "out": jax.random.normal(keys[1], (4, 2))}
    batch = {"x": jax.random.normal(keys[2], (5, 3)), "y": jax.random.normal(keys[3], (5, 2))}
    other = {"in": 4.0 * params["in"], "out": params["out"] / 4.0}
    for tx, same in ((asam(0.3, eta=0.0), True), (sam(0.3), False)):
        (one, first), (two, second) = (updated(tx, p, batch, relu_loss) for p in (params, other))
        assert np.allclose(first.monitor.mean, second.monitor.mean) is same
        assert np.allclose(one["in"], 4.0 * two["in"]) is same


def test_asam_moves_matrices_in_units_of_their_weights_and_vectors_in_units_of_one(x64):
    params = {"w": jnp.array([[2.0, 0.0]]), "b": jnp.array([5.0])}
    loss = lambda p, batch: 0.5 * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2)) + jnp.sum(p["w"])
    g, T = np.array([3.0, 1.0, 5.0]), np.array([2.1, 0.1, 1.0])
    up = np.array([2.0, 0.0, 5.0]) + 0.3 * T**2 * g / np.linalg.norm(T * g)
    update, _ = updated(asam(0.3, eta=0.1), params, jnp.ones(1), loss)
    np.testing.assert_allclose(np.r_[update["w"][0], update["b"]], up + np.array([1, 1, 0]), rtol=1e-12)


def from_dense(loss, params, batch, key):
    """Exact moments, of the dense Hessian."""
    H = dense_hessian(loss, params, batch)
    return Moments(exact(jnp.trace(H)), exact(jnp.sum(H**2)))


def dense_bounds(flat, unravel, batch):
    """The three bounds from the eigenvalues of the dense Hessian."""
    values = jnp.linalg.eigvalsh(dense_hessian(mlp_loss, unravel(flat), batch))
    m, s, n = jnp.mean(values), jnp.std(values), len(values)
    return {"upper": m + s * (n - 1) ** 0.5, "width": 2 * s * (n - 1) ** 0.5, "variance": n * s**2}


def stream(name):
    """The key of a method's first update."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode())), 0)


def test_gam_mixes_four_gradients_as_released(x64):
    params, batch = mlp_params(), mlp_batch()
    flat, unravel = ravel_pytree(params)
    g = jax.grad(lambda p: mlp_loss(unravel(p), batch))
    up = lambda at, v, length: at + length * v / jnp.linalg.norm(v)
    g0, r, s = g(flat), 0.3, 0.06
    g1 = g(up(flat, g0, s))
    p = up(flat, g1 - g0, r)
    g2, g3 = g(p), g(up(p, g(p), s))
    a, m = 0.7 * g1 + 0.3 * g3, g0 + 0.6 * g2
    expected = a - 0.05 * (m - a * (a @ m) / (a @ a))
    update, state = updated(gam(r, ascent=0.2, beta=(0.4, 0.7), gamma=0.05), params, batch)
    np.testing.assert_allclose(ravel_pytree(update)[0], expected, rtol=1e-9)
    np.testing.assert_allclose(state.monitor.mean, r * jnp.linalg.norm(g2), rtol=1e-9)


@pytest.mark.slow
def test_cr_sam_adds_differences_along_the_gradient(x64):
    params, batch = mlp_params(), mlp_batch()
    flat, unravel = ravel_pytree(params)
    g = jax.grad(lambda p: mlp_loss(unravel(p), batch))
    v = g(flat) / jnp.linalg.norm(g(flat))
    up, down = g(flat + 0.2 * v), g(flat - 0.2 * v)
    update, _ = updated(cr_sam(0.2, gamma=0.3, beta=0.05), params, batch)
    expected = up + 0.3 * (up + down - 2 * g(flat)) + 0.05 * (up - down)
    np.testing.assert_allclose(ravel_pytree(update)[0], expected, rtol=1e-9)
    along = v @ dense_hessian(mlp_loss, params, batch) @ v
    near = updated(cr_sam(1e-4), params, batch)[1].monitor.mean
    np.testing.assert_allclose(near, along, rtol=1e-6)


def mean_update(tx, params, batch, draws=4000, loss=mlp_network):
    """The mean of what leaves a method over its random stream, and its standard error; of its flatness, too."""

    def draw(count):
        update, state = updated(tx, params, batch, loss, count=count)
        return jnp.append(ravel_pytree(update)[0], state.monitor.mean)

    samples = jax.jit(lambda counts: jax.lax.map(draw, counts))(jnp.arange(draws))
    return np.mean(samples, axis=0), np.std(samples, axis=0) / draws**0.5


@pytest.mark.slow
@pytest.mark.parametrize("make", [nso, trace_sam], ids=["nso", "trace_sam"])
def test_weight_noise_descends_on_the_loss_with_half_the_squared_noise_times_its_trace(x64, make):
    params, batch, sigma = mlp_params(), mlp_batch(), 0.05
    flat, unravel = ravel_pytree(params)
    loss = lambda p: mlp_loss(unravel(p), batch)
    smooth = lambda p: loss(p) + sigma**2 / 2 * jnp.trace(jax.hessian(loss)(p))
    expected = np.append(*jax.jit(lambda p: (jax.grad(smooth)(p), jnp.trace(jax.hessian(loss)(p))))(flat))
    mean, sem = mean_update(make(sigma), params, batch)
    assert (np.abs(mean - expected) <= 4.5 * sem + 1e-4 * np.abs(expected).max()).all()
    if make is nso:  # the noise of first order cancels
        assert sem[:-1].max() < 0.3 * mean_update(trace_sam(sigma), params, batch)[1][:-1].max()


@pytest.mark.slow
def test_nso_of_several_pairs_is_their_mean(x64):
    params, batch = mlp_params(), mlp_batch()
    update, state = updated(nso(0.1, pairs=6), params, batch)
    flat, unravel = ravel_pytree(params)
    g = jax.grad(lambda p: mlp_loss(unravel(p), batch))
    noises = [ravel_pytree(gaussian(k, params))[0] for k in jax.random.split(stream("nso"), 6)]
    expected = np.mean([g(flat + s * 0.1 * u) for u in noises for s in (1, -1)], axis=0)
    np.testing.assert_allclose(ravel_pytree(update)[0], expected, rtol=1e-9)
    assert state.monitor.sem > 0


@pytest.mark.slow
def test_universal_adds_the_gradient_of_its_sharpness(x64):
    params, batch, rho = mlp_params(), mlp_batch(), 0.3
    flat, unravel = ravel_pytree(params)
    phi, psi = jnp.log, lambda t: jnp.exp(-t / 2)
    moves = [ravel_pytree(gaussian(k, params))[0] for k in jax.random.split(stream("universal"), 3)]
    loss = lambda p: mlp_loss(unravel(p), batch)

    def sharpness(p):
        return phi(jnp.mean(jnp.stack([psi((loss(p + rho * x) - loss(p)) / rho**2) for x in moves])))

    update, state = updated(universal(phi, psi, gaussian, lam=0.7, rho=rho, samples=3), params, batch)
    expected = jax.jit(jax.grad(lambda p: loss(p) + 0.7 * rho**2 * sharpness(p)))(flat)
    np.testing.assert_allclose(ravel_pytree(update)[0], expected, rtol=1e-9)
    np.testing.assert_allclose(state.monitor.mean, sharpness(flat), rtol=1e-9)


def test_trace_and_det_sam_are_universal(x64):
    params, batch = mlp_params(), mlp_batch()
    identity = lambda t: t
    one = universal(
        identity, identity, lambda key, like: gaussian(stream("trace_sam"), like), lam=1.0, rho=0.1, name="trace_sam"
    )
    close(updated(one, params, batch)[0], updated(trace_sam(0.1), params, batch)[0], rtol=1e-8)
    update, state = updated(det_sam(0.5, rho=0.8, box=0.5), params, batch)
    # of one draw φ(ψ(d)) = e^d, so that λ e^d [g(θ + ρx) − g(θ)] is added
    x = uniform(jax.random.split(stream("det_sam"), 1)[0], params)
    up = jax.tree.map(lambda w, x: w + 0.8 * 0.5 * x, params, x)
    growth = jnp.exp((mlp_loss(up, batch) - mlp_loss(params, batch)) / 0.64)
    plain, there = (jax.grad(mlp_loss)(p, batch) for p in (params, up))
    close(update, jax.tree.map(lambda g, h: g + 0.5 * growth * (h - g), plain, there))
    np.testing.assert_allclose(state.monitor.mean, growth, rtol=1e-9)
    near, _ = updated(det_sam(0.5, rho=0.8, box=1e-9), params, batch)
    close(near, jax.grad(mlp_loss)(params, batch), rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_frob_sam_descends_on_the_variance_of_the_loss_nearby(x64):
    params, batch, rho = mlp_params(), mlp_batch(), 0.2
    flat, unravel = ravel_pytree(params)
    loss = lambda p: mlp_loss(unravel(p), batch)
    z = jax.random.normal(jax.random.key(5), (200_000, flat.size))
    spread = lambda p: jnp.var(jax.vmap(lambda z: loss(p + rho * z))(z))
    value, gradient = jax.jit(jax.value_and_grad(spread))(flat)
    expected = np.append(jax.grad(loss)(flat) + 3.0 / (2 * rho**2) * gradient, 2 * value / rho**4)
    mean, sem = mean_update(frob_sam(3.0, rho=rho, samples=3), params, batch, draws=6000)
    assert (np.abs(mean - expected) <= 5 * sem + 0.01 * np.abs(expected)).all()


@pytest.mark.parametrize("bound", ["upper", "width", "variance"])
def test_hsr_adds_the_gradient_of_the_dense_bound(x64, bound):
    params, batch = mlp_params(), mlp_batch()
    flat, unravel = ravel_pytree(params)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: dense_bounds(p, unravel, batch)[bound]))(flat)
    plain = ravel_pytree(jax.grad(mlp_loss)(params, batch))[0]
    update, state = updated(hsr(0.7, moments=from_dense, bound=bound, every=1), params, batch)
    np.testing.assert_allclose(ravel_pytree(update)[0], plain + 0.7 * gradient, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose([state.monitor.mean, state.monitor.sem], [value, 0], rtol=1e-12)
    update, _ = updated(hsr(0.7, moments=from_dense, bound=bound, every=1, step="unit"), params, batch)
    along = 0.7 * gradient / jnp.linalg.norm(gradient)
    np.testing.assert_allclose(ravel_pytree(update)[0], plain + along, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_hsr_in_closed_form_equals_hsr_of_the_dense_hessian(x64):
    params, batch = mlp_params(), mlp_batch()

    def closed(loss, p, batch, key):
        named = {"w1": p[0]["w"], "b1": p[0]["b"], "w2": p[1]["w"], "b2": p[1]["b"]}
        return curvature.closed_form.three_layer(named, batch["x"], batch["y"], jnp.tanh)

    one, two = (updated(hsr(0.7, moments=m, every=1), params, batch)[0] for m in (closed, from_dense))
    close(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_the_bound_from_probes_is_low_by_about_an_eighth_of_the_relative_variance(x64):
    params, batch, probes = mlp_params(), mlp_batch(), 20
    flat, unravel = ravel_pytree(params)
    exact_bound, n = dense_bounds(flat, unravel, batch)["width"], flat.size

    def draw(key):
        found = curvature.loss_moments(mlp_loss, params, batch, key, probes=probes)
        squared = found.frobenius_squared.mean - found.trace.mean**2 / n
        return squared, 2 * (squared * (n - 1) / n) ** 0.5

    squares, bounds = jax.lax.map(draw, jax.random.split(jax.random.key(0), 4000))
    # what the square sees of the trace's own variance, then the square root
    truth = (exact_bound / 2) ** 2 * n / (n - 1)
    predicted = jnp.mean(squares) / truth - jnp.var(squares) / (4 * truth**2)
    error = 4 * jnp.std(bounds / exact_bound) / 4000**0.5
    assert abs((jnp.mean(bounds) / exact_bound) ** 2 - predicted) < 2 * error + 0.01
    assert jnp.mean(bounds) < exact_bound


@pytest.mark.parametrize("drop", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_seht_is_unbiased_in_value_and_gradient(x64, drop):
    params, batch, draws = mlp_params(), mlp_batch(), 3000
    flat, unravel = ravel_pytree(params)
    of_trace = lambda p: jnp.trace(jax.hessian(lambda q: mlp_loss(unravel(q), batch))(p))
    value, gradient = jax.jit(jax.value_and_grad(of_trace))(flat)
    plain = ravel_pytree(jax.grad(mlp_loss)(params, batch))[0]

    def draw(count):
        update, state = updated(seht(1.0, probes=2, every=1, drop=drop), params, batch, count=count)
        return jnp.append(ravel_pytree(update)[0] - plain, state.monitor.mean)

    samples = jax.jit(lambda counts: jax.lax.map(draw, counts))(jnp.arange(draws))
    sem = np.std(samples, axis=0) / draws**0.5
    assert (np.abs(np.mean(samples, axis=0) - np.append(gradient, value)) <= 4.5 * sem).all()


def test_esam_is_the_gradient_of_the_examples_that_rise_most_where_some_weights_moved(x64):
    params, batch, gradient = mlp_params(), mlp_batch(size=7), jax.jit(jax.grad(mlp_network))
    (g, unravel), (w, _) = ravel_pytree(gradient(params, batch)), ravel_pytree(params)
    moves = ravel_pytree(coordinates(stream("esam"), params, 0.7))[0]
    up, alone = unravel(w + 0.3 * moves * g / (0.7 * jnp.linalg.norm(g))), jax.jit(one_by_one(mlp_network))
    rises = np.asarray(alone(up, batch) - alone(params, batch))
    chosen = np.argsort(-rises)[:4]
    update, state = jax.jit(lambda p: updated(esam(0.3, perturb=0.7, select=0.5), p, batch))(params)
    close(update, gradient(up, jax.tree.map(lambda x: x[chosen], batch)))
    np.testing.assert_allclose(state.monitor, estimate(jnp.asarray(rises[chosen])), rtol=1e-9)
    assert 0 < np.mean(moves) < 1


def test_esam_of_all_weights_and_all_examples_is_sam(x64):
    params, batch = mlp_params(), mlp_batch()
    one, two = (
        jax.jit(lambda p, tx=tx: updated(tx, p, batch)[0])(params)
        for tx in (esam(0.3, perturb=1.0, select=1.0), sam(0.3))
    )
    close(one, two)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("size", "select", "k"), [(5, 0.5, 3), (100, 0.07, 7), (3, 1e-9, 1)])
def test_esam_selects_so_many_examples_exactly_the_first_of_those_that_rise_alike(size, select, k):
    loss = lambda w, batch: jnp.mean(w * batch)
    w, tx = jnp.zeros(size), esam(0.1, perturb=1.0, select=select)
    update, _ = tx.update(
        jnp.ones(size), tx.init(w), w, loss=loss, batch=jnp.ones(size), example_losses=lambda w, batch: w * batch
    )
    np.testing.assert_allclose(update, np.where(np.arange(size) < k, 1 / k, 0), rtol=1e-6)


def test_esam_without_the_loss_of_each_example_gets_one_sentence():
    params, batch = mlp_params(), mlp_batch()
    given = {"loss": mlp_loss, "batch": batch}
    with pytest.raises(InputError, match=r"esam: update must be given example_losses=, a function .*, got a call with"):
        esam().update(params, esam().init(params), params, **given)
    with pytest.raises(
        InputError, match=r"esam: example_losses must be a function to shape \(6,\), got one to shape \(\)"
    ):
        esam().update(params, esam().init(params), params, **given, example_losses=mlp_loss)


@pytest.mark.slow
def test_a_loss_whose_outputs_are_known_knows_its_examples(x64):
    params, batch = mlp_params(), mlp_batch()
    state, grads = esam(0.3).init(params), jax.grad(mlp_network)(params, batch)
    known, _ = esam(0.3).update(grads, state, params, loss=mlp_network, batch=batch)
    close(known, updated(esam(0.3), params, batch)[0], rtol=1e-9)


def bowl(curvatures):
    """A quadratic loss of a vector, its Hessian with these eigenvalues, and a point."""
    q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (len(curvatures),) * 2))
    H = q @ jnp.diag(jnp.asarray(curvatures)) @ q.T
    return H, lambda w, batch: w @ H @ w / 2, jax.random.normal(jax.random.key(1), (len(curvatures),))


def test_entropy_sgd_caps_the_curvatures_of_a_quadratic_at_gamma(x64):
    H, loss, w = bowl([0.1, 1.0, 5.0])
    tx = entropy_sgd(0.5, steps=2000, rate=0.3, noise=0.0)
    update, state = jax.jit(lambda w: updated(tx, w, jnp.ones(1), loss))(w)
    np.testing.assert_allclose(update, 0.5 * H @ jnp.linalg.solve(H + 0.5 * jnp.eye(3), w), rtol=1e-9)
    np.testing.assert_allclose(state.monitor, (jnp.linalg.norm(update) / 0.5, 0), rtol=1e-9)


@pytest.mark.slow
def test_entropy_sgd_of_a_large_gamma_is_the_plain_gradient(x64):
    params, batch, plain = mlp_params(), mlp_batch(), jax.grad(mlp_network)(mlp_params(), mlp_batch())
    apart = []
    for gamma in (1e2, 1e3):
        tx = entropy_sgd(gamma, steps=200, rate=0.5 / gamma, noise=0.0)
        update, _ = jax.jit(lambda p, tx=tx: updated(tx, p, batch))(params)
        apart.append(np.abs(ravel_pytree(update)[0] - ravel_pytree(plain)[0]).max())
    assert apart[1] < 0.12 * apart[0] < 0.01


def test_entropy_sgd_is_its_recursion_with_noise_and_on_a_quadratic_the_noise_averages_out(x64):
    params, batch, gamma, rate, average, noise = mlp_params(), mlp_batch(), 0.4, 0.2, 0.6, 0.3
    w, unravel = ravel_pytree(params)
    x = mu = w
    for key in jax.random.split(stream("entropy_sgd"), 4):
        down = ravel_pytree(jax.grad(mlp_network)(unravel(x), batch))[0] - gamma * (w - x)
        x = x - rate * down + rate**0.5 * noise * ravel_pytree(gaussian(key, params))[0]
        mu = average * mu + (1 - average) * x
    options = {"steps": 4, "rate": rate, "average": average}
    update, _ = updated(entropy_sgd(gamma, noise=noise, **options), params, batch)
    np.testing.assert_allclose(ravel_pytree(update)[0], gamma * (w - mu), rtol=1e-9)
    _, loss, w = bowl([0.1, 1.0, 5.0])
    mean, sem = mean_update(entropy_sgd(gamma, noise=noise, **options), w, jnp.ones(1), 2000, loss)
    still, _ = updated(entropy_sgd(gamma, noise=0.0, **options), w, jnp.ones(1), loss)
    assert (np.abs(mean[:-1] - still) <= 4.5 * sem[:-1]).all() and sem[:-1].min() > 0


def dense_kappa(loss, params, batch, at):
    """Relative flatness of the layer `at` by its definition."""

    def of_weights(W):
        return loss([layer | {"w": W} if i == at else layer for i, layer in enumerate(params)], batch)

    W = params[at]["w"]
    return jnp.einsum("cs,ct,asat->", W, W, jax.hessian(of_weights)(W))


FAM_LOSSES = {
    "closed": (mlp_network, 2),
    "one logit": (mlp_network, 1),
    "smoothed": (losses.of(mlp_apply, losses.smoothed_cross_entropy(0.2)), 3),
    "any": (mlp_loss, 2),
    "squared": (lambda p, b: losses.squared_error(mlp_apply(p, b["x"]), b["x"][:, :2]), 2),
}


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("closed", 2),
        *(pytest.param("any", at, marks=pytest.mark.slow) for at in (0, 1, 2)),
        *(pytest.param(name, 2, marks=pytest.mark.slow) for name in ("one logit", "smoothed", "squared")),
        pytest.param("closed", 1, marks=pytest.mark.slow),
    ],
)
def test_fam_adds_the_gradient_of_the_dense_relative_flatness_in_all_parameters(x64, name, at):
    loss, classes = FAM_LOSSES[name]
    params, batch = mlp_params(sizes=(3, 5, 4, classes)), mlp_batch(classes=max(classes, 2))
    value, gradient = jax.jit(jax.value_and_grad(lambda p: dense_kappa(loss, p, batch, at)))(params)
    plain = jax.grad(loss)(params, batch)
    for tx in (fam(0.7, layer=f"{at}/w"), *([fam(0.7)] if at == 2 else [])):
        update, state = jax.jit(lambda p, tx=tx: updated(tx, p, batch, loss))(params)
        close(update, jax.tree.map(lambda g, k: g + 0.7 * k, plain, gradient), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(state.monitor, (value, 0), rtol=1e-9)
    # not as released: what is above and below the layer hears of it, too
    assert all(np.abs(layer["w"]).max() > 1e-3 for layer in gradient)


@pytest.mark.slow
def test_fam_knows_the_last_layer_where_it_meets_an_example_at_many_positions(x64):
    params = {"in": jax.random.normal(jax.random.key(0), (2, 3)), "out": jax.random.normal(jax.random.key(1), (3, 4))}
    network = losses.of(lambda p, x: jnp.tanh(x @ p["in"]) @ p["out"])
    batch = {"x": jax.random.normal(jax.random.key(2), (3, 5, 2)), "y": jnp.arange(15).reshape(3, 5) % 4}
    both = [{"w": params["in"]}, {"w": params["out"]}]
    named = lambda p, b: network({"in": p[0]["w"], "out": p[1]["w"]}, b)
    value, gradient = jax.jit(jax.value_and_grad(lambda p: dense_kappa(named, p, batch, 1)))(both)
    update, state = jax.jit(lambda p: updated(fam(1.0), p, batch, network))(params)
    added = jax.tree.map(jnp.subtract, update, jax.grad(network)(params, batch))
    close(added, {"in": gradient[0]["w"], "out": gradient[1]["w"]}, rtol=1e-8)
    np.testing.assert_allclose(state.monitor.mean, value, rtol=1e-9)
    with pytest.raises(
        InputError, match="fam: layer must be one that meets each example once, got 'in', which meets 15"
    ):
        updated(fam(1.0, layer="in"), params, batch, network)


def test_what_fam_cannot_do_gets_one_sentence():
    params, batch = mlp_params(), mlp_batch()
    with pytest.raises(InputError, match=r"fam: layer must be the path of a .*, got '1/W'\. Did you mean '1/w'\?"):
        updated(fam(1.0, layer="1/W"), params, batch)
    with pytest.raises(InputError, match="fam: loss must be a network with a linear layer, got one in which none was"):
        updated(fam(1.0), jnp.ones(3), jnp.ones((4, 3)), lambda w, x: jnp.mean(w * x))
    filters = {"conv": jnp.ones((2, 2, 1, 3))}
    layout = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    loss = lambda p, x: jnp.mean(jax.lax.conv_general_dilated(x, p["conv"], (1, 1), **layout) ** 2)
    with pytest.raises(InputError, match="fam: layer must be a dense one, got 'conv', a convolution"):
        updated(fam(1.0), filters, jnp.ones((2, 4, 4, 1)), loss)


GGN = {
    "fa": (functools.partial(fa, normalize=None), lambda first, second, n: second),
    "fa adaptive": (functools.partial(fa, normalize=None, adaptive=True), lambda first, second, n: second),
    "hsr": (functools.partial(hsr, bound="variance"), lambda first, second, n: second - first**2 / n),
    "seht": (seht, lambda first, second, n: first),
}
"""Methods of the Gauss-Newton matrix, and what they penalise: a function of its two moments and its size."""


@pytest.mark.first_is_fast
@pytest.mark.parametrize("where", [(False, True), None], ids=["where", "all"])
@pytest.mark.parametrize("name", GGN)
def test_penalties_of_the_gauss_newton_matrix_are_those_of_the_dense_one_on_the_same_probes(x64, name, where):
    params, batch = tuple(mlp_params()), mlp_batch()
    flat, unravel = ravel_pytree(params)
    chosen, _ = trees.partition(params, where)
    at = slice(flat.size - ravel_pytree(chosen)[0].size, None)  # what is chosen comes last
    make, of_moments = GGN[name]
    keys = jax.random.split(stream(name.partition(" ")[0]), 3)
    vectors = jnp.stack([ravel_pytree(rademacher(key, chosen))[0] for key in keys])

    def penalty(p):
        weights = p if name == "fa adaptive" else jnp.ones_like(p)
        G = dense_ggn(mlp_apply, losses.cross_entropy, unravel(p), batch)
        G = (weights[:, None] * G * weights)[at, at]
        products = vectors @ G
        first, second = (jnp.sum(products * other) / len(vectors) for other in (vectors, products))
        return of_moments(first, second, len(G))

    value, gradient = jax.jit(jax.value_and_grad(penalty))(flat)
    tx = make(0.7, matrix="ggn", probes=3, every=1, where=where)
    update, state = jax.jit(lambda p: updated(tx, p, batch))(params)
    added = ravel_pytree(update)[0] - ravel_pytree(jax.grad(mlp_network)(params, batch))[0]
    expected = 0.7 * jnp.where(jnp.arange(flat.size) >= at.start, gradient, 0)
    np.testing.assert_allclose(added, expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(state.monitor.mean, value, rtol=1e-9)
    assert np.abs(added).max() > 1e-3


@pytest.mark.slow
def test_the_gauss_newton_matrix_is_that_of_a_loss_whose_outputs_are_known(x64):
    params, batch = mlp_params(), mlp_batch()
    for make in (fa, hsr, seht, functools.partial(seht, drop=0.5), functools.partial(fa, adaptive=True)):
        with pytest.raises(
            InputError, match=r"loss must be losses.of\(apply, criterion\) with matrix='ggn', got a func"
        ):
            updated(make(0.1, matrix="ggn"), params, batch, mlp_loss)
    tx, given = fa(0.1, matrix="ggn"), {"loss": mlp_loss, "batch": batch, "penalty_loss": mlp_network}
    update, _ = tx.update(jax.grad(mlp_loss)(params, batch), tx.init(params), params, **given)
    close(update, updated(tx, params, batch)[0])


LOWERS = {
    "fa": (fa(0.5, normalize=None, every=1, key=2), "tr(H²)"),
    "fa, Gauss-Newton": (fa(0.5, normalize=None, every=1, matrix="ggn"), "tr(G²)"),
    "fa, adaptive": (fa(1.0, normalize=None, every=1, adaptive=True), "tr((WHW)²)"),
    "hsr": (hsr(0.05, every=1), "bound"),
    "hsr, variance": (hsr(0.5, bound="variance", every=1, key=1), "variance"),
    "seht": (seht(0.02, every=1), "tr H"),
    "fam": (fam(0.3), "κ"),
    "sam": (sam(0.3), "λ_max"),
    "asam": (asam(1.0), "tr((WHW)²)"),
    "gam": (gam(0.3), "λ_max"),
    "cr_sam": (cr_sam(0.3, gamma=0.3), "λ_max"),
    "nso": (nso(0.1, pairs=2), "tr H"),
    "trace_sam": (trace_sam(0.1), "tr H"),
    "frob_sam": (frob_sam(0.5, rho=0.1, samples=8), "tr(H²)"),
    "det_sam": (det_sam(1.0, rho=0.5, box=0.5), "tr H"),
}
"""Methods, strong enough for full batches of Breast Cancer, and what each is meant to lower. So strong a penalty
depends on its random vectors: of some keys training is slower than 1,200 steps allow."""


def tanh_apply(p, x):
    return jnp.tanh(x @ p["in"] + p["b"]) @ p["out"]


@functools.cache
def breast_cancer_at_equal_loss(name, level=0.1):
    """What LOWERS names, of a small network trained on Breast Cancer until its loss is `level`; and that loss."""
    batch = jax.tree.map(jnp.asarray, data.load("breast-cancer").train)
    keys, loss = jax.random.split(jax.random.key(0)), losses.of(tanh_apply)
    start = {"in": jax.random.normal(keys[0], (30, 4)) / 30**0.5, "b": jnp.zeros(4),
             "out": jax.random.normal(keys[1], (4, 1)) / 2}  # fmt: skip
    chain = optax.chain(LOWERS[name][0] if name in LOWERS else optax.identity(), optax.sgd(0.3))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, batch)
        update, state = chain.update(grads, state, params, loss=loss, batch=batch)
        return (optax.apply_updates(params, update), state), (value, params)

    values, path = jax.jit(lambda p: jax.lax.scan(step, (p, chain.init(p)), length=1200)[1])(start)
    at = int(np.argmax(values <= level))
    params = jax.tree.map(lambda leaf: leaf[at], path)
    H, w = curvature.hessian(loss, params, batch).dense(), ravel_pytree(params)[0]
    spectrum = jnp.linalg.eigvalsh(H)
    mean, deviation, root = jnp.mean(spectrum), jnp.std(spectrum), (len(spectrum) - 1) ** 0.5
    return {
        "loss": values[at], "λ_max": spectrum[-1], "tr H": jnp.sum(spectrum), "tr(H²)": jnp.sum(spectrum**2),
        "tr(G²)": jnp.sum(curvature.ggn(tanh_apply, params, batch).dense() ** 2),
        "tr((WHW)²)": jnp.sum((w[:, None] * H * w) ** 2), "bound": mean + deviation * root,
        "width": 2 * deviation * root, "variance": len(spectrum) * deviation**2,
        "κ": sharpness.relative_flatness(tanh_apply, params, batch).mean,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LOWERS)
def test_a_regulariser_lowers_what_it_penalises_on_real_data_at_equal_training_loss(name):
    plain, found = (breast_cancer_at_equal_loss(which) for which in ("plain", name))
    assert 0.09 < found["loss"] <= 0.1 and 0.09 < plain["loss"] <= 0.1
    assert found[LOWERS[name][1]] < 0.95 * plain[LOWERS[name][1]]


@pytest.mark.slow
def test_a_penalty_after_a_method_that_replaces_the_gradient_adds_what_it_adds_alone(x64):
    params, batch = mlp_params(), mlp_batch()

    def chained(*parts):
        chain = optax.chain(*parts)
        grads = jax.grad(mlp_loss)(params, batch)
        return chain.update(grads, chain.init(params), params, loss=mlp_loss, batch=batch)[0]

    penalty, replaced = fa(0.5, every=1, probes=2), sam(0.3)
    added = jax.tree.map(jnp.subtract, chained(penalty), jax.grad(mlp_loss)(params, batch))
    close(chained(replaced, penalty), jax.tree.map(jnp.add, chained(replaced), added), rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsr(0.1, bound="uper"), r"hsr: bound must be one of .* Did you mean 'upper'"),
        (lambda: hsr(0.1, step="units"), r"hsr: step must be one of .* Did you mean 'unit'"),
        (lambda: hsr(0.1, moments=3), r"hsr: moments must be None or a function .*, got 3"),
        (lambda: seht(0.1, drop=1.0), r"seht: drop must be a number of at least 0 and below 1, got 1.0"),
        (lambda: seht(0.1, probes=0), r"seht: probes must be a whole number of at least 1, got 0"),
        (lambda: sam(every=0), r"sam: every must be a whole number of at least 1, got 0"),
        (lambda: asam(eta=-0.1), r"asam: eta must be a finite number >= 0, got -0.1"),
        (lambda: gam(beta=(0.5, 1.5)), r"gam: beta must be a finite number >= 0 <= 1, got 1.5"),
        (lambda: cr_sam(gamma=-1.0), r"cr_sam: gamma must be a finite number >= 0, got -1.0"),
        (lambda: nso(pairs=0), r"nso: pairs must be a whole number of at least 1, got 0"),
        (lambda: frob_sam(samples=1), r"frob_sam: samples must be a whole number of at least 2, got 1"),
        (lambda: frob_sam(rho=0.0), r"frob_sam: rho must be above 0, got 0.0"),
        (lambda: det_sam(box=0.0), r"det_sam: box must be above 0, got 0.0"),
        (lambda: m_sam(shards=0), r"m_sam: shards must be a whole number of at least 1, got 0"),
        (lambda: esam(perturb=0.0), r"esam: perturb must be a number above 0 and at most 1, got 0.0"),
        (lambda: esam(select=1.5), r"esam: select must be a finite number >= 0 <= 1, got 1.5"),
        (
            lambda: entropy_sgd(0.0),
            r"entropy_sgd: gamma must be above 0, got 0.0\. The local entropy has no gradient at 0",
        ),
        (lambda: entropy_sgd(steps=0), r"entropy_sgd: steps must be a whole number of at least 1, got 0"),
        (lambda: entropy_sgd(rate=0.0), r"entropy_sgd: rate must be above 0, got 0.0"),
        (lambda: entropy_sgd(average=1.0), r"entropy_sgd: average must be a number of at least 0 and below 1, got 1.0"),
        (lambda: entropy_sgd(noise=-1.0), r"entropy_sgd: noise must be a finite number >= 0, got -1.0"),
        (lambda: fam(0.1, layer=3), r"fam: layer must be None or the path of a layer's weights, got 3"),
        (lambda: fam(0.1, every=0), r"fam: every must be a whole number of at least 1, got 0"),
        (lambda: fa(0.1, matrix="gnn"), r"fa: matrix must be one of 'hessian', 'ggn', got 'gnn'\. Did you mean 'ggn'"),
        (lambda: fam(0.1, microbatches=0), r"fam: microbatches must be a whole number of at least 1, got 0"),
        (lambda: sam(microbatches=2.0), r"sam: microbatches must be a whole number of at least 1, got 2.0"),
    ],
)
def test_bad_arguments_get_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_state_made_after_another_was_donated_is_whole():
    tx = methods.sam(0.1)
    jax.jit(lambda state: state, donate_argnums=0)(tx.init(jnp.ones(2)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(tx.init(jnp.ones(2))))

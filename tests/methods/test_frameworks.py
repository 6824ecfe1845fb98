"""Methods where people have their networks: Flax NNX, Equinox, many devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import steppe
from steppe.methods import fa, gam, nso, sam
from support.networks import mlp_batch


def batches(count=40):
    return [mlp_batch(i, size=8, dtype=jnp.float32) for i in range(count)]


def cross_entropy(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


@pytest.mark.slow
def test_flax_nnx_with_its_own_optimizer():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner, self.outer = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.outer(jnp.tanh(self.inner(x)))

    def trained(lam):
        model = Net(nnx.Rngs(0))
        graph = nnx.graphdef(model)
        optimizer = nnx.Optimizer(model, optax.chain(fa(lam, every=2), optax.adam(1e-2)), wrt=nnx.Param)

        def loss(params, batch):
            return cross_entropy(nnx.merge(graph, params)(batch["x"]), batch)

        @nnx.jit
        def step(model, optimizer, batch):
            grads = nnx.grad(lambda m: cross_entropy(m(batch["x"]), batch))(model)
            optimizer.update(model, grads, loss=loss, batch=batch)

        for batch in batches():
            step(model, optimizer, batch)
        return curvature_of(loss, nnx.state(model, nnx.Param))

    assert trained(10.0) < 0.8 * trained(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("method", [sam(0.5), nso(0.1), fa(0.1, every=1), gam()], ids=["sam", "nso", "fa", "gam"])
def test_statistics_of_batchnorm_are_those_of_the_plain_pass(method):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner, self.norm = nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
            self.outer = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.outer(jnp.tanh(self.norm(self.inner(x))))

    graph, params, statistics = nnx.split(Net(nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
    batch = batches(1)[0]

    def both(params, batch):
        model = nnx.merge(graph, params, statistics, copy=True)
        return cross_entropy(model(batch["x"]), batch), nnx.state(model, nnx.BatchStat)

    def step(tx):
        (_, after), grads = jax.value_and_grad(both, has_aux=True)(params, batch)
        update, _ = tx.update(grads, tx.init(params), params, loss=lambda p, b: both(p, b)[0], batch=batch)
        return update, after

    (plain, expected), (update, after) = (
        jax.jit(step, static_argnums=0)(tx) for tx in (optax.chain(optax.identity()), method)
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), expected, after))
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b)), plain, update))
    # what the first pass saw, and the initial statistics as they were
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), statistics, after))


@pytest.mark.slow
def test_equinox():
    eqx = pytest.importorskip("equinox")

    def trained(lam):
        params, static = eqx.partition(eqx.nn.MLP(3, 2, 8, 1, jnp.tanh, key=jax.random.key(0)), eqx.is_inexact_array)

        def loss(params, batch):
            return cross_entropy(jax.vmap(eqx.combine(params, static))(batch["x"]), batch)

        tx = optax.chain(fa(lam, every=2), optax.adam(1e-2))

        @jax.jit
        def step(params, state, batch):
            updates, state = tx.update(jax.grad(loss)(params, batch), state, params, loss=loss, batch=batch)
            return eqx.apply_updates(params, updates), state

        state = tx.init(params)
        for batch in batches():
            params, state = step(params, state, batch)
        return curvature_of(loss, params)

    assert trained(10.0) < 0.8 * trained(0.0)


def curvature_of(loss, params):
    return float(steppe.curvature.frobenius_squared(steppe.curvature.hessian(loss, params, batches()), 0).mean)


def test_state_survives_orbax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    params, batch = {"w": jnp.ones((3, 2))}, mlp_batch(dtype=jnp.float32)
    loss = lambda p, b: cross_entropy(jnp.tanh(b["x"] @ p["w"]), b)
    tx = optax.chain(fa(0.1, every=2), optax.adam(1e-2))
    step = jax.jit(lambda p, s: tx.update(jax.grad(loss)(p, batch), s, p, loss=loss, batch=batch))
    _, state = step(params, tx.init(params))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", tx.init(params))
    jax.tree.map(np.testing.assert_array_equal, step(params, restored), step(params, state))


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax, steppe
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from support.networks import directly, mlp_params, mlp_batch, mlp_loss
from steppe.methods import fa, gam, nso, sam

assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("data",))
params, batch = mlp_params(dtype=jnp.float32), mlp_batch(size=16, dtype=jnp.float32)

def added(params, batch, loss=mlp_loss, tx=fa(1.0, every=1)):
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, state = tx.update(zeros, tx.init(params), params, loss=loss, batch=batch)
    return updates, state.monitor

def close(a, b, rtol=1e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), a, b)

alone = jax.jit(added)(params, batch)
split = jax.device_put(batch, NamedSharding(mesh, P("data")))
everywhere = jax.device_put(params, NamedSharding(mesh, P()))
close(jax.jit(added)(everywhere, split), alone)

# under shard_map the loss contains its own mean over devices, and B is the size of a shard
pooled = lambda p, b: jax.lax.pmean(mlp_loss(p, b), "data")
def refused(loss, **options):
    whole = dict(mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), **options)
    try:
        jax.jit(jax.shard_map(lambda p, b: added(p, b, loss), **whole))(params, batch)
    except steppe.InputError as error:
        return str(error)

assert "fa: loss must be the loss of one device's own examples under pmap" in refused(pooled, check_vma=False)
assert "fa: loss must be the same on all devices" in refused(mlp_loss)
mapped = jax.jit(jax.shard_map(lambda p, b: added(p, b, pooled), mesh=mesh, in_specs=(P(), P("data")), out_specs=P()))
updates, flatness = mapped(params, batch)
alone = jax.jit(lambda p, b: added(p, b, tx=fa(1.0, every=1, curvature=directly())))(params, batch)
close(flatness, alone[1])
close(jax.tree.map(lambda x: x / 4, updates), alone[0])
print("sharded equals unsharded")
"""


@pytest.mark.slow
def test_a_batch_sharded_over_devices_equals_one_device(on_four_devices):
    assert on_four_devices(SHARDED) == "sharded equals unsharded"

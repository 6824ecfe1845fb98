"""Parameters and batches laid out over devices: the numbers of one device, in less memory on each."""

import json

import jax
import jax.numpy as jnp
import pytest

from steppe import curvature

SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from steppe import InputError, curvature, losses, measures, methods
from steppe.curvature import layout, operators
from steppe.curvature.estimators import estimates, probes
from steppe.curvature.spectrum import krylov

rng = np.random.default_rng(0)
weight = lambda *shape: rng.normal(size=shape) / 4
params = {"a": {"w": weight(16, 24), "b": np.zeros(24)}, "o": {"w": weight(24, 3), "b": np.zeros(3)}}
params = jax.tree.map(np.float32, params)
batch = {"x": np.float32(rng.normal(size=(32, 16))), "y": rng.integers(0, 3, size=32)}
apply = lambda p, x: jnp.tanh(x @ p["a"]["w"] + p["a"]["b"]) @ p["o"]["w"] + p["o"]["b"]
loss = losses.of(apply)

def laid_out(tree, count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("parts",))
    layout = lambda leaf: NamedSharding(mesh, P() if len(leaf) % count else P("parts"))
    return jax.device_put(tree, jax.tree.map(layout, tree) if count > 1 else jax.devices()[0])

def crossed(params, batch):
    # parameters by columns over four devices, examples over two of such fours
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("examples", "columns"))
    columns = lambda x: P(*[None] * (x.ndim - 1), None if x.shape[-1] % 4 else "columns")
    laid_out = lambda tree, of: jax.device_put(tree, jax.tree.map(lambda x: NamedSharding(mesh, of(x)), tree))
    return laid_out(params, columns), laid_out(batch, lambda x: P("examples"))

ones = lambda p: jax.tree.map(jnp.ones_like, p)
H = lambda p, b: curvature.hessian(loss, p, b)

def penalised(method):
    tx = optax.with_extra_args_support(method)
    return lambda p, b: jax.jit(
        lambda p, b: tx.update(jax.grad(loss)(p, b), tx.init(p), p, loss=loss, batch=b)[0])(p, b)

def first_order(p, b):
    rows = measures.measure(["sam_sharpness"], apply=apply, params=p, batches=b)
    return [row.value for row in rows]

CASES = {
    "batches": lambda p, b: curvature.hessian(loss, p, [b, b]).matvec(ones(p)),
    "ggn": lambda p, b: curvature.ggn(apply, p, b).matvec(ones(p)),
    "fa": penalised(methods.fa(0.1, probes=2)),
    "sam": penalised(methods.sam(0.1)),
}
SCALARS = {
    "moments": lambda p, b: curvature.moments(H(p, b), 0, probes=2),
    "eigenvalues": lambda p, b: curvature.top_eigenpairs(H(p, b), 0, k=1).values,
    "density": lambda p, b: curvature.quadrature(H(p, b), 0, probes=1, steps=5),
    "measures": first_order,
}

CROSSED = {
    "moments of batches": lambda p, b: curvature.moments(curvature.hessian(loss, p, [b, b]), 0, probes=3),
    **{name: {**CASES, **SCALARS}[name] for name in ("batches", "fa", "eigenvalues")},
}

def apart(a, b):
    pairs = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (a, b)), strict=True)
    return max(float(np.max(np.abs(x - y)) / np.max(np.abs(x))) for x, y in pairs)

told = {"apart": {}, "elsewhere": [], "trace": {}, "basis": {}}
for name, case in {**CASES, **SCALARS}.items():
    one, many = (case(*laid_out((params, batch), count)) for count in (1, 8))
    told["apart"][name] = apart(one, many)
    pairs = zip(*map(jax.tree.leaves, (many, laid_out(params, 8)))) if name in CASES else ()
    told["elsewhere"] += [name for leaf, p in pairs if not leaf.sharding.is_equivalent_to(p.sharding, p.ndim)]

for name, case in CROSSED.items():
    told["apart"][f"{name}, crossed"] = apart(case(*laid_out((params, batch), 1)), case(*crossed(params, batch)))

scattered = {**laid_out(params, 8), "o": jax.device_put(params["o"], jax.devices()[1])}
try:
    curvature.trace(H(scattered, batch), 0)
except InputError as error:
    told["refused"] = str(error)

big = {"w": jnp.zeros((512, 512)), "o": jnp.zeros((512, 8))}
rows = {"x": np.ones((64, 512), np.float32), "y": np.zeros(64, int)}
deep = losses.of(lambda p, x: jnp.tanh(x @ p["w"]) @ p["o"])
for count in (1, 2, 4, 8):
    A = curvature.hessian(deep, *laid_out((big, rows), count))
    computed = lambda A, keys: estimates._moments("rademacher", (True, True))(A, keys)
    plan = jax.jit(computed).lower(A, jax.random.split(jax.random.key(0), 1)).compile().memory_analysis()
    told["trace"][count] = plan.argument_size_in_bytes + plan.temp_size_in_bytes
    basis = krylov.Basis.empty(4, krylov.zero(A), A.size)
    told["basis"][count] = sum(leaf.addressable_shards[0].data.nbytes for leaf in basis[:2])

drawn = jax.jit(lambda key, like: layout.shard_alike(probes.rademacher(key, like), like))
put = laid_out(big, 8)
program = drawn.lower(jax.random.key(0), put).compile()
words = ("all-gather", "all-reduce", "permute", "all-to-all")
told["told to others"] = [word for word in words if word in program.as_text()]
told["drawn"] = program.memory_analysis().temp_size_in_bytes
found = program(jax.random.key(0), put)
told["bytes"] = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(found)]
print(json.dumps(told))
"""


@pytest.mark.slow
def test_sharded_parameters_give_the_numbers_of_one_device_in_less_memory(on_devices):
    told = json.loads(on_devices(SCRIPT))
    assert max(told["apart"].values()) < 2e-5, told["apart"]
    assert "parameters and data that lie on the same devices" in told["refused"]
    assert told["elsewhere"] == [], "products and gradients must lie where the parameters do"
    for memory in (told["trace"], told["basis"]):
        assert memory["1"] > memory["2"] > memory["4"] > memory["8"], memory
    assert told["basis"]["8"] == told["basis"]["1"] / 8
    assert told["told to others"] == [], "each device must draw its own part of a random vector"
    whole = 4 * 512 * 512
    assert max(told["bytes"]) == whole / 8
    assert told["drawn"] < whole / 2


def test_one_device_computes_with_the_program_that_it_always_had(monkeypatch):
    A = curvature.hessian(lambda w, x: jnp.sum(jnp.tanh(x @ w)), jnp.ones(3), jnp.ones((2, 3)))
    program = str(jax.make_jaxpr(lambda A: curvature.moments(A, 0, probes=1))(A))
    assert "shard_alike" not in program and "sharding_constraint" not in program
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert "shard_alike" in str(jax.make_jaxpr(lambda A: curvature.moments(A, 1, probes=1))(A))

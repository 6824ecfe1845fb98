"""What all methods take: `where`, `microbatches`, and arguments that `optax.inject_hyperparams` hands over."""

import functools
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, methods
from steppe.core import losses, trees
from steppe.curvature.estimators.probes import gaussian, uniform
from steppe.methods import averaged_params, ema, fa, fam, hsr, sam, seht, swa
from support.networks import mlp_batch, mlp_loss, mlp_params

ONE = {name: {"every": 1, "probes": 2} for name in ("fa", "hsr", "seht")} | {
    "m_sam": {"shards": 3},
    "frob_sam": {"rho": 0.1},
    "det_sam": {"box": 0.5},
    "entropy_sgd": {"steps": 3, "noise": 0.0, "rate": 0.3},
}
"""Settings of methods beside their strength, for one small acting update."""

BLOCK = {"in": False, "out": True}


def made(name, strength=0.3, **settings):
    return methods.METHODS[name](strength, **ONE.get(name, {}) | settings)


def apply(p, x):
    return jnp.tanh(x @ p["in"]) @ p["out"]


network = losses.of(apply)


def params(dtype=None):
    normal = lambda key, shape: jax.random.normal(jax.random.key(key), shape, dtype or float)
    return {"in": normal(0, (3, 2)), "out": normal(1, (2, 2))}


def updated(tx, p, batch, loss=network):
    return tx.update(jax.grad(loss)(p, batch), tx.init(p), p, loss=loss, batch=batch)


def close(a, b, **tolerance):
    np.testing.assert_allclose(ravel_pytree(a)[0], ravel_pytree(b)[0], **({"rtol": 1e-9, "atol": 1e-12} | tolerance))


# --- where: a group of parameters is moved, and all receive their gradient there


class Dense:
    """The loss around a point as a function of flat vectors, and a mask of the chosen entries."""

    def __init__(self, p, batch):
        self.w, self.unravel = ravel_pytree(p)
        self.m, _ = ravel_pytree({"in": jnp.zeros_like(p["in"]), "out": jnp.ones_like(p["out"])})
        self.like, self.batch = p, batch

    def loss(self, w, batch=None):
        return network(self.unravel(w), self.batch if batch is None else batch)

    def gradient(self, w, batch=None):
        return jax.grad(self.loss)(w, batch)

    def up(self, w, v, length):
        return w + length * self.m * v / jnp.linalg.norm(self.m * v)

    def draw(self, name, count, of=gaussian):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode())), 0)
        keys = [key] if count is None else jax.random.split(key, count)
        return [self.m * ravel_pytree(of(k, self.like))[0] for k in keys]


def dense_sam(at):
    return at.gradient(at.up(at.w, at.gradient(at.w), 0.3))


def dense_asam(at):
    T = jnp.abs(at.w) + 0.01
    g = at.m * T * at.gradient(at.w)
    return at.gradient(at.w + 0.3 * T * g / jnp.linalg.norm(g))


def dense_m_sam(at):
    parts = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], at.batch) for i in range(3)]
    return sum(at.gradient(at.up(at.w, at.gradient(at.w, part), 0.3), part) for part in parts) / 3


def dense_esam(at):
    up = at.up(at.w, at.gradient(at.w), 0.3)
    each = lambda w: network.each(at.unravel(w), at.batch)
    worst = jnp.argsort(each(at.w) - each(up))[:3]
    return jax.grad(lambda w: jnp.mean(each(w)[worst]))(up)


def dense_gam(at):
    g0 = at.gradient(at.w)
    g1 = at.gradient(at.up(at.w, g0, 0.03))
    p = at.up(at.w, g1 - g0, 0.3)
    g2 = at.gradient(p)
    g3 = at.gradient(at.up(p, g2, 0.03))
    a, m = 0.6 * g1 + 0.4 * g3, g0 + 0.5 * g2
    return a - 0.03 * (m - a * (a @ m) / (a @ a))


def dense_cr_sam(at):
    g = at.gradient(at.w)
    up, down = (at.gradient(at.up(at.w, g, s * 0.3)) for s in (1, -1))
    return up + 0.1 * (up + down - 2 * g) + 0.01 * (up - down)


def dense_nso(at):
    (U,) = at.draw("nso", 1)
    return (at.gradient(at.w + 0.3 * U) + at.gradient(at.w - 0.3 * U)) / 2


def dense_trace_sam(at):
    return at.gradient(at.w + 0.3 * at.draw("trace_sam", None)[0])


def dense_frob_sam(at):
    zs = at.draw("frob_sam", 2)
    spread = lambda w: jnp.var(jnp.stack([at.loss(w + 0.1 * z) for z in zs]), ddof=1)
    return at.gradient(at.w) + 0.3 / (2 * 0.1**2) * jax.grad(spread)(at.w)


def dense_det_sam(at):
    (x,) = at.draw("det_sam", 1, uniform)
    rise = lambda w: at.loss(w + 0.5 * x) - at.loss(w)
    return at.gradient(at.w) + 0.3 * jnp.exp(rise(at.w) / 0.5**2) * jax.grad(rise)(at.w)


def dense_entropy_sgd(at):
    x = mu = at.w
    nu = at.gradient(at.w)
    for _ in range(3):
        g = at.gradient(x)
        x = x - 0.3 * at.m * (g - 0.3 * (at.w - x))
        mu, nu = 0.75 * mu + 0.25 * x, 0.75 * nu + 0.25 * g
    return at.m * 0.3 * (at.w - mu) + (1 - at.m) * nu


def dense_block(make):
    """Of a penalty: the penalty of the loss as a function of the chosen parameters, on the same probes."""

    def reference(at):
        p = at.like
        alone = losses.of(lambda out, x: apply({"in": p["in"], "out": out}, x))
        added = updated(make, p["out"], at.batch, alone)[0] - jax.grad(alone)(p["out"], at.batch)
        return at.gradient(at.w) + ravel_pytree({"in": jnp.zeros_like(p["in"]), "out": added})[0]

    return reference


def dense_fam(at):
    added, _ = updated(fam(0.3), at.like, at.batch)
    return at.gradient(at.w) + at.m * (ravel_pytree(added)[0] - at.gradient(at.w))


DENSE = {
    "sam": (dense_sam, {}),
    "asam": (dense_asam, {}),
    "m_sam": (dense_m_sam, {}),
    "esam": (dense_esam, {"perturb": 1.0, "select": 0.5}),
    "gam": (dense_gam, {}),
    "cr_sam": (dense_cr_sam, {}),
    "nso": (dense_nso, {}),
    "trace_sam": (dense_trace_sam, {}),
    "frob_sam": (dense_frob_sam, {}),
    "det_sam": (dense_det_sam, {"box": 1.0, "rho": 0.5}),
    "entropy_sgd": (dense_entropy_sgd, {}),
    "fam": (dense_fam, {}),
    "fa": (dense_block(made("fa")), {}),
    "hsr": (dense_block(made("hsr")), {}),
    "seht": (dense_block(made("seht")), {}),
}
"""Each method confined to a group, from dense vectors, and the settings that go with it."""


def test_the_dense_references_are_those_of_every_method():
    assert set(DENSE) == set(methods.METHODS)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", DENSE)
def test_where_moves_the_chosen_group_and_gives_every_parameter_its_gradient_there(x64, name):
    p, batch, (reference, settings) = params(), mlp_batch(), DENSE[name]

    @jax.jit
    def both(p):
        update, state = updated(made(name, where=BLOCK, **settings), p, batch)
        everywhere, _ = updated(made(name, **settings), p, batch)
        return ravel_pytree(update)[0], reference(Dense(p, batch)), ravel_pytree(everywhere)[0], state.monitor.mean

    found, expected, everywhere, flatness = both(p)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-11)
    assert np.isfinite(flatness) and not np.allclose(found, everywhere)


def test_the_norm_of_sam_is_that_of_the_chosen_group(x64):
    p, batch = params(), mlp_batch()
    _, state = jax.jit(lambda p: updated(sam(0.3, where=BLOCK), p, batch))(p)
    norm = np.linalg.norm(jax.grad(network)(p, batch)["out"])
    np.testing.assert_allclose(state.monitor.mean, 0.3 * norm)


class Pair(eqx.Module):
    first: jax.Array
    second: jax.Array

    def __call__(self, x):
        return x @ self.first @ self.second


def test_a_group_is_chosen_by_bools_a_prefix_a_function_or_a_network_of_bools():
    pair = Pair(jnp.ones((3, 2)), jnp.ones((2, 2)))
    nested = {"head": pair, "tail": jnp.ones(2)}
    loss = lambda p, b: jnp.mean(p["head"](b["x"]) ** 2) * jnp.sum(p["tail"])
    ways = [
        {"head": Pair(True, True), "tail": False},
        {"head": True, "tail": False},
        lambda p: {"head": True, "tail": False},
        lambda p: jax.tree.map(lambda leaf: leaf.ndim == 2, p),
    ]
    programs = {
        str(jax.make_jaxpr(lambda p, w=w: updated(sam(0.3, where=w), p, mlp_batch(), loss))(nested)) for w in ways
    }
    assert len(programs) == 1
    alone = lambda p, b: jnp.mean(p(b["x"]) ** 2)
    mask = jax.tree.map(lambda leaf: leaf.shape == (2, 2), pair)  # callable, as every network is
    some, every = jax.jit(lambda p: [updated(sam(0.3, where=w), p, mlp_batch(), alone)[0] for w in (mask, True)])(pair)
    assert not np.allclose(some.first, every.first)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_group_that_is_none_is_refused_where_the_state_is_made(name):
    for where, sentence in (
        ({"out": True}, "where: mask must be a prefix of the parameters' pytree, got another structure"),
        ({"in": 1, "out": 0}, "where: mask must be a pytree of bools, one for whole arrays, got 1"),
        (False, "where: mask must be true somewhere, got one that chooses nothing"),
    ):
        with pytest.raises(InputError, match=sentence):
            made(name, where=where).init(params())


WRAPPED = {
    "masked": lambda tx: optax.masked(tx, BLOCK),
    "multi_transform": lambda tx: optax.multi_transform({"a": tx, "b": optax.sgd(1.0)}, {"in": "b", "out": "a"}),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.sgd(1.0)}, {"in": "b", "out": "a"}),
}


@pytest.mark.parametrize("way", WRAPPED)
def test_inside_a_mask_of_optax_the_advice_is_one_that_works(way):
    for name in methods.METHODS:
        sentence = rf"{name}: params\['in'\] must be an array, got a MaskedNode.* by where=: {name}\(…, where=mask\)\.$"
        with pytest.raises(InputError, match=sentence):
            WRAPPED[way](made(name)).init(params())
        made(name, where=BLOCK).init(params())
    for average in (ema(), swa()):
        with pytest.raises(InputError, match=r"Put (ema|swa) after optax.masked, multi_transform or partition\.$"):
            WRAPPED[way](average).init(params())
        chained = optax.chain(WRAPPED[way](optax.sgd(1.0)), average)
        close(averaged_params(chained.init(params())), params())


# --- microbatches: the answer of the whole batch in the memory of a part


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    "name", [*sorted(methods.METHODS, key=lambda n: methods.CATALOGUE[n].family == "penalty"), "fa ggn", "seht drop"]
)
def test_microbatches_give_the_update_of_the_whole_batch(x64, name):
    name, variant = name.split(" ") if " " in name else (name, None)
    options = {"ggn": {"matrix": "ggn"}, "drop": {"drop": 0.5}, None: {}}[variant]
    # the cheapest estimate of the whole batch sees other random vectors
    draws_otherwise = name in ("fa", "hsr", "seht") and variant is None
    many = (1 if draws_otherwise else None, 3)
    p, batch = params(), mlp_batch()
    found = jax.jit(lambda p: [updated(made(name, microbatches=k, **options), p, batch) for k in many])(p)
    close(found[1][0], found[0][0], rtol=1e-9, atol=1e-12)
    close(found[1][1].monitor, found[0][1].monitor, rtol=1e-9, atol=1e-12)
    plain = jax.grad(network)(p, batch)
    assert not np.allclose(ravel_pytree(found[0][0])[0], ravel_pytree(plain)[0], rtol=1e-4)


@pytest.mark.slow
def test_microbatches_of_m_sam_are_parts_of_its_shards(x64):
    p, batch = params(), mlp_batch(size=12)
    for shards in (1, 2, 3, 4, 6):
        whole, *split = jax.jit(
            lambda p, m=shards: [
                updated(made("m_sam", shards=m, microbatches=k), p, batch)[0] for k in (None, 3, 4, 12)
            ]
        )(p)
        for update in split:
            close(update, whole)


@pytest.mark.slow
def test_microbatches_reach_the_loss_that_a_curvature_of_ones_own_is_of(x64):
    p, batch, seen = params(), mlp_batch(), []

    def curvature(loss, p, b, key):
        H = jax.hessian(lambda w: loss({**p, "out": w}, b))(p["out"])
        seen.append(loss)
        return methods.contract.Estimate(jnp.sum(H**2), 0.0)

    whole, split = jax.jit(
        lambda p: [updated(fa(0.3, every=1, curvature=curvature, microbatches=k), p, batch)[0] for k in (None, 3)]
    )(p)
    close(split, whole)
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("name", methods.METHODS)
def test_microbatches_that_do_not_divide_the_batch_get_one_sentence(name):
    sentence = f"{name}: microbatches must be a divisor of the batch size 6, got 4"
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(lambda p: updated(made(name, microbatches=4), p, mlp_batch()), params())


@pytest.mark.optimised
@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    "name", ["sam", "esam", "m_sam", "nso", "fam", "entropy_sgd", "fa", "fa ggn", "hsr", "seht", "seht drop"]
)
def test_microbatches_bound_memory(name):
    name, variant = name.split(" ") if " " in name else (name, None)
    options = {"ggn": {"matrix": "ggn"}, "drop": {"drop": 0.5}}.get(variant, {}) | (
        {"shards": 2} if name == "m_sam" else {}
    )
    wide = losses.of(lambda p, x: jnp.tanh(jnp.tanh(x @ p["in"]) @ p["mid"]) @ p["out"])
    shapes = {"in": (8, 32), "mid": (32, 32), "out": (32, 4)}
    p = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in shapes.items()}
    batch = {"x": jax.ShapeDtypeStruct((4096, 8), jnp.float32), "y": jax.ShapeDtypeStruct((4096,), jnp.int32)}

    def peak(parts):
        def update(p, b):
            zeros, tx = trees.zeros_like(p), made(name, microbatches=parts, **options)
            return tx.update(zeros, tx.init(p), p, loss=wide, batch=b)[0]

        return jax.jit(update).lower(p, batch).compile().memory_analysis().temp_size_in_bytes

    assert peak(16) < 0.25 * peak(1)


# --- inject_hyperparams: arguments come as arrays


STATIC = {"fa": "probes", "hsr": "probes", "seht": ("probes", "drop"), "m_sam": "shards", "esam": "select",
          "nso": "pairs", "frob_sam": "samples", "det_sam": "samples", "entropy_sgd": "steps"}  # fmt: skip
"""Arguments that the shapes of a program depend on."""


def program(tx, p, batch):
    return jax.eval_shape(lambda p: updated(tx, p, batch), p)


@pytest.mark.parametrize("name", methods.METHODS)
def test_injected_hyperparameters_are_taken_or_the_sentence_names_what_is_static(name):
    make, p, batch, static = methods.METHODS[name], params(jnp.float32), mlp_batch(dtype=jnp.float32), STATIC.get(name)
    if static is None:
        program(optax.inject_hyperparams(make)(0.1), p, batch)
        return
    first = static if isinstance(static, str) else static[0]
    sentence = rf"{name}: {first} must be a Python .* Add '{first}' to static_args of optax.inject_hyperparams\."
    tx = optax.inject_hyperparams(make)(0.1)
    with pytest.raises(InputError, match=sentence):
        program(tx, p, batch)
    for strength in (0.1, lambda count: 0.1 * count):
        program(optax.inject_hyperparams(make, static_args=static)(strength), p, batch)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", methods.METHODS)
def test_an_injected_method_is_that_method(name):
    make, p, batch = methods.METHODS[name], params(jnp.float32), mlp_batch(dtype=jnp.float32)

    @jax.jit
    def two(p):
        found = []
        for factory in (make, optax.inject_hyperparams(make, static_args=STATIC.get(name, ()))):
            tx = factory(lambda count: 0.1 + 0.1 * count)
            state = tx.init(p)
            for _ in range(2):
                update, state = tx.update(jax.grad(network)(p, batch), state, p, loss=network, batch=batch)
            found.append(update)
        return found

    one, other = two(p)
    close(one, other, rtol=1e-5, atol=1e-7)


def test_an_injected_average_is_that_average():
    w = jnp.array(8.0)

    @jax.jit
    def averages(w):
        found = []
        for average in (swa(1, every=2), optax.inject_hyperparams(swa)(1, every=2)):
            tx, at = optax.chain(optax.sgd(0.5), average), w
            state = tx.init(at)
            for _ in range(4):
                updates, state = tx.update(at, state, at)
                at = optax.apply_updates(at, updates)
            found.append(averaged_params(state))
        return found

    np.testing.assert_allclose(averages(w), 1.25)  # 8 → 4 → 2 → 1 → 0.5: the mean of 2 and 0.5


@pytest.mark.slow
def test_without_jit_whole_numbers_come_as_arrays_and_are_taken():
    loss, w, x = lambda w, x: jnp.mean(x * w**4), jnp.array(2.0), jnp.arange(6.0)
    for make, settings in ((methods.nso, {"pairs": 2}), (methods.sam, {"every": 2, "microbatches": 3})):
        injected, _ = updated(optax.inject_hyperparams(make)(0.1, **settings), w, x, loss)
        close(injected, updated(make(0.1, **settings), w, x, loss)[0], rtol=1e-5)


def test_a_strength_that_a_schedule_leads_through_zero_still_counts_its_updates():
    loss, w, x = lambda w, x: jnp.mean(x * w**4), jnp.array(2.0), jnp.arange(6.0)
    tx = optax.inject_hyperparams(methods.sam)(optax.linear_schedule(0.0, 1.0, 2))
    state = tx.init(w)
    for count in range(2):
        update, state = tx.update(jax.grad(loss)(w, x), state, w, loss=loss, batch=x)
        assert int(state.inner_state.count) == count + 1
    close(update, updated(sam(0.5), w, x, loss)[0], rtol=1e-5)
    with pytest.raises(InputError, match="entropy_sgd: gamma must be above 0"):
        methods.entropy_sgd(jnp.zeros(()))


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "2"])
def test_an_interval_that_is_none_gets_one_sentence(every):
    for make in (sam, functools.partial(fa, 0.1), functools.partial(hsr, 0.1), functools.partial(seht, 0.1)):
        with pytest.raises(InputError, match="every must be a whole number of at least 1"):
            make(every=every)
    with pytest.raises(InputError, match="every must be a whole number of at least 1, got"):
        jax.jit(lambda every: sam(every=every).init(params()))(2.0)


def test_a_gauss_newton_matrix_in_parts_asks_for_a_loss_whose_outputs_are_known():
    tx, p = made("fa", matrix="ggn", microbatches=2), mlp_params()
    with pytest.raises(InputError, match=r"fa: loss must be losses.of\(apply, criterion\) with matrix='ggn'"):
        jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, loss=mlp_loss, batch=mlp_batch()), p)

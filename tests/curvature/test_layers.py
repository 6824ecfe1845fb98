"""Layers found in a loss, and the moments that they make cheap: exact where probes are known, unbiased where not.

One table of networks, on which the reduction applies and on which it must not, against the dense Hessian in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from steppe import InputError, curvature
from steppe.curvature.estimators import layer_probes, segments
from steppe.curvature.estimators import loss_moments as layered
from steppe.curvature.estimators.probes import rademacher
from steppe.curvature.layers import detection, norms
from steppe.methods import fa
from support.networks import dense_hessian, mlp_batch, mlp_loss, mlp_params

normal = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape) / shape[0] ** 0.5
square = lambda y: jnp.mean(jnp.sum(y.reshape(y.shape[0], -1) ** 2, axis=1))


def mlp():
    return mlp_loss, mlp_params(), mlp_batch()


def relu():
    return functools.partial(mlp_loss, activation=jax.nn.relu), mlp_params(sizes=(3, 4, 3, 2)), mlp_batch()


def transposed():
    """Weights stored (out, in), examples mapped one by one, as Equinox does."""
    loss = lambda p, x: square(jax.vmap(lambda x: p["out"] @ jnp.tanh(p["in"] @ x))(x))
    return loss, {"in": normal(0, 4, 3), "out": normal(1, 2, 4)}, normal(2, 5, 3)


def weight_on_the_left():
    loss = lambda p, x: square(jnp.tanh(p["w"] @ x.T).T @ p["v"])
    return loss, {"w": normal(0, 4, 3), "v": normal(1, 4, 2)}, normal(2, 5, 3)


def attention():
    """Heads as axes of their own, several axes contracted, products of activations, layer normalisation."""

    def loss(p, x):
        h = (x - x.mean(-1, keepdims=True)) / (1 + x.std(-1, keepdims=True)) * p["scale"][None, None, :]
        q, k, v = (jnp.einsum("btd,dhk->bthk", h, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
        return square(x + jnp.einsum("bhts,bshk,hkd->btd", weights, v, p["o"], optimize="optimal"))

    p = {name: normal(i, 3, 2, 2) for i, name in enumerate("qkv")}
    return loss, p | {"o": normal(4, 2, 2, 3), "scale": jnp.arange(1.0, 4.0)}, normal(3, 3, 2, 3)


def convolutions():
    def conv(x, w, stride, numbers, groups=1):
        options = {"dimension_numbers": numbers, "feature_group_count": groups}
        return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", **options)

    def loss(p, x):
        h = jnp.tanh(conv(x, p["a"], 1, ("NHWC", "HWIO", "NHWC")) + p["bias"][None, None, None, :])
        h = jnp.tanh(conv(jnp.moveaxis(h, -1, 1), p["b"], 2, ("NCHW", "OIHW", "NCHW")))
        h = jnp.tanh(conv(h, p["depthwise"], 1, ("NCHW", "OIHW", "NCHW"), groups=3))
        return square(h.mean(axis=(2, 3)) @ p["w"])

    p = {"a": normal(0, 2, 2, 1, 2), "b": normal(1, 3, 2, 2, 2), "w": normal(2, 3, 2), "bias": normal(3, 2)}
    p["depthwise"] = normal(5, 3, 1, 2, 1)
    return loss, p, normal(4, 3, 4, 4, 1)


def wide_data():
    """Fewer rows than inputs, one of them zero and two alike: the products of rows are singular."""
    x = normal(2, 4, 7).at[1].set(0).at[3].set(normal(2, 4, 7)[0])
    return lambda p, x: square(jnp.tanh(x @ p["w"]) @ p["v"]), {"w": normal(0, 7, 3), "v": normal(1, 3, 2)}, x


def jitted_inside():
    layer = jax.jit(lambda w, x: jnp.tanh(x @ w))
    return (
        lambda p, x: square(layer(p["v"], layer(p["w"], x))),
        {"w": normal(0, 3, 4), "v": normal(1, 4, 2)},
        normal(2, 5, 3),
    )


def tied():
    return (
        lambda p, x: square(jnp.tanh(x @ p["w"]) @ p["w"].T @ p["v"]),
        {"w": normal(0, 3, 4), "v": normal(1, 3, 2)},
        normal(2, 5, 3),
    )


def decayed():
    """A weight that is also penalised in the loss is used twice."""
    loss = lambda p, x: square(jnp.tanh(x @ p["w"]) @ p["v"]) + 0.1 * jnp.sum(p["w"] ** 4)
    return loss, {"w": normal(0, 3, 4), "v": normal(1, 4, 2)}, normal(2, 5, 3)


def sliced():
    return lambda p, x: square(jnp.tanh(x @ p["w"][:, :2]) @ p["w"][:2, 2:]), {"w": normal(0, 3, 4)}, normal(2, 5, 3)


def scanned():
    def loss(p, x):
        h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ p["in"], p["stack"])
        return square(h)

    return loss, {"in": normal(0, 3, 3), "stack": normal(1, 3, 3, 3)}, normal(2, 4, 3)


def rematerialised():
    loss = lambda p, x: square(jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(p["w"], x) @ p["v"])
    return loss, {"w": normal(0, 3, 4), "v": normal(1, 4, 2)}, normal(2, 5, 3)


def branched():
    loss = lambda p, x: square(jax.lax.cond(x[0, 0] > 0, jnp.tanh, jnp.sin, x @ p["w"]) @ p["v"])
    return loss, {"w": normal(0, 3, 4), "v": normal(1, 4, 2)}, normal(2, 5, 3)


def product_of_weights():
    return (
        lambda p, x: square(jnp.tanh(x @ (p["w"] @ p["v"]))),
        {"w": normal(0, 3, 2), "v": normal(1, 2, 3)},
        normal(2, 5, 3),
    )


def bilinear_in_the_batch():
    """A contraction over a batch of products is none of ours."""
    return (
        lambda p, x: square(jnp.tanh(jnp.einsum("bi,bio->bo", x, p["w"]))),
        {"w": normal(0, 4, 3, 2)},
        normal(2, 4, 3),
    )


clip = jax.custom_vjp(jnp.tanh)
clip.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


def own_derivative():
    """A function that can be differentiated in reverse only."""
    return lambda p, x: square(clip(x @ p["w"]) @ p["v"]), {"w": normal(0, 3, 4), "v": normal(1, 4, 2)}, normal(2, 5, 3)


APPLIES = {
    mlp: ["0/w", "1/w"],
    relu: ["0/w", "1/w", "2/w"],
    transposed: ["in", "out"],
    weight_on_the_left: ["w", "v"],
    attention: ["q", "k", "v", "o"],
    convolutions: ["a", "b", "depthwise", "w"],
    wide_data: ["w", "v"],
    jitted_inside: ["w", "v"],
    scanned: ["in"],
    rematerialised: ["v"],
    branched: ["w", "v"],
    tied: ["v"],
    decayed: ["v"],
}
APPLIES_NOT = [sliced, product_of_weights, bilinear_in_the_batch, own_derivative]


@pytest.mark.parametrize("network", [*APPLIES, *APPLIES_NOT], ids=lambda f: f.__name__)
def test_layers_are_found_where_a_weight_meets_one_product_only(network):
    found = curvature.find_layers(*network())
    assert sorted(layer.name for layer in found) == sorted(APPLIES.get(network, []))


def forms(monkeypatch, kind):
    """Make every layer of a small network take one form of probe and of norm."""
    norm, probe = {"full": (norms.exact, "full"), "gram": (norms.gram, "full"), "thin": (norms.exact, "thin"),
                   "sketched": (norms.sketch, "thin")}[kind]  # fmt: skip
    monkeypatch.setattr(layer_probes, "RANK", 2)
    monkeypatch.setattr(norms, "COLUMNS", 3)
    monkeypatch.setattr(
        norms,
        "cheapest",
        lambda layer: norms.exact if layer.groups > 1 or (layer.kind != "dense" and norm is norms.gram) else norm,
    )
    monkeypatch.setattr(layer_probes, "form", lambda layer, norm, count: "full" if layer.groups > 1 else probe)


def squares_of_known_probes(network, monkeypatch, count):
    """Our ‖PHv‖² and vᵀHv as functions of the parameters, and the same from the dense Hessian."""
    loss, params, batch = network()
    program = detection.program(loss, params, batch)
    leaves, treedef = jax.tree.flatten(params)
    held = {layer.leaf for layer in program.layers}
    direct = [leaf for index, leaf in enumerate(leaves) if index not in held]
    plans = [layer_probes.plan(layer, count) for layer in program.layers]
    probes = layer_probes.draw(jax.random.key(3), count, program.layers, plans, direct, "gaussian")
    monkeypatch.setattr(layer_probes, "draw", lambda *_: probes)

    def ours(params):
        sampler = layered._Sampler(program, jax.tree.leaves(params), jax.tree.leaves(batch), "gaussian", count)
        return sampler.block(None, count)

    def kernels(leaves):
        """Every layer's weight in its own layout, a rearrangement of the leaves."""
        found = {}

        def keep(at, a, K):
            found[at] = K
            return program.layers[at].apply(a, K)

        program.run([*leaves, *jax.tree.leaves(batch)], keep)
        return [found[at] for at in range(len(program.layers))]

    to_leaves = jax.linear_transpose(kernels, leaves)

    def dense(params):
        H = dense_hessian(loss, params, batch)
        unravel = ravel_pytree(params)[1]
        first, second = [], []
        for one in range(count):
            part = jax.tree.map(lambda x, one=one: x[one], probes)
            V = [S if T is None else S @ T.T for S, T in zip(part.left, part.right, strict=True)]
            entries, outside = list(to_leaves(V)[0]), iter(part.direct)
            entries = [x if index in held else next(outside) for index, x in enumerate(entries)]
            v = ravel_pytree(jax.tree.unflatten(treedef, entries))[0]
            Hv = H @ v
            parts = jax.tree.leaves(unravel(Hv))
            Z = kernels(parts)
            Z = [z if P is None else z @ P for z, P in zip(Z, part.sketch, strict=True)]
            total = sum(jnp.sum(z**2) for z in Z)
            second.append(total + sum(jnp.sum(x**2) for index, x in enumerate(parts) if index not in held))
            first.append(v @ Hv)
        return jnp.stack(first), jnp.stack(second)

    return ours, dense, params


slow = functools.partial(pytest.param, marks=pytest.mark.slow)
name = lambda function: getattr(function, "__name__", None)


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (mlp, "sketched"),
        *(
            slow(network, kind)
            for network in APPLIES
            if network is not mlp
            for kind in ("full", "sketched", *(["gram", "thin"] if network in (relu, attention, wide_data) else []))
        ),
    ],
    ids=name,
)
def test_value_and_gradient_equal_the_dense_ones_on_the_same_probes(x64, monkeypatch, network, kind):
    forms(monkeypatch, kind)
    ours, dense, params = squares_of_known_probes(network, monkeypatch, count=2)
    weights = jnp.array([0.3, 0.7])

    def both(f):
        total = lambda p: sum(weight * (weights @ x) for weight, x in zip((1.0, 2.0), f(p), strict=True))
        return jax.jit(lambda p: (f(p), ravel_pytree(jax.grad(total)(p))[0]))(params)

    for a, b in zip(jax.tree.leaves(both(ours)), jax.tree.leaves(both(dense)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def wide():
    return mlp_loss, mlp_params(sizes=(20, 24, 24, 3)), mlp_batch(size=6, inputs=20, classes=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "distribution"),
    [(wide, "gaussian"), (wide_data, "rademacher"), (convolutions, "rademacher")],
    ids=["wide", "wide data", "convolutions"],
)
def test_estimates_and_gradient_are_unbiased(x64, monkeypatch, network, distribution):
    loss, params, batch = network()
    if network is wide_data:
        monkeypatch.setattr(layer_probes, "form", lambda layer, norm, count: "rows" if layer.from_data else "full")
    if network is convolutions:
        forms(monkeypatch, "sketched")
    if network is wide:
        monkeypatch.setattr(layer_probes, "RANK", 8)
    flat, unravel = ravel_pytree(params)

    def moments(p):
        H = jax.hessian(lambda q: loss(unravel(q), batch))(p)
        return jnp.trace(H), jnp.sum(H**2)

    def estimates(p, key):
        found = curvature.loss_moments(loss, unravel(p), batch, key, probes=2, distribution=distribution)
        return found.trace.mean, found.frobenius_squared.mean

    draws = jax.random.split(jax.random.key(0), 1500)
    for which in (0, 1):
        exact = jax.jit(jax.value_and_grad(lambda p, which=which: moments(p)[which]))(flat)
        one = jax.value_and_grad(lambda p, key, which=which: estimates(p, key)[which])
        # in a loop: a batch of convolutions takes thirty times as long
        all_of_them = jax.jit(lambda p, one=one: jax.lax.map(lambda key: one(p, key), draws))(flat)
        for samples, truth in zip(all_of_them, exact, strict=True):
            sem = samples.std(axis=0, ddof=1) / len(draws) ** 0.5
            # at 4.5 standard errors, a thousand coordinates fail by chance once in 150 seeds; the seed is fixed
            assert jnp.all(jnp.abs(samples.mean(axis=0) - truth) <= 4.5 * sem + 1e-10)


def test_wide_layers_get_thin_probes_and_small_ones_full_ones():
    found = curvature.find_layers(mlp_loss, mlp_params(sizes=(20, 48, 48, 3)), mlp_batch(size=6, inputs=20, classes=3))
    assert [layer_probes.plan(layer, 5).form for layer in found] == ["rows", "thin", "full"]
    text = jnp.zeros((32, 10_000))
    (layer,) = curvature.find_layers(lambda w, x: square(x @ w), jnp.zeros((10_000, 20)), text)
    assert layer_probes.plan(layer, 5) == ("rows", norms.gram)
    loss = lambda p, x: square(jnp.tanh(x @ p["w"]) @ p["v"])
    many = curvature.find_layers(loss, {"w": jnp.zeros((64, 512)), "v": jnp.zeros((512, 512))}, jnp.zeros((2048, 64)))
    assert norms.cheapest(many[1]) is norms.sketch


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_thin_probes_and_sketches_have_identity_covariance(monkeypatch, distribution):
    forms(monkeypatch, "sketched")
    found = curvature.find_layers(*mlp())
    plans = [layer_probes.plan(layer, 1) for layer in found]
    draw = lambda key: layer_probes.draw(key, 1, found, plans, [jnp.zeros(2)], distribution)
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), 20_000))
    V = np.einsum("nmir,nmor->nio", drawn.left[0], drawn.right[0]).reshape(20_000, -1)
    np.testing.assert_allclose(V.T @ V / 20_000, np.eye(12), atol=0.06)
    P = np.asarray(drawn.sketch[0])[:, 0]
    np.testing.assert_allclose(np.einsum("nos,nqs->oq", P, P) / 20_000, np.eye(4), atol=0.06)


@pytest.mark.parametrize("scale", [slow(1e-12), 1.0, slow(1e6)])
def test_the_root_of_products_of_rows_is_one_where_rows_repeat_vanish_or_are_all_alike(scale):
    rng = np.random.default_rng(0)
    for x in (
        np.ones((64, 300)),
        np.zeros((5, 9)),
        np.repeat(rng.normal(size=(8, 40)), 8, axis=0),
        rng.normal(size=(32, 8)),
    ):
        single = (scale * x).astype(np.float32)
        C = np.asarray(layer_probes.root(jnp.asarray(single)), np.float64)
        exact = single.astype(np.float64) @ single.T.astype(np.float64)
        assert np.abs(C @ C.T - exact).max() <= 1e-5 * np.trace(exact) + 1e-30


@pytest.mark.optimised
@pytest.mark.slow
def test_many_probes_run_in_blocks_with_the_memory_of_one():
    loss, params, batch = mlp_loss, mlp_params(sizes=(8, 64, 64, 4)), mlp_batch(size=64, inputs=8, classes=4)

    def compiled(probes):
        value = lambda p: curvature.loss_moments(loss, p, batch, 0, probes=probes).frobenius_squared.mean
        return jax.jit(jax.value_and_grad(value)).lower(params).compile()

    few, many = compiled(8), compiled(83)
    assert many.memory_analysis().temp_size_in_bytes < 1.5 * few.memory_analysis().temp_size_in_bytes
    exact = jnp.sum(dense_hessian(mlp_loss, mlp_params(), mlp_batch()) ** 2)
    estimate = curvature.loss_moments(*mlp(), 0, probes=4003).frobenius_squared
    assert abs(estimate.mean - exact) <= 4 * estimate.sem
    assert estimate.sem < 0.05 * exact


@pytest.mark.parametrize("network", APPLIES_NOT, ids=lambda f: f.__name__)
def test_without_layers_it_is_the_plain_estimate_of_the_same_probes(network):
    loss, params, batch = network()
    ours = curvature.loss_moments(loss, params, batch, 5, probes=3)
    H = curvature.hessian(loss, params, [batch])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, curvature.moments(H, 5, probes=3))


@pytest.mark.parametrize(
    ("differentiate", "rematerialize", "tanh"),
    [("trace", None, jnp.tanh), ("frobenius_squared", None, clip), ("frobenius_squared", 3, jnp.tanh)],
)
def test_the_gradient_without_layers_is_that_of_the_dense_hessian_on_the_same_probes(
    x64, differentiate, rematerialize, tanh
):
    """D³L[v, Hv] against a derivative of the dense Hessian, for weights that are used twice."""
    x = normal(0, 5, 3)
    loss = lambda p, x: jnp.mean(tanh(jnp.tanh(x @ p["w"]) @ p["w"].T + p["b"]) ** 2)
    params = {"w": normal(1, 3, 4), "b": normal(2, 3)}
    assert curvature.find_layers(loss, params, x) == ()
    flat, unravel = ravel_pytree(params)

    def dense(flat):
        H = jax.hessian(lambda q: loss(unravel(q), x))(flat)
        probes = (ravel_pytree(rademacher(key, params))[0] for key in jax.random.split(jax.random.key(4), 3))
        values = [(v @ H @ v, jnp.sum((H @ v) ** 2)) for v in probes]
        return sum(pair[differentiate != "trace"] for pair in values) / 3

    def ours(flat):
        options = {"differentiate": differentiate, "rematerialize": rematerialize}
        found = curvature.loss_moments(loss, unravel(flat), x, 4, probes=3, **options)
        return getattr(found, differentiate).mean

    for found, exact in zip(*(jax.jit(jax.value_and_grad(f))(flat) for f in (ours, dense)), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)


def test_rematerialization_keeps_what_passes_between_segments_of_a_program():
    params = {f"w{i}": jnp.eye(8) for i in range(12)}

    def loss(params, x):
        for w in params.values():
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    traced = jax.make_jaxpr(loss)(params, jnp.ones((16, 8)))
    segmented, leaves = segments.rematerialized(traced, 4), jax.tree.leaves(params)
    x = jnp.ones((16, 8))
    whole, parts = (
        jax.make_jaxpr(lambda leaves, run=run: jax.grad(lambda leaves: run(leaves)[0])(leaves))(leaves)
        for run in (
            lambda leaves: jax.core.eval_jaxpr(traced.jaxpr, traced.consts, *leaves, x),
            lambda leaves: segmented(traced.consts, *leaves, x),
        )
    )
    tanhs = lambda program: str(program).count("= tanh")
    assert tanhs(whole) == 12
    assert tanhs(parts) >= 20  # computed again in reverse
    np.testing.assert_allclose(segmented(traced.consts, *leaves, x)[0], loss(params, x), rtol=1e-6)
    nothing = jax.make_jaxpr(lambda x: x)(1.0)
    assert segments.rematerialized(nothing, 4)([], 1.0) == [1.0]


def test_five_probes_of_a_convolution_take_the_program_of_two():
    loss, params, batch = convolutions()

    def count(probes):
        value = lambda p: curvature.loss_moments(loss, p, batch, 0, probes=probes).frobenius_squared.mean
        return jax.jit(jax.grad(value)).lower(params).as_text().count("stablehlo.convolution")

    assert count(5) == count(2) > 0


def test_inside_vmap_with_a_named_axis_no_layers_are_used():
    """Products of rows on one device do not see the rows of another."""

    def loss(w, x):
        return jax.lax.pmean(square(jnp.tanh(x @ w)), "devices")

    def found(x):
        assert curvature.find_layers(loss, jnp.ones((3, 2)), x) == ()
        return 0

    jax.vmap(found, axis_name="devices")(jnp.ones((4, 5, 3)))


@pytest.mark.optimised
@pytest.mark.slow
def test_eager_jit_scan_and_vmap_agree_and_nothing_is_compiled_twice():
    _, params, batch = mlp()
    traces = []

    def loss(p, b):
        traces.append(None)
        return mlp_loss(p, b)

    def value(key):
        return curvature.loss_moments(loss, params, batch, key, probes=2).frobenius_squared.mean

    keys = jax.random.split(jax.random.key(0), 3)
    jitted = jax.jit(value)
    one_by_one = [jitted(key) for key in keys]
    before = len(traces)
    jitted(keys[0])
    assert len(traces) == before
    np.testing.assert_allclose(value(keys[0]), one_by_one[0], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(value))(keys), one_by_one, rtol=1e-5)
    np.testing.assert_allclose(jax.lax.scan(lambda c, key: (c, value(key)), 0, keys)[1], one_by_one, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("kind", ["gram", "sketched"])
def test_dtypes_of_gradients_are_kept_and_sums_are_at_least_float32(strict, monkeypatch, dtype, kind):
    forms(monkeypatch, kind)
    params, batch = mlp_params(dtype=dtype), mlp_batch(dtype=dtype)
    value = lambda p: curvature.loss_moments(mlp_loss, p, batch, 0, probes=2).frobenius_squared.mean
    mean, gradient = jax.jit(jax.value_and_grad(value))(params)
    assert mean.dtype == jnp.float32
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradient))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


def test_a_hessian_of_zero_has_a_gradient_of_zero():
    loss = lambda w, x: jnp.mean(x @ w)
    squared = lambda w: curvature.loss_moments(loss, w, jnp.ones((4, 3)), 0).frobenius_squared.mean
    value, gradient = jax.jit(jax.value_and_grad(squared))(jnp.ones((3, 2)))
    assert value == 0
    assert not jnp.any(gradient)


@pytest.mark.slow
def test_the_penalty_reaches_only_chosen_layers(x64):
    loss, params, batch = mlp()
    mask = [{"w": False, "b": False}, {"w": True, "b": False}]
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = fa(1.0, every=1, where=mask)
    updates, _ = tx.update(zeros, tx.init(params), params, loss=loss, batch=batch)
    reached = jax.tree.map(lambda x: bool(jnp.any(x != 0)), updates)
    assert reached == mask


def test_derivatives_of_a_convolution_stay_three_kinds_of_product():
    loss, params, batch = convolutions()
    value = lambda p: curvature.loss_moments(loss, p, batch, 0, probes=1).frobenius_squared.mean
    kinds = {eqn.primitive.name for eqn in jax.make_jaxpr(jax.grad(value))(params).eqns}
    assert {"layer_output", "layer_input_cotangent", "layer_kernel_cotangent"} <= kinds
    assert "conv_general_dilated" not in kinds


@pytest.mark.optimised
@pytest.mark.slow
def test_parallel_rows_of_different_length_and_outliers_keep_the_estimate_exact(monkeypatch):
    monkeypatch.setattr(layer_probes, "form", lambda layer, norm, count: "rows")
    rng = np.random.default_rng(0)
    brightness = np.linspace(0.1, 1, 8)[:, None] * np.ones((8, 300))
    outlier = rng.normal(size=(8, 300)) * np.where(np.arange(8) == 0, 1e4, 1.0)[:, None]
    for x in (brightness, outlier):
        single = x.astype(np.float32)
        C = np.asarray(layer_probes.root(jnp.asarray(single)), np.float64)
        exact = single.astype(np.float64) @ single.T.astype(np.float64)
        lengths = np.sqrt(np.diag(exact))
        assert np.abs((C @ C.T - exact) / np.outer(lengths, lengths)).max() < 32 * len(x) * np.finfo(np.float32).eps
        params = {"w": jnp.asarray(0.01 * rng.normal(size=(300, 3)), jnp.float32)}
        loss = lambda p, x: jnp.mean(jax.nn.logsumexp(x @ p["w"], axis=1))
        estimate = jax.jit(lambda x, loss=loss, params=params: curvature.loss_moments(loss, params, x, 0, probes=400))(
            jnp.asarray(single)
        )
        truth = curvature.closed_form.softmax_regression(params, jnp.asarray(single))
        for ours, theirs in zip(estimate, truth, strict=True):
            assert abs(ours.mean - theirs.mean) <= 4 * ours.sem


@pytest.mark.optimised
@pytest.mark.parametrize("lost", [0, 1e-6, 1e-5, 1e-3])
def test_a_singular_matrix_that_rounding_made_indefinite_has_a_factor(lost):
    noise = np.random.default_rng(0).normal(size=(8, 8)) * (1 - np.eye(8))
    cosines = (np.ones((8, 8)) + lost * (noise + noise.T)).astype(np.float32)
    L = np.asarray(jax.jit(layer_probes._cholesky)(cosines), np.float64)
    lowest = np.linalg.eigvalsh(cosines.astype(np.float64))[0]
    assert np.abs(L @ L.T - cosines).max() <= max(0, -lowest) + 32 * 8 * np.finfo(np.float32).eps


@pytest.mark.slow
def test_features_that_are_learned_elsewhere_receive_their_gradient(x64, monkeypatch):
    """What a layer sees is data to the layer, and may still be differentiated from outside."""
    monkeypatch.setattr(layer_probes, "form", lambda layer, norm, count: "rows")
    head, x = normal(0, 5, 2), normal(1, 4, 6)
    loss = lambda w, h: square(jnp.tanh(h @ w))

    def ours(body, key):
        return curvature.loss_moments(loss, head, jnp.tanh(x @ body), key, probes=1).frobenius_squared.mean

    def exact(body):
        flat = lambda w: loss(w.reshape(5, 2), jnp.tanh(x @ body))
        return jnp.sum(jax.hessian(flat)(head.reshape(-1)) ** 2)

    body = normal(2, 6, 5)
    draws = jax.jit(jax.vmap(jax.grad(ours), in_axes=(None, 0)))(body, jax.random.split(jax.random.key(0), 2000))
    sem = draws.std(axis=0, ddof=1) / 2000**0.5
    assert jnp.all(jnp.abs(draws.mean(axis=0) - jax.jit(jax.grad(exact))(body)) <= 4 * sem)


@pytest.mark.parametrize("probes", [1, 9, 17])
def test_every_block_of_probes_takes_the_same_forms(probes):
    x, w = jnp.ones((32, 784)), jnp.zeros((784, 10))
    loss = lambda w, x: jnp.mean(jax.nn.logsumexp(x @ w, axis=1))
    with jax.checking_leaks():
        estimate = jax.jit(lambda w: curvature.loss_moments(loss, w, x, 0, probes=probes).frobenius_squared)(w)
    assert bool(jnp.isfinite(estimate.mean))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("probes", [1, 2])
@pytest.mark.parametrize(("weights", "data"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float64)])
def test_weights_and_data_of_different_dtypes(x64, monkeypatch, weights, data, probes):
    forms(monkeypatch, "sketched")
    params = {"a": normal(0, 3, 4).astype(weights), "b": normal(1, 4, 2).astype(weights)}
    loss = lambda p, x: square(jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]))
    value = lambda p, x: curvature.loss_moments(loss, p, x, 0, probes=probes).frobenius_squared.mean
    found, gradient = jax.jit(jax.value_and_grad(value))(params, normal(2, 5, 3).astype(data))
    assert bool(jnp.isfinite(found))
    assert all(leaf.dtype == weights and bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))


def test_arrays_that_carry_their_sharding_take_the_direct_way():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    batch = jax.device_put(jnp.ones((4, 3)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d")))
    loss = lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)
    with jax.set_mesh(mesh):
        estimate = jax.jit(lambda w, x: curvature.loss_moments(loss, w, x, 0).frobenius_squared)(
            jnp.ones((3, 2)), batch
        )
    assert estimate.mean > 0


def test_a_loss_that_cannot_be_mapped_is_computed_probe_by_probe():
    double = lambda x: jax.custom_derivatives.linear_call(lambda _, x: 2 * x, lambda _, g: 2 * g, (), x)
    loss = lambda p, x: square(jnp.tanh(double(x @ p["w"])) @ p["v"])
    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    estimate = curvature.loss_moments(loss, params, jnp.ones((5, 3)), 0, probes=2)
    assert estimate.frobenius_squared.mean > 0


def test_bad_input_gets_one_sentence():
    loss, params, batch = mlp()
    with pytest.raises(InputError, match="probes must be a whole number of at least 1, got 0"):
        curvature.loss_moments(loss, params, batch, 0, probes=0)
    with pytest.raises(InputError, match="loss must be a function whose value is one floating-point scalar"):
        curvature.loss_moments(lambda p, b: jnp.ones((6, 2)) * p[0]["w"][0, 0], params, batch, 0)
    for value in (lambda p, b: None, lambda p, b: (loss(p, b), None), lambda p, b: 1):
        with pytest.raises(InputError, match="loss must be a function whose value is one floating-point scalar"):
            curvature.loss_moments(value, params, batch, 0)
    with pytest.raises(InputError, match="key must be an int or a JAX key array"):
        curvature.loss_moments(loss, params, batch, "seed")

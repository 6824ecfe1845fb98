"""Which layer relative flatness and FAM look at where none is named, and that they say so."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError, curvature, measures, sharpness
from steppe.core import losses
from steppe.methods import fam

SHAPES = {"emb": (7, 3), "mid": (3, 3), "out": (3, 7), "bias": (7,), "temperature": (), "scale": (3,)}
KEYS = dict(zip(SHAPES, jax.random.split(jax.random.key(0), len(SHAPES)), strict=True))
PARAMS = {name: jax.random.normal(KEYS[name], shape) for name, shape in SHAPES.items()}
BATCH = {"x": jnp.array([0, 1, 2, 3]), "y": jnp.array([1, 2, 3, 4])}


def hidden(p, x):
    return jnp.tanh(p["emb"][x] @ p["mid"])


def plain(p, x):
    return hidden(p, x) @ p["out"]


def twice(p, x):
    return jnp.concatenate([plain(p, x), hidden(p, x) @ p["emb"].T], axis=-1)


def within(apply):
    """One network in a dictionary of outputs, beside another head."""
    return lambda p, x: {"main": apply(p, x), "other": hidden(p, x) @ p["emb"].T}


@jax.custom_jvp
def product(a, w):
    return a @ w


product.defjvp(lambda at, along: (at[0] @ at[1], along[0] @ at[1] + at[0] @ along[1]))


ONE = {
    "plain": plain,
    "bias": lambda p, x: plain(p, x) + p["bias"],
    "temperature": lambda p, x: plain(p, x) / jnp.exp(p["temperature"]),
    "cap": lambda p, x: 3 * jnp.tanh(plain(p, x) / 3),
    "dropout": lambda p, x: jax.random.bernoulli(jax.random.key(0), 0.5, (len(x), 7)) * plain(p, x),
    "normalised before": lambda p, x: (hidden(p, x) * p["scale"]) @ p["out"],
    "transposed twice": lambda p, x: jax.vmap(lambda a: p["out"].T @ a)(hidden(p, x)),
    "tied below, in two places": lambda p, x: (p["emb"][x] + jnp.tanh(p["emb"][x + 1]) @ p["mid"]) @ p["out"],
    "a loop below": lambda p, x: jax.lax.fori_loop(0, 2, lambda _, a: jnp.tanh(a @ p["mid"]), p["emb"][x]) @ p["out"],
}
TIED = {
    "transposed": lambda p, x: hidden(p, x) @ p["emb"].T,
    "einsum": lambda p, x: jnp.einsum("bd,vd->bv", hidden(p, x), p["emb"]),
    "sliced": lambda p, x: hidden(p, x) @ p["emb"][:5].T,
    "temperature": lambda p, x: hidden(p, x) @ p["emb"].T / jnp.exp(p["temperature"]) + p["bias"],
    "remat": lambda p, x: jax.checkpoint(lambda a, w: a @ w.T)(hidden(p, x), p["emb"]),
    "elementwise": lambda p, x: jnp.sum(hidden(p, x)[:, None] * p["emb"], axis=-1),
    "low rank": lambda p, x: hidden(p, x) @ (p["scale"][:, None] * p["emb"].T),
}
HIDDEN = {
    "part": lambda p, x: hidden(p, x) @ p["out"][:, :5],
    "remat": lambda p, x: jax.checkpoint(lambda a, w: a @ w)(hidden(p, x), p["out"]),
    "branch": lambda p, x: jax.lax.cond(x[0] > 0, jnp.matmul, lambda a, w: -(a @ w), hidden(p, x), p["out"]),
    "loop": lambda p, x: jax.lax.map(lambda a: a @ p["out"], hidden(p, x)),
    "weight norm": lambda p, x: hidden(p, x) @ (p["out"] / jnp.linalg.norm(p["out"], axis=0)),
    "elementwise": lambda p, x: jnp.sum(hidden(p, x)[..., None] * p["out"], axis=1),
    "custom_jvp": lambda p, x: product(hidden(p, x), p["out"]),
}


@pytest.mark.parametrize("network", ONE)
def test_the_last_layer_is_the_matrix_that_meets_the_data_last(network):
    assert curvature.last_layer(ONE[network], PARAMS, BATCH["x"]).name == "out"
    assert curvature.last_layer(losses.of(ONE[network]), PARAMS, BATCH).name == "out"


@pytest.mark.parametrize(("network", "matrix"), [*((n, "emb") for n in TIED), *((n, "out") for n in HIDDEN)])
def test_a_head_that_is_no_layer_of_its_own_is_refused_by_name(network, matrix):
    apply = (TIED if matrix == "emb" else HIDDEN)[network]
    for function, batch in ((apply, BATCH["x"]), (losses.of(apply), BATCH)):
        with pytest.raises(
            InputError, match=f"layer must be named, got None.* whose last matrix, .*'{matrix}'.*, is no"
        ):
            curvature.last_layer(function, PARAMS, batch)


def test_several_last_matrices_are_refused_by_name():
    for apply, names in ((twice, "'out' and 'emb'"), (within(plain), "'out' and 'emb'")):
        with pytest.raises(InputError, match=f"of which several come last: {names}. Layers that can be named: "):
            curvature.last_layer(apply, PARAMS, BATCH["x"])


def test_weights_in_both_arms_of_a_siamese_network_are_no_layer():
    arms = lambda p, pair: jnp.sum(plain(p, pair[0]) * plain(p, pair[1]), axis=1)
    with pytest.raises(InputError, match="a network with a linear layer, got one in which none was found"):
        curvature.last_layer(arms, PARAMS, (BATCH["x"], BATCH["y"]))


def test_decay_within_the_loss_is_a_second_use_of_a_head_and_none_of_another_matrix():
    network = losses.of(plain)
    decayed = lambda name: lambda p, batch: network(p, batch) + 0.1 * jnp.sum(p[name] ** 2)
    assert curvature.last_layer(decayed("mid"), PARAMS, BATCH).name == "out"
    with pytest.raises(InputError, match="whose last matrix, 'out', is no layer of its own"):
        curvature.last_layer(decayed("out"), PARAMS, BATCH)


def test_data_that_a_loss_closes_over_are_data():
    loss = lambda p, batch: losses.cross_entropy(plain(p, BATCH["x"]), BATCH["y"]) + 0 * jnp.mean(batch)
    assert curvature.last_layer(loss, PARAMS, jnp.zeros(3)).name == "out"
    fixed = lambda p, batch: jnp.mean((jnp.ones((4, 3)) @ p["mid"] @ p["out"]) ** 2)
    assert curvature.last_layer(fixed, PARAMS, jnp.zeros(3)).name == "out"


def test_what_measures_and_penalises_refuses_a_tied_head_and_takes_a_named_layer():
    apply = TIED["transposed"]
    with pytest.raises(InputError, match=r"relative_flatness: layer must be named, got None.*'emb'.*named: 'mid'"):
        sharpness.relative_flatness(apply, PARAMS, BATCH)
    with pytest.raises(InputError, match="layer must be the path of a layer's weights, got 'emb', which is no layer"):
        sharpness.relative_flatness(apply, PARAMS, BATCH, layer="emb")
    with pytest.raises(InputError, match=r"fam: layer must be named, got None.*'emb'"):
        stepped(fam(0.1), apply)
    named = sharpness.relative_flatness(apply, PARAMS, BATCH, layer="mid")
    np.testing.assert_allclose(stepped(fam(0.1, layer="mid"), apply).monitor.mean, named.mean, rtol=1e-5)


def stepped(tx, apply):
    update = lambda p: tx.update(p, tx.init(p), p, loss=losses.of(apply), batch=BATCH)[1]
    return jax.jit(update)(PARAMS)


def test_the_layer_that_was_measured_is_named(caplog):
    (row,) = measures.measure(["relative_flatness"], apply=plain, params=PARAMS, batches=BATCH)
    assert row.note == "of the layer out"
    options = {"settings": {"relative_flatness": {"layer": "mid"}}}
    (row,) = measures.measure(["relative_flatness"], apply=plain, params=PARAMS, batches=BATCH, **options)
    assert row.note == "of the layer mid"
    with caplog.at_level(logging.INFO, logger="steppe"):
        stepped(fam(0.1), plain)
    assert "fam looks at the layer out." in caplog.messages


def test_one_head_of_several_outputs_can_be_named():
    main = lambda outputs, y: losses.cross_entropy(outputs["main"], y)
    found = sharpness.relative_flatness(within(plain), PARAMS, BATCH, criterion=main, layer="out")
    np.testing.assert_allclose(found.mean, sharpness.relative_flatness(plain, PARAMS, BATCH).mean, rtol=1e-5)


TURNED = {
    "transposed": lambda p, x: hidden(p, x) @ p["out"].T,
    "from the left": lambda p, x: (p["out"] @ hidden(p, x).T).T,
    "flat": lambda p, x: hidden(p, x) @ p["out"].reshape(-1, 3).T,
}


@pytest.mark.parametrize(
    ("network", "classes"), [("transposed", 7), ("transposed", 3), ("from the left", 3), ("flat", 7)]
)
def test_a_head_stored_the_other_way_round_has_the_same_relative_flatness(network, classes):
    usual = PARAMS | {"out": PARAMS["out"][:, :classes]}
    turned = usual | {"out": usual["out"].T.reshape(-1) if network == "flat" else usual["out"].T}
    batch = BATCH | {"y": BATCH["y"] % classes}
    exact = sharpness.relative_flatness(plain, usual, batch).mean
    np.testing.assert_allclose(sharpness.relative_flatness(TURNED[network], turned, batch).mean, exact, rtol=1e-5)
    if network == "transposed" and classes == 7:
        unknown = lambda f, y: 1 * losses.cross_entropy(f, y)  # not known in closed form
        found = sharpness.relative_flatness(TURNED[network], turned, batch, criterion=unknown)
        np.testing.assert_allclose(found.mean, exact, rtol=1e-4)
        found = sharpness.relative_flatness(TURNED[network], turned, batch, probes=400)
        assert abs(found.mean - exact) < 5 * found.sem

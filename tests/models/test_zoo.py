"""The networks that ship: their sizes, their parts against other code, their derivatives, and training them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params
from scipy.signal import correlate2d

from steppe import InputError, curvature, data, losses, models, study
from steppe.models.zoo import parts
from steppe.models.zoo.recurrent import Recurrent
from steppe.models.zoo.resnet import Block
from steppe.study.training.recipe import Recipe, shape_of

pytestmark = pytest.mark.usefixtures("without_surfaces")

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 8, 8, 1)).astype(np.float32)
TOKENS = jnp.array([[3, 7, 1, 0, 0], [2, 2, 5, 1, 4], [9, 0, 0, 0, 0], [1, 2, 3, 4, 0]])
LABELS = jnp.array([0, 2, 1, 0])
TINY = {
    "convolutional": {"channels": [2, 2], "hidden": [3]},
    "resnet": {"widths": [2, 3], "blocks": [1, 1]},
    "vgg": {"widths": [2, 3], "convolutions": [1, 2], "hidden": [3]},
    "vit": {"width": 4, "depth": 1, "heads": 2, "head_width": 2, "hidden": 3},
    "transformer": {"width": 4, "depth": 1, "heads": 2, "hidden": 3},
    "gru": {"hidden": [3]},
    "lstm": {"hidden": [3]},
}


def tiny(name, shape=(8, 8, 1), classes=3, **settings):
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in TINY[name].items()} | settings
    return models.build(name, shape, classes, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "settings", "count"),
    [
        ("resnet", 10, {}, 11_173_962),
        ("resnet", 100, {}, 11_220_132),
        ("vgg", 10, {}, 20_040_522),
    ],
)
def test_a_network_has_as_many_parameters_as_is_published(name, classes, settings, count):
    params = jax.eval_shape(models.build(name, (32, 32, 3), classes, **settings).init, jax.random.key(0)).params
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


def test_a_convolution_with_a_stride_has_as_many_zeros_on_each_side():
    layer = parts.convolution(1, 1, 3, nnx.Rngs(0), stride=2)
    found = layer(jnp.asarray(IMAGES))[0, :, :, 0]
    padded = np.pad(IMAGES[0, :, :, 0], 1)
    whole = correlate2d(padded, np.asarray(layer.kernel[...])[:, :, 0, 0], mode="valid")
    np.testing.assert_allclose(found, whole[::2, ::2], rtol=1e-5, atol=1e-6)


def test_hes_rule_counts_the_outputs_of_a_convolution():
    layer = parts.convolution(3, 64, 3, nnx.Rngs(0))
    np.testing.assert_allclose(np.std(layer.kernel[...]), np.sqrt(2 / (9 * 64)), rtol=0.05)


def test_a_block_that_begins_with_scales_of_zero_begins_as_the_identity():
    block = Block(2, 2, 1, "batch", True, rngs=nnx.Rngs(0))
    x = jnp.abs(jnp.asarray(RNG.normal(size=(3, 4, 4, 2)), jnp.float32))
    np.testing.assert_array_equal(block(x), x)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_layer_computes_what_flaxs_cell_does(cell):
    layer, x = Recurrent(cell, 3, 4, rngs=nnx.Rngs(0)), jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)
    make = nnx.GRUCell if cell == "gru" else nnx.OptimizedLSTMCell
    theirs = make(3, 4, rngs=nnx.Rngs(1))
    theirs.dense_i.kernel[...], theirs.dense_h.kernel[...] = layer.inner.kernel[...], layer.recurrent[...]
    holder = theirs.dense_i if theirs.dense_i.bias is not None else theirs.dense_h
    holder.bias[...] = layer.inner.bias[...]
    carry, expected = jnp.zeros((2, 4)), []
    carry = carry if cell == "gru" else (carry, carry)
    for step in range(5):
        carry, output = theirs(carry, x[:, step])
        expected.append(output)
    np.testing.assert_allclose(layer(x, jnp.ones((2, 5), bool)), jnp.stack(expected, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["transformer", "gru", "lstm"])
def test_padding_counts_for_nothing_and_what_is_no_token_makes_the_loss_nan(name):
    network = tiny(name, (5,), vocabulary=10)
    params, state = network.init(jax.random.key(0))
    apply = jax.jit(network.at(state))
    outputs = apply(params, TOKENS)
    if name != "transformer":  # which has positions for five
        np.testing.assert_allclose(network.at(state)(params, TOKENS[:1, :3]), outputs[:1], rtol=1e-5)
    else:  # a token that is masked may be anything: its embedding is not seen
        moved = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf.at[0].add(1.0) if "embedding" in str(path) else leaf, params
        )
        np.testing.assert_allclose(apply(moved, TOKENS), outputs, rtol=1e-5, atol=1e-6)
    for wrong in (10, -1, 0.5):
        assert np.isnan(apply(params, TOKENS.astype(jnp.float32).at[0, 1].set(wrong))[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_products_with_the_hessian_of_a_network_are_those_of_jax(name):
    network = tiny(name)
    params, state = network.init(jax.random.key(0))
    batch = {"x": jnp.asarray(IMAGES), "y": LABELS}
    loss = losses.of(network.at(state))
    vector = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), params)
    found = curvature.hessian(loss, params, batch).matvec(vector)
    gradient = jax.grad(lambda params: loss(params, batch))
    expected = jax.jit(lambda params, vector: jax.jvp(gradient, (params,), (vector,))[1])(params, vector)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest), found, expected)


SPEC = """
name = "zoo"
seeds = 1
data = {name = "digits", as_images = true, test_fraction = 0.9}
method = {name = "fa", lam = 0.01, every = 1}
train = {learning_rate = 0.01, batch_size = 50, epochs = 2}
measure = {batches = 2, probes = 2}
landscape = {points = 3, grid_points = 3}
"""


def spec(name, **changes):
    return study.spec.parse(SPEC, {"model": {"name": name, **TINY[name]}, **changes})


PENALTY = {"name": "fa", "lam": 0.01, "every": 10}


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, {"name": "sam", "rho": 0.05}) for name in TINY]
    + [pytest.param(name, PENALTY, marks=pytest.mark.slow) for name in ("convolutional", "vit")],
)
def test_a_network_can_be_trained_by_a_method(name, method):
    shape, strengths = shape_of(spec(name, method=method))
    Recipe.of(shape, shape.load_data()).rehearse(strengths)


@pytest.mark.slow
def test_a_study_of_a_network_ends_with_its_numbers(tmp_path):
    changes = {"model.normalization": "batch", "method": {"name": "sam", "rho": 0.05}}
    runs = study.run(spec("convolutional", **changes), tmp_path).runs
    assert runs["status"].to_list() == ["finished"]
    assert np.isfinite(runs["train_loss"][0]) and np.isfinite(runs["test_loss"][0])


def primitives(jaxpr, inside=False):
    """The names of what a program does inside its loops."""
    for eqn in jaxpr.eqns:
        if inside:
            yield eqn.primitive.name
        for sub in jaxprs_in_params(eqn.params):
            yield from primitives(sub, inside or eqn.primitive.name == "scan")


@pytest.mark.parametrize(("model", "expected"), [("convolutional", False), ("mlp", True)])
def test_convolutions_in_the_loop_of_training_are_brought_into_a_fast_layout(model, expected):
    settings = {"name": "mlp", "hidden": [3]} if model == "mlp" else {"name": model, **TINY[model]}
    shape, strengths = shape_of(study.spec.parse(SPEC, {"model": settings, "method": {"name": "none"}}))
    recipe = Recipe.of(shape, shape.load_data())
    progress = jax.eval_shape(recipe.start, jnp.uint32(0), strengths)
    program = jax.make_jaxpr(recipe.epoch)(progress, strengths, recipe.dataset.train)
    assert not {"conv_general_dilated"} & set(primitives(program.jaxpr))
    plain = not any("layer_" in name for name in primitives(program.jaxpr))
    assert plain is expected


def test_digits_as_images_are_the_same_numbers():
    flat, images = data.load("digits"), data.load("digits", as_images=True)
    assert images.shape == (8, 8, 1) and images.fingerprint == flat.fingerprint
    found = images.decode(jax.tree.map(lambda leaf: leaf[:3], images.train))["x"]
    np.testing.assert_array_equal(found.reshape(3, 64), flat.train["x"][:3])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: models.build("resnet", (30,), 2),
            r"model resnet: data must be images .*, got examples of shape \(30,\)",
        ),
        (lambda: models.build("vgg", (8, 8, 3), 2), "at least 32 pixels each way, to be halved 5 times, got 8 × 8"),
        (lambda: tiny("resnet", stem_stride=0), "model resnet: stem_stride must be"),
        (lambda: tiny("resnet", blocks=(1,)), "model resnet: blocks must be as many numbers as widths, 2, got 1"),
        (lambda: tiny("vgg", convolutions=(1,)), "model vgg: convolutions must be as many numbers as widths, 2, got 1"),
        (
            lambda: tiny("resnet", widths=(), blocks=()),
            "model resnet: widths must be at least one whole number, got none",
        ),
        (lambda: tiny("convolutional", channels=(0,)), "model convolutional: channels must be"),
        (lambda: tiny("convolutional", kernel=2), "kernel must be odd, so that the image keeps its size, got 2"),
        (lambda: tiny("convolutional", normalization="layer"), "normalization must be one of"),
        (lambda: tiny("convolutional", dropout=1.0), "dropout must be"),
        (lambda: tiny("vit", patch=3), "model vit: patch must be a divisor of the 8 × 8 pixels, got 3"),
        (lambda: tiny("transformer", heads=3), "model transformer: heads must be a divisor of the width 4, got 3"),
        (lambda: tiny("transformer", (30,)), r"or tokens with a vocabulary, got examples of shape \(30,\)"),
        (lambda: tiny("gru", vocabulary=9), r"tokens \(length,\) with a vocabulary, got examples of shape \(8, 8, 1\)"),
        (lambda: tiny("lstm", (5,), vocabulary=1), "model lstm: vocabulary must be"),
        (lambda: tiny("lstm", hidden=()), "model lstm: hidden must be at least one whole number, got none"),
    ],
)
def test_settings_that_make_no_network_are_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_stem_of_stride_two_gives_every_later_layer_a_quarter_of_the_pixels():
    whole, halved = (models.build("resnet", (8, 8, 3), 3, widths=(2, 3), blocks=(1, 1), stem_stride=s) for s in (1, 2))
    variables = whole.init(jax.random.key(0))
    shapes = [jax.tree.map(jnp.shape, network.init(jax.random.key(0))) for network in (whole, halved)]
    assert shapes[0] == shapes[1]
    x = jnp.zeros((1, 8, 8, 3))
    counts = [jax.jit(network.at(variables.state)).lower(variables.params, x).cost_analysis()["flops"]
              for network in (whole, halved)]  # fmt: skip
    assert 3.5 < counts[0] / counts[1] < 5
    with pytest.raises(InputError, match="to be halved 2 times"):
        models.build("resnet", (2, 2, 3), 3, widths=(2, 3), blocks=(1, 1), stem_stride=2)

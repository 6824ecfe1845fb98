"""Networks that compute in bfloat16 from parameters in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from steppe import InputError, models, study
from steppe.core import losses
from steppe.models import Variables
from steppe.models.precision import mixed_precision
from steppe.study.training.recipe import Recipe

SMALL = {
    "linear": ((8,), {}),
    "mlp": ((8,), {"hidden": (4,), "normalization": "batch", "dropout": 0.1}),
    "convolutional": ((8, 8, 3), {"channels": (4,), "hidden": (4,), "normalization": "batch"}),
    "resnet": ((8, 8, 3), {"widths": (4,), "blocks": (1,)}),
    "vgg": ((8, 8, 3), {"widths": (4,), "convolutions": (1,), "normalization": "group"}),
    "gru": ((5, 3), {"hidden": (4,)}),
    "lstm": ((5, 3), {"hidden": (4,)}),
    "transformer": ((5, 3), {"width": 8, "depth": 1, "heads": 2, "hidden": 8}),
    "vit": ((8, 8, 3), {"width": 8, "depth": 1, "heads": 2, "head_width": 4, "hidden": 8}),
}


def products(jaxpr):
    """The dtypes of all products and convolutions in a program, and in the programs inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation.outvars[0].aval.dtype
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_multiplies_in_bfloat16_and_answers_in_float32(name):
    shape, settings = SMALL[name]
    plain = models.build(name, shape, 3, **settings)
    network = mixed_precision(plain)
    variables, x = jax.eval_shape(plain.init, jax.random.key(0)), jnp.ones((4, *shape))
    for train in (True, False):

        def outputs(variables, x, train=train):
            return network.apply(variables, x, key=jax.random.key(0), train=train)

        logits, after = jax.eval_shape(outputs, variables, x)
        assert logits.dtype == jnp.float32 and logits.shape == (4, 3)
        assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, variables.state)
        found = list(products(jax.make_jaxpr(outputs)(variables, x).jaxpr))
        assert found.count(jnp.bfloat16) >= 4 * found.count(jnp.float32)  # attention and means over steps may be wide


def test_outputs_and_gradients_are_those_of_the_rounded_network():
    network = mixed_precision(models.build("linear", (6,), 3))
    (params, state), x = network.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (8, 6))
    y = jnp.arange(8) % 3
    layer = params["layers"][0]
    kernel, bias, inputs = (leaf.astype(jnp.bfloat16) for leaf in (layer["kernel"], layer["bias"], x))
    logits = (inputs @ kernel + bias).astype(jnp.float32)
    np.testing.assert_array_equal(network.at(state)(params, x), logits)
    (loss, grads) = jax.value_and_grad(losses.of(network.at(state)))(params, {"x": x, "y": y})
    assert loss == losses.cross_entropy(logits, y) and loss.dtype == jnp.float32
    error = (jax.nn.softmax(logits) - jax.nn.one_hot(y, 3)) / 8
    expected = np.asarray(inputs, np.float64).T @ np.asarray(error, np.float64)
    found = grads["layers"][0]["kernel"]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())


def test_running_statistics_are_not_rounded():
    plain = models.build("mlp", (3,), 2, hidden=(4,), normalization="batch")
    variables, x = plain.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (64, 3))
    state = variables.state
    for _ in range(3):
        _, state = mixed_precision(plain).apply(Variables(variables.params, state), x, train=True)
    means = np.asarray(jax.tree.leaves(state)[0])
    assert means.dtype == np.float32 and np.any(means != means.astype(jnp.bfloat16))


def test_a_network_of_another_dtype_is_refused():
    wide = models.Network(
        lambda key: Variables(jnp.ones(2, jnp.float16), {}), lambda v, x, **_: (x @ v.params, v.state)
    )
    with pytest.raises(InputError, match="network must be one whose parameters are float32, got some of float16"):
        mixed_precision(wide)


# --- In a study -------------------------------------------------------------------------------------------------------

SPEC = """
name = "tiny"
seeds = 1
data = {name = "moons", examples = 40, test_examples = 10}
model = {name = "mlp", hidden = [4], activation = "tanh"}
method = {name = "fa", lam = 0.1, every = 1, probes = 1}
train = {learning_rate = 0.1, batch_size = 10, epochs = 2}
"""


def recipe(**changes):
    found = study.spec.parse(SPEC, {key.replace("__", "."): value for key, value in changes.items()})
    return Recipe.of(found, found.load_data())


@pytest.mark.slow
def test_a_study_trains_in_bfloat16_what_it_keeps_and_measures_in_float32():
    made, plain = recipe(train__dtype="bfloat16"), recipe()
    start, train = made.start(jnp.uint32(0), {}), jax.tree.map(jnp.asarray, made.dataset.train)
    assert {leaf.dtype for leaf in jax.tree.leaves((start.params, start.opt_state)) if leaf.dtype != jnp.int32} <= {
        jnp.dtype("float32"), jnp.dtype("uint32")}  # fmt: skip
    (mixed, value, *_), (full, other, *_) = (jax.jit(one.epoch)(start, {}, train) for one in (made, plain))
    assert value.dtype == jnp.float32 and value != other
    np.testing.assert_allclose(value, other, rtol=0.02)
    found, expected = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(one.params)]) for one in (mixed, full))
    moved = expected - jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(start.params)])
    assert 0 < jnp.linalg.norm(found - expected) < 0.1 * jnp.linalg.norm(moved)
    assert set(products(jax.make_jaxpr(made.epoch)(start, {}, train).jaxpr)) == {jnp.dtype("bfloat16")}
    assert made.model is plain.model  # which is what is measured


def test_float32_is_the_very_program_that_it_was():
    made, plain = recipe(train__dtype="float32"), recipe()
    start, train = made.start(jnp.uint32(0), {}), made.dataset.train
    assert str(jax.make_jaxpr(made.epoch)(start, {}, train)) == str(jax.make_jaxpr(plain.epoch)(start, {}, train))
    assert "dtype" not in plain.spec.identity()["train"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__dtype": "float16"}, "train.dtype must be 'float32' or 'bfloat16', got 'float16'"),
        ({"train__dtype": "bfloat16", "method__curvature": "closed_form"},
         "train.dtype must be left out with closed_form, which is in float32, got 'bfloat16'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_bfloat16_gets_one_sentence(changes, message):
    with pytest.raises(InputError) as error:
        recipe(**changes)
    assert message in str(error.value)


def test_a_network_of_one_s_own_in_float64_is_refused(x64, tmp_path, monkeypatch):
    (tmp_path / "widely.py").write_text(
        "import jax.numpy as jnp\nfrom steppe.models import Network, Variables\n"
        "def make(shape, classes):\n"
        "    return Network(lambda key: Variables(jnp.ones((*shape, 1), jnp.float64), {}),\n"
        "                   lambda v, x, **_: (x @ v.params, v.state))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="left out with this network, whose parameters are float64"):
        recipe(train__dtype="bfloat16", model={"name": "widely:make"}, method={"name": "none"})

"""A user's own loss, transform, method or schedule that does not fit is refused before anything is trained."""

import contextlib

import numpy as np
import pytest

import steppe
from steppe import data, study
from steppe.study.datasets import Datasets
from steppe.study.execution.run import _rehearse
from steppe.study.questions import named
from steppe.study.training.recipe import Recipe
from steppe.study.training.rehearsal import check_measures

TOML = """
name = "tiny"
data = {name = "moons"}
model = {name = "linear"}
train = {learning_rate = 0.1, batch_size = 4, epochs = 2}
"""
POINTS = np.arange(32, dtype=np.float32).reshape(16, 2) / 32, np.arange(16) % 2
SMALL = data.dataset("moons", POINTS, POINTS, decode=lambda b: b, shape=(2,), classes=2, about="")


class Small(Datasets):
    """These few points, whatever a specification says."""

    def of(self, spec):
        return SMALL


HEAD = "import jax, jax.numpy as jnp, numpy as np, optax\n"
GRADIENTS = "optax.GradientTransformation"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rehearse(folder, body, overrides):
    (folder / "parts.py").write_text(f"{HEAD}def make(): return {body}\n")
    (folder / "study.toml").write_text(TOML)
    spec = study.load("study.toml", overrides)
    _rehearse(study.spec.conditions(spec), Small(), {}, here=True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("3", "a function that returns a loss, got a value of type int"),
        ("lambda f, y: jnp.mean(f, -1)", "one floating-point scalar, the mean over the batch, got a float32 array"),
        ("lambda f, y: jnp.mean(f) + 0j", "got a scalar of dtype complex64"),
        ("lambda f, y: jnp.sum(y)", "got a scalar of dtype int32"),
        ("lambda f, y: None", "got None"),
        ("lambda f, y: (jnp.mean(f), 0)", "Return the loss alone"),
        ("lambda f, y: jnp.mean(f).astype(jnp.float16)", "of the dtype of the outputs, float32, got one of float16"),
        ("lambda f, y: jnp.mean(f) * jnp.nan", "the loss of an untrained network is finite, got nan"),
        ("lambda f, y: float(jnp.mean(f))", "a function that JAX can trace"),
        ("lambda f, y: {}['a']", "got KeyError: 'a'"),
        ("lambda f: jnp.mean(f)", "takes 1 positional argument but 2 were given"),
    ],
)
def test_a_loss_that_is_none_is_refused(folder, body, words):
    with pytest.raises(steppe.InputError, match=f"^study: parts:make must be .*{words}"):
        rehearse(folder, body, {"loss.name": "parts:make"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("3", "a function that returns a transform, got a value of type int"),
        ("lambda k, b, loss: {**b, 'x': b['x'][:, :1]}", "as it came, got a float32 array of shape"),
        ("lambda k, b, loss: {'x': b['x'][:2], 'y': b['y'][:2]}", "as it came, got a float32 array of shape"),
        ("lambda k, b, loss: {**b, 'x': b['x'].astype(jnp.float16)}", "as it came, got a float16 array"),
        ("lambda k, b, loss: {**b, 'y': b['y'][:, None]}", "or floats, got an int32 array of shape"),
        ("lambda k, b, loss: {'z': b['x']}", "with x and y as they came, got a dict with 'z'"),
        ("lambda k, b, loss: {**b, 'note': 'text'}", "a batch of arrays.*got one with a value of type str"),
        ("lambda k, b, loss: (b['x'], b['y'])", "got a tuple of 2"),
        ("lambda k, b, loss: {**b, 'x': b['x'] * jnp.nan}", "finite, got nan on the first batch"),
        ("lambda k, b, loss: {**b, 'x': np.asarray(b['x'])}", "a function that JAX can trace"),
    ],
)
def test_a_transform_that_changes_the_form_of_batches_is_refused(folder, body, words):
    with pytest.raises(steppe.InputError, match=f"^study: parts:make must be .*{words}"):
        rehearse(folder, body, {"augment": [{"name": "parts:make"}]})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("3", "an Optax transformation of gradients, got a value of type int"),
        (f"{GRADIENTS}(lambda p: (), lambda g, s, p: (jax.tree.leaves(g), s))", "updates have the form of the grad"),
        (f"{GRADIENTS}(lambda p: 0, lambda g, s, p: (g, (s, s)))", "whose state keeps its own, got one that changes"),
        (f"{GRADIENTS}(lambda p: 'text', lambda g, s, p: (g, s))", "whose state is arrays, got a value of type str"),
        (f"{GRADIENTS}(lambda p: jax.random.key(0), lambda g, s, p: (g, s))", "which checkpoints keep, got one with"),
        (f"{GRADIENTS}(lambda p: (), lambda g, s, p: g)", "whose update returns updates and the new state, got a"),
        (f"{GRADIENTS}(lambda p: (), lambda g, s, p: 1 / 0)", "ZeroDivisionError"),
    ],
)
def test_a_method_that_is_no_transformation_of_gradients_is_refused(folder, body, words):
    with pytest.raises(steppe.InputError, match=f"^study: parts:make must be .*{words}"):
        rehearse(folder, body, {"method": {"name": "parts:make"}})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("0.1", "a function that returns a schedule, got a value of type float"),
        ("lambda n: jnp.zeros(3)", "one real number, got a float32 array of shape"),
        ("lambda n: '0.1'", "one real number, got a value of type str"),
        ("lambda n: True", "one real number, got a value of type bool"),
        ("lambda n: 0.1j", "one real number, got a value of type complex"),
        ("lambda n: jnp.where(n > 3, jnp.nan, 0.1)", "from 0 on, got nan at update 4 of 8"),
        ("lambda n: 0.1 if n < 3 else 0.01", "a function that JAX can trace"),
    ],
)
def test_a_schedule_that_gives_no_rates_is_refused(folder, body, words):
    with pytest.raises(steppe.InputError, match=f"^study: parts:make must be .*{words}"):
        rehearse(folder, body, {"train.learning_rate": {"name": "parts:make"}})


def test_outputs_without_a_class_are_said_and_classes_without_an_output_refused(folder):
    body = "def make(shape, classes, *, width: int = 1): return nnx.Linear(2, width, rngs=nnx.Rngs(0))\n"
    (folder / "nets.py").write_text(f"from flax import nnx\n{body}")
    (folder / "study.toml").write_text(TOML.replace('"linear"', '"nets:make"'))
    labels = POINTS[1] + (np.arange(16) > 13)
    three = data.dataset("moons", (POINTS[0], labels), (POINTS[0], labels), decode=lambda b: b, shape=(2,), classes=3,
                         about="")  # fmt: skip

    def remarks(width, dataset):
        small = Small()
        small.of = lambda spec: dataset
        spec = study.load("study.toml", {"model.width": width})
        return _rehearse(study.spec.conditions(spec), small, {}, here=True)

    assert remarks(1, SMALL) == remarks(2, SMALL) == remarks(3, three) == []
    (remark,) = remarks(7, SMALL)
    assert remark.startswith("nets:make has 7 outputs for 2 classes: the others are never right")
    with pytest.raises(
        steppe.InputError, match="nets:make must be a network of 3 outputs, one for each class, got one"
    ):
        remarks(2, three)


def test_parts_of_a_users_own_that_fit_pass(folder):
    source = f"""{HEAD}
def loss(*, slope: float = 1.0): return lambda f, y: slope * jnp.mean((f[:, 0] - y) ** 2)
def noise(*, size: float = 0.1):
    return lambda key, batch, loss: {{**batch, "x": batch["x"] + size * jax.random.normal(key, batch["x"].shape)}}
def decay(lam: float = 0.1): return optax.add_decayed_weights(lam)
def rate(*, first: float = 0.1): return lambda n: first / (n + 1)
"""
    (folder / "parts.py").write_text(source)
    (folder / "study.toml").write_text(TOML)
    names = {"loss.name": "parts:loss", "augment": [{"name": "parts:noise"}]}
    names |= {"method": {"name": "parts:decay"}, "train.learning_rate": {"name": "parts:rate"}}
    spec = study.load("study.toml", names)
    assert spec.loss == {"name": "parts:loss", "slope": 1.0} and spec.augment == [{"name": "parts:noise", "size": 0.1}]
    _rehearse(study.spec.conditions(spec), Small(), {}, here=True)


@pytest.mark.parametrize(
    ("override", "source", "words"),
    [
        ({"loss.name": "parts:make"}, "def make(outputs, labels): return 0.0",
         "a function of its settings that returns a function of outputs and labels, got one with outputs"),
        ({"loss.name": "parts:make"}, "def make(*, key): return 0.0", "needs key, which a study does not give it"),
        ({"augment": [{"name": "parts:make"}]}, "def make(batch): return batch", "returns a function of"),
        ({"train.learning_rate": {"name": "parts:make"}}, "def make(count): return 0.1", "of the number of the update"),
        ({"loss.name": "parts:make"}, "def make(**settings): return 0.0", r"with \*\*settings. Name each setting"),
    ],
)  # fmt: skip
def test_a_function_of_another_kind_than_the_part_needs_is_told_what_it_must_be(folder, override, source, words):
    (folder / "parts.py").write_text(source + "\n")
    (folder / "study.toml").write_text(TOML)
    with pytest.raises(steppe.InputError, match=words):
        study.load("study.toml", override)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("yield Quantity('x', undefined)", "own:first: function must be .* one that fails: NameError"),
        ("return 3.0", "own:first: .*yields quantities, got 3.0"),
        ("yield Quantity('x', 1.0)", "of different quantities than own:first, got own:second, which gives 'x', too"),
    ],
)
def test_a_measure_of_a_users_own_is_asked_before_training(folder, body, words):
    (folder / "own.py").write_text(
        "from steppe.measures import Quantity\n"
        f"def first(subject):\n    {body}\ndef second(subject):\n    yield Quantity('x', 1.0)\n"
    )
    (folder / "study.toml").write_text(TOML)
    spec = study.load("study.toml", {"measure.names": ["own:first", "own:second"]})
    recipe = Recipe.of(spec, SMALL)
    with pytest.raises(steppe.InputError, match=words):
        check_measures(named(spec.measure.names, spec.source), recipe)


@pytest.mark.parametrize(
    ("changes", "margin", "words"),
    [
        ({}, {"frobenius_squared": 1.1}, "got 'frobenius_squared'. Did you mean 'batch_frobenius_squared'"),
        ({}, {"test_acuracy": 0.01}, "Did you mean 'test_accuracy'"),
        ({}, {"train_seconds": 1.0}, "must be one of what the study asks"),
        ({"track.every": 1}, {"frobenius_squared": 0.9}, "frobenius_squared must be a factor above 1"),
        ({"track.every": 1}, {"trace": -1.0}, "trace must be a positive number"),
        ({"measure.names": ["calibration_error"]}, {"calibration_error": 0.1}, "Did you mean 'test_calibration_error'"),
        ({"measure.names": ["top_eigenvalues"]}, {"top_eigenvalue": 1.1}, "Did you mean 'top_eigenvalue_"),
    ],
)
def test_a_margin_of_what_a_study_does_not_ask_is_refused_with_a_near_name(folder, changes, margin, words):
    (folder / "study.toml").write_text(TOML)
    with pytest.raises(steppe.InputError, match=words):
        study.load("study.toml", changes | {"equivalence": margin})


@pytest.mark.parametrize(
    ("margins", "words"),
    [
        ({"test_x": 0.1, "trace": 0.5}, ""),
        ({"x": 0.1}, "Did you mean 'test_x'"),
        ({"test_y": 0.1}, "test_y must be a factor above 1"),
    ],
)
def test_a_margin_of_a_named_measure_is_checked_by_what_it_gives(folder, margins, words):
    (folder / "own.py").write_text(
        "from steppe.measures import Quantity\n"
        "def own(subject):\n    yield Quantity('x', 1.0)\n    yield Quantity('y', 1.0, log=True)\n"
    )
    (folder / "study.toml").write_text(TOML)
    spec = study.load("study.toml", {"measure.names": ["own:own", "trace"], "equivalence": margins})
    with pytest.raises(steppe.InputError, match=words) if words else contextlib.nullcontext():
        check_measures(named(spec.measure.names, spec.source), Recipe.of(spec, SMALL), spec.equivalence)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"name": "calibration_error", "bins": 0},
            "calibration_error: bins must be a whole number of at least 1, got 0",
        ),
        ({"name": "sam_sharpness", "rho": -1}, "rho must be"),
        ({"name": "trace", "probes": "many"}, "probes must be a whole number of at least 1, got 'many'"),
    ],
)
def test_a_setting_that_a_measure_does_not_take_is_refused_before_training(folder, settings, words):
    (folder / "study.toml").write_text(TOML)
    spec = study.load("study.toml", {"measure.names": [settings]})
    with pytest.raises(steppe.InputError, match=words):
        check_measures(named(spec.measure.names, spec.source), Recipe.of(spec, SMALL))

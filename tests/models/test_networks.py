"""Networks with state: from other libraries, and in training."""

import io
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import steppe
from steppe import InputError, curvature, losses, models, study
from steppe.models import Variables
from steppe.models.zoo.dense import MLP
from steppe.networks import landscapes
from steppe.networks.exploration import explore
from steppe.networks.runs import finished_runs
from steppe.storage import files
from steppe.storage.checkpoint import Checkpoint
from steppe.study import Store
from steppe.study.history import History
from steppe.study.records import arrays_of, variables
from steppe.study.training.checkpoints import Checkpoints
from steppe.study.training.recipe import Recipe, _stream, shape_of
from support.folders import paths_in
from support.networks import dense_hessian

pytestmark = pytest.mark.usefixtures("without_surfaces")

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


class Convolutional(nnx.Module):
    """A convolution, BatchNorm and dropout with its own stream of randomness."""

    def __init__(self, rngs):
        self.convolution = nnx.Conv(1, 2, (2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.List([nnx.Linear(8, 3, rngs=rngs)])
        self.scale = nnx.data(jnp.float32(2.0))

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.convolution(x.reshape(-1, 2, 2, 1)))))
        return self.out[0](x.reshape(len(x), -1)) * self.scale


class Block(nnx.Module):
    """Attention, LayerNorm, and an embedding that is tied to the output."""

    def __init__(self, rngs):
        self.embedding = nnx.Embed(7, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, dropout_rate=0.5, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = self.embedding

    def __call__(self, x):
        hidden = self.embedding(x)
        return self.head.attend(hidden + self.attention(self.norm(hidden)))


class Model(eqx.Module):
    """BatchNorm and dropout, of one example."""

    inner: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.inner = eqx.nn.Linear(4, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, axis_name="examples", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.inner(x), state)
        return self.dropout(x, key=key), state


def made(key=0):
    return eqx.nn.make_with_state(Model)(jax.random.key(key))


def drawn_of_rngs(rngs):
    return Convolutional(rngs)


def drawn_of_key(key):
    return eqx.nn.make_with_state(Model)(key)


def batch_network(**settings):
    return models.mlp((4,), 3, hidden=(5,), normalization="batch", **settings)


@pytest.mark.parametrize(("make", "x"), [(Convolutional, X), (Block, np.arange(6).reshape(2, 3))])
def test_a_module_of_nnx_gives_what_it_gives_in_evaluation_mode(make, x):
    module = make(nnx.Rngs(0))
    trained = steppe.from_nnx(module)
    module.eval()
    np.testing.assert_array_equal(trained.apply(trained.params, x), module(jnp.asarray(x)))


def test_tied_parameters_of_nnx_stay_one_and_streams_of_randomness_are_neither():
    trained = steppe.from_nnx(Block(nnx.Rngs(0)))
    assert set(trained.params) == {"attention", "embedding", "norm"} and trained.state == {}


def test_training_a_module_of_nnx_gives_its_outputs_and_its_statistics():
    module = Convolutional(nnx.Rngs(0))
    trained = steppe.from_nnx(module)
    assert set(trained.state) == {"norm", "scale"}
    outputs, state = trained.network.apply(trained.variables, X, train=True)
    module.train()
    module.dropout.deterministic = True
    np.testing.assert_allclose(outputs, module(jnp.asarray(X)), rtol=1e-5)
    np.testing.assert_allclose(state["norm"]["var"], module.norm.var[...], rtol=1e-6)
    again = steppe.from_nnx(module)
    assert not np.allclose(trained.state["norm"]["var"], again.state["norm"]["var"])  # it is a copy


def test_a_key_turns_dropout_on_and_evaluation_ignores_it():
    trained = steppe.from_nnx(Convolutional(nnx.Rngs(0)))
    outputs = [trained.network.apply(trained.variables, X, key=jax.random.key(k), train=True)[0] for k in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])
    evaluated, state = trained.network.apply(trained.variables, X, key=jax.random.key(1))
    np.testing.assert_array_equal(evaluated, trained.apply(trained.params, X))
    assert state is trained.state


def test_a_model_of_equinox_gives_what_it_gives_in_inference_mode():
    model, state = made()
    trained = steppe.from_equinox(model, state)
    after = trained.network.apply(trained.variables, X, train=True)[1]
    _, expected = jax.vmap(
        eqx.tree_at(lambda m: m.dropout.p, model, 0.0), axis_name="examples", in_axes=(0, None), out_axes=(0, None)
    )(X, state)
    jax.tree.map(np.testing.assert_array_equal, list(after.values()), jax.tree.leaves(expected))
    found = trained.network.at(after)(trained.params, X)
    still = eqx.nn.inference_mode(model)
    np.testing.assert_allclose(found, jax.vmap(lambda x: still(x, expected)[0])(X), rtol=1e-6)


def test_a_model_of_equinox_without_state_is_batched():
    model = eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0))
    trained = steppe.from_equinox(model)
    np.testing.assert_allclose(trained.apply(trained.params, X), jax.vmap(model)(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: steppe.from_nnx(Block), "module must be an instance of a Flax NNX module, got the class Block"),
        (lambda: steppe.from_nnx(3), "got a value of type int"),
        (lambda: steppe.from_nnx(nnx.eval_shape(lambda: Block(nnx.Rngs(0)))), "must be a module with values"),
        (lambda: steppe.from_nnx(nnx.Dropout(0.5)), "must be a module with parameters"),
        (lambda: steppe.from_equinox(Model), "got the class Model"),
        (
            lambda: steppe.from_equinox(eqx.filter(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)), eqx.is_array)),
            r"must be a whole model, got a MLP whose activation is None. Give what was partitioned as eqx.combine",
        ),
        (
            lambda: steppe.from_equinox(eqx.nn.make_with_state(Model)(jax.random.key(0))),
            r"from_equinox\(model, state\)",
        ),
        (lambda: steppe.from_equinox(made()[0]), "state must be the state"),
        (lambda: models.network_of(3), "thing must be a steppe.models.Network"),
        (lambda: models.mlp((3,), 2, normalization="layer"), "normalization must be"),
    ],
)
def test_what_is_no_network_is_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_missing_equinox_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install equinox"):
        steppe.from_equinox(None)


def test_whatever_a_function_gives_is_a_network():
    model, state = made()
    things = [
        batch_network(),
        Convolutional(nnx.Rngs(0)),
        steppe.from_nnx(Convolutional(nnx.Rngs(0))),
        (model, state),
        drawn_of_rngs,
        drawn_of_key,
    ]
    for thing in things:
        network = models.network_of(thing)
        params, state = jax.jit(network.init)(jax.random.key(1))
        assert network.at(state)(params, X).shape == (6, 3)
    drawn = [models.network_of(drawn_of_rngs).init(jax.random.key(k)).params["out"][0]["kernel"] for k in (0, 1)]
    assert not np.allclose(*drawn)


def test_the_hessian_of_a_module_with_batch_norm_is_the_dense_one_with_its_statistics_held(x64):
    module = nnx.Sequential(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.tanh)
    module(jnp.asarray(X))  # statistics that are not the first
    trained = steppe.from_nnx(module)
    params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (trained.params, trained.state))
    batch = {"x": jnp.asarray(X, jnp.float64), "y": jnp.array([0, 1, 1, 0, 1, 0])}
    norm, layer = state["layers"][1], params["layers"]

    def by_hand(params, batch):
        layer = params["layers"]
        z = (batch["x"] @ layer[0]["kernel"] + layer[0]["bias"] - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5)
        return losses.cross_entropy(jnp.tanh(z * layer[1]["scale"] + layer[1]["bias"]), batch["y"])

    assert set(layer) == {0, 1}
    H = curvature.hessian(losses.of(trained.network.at(state)), params, batch).dense()
    np.testing.assert_allclose(H, dense_hessian(by_hand, params, batch), rtol=1e-9, atol=1e-12)


SPEC = """
name = "state"
seeds = 1
data = {name = "moons", examples = 40, test_examples = 20}
model = {name = "mlp", hidden = [3], activation = "tanh", normalization = "batch"}
method = {name = "fa", lam = 0.0}
train = {learning_rate = 0.05, batch_size = 40, epochs = 1}
measure = {batches = 2, probes = 2}
landscape = {points = 3, grid_points = 3}
"""


def spec(**changes):
    return study.spec.parse(SPEC, {key.replace("__", "."): value for key, value in changes.items()})


def trained_once(**changes):
    """The recipe, its training data, and its progress before and after an epoch."""
    shape, strengths = shape_of(spec(**changes))
    recipe = Recipe.of(shape, shape.load_data())
    train = jax.tree.map(jnp.asarray, recipe.dataset.train)
    before = recipe.start(jnp.uint32(0), strengths)
    return recipe, train, before, jax.jit(recipe.epoch)(before, strengths, train)[0]


@pytest.fixture(scope="module")
def plain():
    return trained_once()


def test_statistics_come_from_the_plain_pass_at_the_parameters_before_the_update(plain):
    recipe, train, before, after = plain
    batch, layer = recipe.dataset.decode(train), before.params["layers"][0]
    z = np.asarray(batch["x"], np.float64) @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])
    found = after.state["norms"][0]
    np.testing.assert_allclose(found["mean"], 0.1 * z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * z.var(0), rtol=1e-5)


def test_training_does_what_a_loop_of_flax_does():
    changes = {
        "train__optimizer": "sgd",
        "train__schedule": "constant",
        "train__batch_size": 20,
        "model__hidden": [3, 2],
    }
    recipe, train, before, _ = trained_once(**changes)
    module = MLP([2, 3, 2, 1], "tanh", 0.0, "batch", rngs=nnx.Rngs(_stream(jnp.uint32(0), "init")))
    module.train()
    optimizer = nnx.Optimizer(module, optax.sgd(0.05, momentum=recipe.spec.train.momentum), wrt=nnx.Param)
    progress, epoch = before, jax.jit(recipe.epoch)
    for number in range(2):
        order = jax.random.permutation(jax.random.fold_in(_stream(jnp.uint32(0), "shuffle"), number), 40)
        for rows in order.reshape(2, 20):
            batch = recipe.dataset.decode(jax.tree.map(lambda leaf, rows=rows: leaf[rows], train))
            grads = nnx.grad(lambda m, batch=batch: losses.cross_entropy(m(batch["x"]), batch["y"]))(module)
            optimizer.update(module, grads)
        progress, *_ = epoch(progress, {}, train)
    for found, kind in ((progress.params, nnx.Param), (progress.state, nnx.BatchStat)):
        expected = nnx.to_pure_dict(nnx.state(module, kind))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"name": "sam", "rho": 0.1}},
        {"method": {"name": "fa", "lam": 0.1, "every": 1}},
        {"method": {"name": "fa", "lam": 0.1, "every": 1}, "train__penalty_dropout": True},
    ],
)
def test_a_perturbed_pass_leaves_no_trace_in_the_statistics(plain, changes):
    after = trained_once(**changes)[-1]
    jax.tree.map(np.testing.assert_array_equal, after.state, plain[-1].state)
    assert not np.array_equal(after.params["layers"][0]["kernel"], plain[-1].params["layers"][0]["kernel"])


def test_an_average_of_weights_has_statistics_of_its_own():
    recipe, train, _, after = trained_once(average={"name": "swa", "start": 0.0}, train__batch_size=20)
    params, state = recipe.network(after, train)
    assert not np.array_equal(params["layers"][0]["kernel"], after.params["layers"][0]["kernel"])
    x, layer = recipe.dataset.decode(train)["x"], params["layers"][0]
    z = (x @ layer["kernel"] + layer["bias"]).reshape(2, 20, 3)
    np.testing.assert_allclose(state["norms"][0]["mean"], z.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(state["norms"][0]["var"], z.var(axis=1).mean(0), rtol=1e-5)


def test_state_without_a_known_estimate_is_not_averaged(monkeypatch):
    mlp, shape = models.MODELS["mlp"], shape_of(spec(average={"name": "ema"}))[0]
    monkeypatch.setitem(models.MODELS, "mlp", lambda *of, **settings: mlp(*of, **settings)._replace(statistics=None))
    with pytest.raises(InputError, match=r"average must be left out, .* estimate norms/0/mean, norms/0/var anew"):
        Recipe.of(shape, shape.load_data())


def test_parts_of_a_batch_are_not_normalised_apart():
    shape = shape_of(spec(method={"name": "sam", "microbatches": 2}))[0]
    with pytest.raises(InputError, match=r"method\.microbatches must be 1 with a network that has state"):
        Recipe.of(shape, shape.load_data())


def test_a_checkpoint_keeps_the_state(plain, tmp_path):
    checkpoints = Checkpoints(Checkpoint(lambda: tmp_path, "a run"), 0.0)
    before = History()
    before.add(1, 0.5, [])
    checkpoints.offer(plain[-1], before)
    progress, history = checkpoints.latest(plain[2])
    jax.tree.map(np.testing.assert_array_equal, progress, plain[-1])
    assert (history.epochs, history.objectives) == (1, [0.5])
    assert not np.array_equal(progress.state["norms"][0]["mean"], np.zeros(3))


CHANGES = {"seeds": 2, "train__epochs": 20, "train__batch_size": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two runs with BatchNorm: its folder, and its results."""
    out = tmp_path_factory.mktemp("state") / "out"
    return out, study.run(spec(**CHANGES), out)


@pytest.mark.slow
def test_a_run_keeps_its_state_and_is_measured_with_it(finished):
    out, results = finished
    found, store = results.runs, Store.read(out)
    params, state = store.network(found["condition"][0], 0)
    recipe = Recipe.of(shape_of(store.spec)[0], store.spec.load_data())
    loss = losses.of(recipe.model.at(state))(params, recipe.dataset.decode(recipe.dataset.test))
    np.testing.assert_allclose(loss, found["test_loss"][0], rtol=1e-5)
    run = finished_runs("measure", [store.run_folder(found["condition"][0], 0)])[0]
    jax.tree.map(np.testing.assert_array_equal, run.state, state)


@pytest.mark.slow
def test_a_run_with_state_that_was_killed_goes_on_to_the_same_bits(finished, tmp_path):
    whole, out = finished[0], tmp_path / "out"
    (tmp_path / "state.toml").write_text(SPEC)
    more = [f"--set={key.replace('__', '.')}={value}" for key, value in CHANGES.items()]
    arguments = ["run", str(tmp_path / "state.toml"), "--out", str(out), "--checkpoint-seconds", "0", *more]
    command = [sys.executable, "-c", "from steppe.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and "progress.npz" not in {path.name for path in paths_in(out / "checkpoints")}:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # it had not finished
    study.run(spec(**CHANGES), out)
    for seed in (0, 1):
        networks = (Store.read(folder).network(finished[1].runs["condition"][0], seed) for folder in (whole, out))
        jax.tree.map(np.testing.assert_array_equal, *networks)


@pytest.mark.slow
def test_between_two_networks_statistics_are_those_of_the_point(finished, tmp_path):
    folders = [Store.read(finished[0]).run_folder(finished[1].runs["condition"][0], seed) for seed in (0, 1)]
    question = landscapes.read_question(folders, landscapes.Settings(along="between", points=3, grid=3))
    found = explore(question, tmp_path / "between")
    start, end = question.networks
    batch = start.dataset.decode(jax.tree.map(jnp.asarray, start.dataset.train))
    for params, loss in zip(
        (start.params, jax.tree.map(lambda a, b: (a + b) / 2, start.params, end.params), end.params),
        found.lines["loss"][0],
        strict=True,
    ):
        state = start.model.statistics(Variables(params, start.state), batch["x"])
        np.testing.assert_allclose(losses.of(start.model.at(state))(params, batch), loss, rtol=1e-5)
    held = losses.of(start.apply)(params, batch)
    assert abs(held - loss) > 1e-3  # at the end, with the start's statistics
    np.testing.assert_allclose(found.grids["loss"][0][1, 1], found.lines["loss"][0][1], rtol=1e-5)
    assert "estimated anew at each point, on 40 training examples" in found.about


def test_a_file_of_arrays_keeps_parameters_and_state_apart():
    before = jax.tree.map(np.asarray, batch_network().init(jax.random.key(0)))
    for network in (before, Variables(before.params, {})):
        files.array_content(arrays_of(network))(file := io.BytesIO())
        file.seek(0)
        jax.tree.map(np.testing.assert_array_equal, network, variables(file))

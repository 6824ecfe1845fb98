"""Checkpoints laid into a network: names as frameworks write them, and what does not fit, in one sentence."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import orbax.checkpoint as ocp
import polars
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import steppe
from steppe import InputError
from steppe.core import names
from steppe.core.extras import MissingExtra
from steppe.models import Variables
from steppe.models.adapters import equinox
from steppe.networks import landscapes, loading, modules
from steppe.networks.checkpoints import Blueprint, fill
from steppe.networks.settings import UserNetwork
from support.command import run
from support.properties import cheap

NETS = """
import equinox as eqx
import jax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, features, width, outputs, rngs):
        self.layers = nnx.List([nnx.Linear(features, width, rngs=rngs), nnx.Linear(width, outputs, rngs=rngs)])
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.drop(nnx.relu(self.norm(self.layers[0](x)))))


def make(shape, classes, *, width: int = 5, rngs):
    return Net(shape[0], width, classes, rngs)


def fixed():
    return Net(3, 5, 3, nnx.Rngs(7))


class Normed(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm

    def __init__(self, features, classes, *, key):
        self.first = eqx.nn.Linear(features, classes, key=key)
        self.norm = eqx.nn.BatchNorm(classes, "batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(self.first(x), state)


def normed(shape, classes, *, key):
    return eqx.nn.make_with_state(Normed)(shape[0], classes, key=key)
"""

SHAPES = {"layers": [{"kernel": (3, 5), "bias": (5,)}, {"kernel": (5, 2), "bias": (2,)}], "norm": {"scale": (5,)}}
STATE = {"norm": {"mean": (5,), "var": (5,)}}


def of_shapes(shapes, seed=0):
    """Distinct random arrays of these shapes."""
    rng, is_shape = np.random.default_rng(seed), lambda part: isinstance(part, tuple)
    return jax.tree.map(lambda shape: rng.normal(size=shape).astype(np.float32), shapes, is_leaf=is_shape)


MADE, SAVED = (Variables(of_shapes(SHAPES, seed), of_shapes(STATE, seed + 5)) for seed in (0, 1))
BLUEPRINT = Blueprint(MADE, ignored=frozenset({"drop/rngs/count", "drop/rngs/key"}))


def flat(variables, separator="/", before="", after=""):
    """Arrays of parameters and state by name, in one dictionary."""
    return {
        f"{before}{name.replace('/', separator)}{after}": leaf
        for part in variables
        for name, leaf in zip(names.names(part), jax.tree.leaves(part), strict=True)
    }


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    return True


FORMS = {
    "flat": flat(SAVED),
    "dotted": flat(SAVED, "."),
    "of DataParallel": flat(SAVED, ".", "module."),
    "of torch.compile within DataParallel": flat(SAVED, ".", "module._orig_mod."),
    "of torch.compile around DataParallel": flat(SAVED, ".", "_orig_mod.module."),
    "with the boxes of NNX": flat(SAVED, after="/value"),
    "with numbers as text, as Orbax has them": {**SAVED.params, "layers": dict(enumerate(SAVED.params["layers"])),
                                                 "norm": {**SAVED.params["norm"], **SAVED.state["norm"]}},
    "with streams of randomness": flat(SAVED) | {"drop/rngs/count": np.array(0), "drop/rngs/key": np.zeros(2)},
    "of Lightning": {"state_dict": flat(SAVED, ".", "model."), "epoch": np.array(3)},
    "beside an optimiser": {"model": flat(SAVED, "."), "optimizer": {"mu": flat(MADE, "."), "nu": flat(MADE, ".")}},
    "in collections": {"params": SAVED.params, "batch_stats": SAVED.state},
    "of an Optax training state": {"params": SAVED.params, "state": SAVED.state,
                                   "opt_state": [{"mu": MADE.params, "nu": MADE.params}]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_arrays_find_their_places_whatever_a_framework_calls_them(form):
    filled = fill("measure", BLUEPRINT, FORMS[form], "net.npz")
    assert same(filled.variables, SAVED)
    more = {"of Lightning": "epoch", "beside an optimiser": "optimizer", "of an Optax training state": "opt_state"}
    assert filled.note == (f"Beside the network, net.npz holds {more[form]}." if form in more else "")


@cheap
@given(
    st.permutations(sorted(flat(SAVED))),
    st.sampled_from(["", "module.", "net/", "a/b/", "_orig_mod."]),
    st.sampled_from("./"),
    st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.integers(), max_size=3),
)
def test_neither_order_nor_what_lies_around_it_changes_what_a_network_gets(order, before, separator, beside):
    named = {f"{before}{name.replace('/', separator)}": flat(SAVED)[name] for name in order}
    inside = {"state_dict": named, **{f"_{name}": np.array(value) for name, value in beside.items()}}
    assert same(fill("measure", BLUEPRINT, inside, "net.npz").variables, SAVED)


def without(name):
    return {key: value for key, value in flat(SAVED).items() if key != name}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (without("layers/0/kernel"), ["it lacks layers/0/kernel."]),
        (flat(SAVED) | {"head/kernel": np.zeros(3)}, ["it has more head/kernel."]),
        (flat(SAVED) | {"layers/0/kernel/more": np.zeros(3)}, ["it has more layers/0/kernel/more."]),
        (flat(SAVED) | {"norm/scale": np.zeros(4)}, ["norm/scale of shape (4,) in the place of (5,)", "--set network"]),
        (flat(SAVED) | {"norm/scale": np.zeros(5, int)}, ["norm/scale of int32 in the place of float32"]),
        (without("norm/scale") | {"norm/bias": np.zeros(5), "norm/weight": np.zeros(5)},
         ["it lacks norm/scale; it has more norm/bias, norm/weight."]),
        (flat(Variables(SAVED.params, {})), ["it lacks norm/mean, norm/var. Save the network's state, too"]),
        ({"a": flat(SAVED), "b": flat(SAVED)}, ["holds such under a and b"]),
        (flat(SAVED) | {"layers.0.kernel": np.zeros((3, 5))}, ["layers.0.kernel", "which name one array"]),
        ({"w": np.zeros(3)}, ["it lacks layers/0/bias, layers/0/kernel", "and 3 more; it has more w"]),
        ({name.replace("kernel", "weight"): v for name, v in flat(SAVED, ".").items()},
         ["These are PyTorch's names"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_one_sentence(found, words):
    with pytest.raises(InputError) as error:
        fill("measure", BLUEPRINT, found, "net.npz")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert str(error.value).startswith("measure: TARGET must be a file ") and "net.npz" in str(error.value)


def test_of_tied_arrays_a_file_may_have_either_name_or_both_with_one_value():
    made = Variables({"embed.weight": np.zeros((4, 2))}, {"steps": np.array(0)})
    blueprint = Blueprint(made, aliases={"head.weight": "embed.weight"}, optional=frozenset({"steps"}))
    one = np.ones((4, 2))
    for file in ({"embed.weight": one}, {"head.weight": one}, {"embed.weight": one, "head.weight": one}):
        assert same(fill("measure", blueprint, file, "net.pt").variables, Variables({"embed.weight": one}, made.state))
    with pytest.raises(InputError, match=r"embed/weight and head/weight, one array in the network, with two values"):
        fill("measure", blueprint, {"embed.weight": one, "head.weight": 2 * one}, "net.pt")


# --- the command


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with modules of networks, and data of three classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    Path("nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.normal(size=(12, 3)).astype(np.float32), y=np.arange(12) % 3)
    yield tmp_path
    sys.modules.pop("nets", None)


def trained_net(seed=0):
    """The NNX network of `NETS`, with statistics that training may have left."""
    import nets

    net = nets.Net(3, 5, 3, nnx.Rngs(seed))
    net.norm.mean[...] = 0.5 * jax.numpy.ones(5)
    net.norm.var[...] = 2.0 * jax.numpy.ones(5)
    return net


def loss_of(trained):
    data = np.load("data.npz")
    return steppe.losses.cross_entropy(trained.apply(trained.params, data["x"]), data["y"])


@pytest.mark.slow
def test_checkpoints_of_an_nnx_module_are_measured_with_their_statistics(here, monkeypatch, capsys):
    monkeypatch.syspath_prepend(here)
    net, other = trained_net(0), trained_net(1)
    with ocp.StandardCheckpointer() as writer:
        writer.save(here / "net", nnx.state(net))
    trained = steppe.from_nnx(other)
    save_file({name: np.asarray(v) for name, v in flat(trained.variables, ".").items()}, "other.safetensors")
    words = ["--network", "nets:make", "--data", "data.npz", "--measures", "loss,accuracy,distance_from_initialisation"]
    status, out, err = run(monkeypatch, capsys, "measure", "net", "other.safetensors", *words, "--initial", "net",
                           "--out", "out")  # fmt: skip
    assert status == 0, err
    assert "2 arrays are state of the network and stay as they are: norm/mean, norm/var." in " ".join(out.split())
    rows = polars.read_parquet("out/measurements.parquet")
    losses = rows.filter(quantity="loss")
    expected = [loss_of(steppe.from_nnx(net)), loss_of(trained)]
    np.testing.assert_allclose(losses["value"], expected, rtol=1e-5)
    assert losses["network"].unique().to_list() == ["nets:make"]
    away = rows.filter(quantity="distance_from_initialisation")["value"]
    assert away[0] == 0.0 and away[1] > 0.1
    status, _, err = run(monkeypatch, capsys, "measure", "net", *words, "--set", "network.width=6")
    assert status == 2 and "layers/0/kernel of shape (3, 5) in the place of (3, 6)" in err


@pytest.mark.slow
def test_an_equinox_model_with_state_is_filled_and_keeps_excluded_arrays_fixed(here, monkeypatch, capsys):
    monkeypatch.syspath_prepend(here)
    import nets

    trained = steppe.from_equinox(*nets.normed((3,), 3, key=jax.random.key(3)))
    with ocp.StandardCheckpointer() as writer:
        state = {str(place): value for place, value in trained.state.items()}
        writer.save(here / "net", {"params": trained.params, "state": state})
    words = ["measure", "net", "--network", "nets:normed", "--data", "data.npz", "--measures", "loss"]
    status, _, err = run(monkeypatch, capsys, *words, "--exclude", "norm.*")
    assert status == 0, err
    (row,) = polars.read_parquet("out/net/measurements.parquet").to_dicts()
    np.testing.assert_allclose(row["value"], loss_of(trained), rtol=1e-5)
    assert "2 of 4 arrays stay fixed and go to the loss: norm.bias, norm.weight" in row["remark"]
    assert "Taken for statistics" not in row["remark"]


@pytest.mark.slow
def test_between_two_checkpoints_statistics_are_estimated_anew_and_an_edited_network_is_another_landscape(
    here, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(here)
    nets = [trained_net(seed) for seed in (0, 1)]
    for place, net in enumerate(nets):
        flat_ = flat(steppe.from_nnx(net).variables, ".")
        save_file({name: np.asarray(v) for name, v in flat_.items()}, f"net{place}.safetensors")
    words = ["landscape", "net0.safetensors", "net1.safetensors", "--along", "between", "--network", "nets:make"]
    words += ["--data", "data.npz", "--points", "3", "--grid", "3"]
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 0, err
    folder = Path("out/net0/landscapes/between_net0.safetensors_net1.safetensors")
    found, _ = landscapes.read(folder)
    assert "12 examples of data.npz. Statistics of normalisation are estimated anew at each point, on 12 of them." in (
        found.about
    )
    x = np.load("data.npz")["x"]
    for place, net in ((0, nets[0]), (-1, nets[1])):
        hidden = net.layers[0](x)
        net.norm.mean[...], net.norm.var[...] = hidden.mean(axis=0), hidden.var(axis=0)
        np.testing.assert_allclose(found.lines["loss"][0][place], loss_of(steppe.from_nnx(net)), rtol=1e-5)
    assert run(monkeypatch, capsys, *words)[0] == 0  # what is there is shown again
    Path("nets.py").write_text(NETS.replace("nnx.relu", "nnx.tanh"))
    status, _, err = run(monkeypatch, capsys, *words)
    assert status == 2 and "must be a folder of this landscape, with program" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["net.npz"], "landscape: --network must be given"),
        (["net.npz", "--network", "nets:make", "--criterion", "mse"], "'next_token', or module:function, got 'mse'"),
        (["net.npz", "--network", "nets:make", "--criterion", "nets:huber"], "a function of nets, got 'huber'"),
        (["net.npz", "net.npz", "--network", "nets:make"], "different files, got net.npz twice"),
        (["net.npz", "--network", "nets:make", "--split", "test"], "--split must be left out"),
        (["net.npz", "--network", "nets:make", "--set", "trace.probes=2"], "--set must be one of 'network'"),
        (["net.npz", "--network", "nets:make"], "landscape: TARGET must be a file of the arrays of this --network"),
    ],
)
def test_a_landscape_refuses_what_it_cannot_show(here, monkeypatch, capsys, words, message):
    np.savez("net.npz", w=np.zeros(3))
    status, _, err = run(monkeypatch, capsys, "landscape", *words, "--data", "data.npz")
    assert status == 2 and message in err, err


LINEAR = """
import jax.numpy as jnp
from flax import nnx


def make(shape, classes, *, rngs):
    return nnx.Linear(shape[0], classes, rngs=rngs)


def absolute(outputs, targets):
    return jnp.mean(jnp.abs(outputs[:, 0] - targets))


def rows(outputs, targets):
    return outputs[:, 0] - targets
"""


@pytest.fixture
def regression(here, monkeypatch):
    """Two linear networks, data with real targets, and the residuals of the first."""
    monkeypatch.syspath_prepend(here)
    Path("linear.py").write_text(LINEAR)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 2)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    kernel = rng.normal(size=(2, 1)).astype(np.float32)
    np.savez("real.npz", x=x, y=y)
    np.savez("net.npz", kernel=kernel, bias=np.ones(1, np.float32))
    np.savez("other.npz", kernel=-kernel, bias=np.zeros(1, np.float32))
    return x @ kernel[:, 0] + 1 - y


@pytest.mark.slow
def test_landscapes_of_real_targets_show_the_loss_alone_also_one_of_a_users_own(regression, monkeypatch, capsys):
    words = ["--network", "linear:make", "--data", "real.npz", "--points", "3", "--grid", "3"]
    for criterion, expected in (
        ("squared_error", np.mean(regression**2)),
        ("linear:absolute", np.mean(abs(regression))),
    ):
        folder = Path("out", criterion.replace(":", "_"))
        status, out, err = run(monkeypatch, capsys, "landscape", "net.npz", *words, "--criterion", criterion,
                               "--out", str(folder))  # fmt: skip
        assert status == 0, err
        found, _ = landscapes.read(folder)
        np.testing.assert_allclose(found.lines["loss"][0][1], expected, rtol=1e-5)
        assert list(found.lines) == list(found.grids) == ["loss"]
        assert "ccuracy" not in out + found.about
    words = ["landscape", "net.npz", "other.npz", "--along", "between", *words, "--criterion", "squared_error"]
    status, out, err = run(monkeypatch, capsys, *words, "--grid", "0", "--out", "out/between")
    assert status == 0 and "of the loss; 0 means" in " ".join(out.split()), err


def test_a_criterion_of_a_users_own_is_measured_and_one_that_is_no_mean_is_refused(regression, monkeypatch, capsys):
    words = ["measure", "net.npz", "--network", "linear:make", "--data", "real.npz", "--measures", "loss"]
    np.savez("hole.npz", x=np.ones((4, 2), np.float32), y=np.array([0, 1, 2, np.nan], np.float32))
    status, _, err = run(monkeypatch, capsys, *words, "--criterion", "linear:absolute", "--out", "out")
    assert status == 0, err
    (row,) = polars.read_parquet("out/measurements.parquet").to_dicts()
    np.testing.assert_allclose(row["value"], np.mean(np.abs(regression)), rtol=1e-5)
    for more, message in (
        (["--criterion", "linear:rows"], "--criterion must be a function whose value is one floating-point scalar"),
        (["--criterion", "linear:absolut"], "Did you mean 'absolute'"),
        (["--data", "hole.npz"], "targets must be finite numbers, got a value nan in row 3 of hole.npz"),
        (["--criterion", "linear:absolute", "--ignore-label", "0"], "--ignore-label must be left out"),
    ):
        status, _, err = run(monkeypatch, capsys, *words, *more, "--out", "none")
        assert status == 2 and message in " ".join(err.split()), err


@pytest.mark.parametrize(
    ("text", "settings", "width"),
    [("nets:make", {}, 5), ("nets:make", {"width": 4, "classes": 7}, 4), ("nets:fixed", {}, 5)],
)
def test_the_function_is_given_shape_and_classes_where_it_asks_for_them(here, text, settings, width):
    batch = {"x": np.zeros((4, 3), np.float32), "y": np.arange(4) % 3}
    _, blueprint = modules.build("measure", text, settings, batch)
    last = blueprint.variables.params["layers"][1]["kernel"]
    assert last.shape == (width, settings.get("classes", 3))
    assert blueprint.ignored == {"drop/rngs/count", "drop/rngs/key"}


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("nets:make", {"widht": 4}, "--set must be a setting of nets:make, got 'network.widht'. Did you mean 'width'?"),
        ("nets:make", {"width": "wide"}, "--network must be a function of (shape, classes, **settings)"),
        ("nets:mak", {}, "Did you mean 'make'?"),
        ("nets:nnx.relu", {}, "--network must be a function of (shape, classes, **settings)"),
        ("odd:nothing", {}, "None"),
        ("odd:text", {}, "network_of: thing must be"),
    ],
)
def test_a_function_that_makes_no_network_is_refused(here, text, settings, words):
    Path("odd.py").write_text("nothing = lambda: None\ntext = lambda: 'net'\n")
    with pytest.raises(InputError) as error:
        modules.build("measure", text, settings, {"x": np.zeros((4, 3), np.float32), "y": np.arange(4) % 3})
    assert words in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "nets:make", "--apply", "nets:make"], "must be given for parameters of your own, one of them"),
        (["--network", "nets:make", "--perturb-statistics"], "left out for --network"),
        (["--apply", "nets:make", "--set", "network.width=4"], "left out without --network"),
    ],
)
def test_options_that_do_not_go_together_are_refused(here, monkeypatch, capsys, words, message):
    np.savez("net.npz", w=np.zeros(3))
    status, _, err = run(monkeypatch, capsys, "measure", "net.npz", "--data", "data.npz", "--quick", *words)
    assert status == 2 and message in err, err


# --- files


def written(path, *things, header=b""):
    """An Equinox file, perhaps after a line of hyperparameters, as its manual writes it."""
    with path.open("wb") as stream:
        stream.write(header)
        eqx.tree_serialise_leaves(stream, things if len(things) > 1 else things[0])
    return path


@pytest.mark.parametrize("header", [b"", b'{"width": 4}\n'])
def test_a_file_of_equinox_is_laid_into_the_model_in_its_order(here, header):
    data = dict(np.load("data.npz"))
    network, blueprint = modules.build("measure", "nets:normed", {}, data)
    net, state = sys.modules["nets"].normed((3,), 3, key=jax.random.key(5))
    state = jax.tree.map(lambda leaf: leaf + 1, state)
    path = written(here / "net.eqx", net, state, header=header)
    params, found = fill("measure", blueprint, loading.parameters("measure", path), path.name).variables
    expected = steppe.from_equinox(net, state)
    assert same((params, found), (expected.params, expected.state))
    outputs = network.at(found)(params, data["x"])
    np.testing.assert_allclose(outputs, expected.apply(expected.params, data["x"]), atol=1e-4)


def test_what_a_file_of_equinox_has_otherwise_is_told(here):
    make = lambda key: eqx.nn.Sequential(
        [eqx.nn.Linear(3, 2, key=key, dtype=jax.numpy.bfloat16), eqx.nn.Dropout(0.5)])  # fmt: skip
    net = make(jax.random.key(0))
    blueprint = Blueprint(steppe.from_equinox(net).variables, row=equinox.row(net))
    lay = lambda thing: fill("measure", blueprint, loading.parameters("measure", written(here / "a.eqx", thing)), "a")
    assert same(lay(eqx.nn.inference_mode(net)).variables.params, steppe.from_equinox(net).params)
    with pytest.raises(InputError, match=r"whose value 2 is array\(0\.1\) in the place of 0\.5"):
        lay(eqx.tree_at(lambda net: net[1].p, net, 0.1))
    with pytest.raises(InputError, match=r"with 2 values in the place of 4.*--set network"):
        lay(net[0])
    with pytest.raises(InputError, match=r"of shape \(2, 4\) in the place of \(2, 3\)"):
        lay(eqx.tree_at(lambda net: net[0].weight, net, jax.numpy.ones((2, 4))))
    path = written(here / "b.eqx", net)
    with pytest.raises(InputError, match=r"a file of arrays with names.*return the Equinox model"):
        fill("measure", BLUEPRINT, loading.parameters("measure", path), "b.eqx")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="a damaged file"):
        loading.parameters("measure", path)


def test_a_checkpoint_in_several_files_is_read_from_its_list(tmp_path):
    save_file({"a": np.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros(3)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert sorted(loading.parameters("measure", index)) == ["a", "b"]
    with pytest.raises(InputError, match=r"It holds checkpoints: .*model\.safetensors\.index\.json"):
        loading.parameters("measure", tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(InputError, match="All of its files must lie beside it"):
        loading.parameters("measure", index)
    for text in ("[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'):
        index.write_text(text)
        with pytest.raises(InputError, match="which is none"):
            loading.parameters("measure", index)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_pickled_is_executed(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Harmful()}, "bad.pt")
    shutil.copy("bad.pt", "bad.ckpt")
    Path("old.pt").write_bytes(pickle.dumps({"w": Harmful()}))
    Path("bad.pkl").write_bytes(pickle.dumps({"w": Harmful()}))
    for name, words in {
        "bad.pt": "which holds posix.mkdir: loading that could run code",
        "bad.ckpt": "which holds posix.mkdir: loading that could run code",
        "old.pt": "must be a PyTorch checkpoint of arrays alone",
        "bad.pkl": "can run code and are never read",
    }.items():
        with pytest.raises(InputError) as error:
            loading.parameters("measure", Path(name))
        assert words in str(error.value), str(error.value)
    assert not Path("harm").exists()


def test_a_file_of_pytorch_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(MissingExtra, match=r"pip install 'steppe\[torch\]'"):
        loading.parameters("measure", tmp_path / "net.pt")


@pytest.mark.slow
def test_files_of_pytorch_are_read_in_every_form_that_holds_arrays_alone(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters())
    whole = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "name": "a"}
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    for old in (False, True):
        path = tmp_path / f"{old}.pt"
        torch.save(whole, path, _use_new_zipfile_serialization=not old)
        found = loading.parameters("measure", path)
        assert sorted(found) == ["model"]
        assert same(found["model"], {name: value.numpy() for name, value in net.state_dict().items()})
    torch.save(half, tmp_path / "half.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(half, "half.bin")}))
    assert loading.parameters("measure", index).keys() == half.keys()
    assert loading.parameters("measure", tmp_path / "half.bin")["0.weight"].dtype == np.float32
    torch.save(net, tmp_path / "module.pth")
    with pytest.raises(InputError, match=r"which holds torch\.nn\.modules\.\w+\.\w+: loading that could run code"):
        loading.parameters("measure", tmp_path / "module.pth")
    for name, content in {"cut.pt": path.read_bytes()[:-40], "empty.pt": b"", "none.pt": None}.items():
        (tmp_path / name).write_bytes(content) if content is not None else torch.save({"epoch": 1}, tmp_path / name)
        with pytest.raises(InputError, match="must be a PyTorch checkpoint of arrays alone"):
            loading.parameters("measure", tmp_path / name)


TORCH = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.module = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * width, 3)
        self.register_buffer("shift", torch.ones(1), persistent=False)

    def forward(self, x):
        return self.head(self.module(x).flatten(1) + self.shift)


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.embed(tokens)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt", "averaged", "compiled and parallel", "lightning", "safetensors"])
def test_checkpoints_of_pytorch_give_the_loss_that_pytorch_gives(here, monkeypatch, form):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchax")
    from safetensors.torch import save_model

    monkeypatch.syspath_prepend(here)
    Path("torchnets.py").write_text(TORCH)
    import torchnets

    torch.manual_seed(0)
    net = torchnets.Net()
    net.module[1].running_mean += 0.3
    x = np.random.default_rng(0).normal(size=(6, 1, 4, 4)).astype(np.float32)
    data = {"x": x, "y": np.arange(6) % 3}
    state = net.state_dict()
    match form:
        case "pt":
            torch.save({k: v for k, v in state.items() if "tracked" not in k}, "net.pt")  # as before PyTorch 0.4.1
        case "averaged":
            torch.save({name: (value + 2 * value) / 3 for name, value in state.items()}, "net.pt")  # counts, too
        case "compiled and parallel":
            whole = {f"_orig_mod.module.{name}": value for name, value in state.items()}
            torch.save({"n_averaged": torch.tensor(3), **whole}, "net.pt")  # as of an AveragedModel, too
        case "lightning":
            torch.save({"state_dict": {f"net.{name}": value for name, value in state.items()}, "epoch": 3,
                        "optimizer_states": [torch.optim.Adam(net.parameters()).state_dict()]}, "net.pt")  # fmt: skip
        case "safetensors":
            save_model(net, "net.safetensors")
    path = Path("net.safetensors" if form == "safetensors" else "net.pt")
    network, blueprint = modules.build("measure", "torchnets:Net", {}, data)
    (params, trained_state), _ = fill("measure", blueprint, loading.parameters("measure", path), path.name)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(net.eval()(torch.tensor(x)), torch.tensor(data["y"]))
    found = steppe.losses.cross_entropy(network.at(trained_state)(params, x), data["y"])
    np.testing.assert_allclose(found, float(expected), rtol=1e-5)
    batch_norm = [f"module.1.{name}" for name in ("num_batches_tracked", "running_mean", "running_var")]
    assert sorted(trained_state) == [*batch_norm, "shift"]


@pytest.mark.slow
def test_tied_weights_of_pytorch_are_one_array_under_whatever_name_a_file_has_them(here, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchax")
    from safetensors.torch import save_model

    monkeypatch.syspath_prepend(here)
    Path("torchnets.py").write_text(TORCH)
    import torchnets

    tied = torchnets.Gpt()
    torch.save(tied.state_dict(), "both.pt")
    save_model(tied, "one.safetensors")  # which leaves one of the two out
    tokens = np.array([[1, 2, 3], [0, 4, 1]])
    batch = {"x": tokens, "y": steppe.losses.next_tokens(tokens)}
    _, blueprint = modules.build("measure", "torchnets:Gpt", {}, batch)
    assert blueprint.aliases == {"head.weight": "embed.weight"}
    for name in ("both.pt", "one.safetensors"):
        (params, _), _ = fill("measure", blueprint, loading.parameters("measure", Path(name)), name)
        assert list(params) == ["embed.weight"]
        np.testing.assert_array_equal(params["embed.weight"], tied.embed.weight.detach().numpy())
    torch.save({"embed.weight": torch.ones(5, 4), "head.weight": torch.zeros(5, 4)}, "untied.pt")
    with pytest.raises(InputError, match="one array in the network, with two values"):
        fill("measure", blueprint, loading.parameters("measure", Path("untied.pt")), "untied.pt")


@pytest.mark.slow
def test_counts_of_batches_that_differ_are_no_obstacle_between_two_pytorch_networks(here, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchax")
    monkeypatch.syspath_prepend(here)
    Path("torchnets.py").write_text(TORCH)
    import torchnets

    np.savez("images.npz", x=np.ones((4, 1, 4, 4), np.float32), y=np.arange(4) % 3)
    for count in (3, 7):
        net = torchnets.Net()
        net.module[1].num_batches_tracked += count
        torch.save(net.state_dict(), f"{count}.pt")
    user = UserNetwork(network="torchnets:Net", data="images.npz")
    settings = landscapes.Settings(along="between", points=3, grid=0)
    question = landscapes.read_question([Path("3.pt"), Path("7.pt")], settings, user)
    assert [int(network.state["module.1.num_batches_tracked"]) for network in question.networks] == [3, 7]
    torch.save(net.state_dict() | {"module.1.running_mean": torch.ones(4)}, "moved.pt")
    landscapes.read_question([Path("3.pt"), Path("moved.pt")], settings, user)  # statistics are estimated anew

"""What a study names may be the user's own code, and a study grows."""

import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import steppe
from steppe import study

pytestmark = pytest.mark.usefixtures("without_surfaces")

NET = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, features, width, classes, rngs):
        self.first, self.second = nnx.Linear(features, width, rngs=rngs), nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x, rngs=None):
        return self.second(nnx.tanh(self.first(x)))

def make(shape, classes, *, width: int = 3, rngs):
    return Net(shape[0], width, 1 if classes == 2 else classes, rngs)
"""
TOML = """
name = "mine"
seeds = 1
[data]
name = "moons"
[model]
name = "mynet:make"
[train]
learning_rate = 0.1
batch_size = 100
epochs = 1
[measure]
batches = 1
probes = 1
[landscape]
points = 3
grid_points = 3
[[conditions]]
name = "plain"
"""
FA = '[[conditions]]\nname = "fa"\nmethod = {name = "fa", lam = 0.0}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "mynet.py").write_text(NET)
    (tmp_path / "spec" / "study.toml").write_text(TOML)
    return tmp_path / "spec"


def read(folder: Path, extra: str = "") -> study.Spec:
    (folder / "study.toml").write_text(TOML + extra)
    return study.load(str(folder / "study.toml"))


def test_a_network_beside_the_toml_file_is_found_and_its_settings_are_resolved(folder):
    spec = read(folder)
    assert spec.model == {"name": "mynet:make", "width": 3}
    with pytest.raises(steppe.InputError, match=r"model\.depth must be a setting that exists"):
        study.load(str(folder / "study.toml"), {"model.depth": 2})


def test_a_network_is_made_once_for_whatever_asks_for_it(folder):
    (folder / "mynet.py").write_text(NET.replace("def make(", "calls = []\ndef make(").replace(
        "return Net(shape[0]", "calls.append(width); return Net(shape[0]"))  # fmt: skip
    spec, data = read(folder), steppe.data.load("moons")
    calls = sys.modules["mynet"].calls
    network = spec.build_model(data)
    made = len(calls)
    assert made and spec.model_copy(update={"name": "another"}).build_model(data) is network
    assert len(calls) == made
    wider = study.load(str(folder / "study.toml"), {"model.width": 5}).build_model(data)
    assert wider is not network and calls[-1] == 5


def test_the_source_is_part_of_the_identity_and_the_folder_is_not(folder, tmp_path):
    before = read(folder).identity()
    shutil.copytree(folder, tmp_path / "copy")
    assert study.load(str(tmp_path / "copy" / "study.toml")).identity() == before
    (folder / "mynet.py").write_text(NET.replace("nnx.tanh", "nnx.relu"))
    assert read(folder).identity() != before
    (folder / "mynet.py").write_text(NET + "\nimport layers\n")
    (folder / "layers.py").write_text("a = 1\n")
    before = read(folder).identity()
    (folder / "layers.py").write_text("a = 2\n")
    assert read(folder).identity() != before


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("absent:make", "", "a module that can be imported, got 'absent'"),
        ("bad:make", "import sys\nsys.exit(3)", "'bad', which fails"),
        ("bad:make", "make = 3", "a function of bad, got 'make', of type int"),
        ("bad:make", "def make(shape, classes, width): pass", "width, which has no type"),
        ("math:sqrt", "", "a module with a source file"),
        ("__main__:make", "", "a module that can be imported"),
        ("../bad:make", "", "of the form module:function"),
    ],
)
def test_code_that_cannot_be_used_is_refused_with_one_sentence(folder, text, source, message):
    (folder / "bad.py").write_text(source)
    with pytest.raises(steppe.InputError, match=message):
        study.load(str(folder / "study.toml"), {"model.name": text})


@pytest.mark.slow
def test_a_study_with_code_runs_grows_and_refuses_an_edited_network(folder, tmp_path):
    told: list[str] = []

    class Watcher(study.progress.Watcher):
        def say(self, text):
            told.append(text)

    out = tmp_path / "out"
    first = study.run(read(folder), out).runs
    grown = study.run(read(folder, FA), out, watcher=Watcher()).runs
    assert any("new conditions" in text and "fa" in text for text in told)
    machine = [c for c in first.columns if any(word in c for word in ("seconds", "memory", "host"))]
    assert grown.filter(grown["condition"] == "plain").drop(machine).equals(first.drop(machine))
    plain, fa = (grown.filter(grown["condition"] == name) for name in ("plain", "fa"))
    assert plain["train_loss"].item() == fa["train_loss"].item()  # no method is λ = 0, bit for bit
    assert plain["lam"].item() is None
    less = study.run(read(folder), out, watcher=Watcher()).runs
    assert set(less["condition"]) == {"plain"}
    assert (out / "runs" / "fa-s0" / "run.json").is_file()
    assert any("no longer has the conditions fa" in text for text in told)
    with pytest.raises(steppe.InputError, match="with conditions = 'other', got one with conditions = 'plain'"):
        study.run(read(folder).model_copy(update={"conditions": [{"name": "other"}], "baseline": "other"}), out)
    (folder / "mynet.py").write_text(NET.replace("nnx.tanh", "nnx.relu"))
    with pytest.raises(steppe.InputError, match=r"the source of mynet as it is now.* Restore that source, or"):
        study.run(read(folder), out)


@pytest.mark.slow
def test_the_page_on_code_of_ones_own_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "code.md").read_text(encoding="utf-8")
    for kind, name in (("python", "mine.py"), ("toml", "study.toml")):
        (block,) = re.findall(rf"^```{kind}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        (tmp_path / name).write_text(block, encoding="utf-8")
    spec = study.load("study.toml")
    runs = study.run(spec, tmp_path / "out").runs
    assert set(runs["status"]) == {"finished"} and runs["test_entropy"].is_between(0, 1).all()
    assert runs["train_loss"].n_unique() == 4
    assert set(spec.source) == {"mine"}


TORCH = """
import torch

def make(shape, classes, *, width: int = 4):
    convolution = torch.nn.Conv2d(shape[-1], width, 3)
    parts = (convolution, torch.nn.BatchNorm2d(width), torch.nn.Flatten(), torch.nn.Dropout(0.1))
    return torch.nn.Sequential(*parts, torch.nn.Linear(4 * width, classes))

def images():
    import numpy as np
    x = np.random.default_rng(0).normal(size=(60, 4, 4, 1)).astype(np.float32)
    y = np.arange(60) % 3
    return (x, y), (x[:9], y[:9])
"""


@pytest.mark.slow
def test_a_study_trains_a_pytorch_module_anew_for_every_seed(folder):
    (folder / "mynet.py").write_text(TORCH)
    text = TOML.replace("seeds = 1", "seeds = 2").replace("moons", "mynet:images").replace("= 100", "= 10")
    text += '[[conditions]]\nname = "fa"\nmethod = {name = "fa", lam = 0.01, probes = 1}\n'
    (folder / "study.toml").write_text(text)
    spec = study.load(str(folder / "study.toml"))
    rows = study.run(spec, folder / "out").runs.to_dicts()
    assert len(rows) == len({row["train_loss"] for row in rows}) == 4
    network = spec.build_model(spec.load_data())
    one, again, other = (network.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, again))
    assert not np.array_equal(one.params["0.weight"], other.params["0.weight"])
    x = spec.load_data().train["x"][:8]
    outputs, state = network.apply(one, x, train=True, key=jax.random.key(0))
    assert outputs.shape == (8, 3) and state["1.num_batches_tracked"] == 1

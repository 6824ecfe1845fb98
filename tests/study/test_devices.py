"""Training over several devices: what one device trains, up to the order of sums."""

import json

import jax
import pytest

from steppe import study
from steppe.core.checks import InputError
from steppe.study.spec.reading import parse
from steppe.study.training.devices import ONE_DEVICE, Placement

TEXT = """
name = "shared"
seeds = 1
data = {name = "digits"}
model = {name = "mlp", hidden = [4], normalization = "batch", dropout = 0.1}
method = {name = "sam", rho = 0.05}
augment = [{name = "mixup"}]
train = {optimizer = "sgd", learning_rate = 0.05, batch_size = 104, epochs = 1}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3}
"""

SCRIPT = """
import json, pathlib, tempfile
import jax, jax.numpy as jnp, numpy as np
from steppe import study
from steppe.core.checks import InputError
from steppe.study.execution import run
from steppe.study.spec.reading import parse
from steppe.study.store import Store
from steppe.study.training import checkpoints, loader
from steppe.study.training.program import Compiler
from steppe.study.training.recipe import shape_of

TEXT = {text!r}
loader.BLOCK_BYTES = 20_000
run.add_surfaces = lambda *_: None
spec = lambda **changes: parse(TEXT, {{f"train.{{key}}": value for key, value in changes.items()}})
dataset = spec().load_data()
compiler = Compiler(dataset)

def trained(**changes):
    shape, strengths = shape_of(spec(**changes))
    trainer = compiler.trainer(shape, strengths)
    progress, *_ = trainer.epoch(trainer.start(jnp.uint32(0), strengths), strengths, trainer.train)
    count = len(progress.params["layers"][0]["kernel"].sharding.device_set)
    return trainer.placement.alone((progress.params, progress.state)), trainer.step_memory_mb, count

def apart(a, b):
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in zip(*map(jax.tree.leaves, (a, b))))

folder = pathlib.Path(tempfile.mkdtemp()) / "out"
study.run(spec(devices="all"), folder)
store = Store.read(folder)
four, (record, _) = tuple(store.network("all", 0)), store.load("all", 0)
one, memory, _ = trained()
host, _, many = trained(devices=4, data_on="host")
told = {{"all": apart(one, four), "host": apart(four, host), "devices": many}}
told |= {{"memory": [memory, record["step_memory_mb"]], "hardware": record["made_with"]["hardware"]}}
for changes in (dict(devices=3), {{"devices": "all", "accumulate": 4}}, dict(devices=5)):
    try:
        study.run(spec(**changes), tempfile.mkdtemp() + "/out")
    except InputError as error:
        told.setdefault("errors", []).append(str(error))

class Kept:
    written = {{}}
    def write(self, name, values):
        self.written[name] = values
    def read(self, name):
        return self.written.get(name)

kept = checkpoints.Checkpoints(Kept(), 0)
shape, strengths = shape_of(spec(devices=4, data_on="host"))
trainer = compiler.trainer(shape, strengths)
start = lambda: trainer.start(jnp.uint32(3), strengths)
half = trainer.epoch(start(), strengths, trainer.train)[0]
kept.offer(half, checkpoints.History())
resumed, _ = kept.latest(start())
again = [trainer.placement.alone(trainer.epoch(at, strengths, trainer.train)[0]) for at in (resumed, half)]
alone, strengths = shape_of(spec())
told["resumed"] = apart(*again)
told["others"] = kept.latest(compiler.trainer(alone, strengths).start(jnp.uint32(3), strengths)) is None
print(json.dumps(told))
"""


@pytest.mark.slow
def test_several_devices_train_what_one_trains(on_four_devices):
    """BatchNorm, dropout, mixed inputs, SAM; data on the host; errors; records; resumption."""
    told = json.loads(on_four_devices(SCRIPT.format(text=TEXT)))
    assert told["devices"] == 4
    assert 0 <= told["all"] < 1e-4
    assert told["host"] == 0, "data on the host must give the bits of data on the devices"
    assert told["memory"][1] < told["memory"][0]
    assert told["errors"] == [
        "study: train.batch_size must be a multiple of 3 devices, which share every batch equally, got 104. "
        "Take 105, or other train.devices.",
        "study: train.batch_size must be a multiple of 4 devices times 4 parts (train.accumulate), which share every "
        "batch equally, got 104. Take 112, or other train.devices.",
        'study: train.devices must be at most 4, the devices of this machine, got 5. Say "all" for as many as there '
        "are.",
    ]
    assert told["hardware"].endswith("JAX on 4 × cpu, trained on 4 of them")
    assert told["resumed"] == 0, "a resumed run must repeat the interrupted one bit for bit"
    assert told["others"], "a run must not be resumed on another number of devices"


def test_one_device_is_no_device_among_several():
    for devices in (None, 1, "all"):
        changes = {} if devices is None else {"train.devices": devices}
        assert Placement.of(parse(TEXT, changes).train) == ONE_DEVICE


def test_the_number_of_devices_is_a_part_of_what_a_run_is():
    plain = parse(TEXT, {})
    assert "devices" not in plain.identity()["train"]
    assert parse(TEXT, {"train.devices": "all"}).identity() != plain.identity()


@pytest.mark.parametrize("devices", [0, -1, "some", 1.5, True])
def test_a_number_of_devices_is_all_or_a_count(devices):
    with pytest.raises(InputError, match=r"study: train\.devices must be"):
        parse(TEXT, {"train.devices": devices})


def test_more_devices_than_the_machine_has_are_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"train\.devices must be at most 1, the devices of this machine, got 8"):
        study.run(parse(TEXT, {"train.devices": 8}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_among_several_does_not_train_a_study(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"^study: processes must be 1, .* got 2 of jax\.distributed\. Say \[train\]"):
        study.run(parse(TEXT, {}), tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Data that stay on the host: the same bits as on the device, whatever the blocks; nothing is left behind."""

import contextlib
import threading
import time

import jax
import numpy as np
import pytest

from steppe import study
from steppe.core import batches
from steppe.core.batches import prefetched
from steppe.core.checks import InputError
from steppe.study.progress import Watcher
from steppe.study.spec.reading import parse
from steppe.study.store import Store
from steppe.study.training import loader

pytestmark = pytest.mark.usefixtures("without_surfaces")

TEXT = """
name = "host"
seeds = 1
data = {name = "digits"}
model = {name = "mlp", hidden = [4], normalization = "batch", dropout = 0.1}
augment = [{name = "mixup"}]
train = {learning_rate = 0.05, batch_size = 100, epochs = 3}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3}
"""


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("steppe-loader")]


# --- One ahead


def test_what_is_loaded_comes_in_order_and_one_is_loaded_ahead():
    loaded, seen = [], []
    for item in prefetched(lambda place: loaded.append(place) or place, 5):
        time.sleep(0.01)
        seen.append((item, len(loaded)))
    assert [item for item, _ in seen] == list(range(5))
    assert all(count <= item + 2 for item, count in seen)
    assert not threads()


def test_an_error_while_loading_is_one_sentence_and_leaves_no_thread():
    def load(place):
        if place == 2:
            raise OSError("Stale file handle\nand more")
        return place

    with pytest.raises(InputError) as caught:
        list(prefetched(load, 5))
    assert str(caught.value) == "study: data must be readable throughout, got a failure: OSError: Stale file handle."
    assert not threads()


def test_an_interruption_leaves_no_thread():
    with pytest.raises(KeyboardInterrupt), contextlib.closing(prefetched(lambda place: time.sleep(0.01), 50)) as stream:
        for _ in stream:
            raise KeyboardInterrupt
    assert not threads()


# --- Blocks


@pytest.mark.parametrize("most", [1, 3, 4, 10])
def test_blocks_hold_the_rows_of_each_batch_in_the_order_of_the_epoch(most, tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (40, 3))
    mapped[:] = np.random.default_rng(0).normal(size=(40, 3))
    train = {"x": {"a": mapped, "b": np.arange(40, dtype=np.uint8)}, "y": np.arange(40, dtype=np.int32)}
    order = np.random.default_rng(1).permutation(40).reshape(10, 4)
    found = []
    for block in loader.blocks(train, order, most):
        like = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), block)
        assert like == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), loader.block_shape(train, 4, most))
        for place in range(block.number):
            assert block.first + place == len(found)
            found.append(jax.tree.map(lambda leaf: np.asarray(leaf)[block.rows[place]], block.examples))  # noqa: B023
    for batch, rows in zip(found, order, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, jax.tree.map(lambda leaf: leaf[rows], train))  # noqa: B023


def test_large_data_stay_on_the_host_unless_asked_otherwise(monkeypatch):
    train = {"x": np.zeros((10, 10), np.uint8)}
    monkeypatch.setattr(loader, "available", lambda: 1000.0)
    assert not loader.stays_on_host(train, None)
    monkeypatch.setattr(loader, "available", lambda: 150.0)
    assert loader.stays_on_host(train, None)
    assert not loader.stays_on_host(train, "device")
    assert loader.stays_on_host(train, "host")


def test_a_block_has_as_many_batches_as_its_bytes_allow(monkeypatch):
    train = {"x": np.zeros((10, 10), np.uint8)}
    monkeypatch.setattr(loader, "BLOCK_BYTES", 100)
    assert [loader.batches_of_block(train, size, 5) for size in (1, 3, 10, 20)] == [5, 3, 1, 1]


# --- Studies


class Killed(BaseException):
    pass


class Killer(Watcher):
    """Ends a run after its second epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = 0

    def epoch(self, *told):
        self.epochs += 1
        if self.epochs == 3:
            raise Killed


def bits(folder, data_on, watcher=None):
    """Run the study: its table of runs, its history, and the arrays of its network, without what the machine says."""
    spec = parse(TEXT, {"train.data_on": data_on} if data_on else {})
    made = study.run(spec, folder, checkpoint_seconds=0.0, watcher=watcher or Watcher())
    machine = ("seconds", "memory", "host", "made_with")
    tables = [frame.select(name for name in frame.columns if not any(word in name for word in machine))
              for frame in (made.runs, made.history)]  # fmt: skip
    return tables, jax.tree.map(np.asarray, Store.read(folder).network(made.conditions[0], 0))


@pytest.mark.optimised
@pytest.mark.slow
def test_a_study_gives_the_same_bits_from_the_host_also_killed_and_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "batches_of_block", lambda *_: 3)
    monkeypatch.setattr(batches, "HOST_BYTES", 1)
    tables, network = bits(tmp_path / "device", None)
    with pytest.raises(Killed):
        bits(tmp_path / "host", "host", Killer())
    again, network_again = bits(tmp_path / "host", "host")
    assert all(one.equals(other) for one, other in zip(tables, again, strict=True))
    jax.tree.map(np.testing.assert_array_equal, network, network_again)
    assert not threads()
    again, _ = bits(tmp_path / "host", "device")  # the same study, which is finished
    assert again[0].equals(tables[0])


def test_averages_of_a_network_with_batchnorm_are_refused_on_the_host(tmp_path):
    with pytest.raises(InputError, match=r'train\.data_on must be "device" where weights are averaged with BatchNorm'):
        study.run(parse(TEXT, {"train.data_on": "host", "average": {"name": "swa"}}), tmp_path / "study")

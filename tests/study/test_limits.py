"""Names and sizes that would fail later, refused before anything starts; nothing here is trained."""

import os

import pytest

from steppe import InputError
from steppe.core import checks
from steppe.study import spec as specs
from steppe.study.spec import limits

TINY = """
name = "tiny"
data = {name = "moons", examples = 20}
model = {name = "mlp", hidden = [4]}
method = {name = "fa", lam = 0.0}
train = {learning_rate = 0.01, batch_size = 4, epochs = 1}
"""

TOO_MUCH = {
    "seeds": 5_000_000_000,
    "train.epochs": 2**31,
    "train.batch_size": 2**31,
    "train.learning_rate": 1e-50,
    "train.weight_decay": float("inf"),
    "train.momentum": float("nan"),
    "method.every": 2**32,
    "method.probes": 10**30,
    "method.lam": 1e39,
    "method.microbatches": 2**63,
    "model.hidden": [10**9],
    "data.examples": 10**10,
    "data.split_seed": 2**32,
    "measure.probes": 10**9,
    "measure.batches": 2**31,
    "measure.every": -1,
    "landscape.points": 10**10,
    "landscape.grid_points": 10**5,
    "landscape.radius": 1e400,
    "track": {"examples": 2**32},
    "grid": {"method.lam": [i / 1000 for i in range(1001)]},
    "augment": [{"name": "crop", "padding": 2**40}],
    "title": "\x1b[31mred",
    "about": "\udcff",
    "published": [{"title": "t", "caveat": "\0", "columns": [], "rows": []}],
    "name": "a" * 201,
    "x" + ".y" * 2000: 1,
}


@pytest.mark.parametrize("path", TOO_MUCH, ids=lambda path: path[:20])
def test_what_cannot_run_is_refused_in_one_sentence_when_the_study_is_read(path):
    with pytest.raises(InputError) as refusal:
        specs.parse(TINY, {path: TOO_MUCH[path]})
    said = str(refusal.value)
    assert len(said) < 300 and said.isprintable() and said.endswith(".") and path.split(".")[0][:4] in said


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 2000 + "]" * 2000, ".".join("a" * 2000) + " = 1", "x = " + "9" * 5000, "x = " + "{a=" * 20 + "1"],
)
def test_text_that_no_reader_takes_is_one_sentence(text):
    with pytest.raises(InputError) as refusal:
        specs.parse(TINY + text)
    assert len(str(refusal.value)) < 400


BAD_NAMES = [
    "",
    ".x.partial",
    "..",
    "x.",
    "a/b",
    "a\\b",
    "a\nb",
    "a  b",
    " a",
    "\u202eb",
    "\x07",
    "é" * 101,
    "nul",
    "\ufffe",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_condition_whose_name_no_file_can_bear_is_refused(name):
    with pytest.raises(InputError, match="conditions"):
        specs.parse(TINY, {"conditions": [{"name": name}]})


@pytest.mark.parametrize("pair", [("a", "A"), ("é", "e\u0301"), ("ß", "SS"), ("a", "a")], ids=ascii)
def test_names_that_some_file_system_confuses_are_refused(pair):
    with pytest.raises(InputError, match="conditions must be distinct"):
        specs.parse(TINY, {"conditions": [{"name": name} for name in pair]})


def test_names_that_the_grid_makes_are_checked_too():
    with pytest.raises(InputError, match=r"Write .*conditions.* with names"):
        specs.parse(TINY, {"grid": {"model.hidden": [[1000] * 80]}})


def test_a_long_name_leaves_room_for_what_files_add(tmp_path):
    name = specs.conditions(specs.parse(TINY, {"conditions": [{"name": "é" * 100}]}))[0].name
    (tmp_path / f".{name}-s{limits.MOST['seeds']}.partial").mkdir()
    assert len(os.fsencode(name)) == limits.NAME_BYTES


@pytest.mark.parametrize("kind", ["folder", "FIFO", "zeros", "binary", "UTF-16", "missing", "huge", "long"])
def test_a_path_that_is_no_specification_is_refused_and_never_waited_for(tmp_path, kind):
    path = tmp_path / ("x" * 300 * (kind == "long") + "spec.toml")
    make = {
        "folder": path.mkdir,
        "FIFO": lambda: os.mkfifo(path),
        "zeros": lambda: path.symlink_to("/dev/zero"),
        "binary": lambda: path.write_bytes(b"\xff\xfe\0\1"),
        "UTF-16": lambda: path.write_text(TINY, encoding="utf-16"),
        "huge": lambda: path.write_bytes(b"#" * (limits.FILE_BYTES + 1)),
    }
    make.get(kind, lambda: None)()
    with pytest.raises(InputError, match=r"^study: spec must be"):
        specs.load(str(path))


def test_a_byte_order_mark_is_no_part_of_a_specification(tmp_path):
    (tmp_path / "spec.toml").write_text(TINY, encoding="utf-8-sig")
    assert specs.load(str(tmp_path / "spec.toml")).name == "tiny"


def test_a_date_is_no_text():
    with pytest.raises(InputError, match="Put quotes around dates"):
        specs.parse(TINY + "title = 2020-01-01")


def test_a_network_larger_than_the_machine_is_refused_before_it_is_made(monkeypatch):
    import jax

    limits.check_work({"w": jax.ShapeDtypeStruct((1000,), "float32")}, 10)
    monkeypatch.setattr(limits, "machine_bytes", lambda: 3000)
    with pytest.raises(InputError, match=r"memory must be enough for training, at least .* got"):
        limits.check_work({"w": jax.ShapeDtypeStruct((1000,), "float32")}, 10)
    with pytest.raises(InputError, match=r"train.epochs must be of at most 2147483647 steps in all"):
        limits.check_work({}, 2**31)


def test_whole_numbers_end_where_jax_counts_no_further():
    with pytest.raises(InputError, match="at most 2147483647, got 2147483648"):
        checks.whole("f", "n", 2**31)
    assert checks.shown(10**5000) == "a number of thousands of digits"

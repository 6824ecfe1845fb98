"""Conditions of one study on different data."""

import json

import numpy as np
import polars
import pytest

from steppe import InputError, data, study
from steppe.networks import runs as finished_runs
from steppe.study import Store
from steppe.study.datasets import DataRecord, Datasets

TEXT = """
name = "tight"
seeds = 1
data = {name = "circles", examples = 20, test_examples = 20}
model = {name = "mlp", hidden = [3]}
train = {learning_rate = 0.05, batch_size = 10, epochs = 2}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3, examples = 30}
baseline = "wide"

[[conditions]]
name = "wide"

[[conditions]]
name = "tight"
"data.factor" = 0.9

[[conditions]]
name = "more"
"data.examples" = 40
"data.factor" = 0.9
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "tight"
    study.run(study.spec.parse(TEXT), out)
    return out


def single(name, tmp_path):
    """The same condition as a study of its own."""
    table = {"wide": {}, "tight": {"data.factor": 0.9}, "more": {"data.factor": 0.9, "data.examples": 40}}[name]
    spec = study.spec.parse(TEXT.partition("baseline")[0], table)
    return study.run(spec, tmp_path / name).runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide", "more"])
def test_a_condition_on_its_data_gives_the_bits_of_a_study_of_these_data(folder, tmp_path, name):
    alone, runs = (
        single(name, tmp_path),
        study.gathered(Store.read(folder)).runs.filter(polars.col("condition") == name),
    )
    for column in ("test_loss", "train_loss", "test_accuracy", "frobenius_squared", "steps"):
        if column in alone.columns:
            assert alone[column].to_list() == runs[column].to_list()


@pytest.mark.slow
def test_the_folder_says_what_each_condition_runs_on_and_is_resumed_by_it(folder):
    table = json.loads((folder / "data.json").read_text())["conditions"]
    assert list(table) == ["wide", "tight", "more"] and "radii 0.9 and 1" in table["tight"]["about"]
    again = study.run(study.spec.parse(TEXT), folder)
    assert len(again.runs) == 3
    notes = " ".join(again.notes)
    assert (
        "trained, tested and measured on other data than wide, with which they are compared: tight and more." in notes
    )
    assert "data fingerprint of tight" in again.provenance


@pytest.mark.slow
def test_surfaces_are_those_of_each_conditions_data_and_networks_are_read_with_them(folder):
    surfaces = Store.read(folder).surfaces()
    assert surfaces.conditions == ("wide", "tight", "more") and "on 20 to 30 fixed" in surfaces.about
    found = list(finished_runs.read_runs("measure", [folder / "runs" / f"{name}-s0" for name in ("wide", "tight")]))
    assert [len(network.dataset.train["y"]) for network in found] == [20, 20]
    assert not np.array_equal(found[0].dataset.train["x"], found[1].dataset.train["x"])


def test_conditions_of_the_same_data_load_them_once_and_are_recorded_as_one():
    columns = study.spec.conditions(study.spec.parse(TEXT.replace('"data.examples" = 40', "")))
    datasets = Datasets()
    assert datasets.of(columns[1].spec) is datasets.of(columns[2].spec) is not datasets.of(columns[0].spec)
    record = DataRecord.of(columns[1:], datasets)
    assert not record.conditions and record.fingerprint("tight") == datasets.of(columns[1].spec).fingerprint
    assert DataRecord.read(record.table()) == record
    whole = DataRecord.of(columns, datasets)
    assert DataRecord.read(whole.table()) == whole and whole.groups()[record.fingerprint("tight")] == ["tight", "more"]
    assert whole.mark not in (None, record.mark)


def test_a_condition_whose_data_do_not_exist_is_one_sentence():
    with pytest.raises(InputError, match=r"data.factr must be a setting that exists, .* Did you mean 'factor'"):
        study.spec.parse(TEXT.replace('"data.factor" = 0.9\n\n', '"data.factr" = 0.9\n\n'))
    spec = study.spec.parse(TEXT.replace('"data.factor" = 0.9\n\n', '"data.factor" = 2.0\n\n'))
    with pytest.raises(InputError, match="data circles: factor must be at least 0 and below 1, got 2"):
        study.run(spec, "nowhere")


def test_files_that_conditions_name_are_looked_for_beside_the_specification(tmp_path):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=np.eye(4), y=np.arange(4) % 2)
    text = TEXT.replace('data = {name = "circles", examples = 20, test_examples = 20}',
                        'data = {name = "file", file = "a.npz", label = "y"}')  # fmt: skip
    head, _, _ = text.partition("[[conditions]]")
    (tmp_path / "mine.toml").write_text(
        head.replace('baseline = "wide"', "") + '[grid]\n"data.file" = ["a.npz", "b.npz"]\n'
    )
    spec = study.load(str(tmp_path / "mine.toml"))
    assert [column.spec.data["file"] for column in study.spec.conditions(spec)] == [
        str(tmp_path / name) for name in ("a.npz", "b.npz")
    ]


LABELS = """
name = "memorised"
seeds = 1
data = {name = "circles", examples = 20, test_examples = 20}
model = {name = "mlp", hidden = [3]}
train = {learning_rate = 0.05, batch_size = 10, epochs = 2}
measure = {batches = 1, probes = 1, names = [{name = "fisher_rao", split = "clean"}]}
landscape = {points = 3, grid_points = 3}
grid = {"data.random_labels" = [0.0, 1.0]}
"""


@pytest.mark.slow
def test_a_measure_of_the_clean_part_sees_the_labels_that_the_examples_came_with(tmp_path):
    runs = study.run(study.spec.parse(LABELS), tmp_path / "out").runs
    kept, drawn = (runs.filter(polars.col("condition") == f"random_labels={share}") for share in ("0", "1"))
    assert kept["clean_accuracy"][0] == kept["train_accuracy"][0]
    network = Store.read(tmp_path / "out").network("random_labels=1", 0)
    found = data.load("circles", examples=20, test_examples=20, random_labels=1.0)
    apply = study.spec.parse(LABELS).build_model(found).at(network.state)
    predicted = np.asarray(apply(network.params, found.train["x"])).ravel() > 0
    assert drawn["clean_accuracy"][0] == pytest.approx((predicted == found.clean["y"]).mean())
    assert drawn["train_accuracy"][0] == pytest.approx((predicted == found.train["y"]).mean())


def test_a_measure_of_the_clean_part_needs_random_labels(tmp_path):
    text = LABELS.replace('grid = {"data.random_labels" = [0.0, 1.0]}', "")
    with pytest.raises(InputError, match=r"data\.random_labels must be given, for a measure is asked of that part"):
        study.run(study.spec.parse(text), tmp_path / "out")
    with pytest.raises(InputError, match=r"data\.random_labels_seed must be left out without data\.random_labels"):
        study.spec.parse(text, {"data.random_labels_seed": 1})

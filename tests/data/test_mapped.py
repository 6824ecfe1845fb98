"""Arrays that are mapped from files: the same data as others, and never read whole."""

import importlib
import mmap

import jax
import numpy as np
import pytest

from steppe import data
from steppe.core.checks import InputError
from steppe.data import tabular

dataset_ = importlib.import_module("steppe.data.dataset")  # the name in the package is that of a function

RNG = np.random.default_rng(0)


def base(array):
    """What an array's numbers lie in at last."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 40), ("test", 10)):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "x.npy", RNG.normal(3, 2, size=(count, 4, 2)).astype(np.float32))
        np.save(tmp_path / part / "y.npy", np.array(["no", "yes"])[np.arange(count) % 2])
    return tmp_path


def load(folder, **settings):
    names = {"file": str(folder / "train/x.npy"), "test_file": str(folder / "test/x.npy"), "label": "y.npy"}
    return data.load("file", **(names | settings))


def test_mapped_arrays_stay_in_their_files_and_are_standardised_when_decoded(folder, monkeypatch):
    for module in (dataset_, tabular):
        monkeypatch.setattr(module, "CHUNK", 24)  # three rows
    made = load(folder)
    assert isinstance(base(made.train["x"]), mmap.mmap)
    assert isinstance(base(made.test["x"]), mmap.mmap)
    x, test = (np.load(folder / part / "x.npy") for part in ("train", "test"))
    for part, expected in ((made.train, x), (made.test, test)):
        found = jax.jit(made.decode)(part)["x"]
        np.testing.assert_allclose(found, (expected - x.mean(0)) / x.std(0), rtol=1e-4, atol=1e-5)
    assert made.train["y"].tolist() == [0, 1] * 20
    np.testing.assert_array_equal(load(folder, standardize=False).decode(made.train)["x"], x)


def test_a_feature_that_does_not_vary_becomes_zero(folder):
    np.save(folder / "train/x.npy", np.full((40, 4, 2), 0.1, np.float32))
    made = load(folder)
    np.testing.assert_array_equal(made.decode(made.train)["x"], 0)


def test_bytes_stay_bytes(folder):
    for part in ("train", "test"):
        np.save(folder / part / "x.npy", np.load(folder / part / "x.npy").astype(np.uint8))
    made = load(folder)
    assert made.train["x"].dtype == np.uint8
    assert made.decode(made.train)["x"].dtype == np.float32


def test_mapped_arrays_of_ones_own_stay_in_their_files(folder):
    parts = [(np.load(folder / part / "x.npy", mmap_mode="r"), np.arange(count) % 2)
             for part, count in (("train", 40), ("test", 10))]  # fmt: skip
    made = data.from_arrays("mine", tuple(parts))
    assert isinstance(base(made.train["x"]), mmap.mmap)


def test_a_value_that_is_not_finite_is_found_in_any_chunk(folder, monkeypatch):
    monkeypatch.setattr(dataset_, "CHUNK", 24)
    x = np.load(folder / "train/x.npy")
    x[17, 1, 1] = np.nan
    np.save(folder / "train/x.npy", x)
    with pytest.raises(InputError, match=r"a value nan in row 17 of train, feature 1, 1"):
        load(folder, standardize=False)


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        ({"test_file": None}, None, "test_file must be given with an .npy file, which is not split, got none"),
        ({"label": "kind"}, None, "label must be the name of an .npy file in the same folder, got 'kind'"),
        ({"label": "z.npy"}, None, "file must be a file that exists, with one of labels beside it"),
        ({"test_file": "a.csv"}, None, "test_file must be an .npy file, as file is, got 'a.csv'"),
        ({}, lambda x: x.astype(np.float64), "so that it need not be copied, got a float64 array"),
        ({}, np.asfortranarray, "in the order of Fortran"),
        ({}, lambda x: x[:, :3], "test_file must be like"),
        ({}, lambda x: x[:, 0, 0], "must be features (N, …), got a float32 array of shape (40,)"),
        ({}, lambda x: x[:30], "40 examples, one for each label, got a part of 30"),
        ({}, lambda x: x.astype(object), "damaged file (Array can't be memory-mapped"),
    ],
)
def test_what_cannot_be_mapped_is_turned_away(folder, settings, change, words):
    if change is not None:
        np.save(folder / "train/x.npy", change(np.load(folder / "train/x.npy")))
    with pytest.raises(InputError) as caught:
        load(folder, **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

"""A user's own data: arrays in the forms that people have them in, and a sentence for everything else."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import steppe
from steppe import data, study

X = np.arange(24, dtype=np.float64).reshape(8, 3) / 7
Y = np.arange(8) % 2
PAIR = (X, Y)
FORMS = {
    "pairs": (PAIR, (X[:4], Y[:4])),
    "lists": [[X.tolist(), Y.tolist()], [X[:4].tolist(), Y[:4].tolist()]],
    "a dict of pairs": {"test": (X[:4], Y[:4]), "train": PAIR},
    "dicts of dicts": {"train": {"x": X, "y": Y}, "test": {"y": Y[:4], "x": X[:4]}},
    "arrays of JAX": ((jnp.asarray(X), jnp.asarray(Y)), (jnp.asarray(X[:4]), jnp.asarray(Y[:4]))),
    "labels as floats": ((X, Y.astype(float)), (X[:4], Y[:4].astype(float))),
    "labels as text": ((X, np.array(["cat", "dog"])[Y]), (X[:4], np.array(["cat", "dog"], object)[Y[:4]])),
    "labels from elsewhere": ((X, 5 * Y - 1), (X[:4], 5 * Y[:4] - 1)),
    "labels as bools": ((X, Y == 1), (X[:4], Y[:4] == 1)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_arrays_is_the_same_data_set(form):
    found, expected = (data.from_arrays("mine", FORMS[name]) for name in (form, "pairs"))
    assert found.fingerprint == expected.fingerprint
    assert (found.shape, found.classes, found.train["x"].dtype) == ((3,), 2, np.float32)
    np.testing.assert_array_equal(found.train["y"], Y)


def test_bytes_stay_bytes_until_a_batch_is_used():
    images = np.arange(8 * 12, dtype=np.uint8).reshape(8, 2, 2, 3)
    found = data.from_arrays("images", ((images, Y), (images, Y)))
    assert found.train["x"].dtype == np.uint8 and found.shape == (2, 2, 3)
    decoded = found.decode(found.train)["x"]
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, images)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (None, "parts must be of the form"),
        (PAIR, "train must be of the form"),
        ((X, Y, X, Y), "parts must be of the form .*got a tuple of 4"),
        ((*FORMS["pairs"], PAIR), "got a tuple of 3"),
        ({"train": PAIR}, "got a dict with 'train'"),
        ({"train": PAIR, "test": PAIR, "validation": PAIR}, "got a dict with 'train', 'test', 'validation'"),
        ({"train": {"image": X, "label": Y}, "test": PAIR}, "train must be of the form .*'image', 'label'"),
        (((X[:7], Y), PAIR), "train must be as many labels as examples, got 8 for 7"),
        (((X[:0], Y[:0]), PAIR), "train must be at least one example"),
        ((PAIR, (X[:, :2], Y)), r"x of test must be examples of shape \(3,\), as those of train, got some of shape"),
        (((X, np.eye(2)[Y]), PAIR), "a class for each example, got a float64 array of shape .*argmax"),
        (((X, Y[:, None]), PAIR), "Drop the last axis"),
        (((X, Y + 0.5), PAIR), "a class for each example, got a value 0.5 in row 0"),
        (((X, None), PAIR), "y of train must be .*got None"),
        (((X, 0 * Y), (X, 0 * Y)), "at least two classes"),
        ((PAIR, (X, Y + 1)), "labels that the training part has, got a label 2 in row 1"),
        (((X * np.nan, Y), PAIR), "finite numbers, got a value nan in row 0 of train"),
        (((X + 1j, Y), PAIR), "real numbers"),
        (((X.astype(str), Y), PAIR), "x of train must be an array of numbers"),
        (((X + 1e12, Y), PAIR), "of values that float32 tells apart"),
        ((([[1], [1, 2]], [0, 1]), PAIR), "x of train must be"),
    ],
)
def test_what_is_no_data_set_is_refused_with_one_sentence(parts, words):
    with pytest.raises(steppe.InputError, match=words):
        data.from_arrays("mine", parts)


WHOLE = data.from_arrays("mine", FORMS["pairs"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": 2.0}, "classes of a Dataset must be a whole number, got a value of type float"),
        ({"decode": None}, "decode of a Dataset"),
        ({"decode": lambda batch: None}, "decode must be a function whose value is a batch.*got None"),
        ({"decode": lambda batch: batch["z"]}, "decode must be .*KeyError: 'z'"),
        ({"decode": lambda batch: {**batch, "x": batch["x"][:, 0]}}, "float32 examples of shape"),
        ({"train": {"x": X}}, "dicts of x and y, got a dict with 'x'"),
        ({"shape": (4,)}, "float32 examples of shape"),
    ],
)
def test_a_dataset_made_by_hand_is_checked(change, words):
    with pytest.raises(steppe.InputError, match=words):
        data.checked(dataclasses.replace(WHOLE, **change))


def test_a_dataset_made_by_hand_gets_the_fingerprint_of_its_arrays():
    assert data.checked(dataclasses.replace(WHOLE, fingerprint="mine")).fingerprint == WHOLE.fingerprint


def test_a_study_takes_arrays_from_a_users_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import numpy as np\ndef load(*, count: int = 8):\n"
        "    x, y = np.arange(3.0 * count).reshape(count, 3), np.arange(count) % 2\n    return (x, y), (x, y)\n"
        "def wrong(): return 3\n"
    )
    text = 'name = "t"\ndata = {name = "own:load", count = 6}\nmodel = {name = "linear"}\n'
    (tmp_path / "t.toml").write_text(text + "train = {learning_rate = 0.1, batch_size = 2, epochs = 1}\n")
    found = study.load("t.toml").load_data()
    assert (found.name, found.classes, len(found.train["y"])) == ("own:load", 2, 6)
    with pytest.raises(steppe.InputError, match="data own:wrong: parts must be of the form"):
        study.load("t.toml", {"data": {"name": "own:wrong"}}).load_data()

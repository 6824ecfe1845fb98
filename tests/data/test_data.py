"""Data sets: what is loaded is what was meant, and what cannot be used is said in one sentence."""

import io
import os
import subprocess
import sys
import types
import zipfile
from datetime import date
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from PIL import Image
from scipy import sparse
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction.text import TfidfVectorizer

from steppe import data, models
from steppe.core.checks import InputError
from steppe.data import sources, text
from steppe.data.dataset import as_it_is, fingerprint, subset

FOLDER = os.environ.get("STEPPE_DATA")
real_files = pytest.mark.skipif(
    not FOLDER, reason="needs the real files: set STEPPE_DATA to the folder that holds them"
)


def complaint(call, *arguments, **settings):
    """The message of the InputError that a call raises, which must be one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- The door ---------------------------------------------------------------------------------------------------------


def door(x=None, y=None, x_test=None, **changes):
    x = np.eye(4, dtype=np.float32) if x is None else x
    y = np.array([0, 1, 0, 1]) if y is None else y
    settings = {"decode": as_it_is, "shape": (4,), "classes": 2, "about": "", **changes}
    return data.dataset("mine", (x, y), (x if x_test is None else x_test, y), **settings)


def test_a_dataset_keeps_its_arrays_with_int32_labels():
    made = door()
    assert made.train["y"].dtype == np.int32
    np.testing.assert_array_equal(made.train["x"], np.eye(4))
    assert len(made.fingerprint) == 64
    assert len(repr(made)) < 300


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(value):
    x = np.eye(4, dtype=np.float32)
    x[2, 3] = value
    assert f"a value {value} in row 2 of train, feature 3" in complaint(door, x)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": np.array([0, 1, 2, 0])}, "from 0 to 1, got a label 2 in row 2 of train"),
        ({"y": np.array([0, -1, 1, 0])}, "a label -1 in row 1"),
        ({"y": np.array([0.0, 1.0, 0.5, 0.0])}, "a float64 array of shape (4,)"),
        ({"y": np.zeros((4, 2), int)}, "shape (4, 2)"),
        ({"y": np.array([0, 1])}, "train must be 2 examples, one for each label, got a part of 4"),
        ({"x": np.zeros((0, 4), np.float32), "y": np.zeros(0, int)}, "at least one example"),
        ({"classes": 1, "y": np.zeros(4, int)}, "at least two classes"),
        ({"x_test": np.zeros((4, 5), np.float32)}, "test must be float32 examples of shape (4,)"),
        ({"x": np.eye(4)[:, :3]}, "train must be float32 examples of shape (4,)"),
    ],
)
def test_arrays_that_do_not_fit_are_turned_away(changes, words):
    assert words in complaint(door, **changes)


def test_the_fingerprint_depends_on_names_dtypes_shapes_and_values():
    arrays = {"x": np.arange(6, dtype=np.int32), "y": np.zeros(2, np.int32)}
    variants = [
        arrays,
        {**arrays, "x": np.array([0, 1, 2, 3, 4, 6], np.int32)},
        {**arrays, "x": arrays["x"].reshape(2, 3)},
        {**arrays, "x": arrays["x"].view(np.uint32)},
        {"z": arrays["x"], "y": arrays["y"]},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint(arrays) == fingerprint(jax.tree.map(np.copy, arrays))


# --- The registry -----------------------------------------------------------------------------------------------------


def test_unknown_names_and_settings_offer_the_nearest():
    assert "Did you mean 'cifar100'?" in complaint(data.load, "cifar10")
    assert "Did you mean 'standardize'?" in complaint(data.load, "digits", standardise=True)
    assert "data file: file must be given" in complaint(data.load, "file", label="y")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("digits", {"test_fraction": 1.5}, "test_fraction must be a finite number >= 0.001 <= 0.999, got 1.5"),
        ("digits", {"test_fraction": 0.004}, "such that both parts hold all 10 classes"),
        ("digits", {"split_seed": -1}, "split_seed must be a whole number of at least 0, got -1"),
        ("digits", {"split_seed": 2**32}, "split_seed must be a whole number of at most 4294967295"),
        ("digits", {"standardize": "yes"}, "standardize must be one of True, False, got 'yes'"),
        ("cifar100", {"labels": "course"}, "Did you mean 'coarse'?"),
        ("cifar100", {"train_examples": 0}, "train_examples must be a whole number of at least 1, got 0"),
        ("cifar100", {"train_examples": 50_001}, "train_examples must be at most 50000"),
        ("imdb", {"vocabulary": 0}, "vocabulary must be a whole number of at least 1, got 0"),
        ("20newsgroups", {"train_examples": 11_315}, "at most 11314"),
    ],
)
def test_settings_out_of_range_are_turned_away_before_any_file_is_read(name, settings, words, monkeypatch):
    monkeypatch.delenv("STEPPE_DATA", raising=False)
    monkeypatch.setattr(sources, "_from_hub", lambda *_: pytest.fail("asked the hub"))
    assert words in complaint(data.load, name, **settings)


def test_importing_the_room_is_light():
    heavy = ("datasets", "sklearn", "polars", "PIL", "pyarrow")
    code = f"import sys, steppe.data; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_the_split_is_stratified_deterministic_and_a_partition():
    x, y = load_breast_cancer(return_X_y=True)
    one, same, other = (data.load("breast-cancer", standardize=False, split_seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert (len(one.train["y"]), len(one.test["y"])) == (455, 114)
    assert abs(one.train["y"].mean() - y.mean()) < 1 / 455
    both = np.concatenate([one.train["x"], one.test["x"]])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(x.astype(np.float32), axis=0))


def test_standardisation_is_fitted_on_the_training_part_alone():
    raw, done = (data.load("breast-cancer", standardize=flag) for flag in (False, True))
    np.testing.assert_allclose(done.train["x"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(done.train["x"].std(0), 1, atol=1e-5)
    expected = (raw.test["x"] - raw.train["x"].mean(0, dtype=float)) / raw.train["x"].std(0, dtype=float)
    np.testing.assert_allclose(done.test["x"], expected, atol=1e-4)


def test_columns_that_do_not_vary_become_zero_whatever_their_rounding(tmp_path):
    assert np.isfinite(data.load("digits").train["x"]).all()
    np.savez(tmp_path / "a.npz", x=np.stack([np.full(60, 0.1), np.arange(60.0)], 1), y=np.arange(60) % 2)
    made = data.load("file", file=str(tmp_path / "a.npz"), label="y")
    np.testing.assert_allclose(made.train["x"][:, 0], 0, atol=1e-7)


# --- Published sets, from small stand-ins -----------------------------------------------------------------------------


def small_parts(monkeypatch, rows):
    """Let the official numbers of rows be small."""
    whole = sources.table_of
    for module in (text, data.images):
        monkeypatch.setattr(module, "table_of", lambda n, h, part, _, c: whole(n, h, part, rows[part], c))
    monkeypatch.setattr(text, "subset", lambda n, s, count, _: subset(n, s, count, rows[s.partition("_")[0]]))


WORDS = ["the cat sat on the mat", "a dog and the cat", "", "dogs bark dogs bite", "mat mat mat cat", "bird"]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A stand-in for IMDB of six training and three test reviews."""
    folder = tmp_path / "imdb"
    folder.mkdir()
    frames = {
        "train": polars.DataFrame({"text": WORDS, "label": [0, 0, 0, 1, 1, 1]}),
        "test": polars.DataFrame({"text": ["unseen words", "the cat", ""], "label": [0, 1, 1]}),
    }
    for part, frame in frames.items():
        frame.write_parquet(folder / f"{part}.parquet")
    monkeypatch.setenv("STEPPE_DATA", str(tmp_path))
    small_parts(monkeypatch, {"train": 6, "test": 3})
    return folder


def test_decoded_texts_are_scikit_learns_tf_idf_fitted_on_the_training_part(texts):
    made = data.load("imdb", vocabulary=5)
    vectorizer = TfidfVectorizer(max_features=5, dtype=np.float32).fit(WORDS)
    decode = jax.jit(made.decode)
    np.testing.assert_array_equal(decode(made.train)["x"], vectorizer.transform(WORDS).toarray())
    expected = vectorizer.transform(["unseen words", "the cat", ""]).toarray()
    np.testing.assert_array_equal(decode(made.test)["x"], expected)
    assert made.shape == (5,)
    assert decode(made.test)["y"].tolist() == [0, 1, 1]


def test_tokens_are_the_words_of_the_training_part_by_their_frequency(texts):
    made = data.load("imdb", vocabulary=6, tokens=4)
    mat, cat, the, dogs = 2, 3, 4, 5  # found 4, 3, 3 and 2 times; 1 is any other word, 0 is none
    rows = [[the, cat, 1, 1], [1, 1, the, cat], [0, 0, 0, 0], [dogs, 1, dogs, 1], [mat, mat, mat, cat], [1, 0, 0, 0]]
    assert made.train["x"].tolist() == rows
    assert made.test["x"].tolist() == [[1, 1, 0, 0], [the, cat, 0, 0], [0, 0, 0, 0]]
    assert (made.shape, made.train["x"].dtype, made.decode(made.train)["x"].dtype) == ((4,), np.uint16, np.float32)


def test_a_recurrent_network_of_tokens_gives_the_same_outputs_however_long_the_padding(texts):
    short, long = (data.load("imdb", vocabulary=6, tokens=length) for length in (6, 9))
    network = models.build("gru", long.shape, 2, vocabulary=6, embedding=4, hidden=(4,))
    params, state = network.init(jax.random.key(0))
    outputs, longer = (network.at(state)(params, one.decode(one.train)["x"]) for one in (short, long))
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(outputs, longer, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokens": 0}, "tokens must be a whole number of at least 1, got 0"),
        ({"tokens": 4, "vocabulary": 2}, "vocabulary must be a whole number of at least 3, got 2. Tokens 0 and 1 are"),
        ({"tokens": 4, "train_examples": 1}, "some text holds a word"),
    ],
)
def test_tokens_that_no_text_can_have_are_turned_away(texts, settings, words):
    polars.DataFrame({"text": [""] * 6, "label": [0, 1] * 3}).write_parquet(texts / "train.parquet")
    assert words in complaint(data.load, "imdb", **settings)


def test_a_subset_is_a_fixed_draw_in_which_a_smaller_one_lies(texts):
    made = data.load("imdb", train_examples=4, test_examples=2)
    assert len(made.train["y"]), len(made.test["y"]) == (4, 2)
    assert made.fingerprint == data.load("imdb", train_examples=4, test_examples=2).fingerprint
    small, large = (set(subset("imdb", "n", count, 100).tolist()) for count in (10, 30))
    assert small < large
    assert small != set(range(10))


def rows_of(dense):
    return text.padded(sparse.csr_matrix(dense)), dense.astype(np.float32)


@pytest.mark.parametrize("width", [1, 7, 2**16])
def test_padded_rows_decode_to_the_dense_matrix_eagerly_compiled_and_mapped(width):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, width)) * (rng.random((6, width)) < min(1, 4 / width))
    dense[2], dense[0, -1] = 0, 1.5
    rows, expected = rows_of(dense)
    assert rows["index"].dtype == np.uint16
    decode = lambda batch: text.dense(batch, width)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), rows)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        np.testing.assert_array_equal(decode(rows), expected)
        np.testing.assert_array_equal(jax.jit(decode)(rows), expected)
        np.testing.assert_array_equal(jax.vmap(decode)(twice), np.stack([expected, expected[::-1]]))


def test_the_index_widens_with_the_vocabulary():
    assert text.padded(sparse.csr_matrix((2, 2**16 + 1)))["index"].dtype == np.int32


def test_texts_without_words_are_turned_away(texts):
    polars.DataFrame({"text": [""] * 6, "label": [0, 1] * 3}).write_parquet(texts / "train.parquet")
    assert "some text holds a word" in complaint(data.load, "imdb")


def encoded(image):
    """An image as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True)
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A stand-in for CIFAR-100 of eight images, the same in both parts."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    folder = tmp_path / "cifar100"
    folder.mkdir()

    def write(cells, part="train"):
        table = {"img": cells, "fine_label": [0, 99] * 4, "coarse_label": [0, 19] * 4}
        polars.DataFrame(table).write_parquet(folder / f"{part}.parquet")

    write([encoded(p) for p in pixels])
    write([encoded(p) for p in pixels], "test")
    monkeypatch.setenv("STEPPE_DATA", str(tmp_path))
    small_parts(monkeypatch, {"train": 8, "test": 8})
    return pixels, write


@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_images_stay_bytes_and_decode_to_standardised_channels(images, labels, classes):
    pixels, _ = images
    made = data.load("cifar100", labels=labels)
    np.testing.assert_array_equal(made.train["x"], pixels)
    assert (made.train["x"].dtype, made.classes, made.train["y"].max()) == (np.uint8, classes, classes - 1)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        x = jax.jit(made.decode)(jax.tree.map(jnp.asarray, made.train))["x"]
    assert x.dtype == jnp.float32
    scaled = pixels / 255
    np.testing.assert_allclose(x, (scaled - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2)), atol=1e-5)


@pytest.mark.parametrize("cell", [{"bytes": b"no image", "path": None}, encoded(np.zeros((16, 32, 3), np.uint8))])
def test_a_damaged_or_foreign_image_is_named_by_its_row(images, cell):
    pixels, write = images
    write([*(encoded(p) for p in pixels[:5]), cell, *(encoded(p) for p in pixels[6:])])
    assert "a damaged or different one in row 5" in complaint(data.load, "cifar100")


def altered(frame, how):
    return {
        "fewer rows": frame.head(5),
        "no column": frame.drop("label"),
        "words for labels": frame.with_columns(polars.col("label").cast(polars.String)),
        "numbers for texts": frame.with_columns(polars.col("label").alias("text")),
        "a gap": frame.with_columns(polars.Series("text", [*WORDS[:4], None, "x"])),
        "a label of 2": frame.with_columns(polars.Series("label", [0, 1, 0, 2, 1, 1])),
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("fewer rows", "the whole data set, 6 rows, got a table of 5 rows. The file was altered"),
        ("no column", "a table with columns text, label, got a table without label"),
        ("words for labels", "a table with integers in column label"),
        ("numbers for texts", "a table with strings in column text"),
        ("a gap", "without gaps in column text, got a gap in row 4"),
        ("a label of 2", "from 0 to 1, got a label 2 in row 3 of train"),
    ],
)
def test_an_altered_file_is_noticed(texts, how, words):
    path = texts / "train.parquet"
    altered(polars.read_parquet(path), how).write_parquet(path)
    assert words in complaint(data.load, "imdb")


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    middle = len(content) // 4
    return content[:middle] + bytes(255 - b for b in content[middle : middle + 40]) + content[middle + 40 :]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda _: b"", lambda _: b"not parquet at all"])
def test_a_damaged_file_is_named(texts, damage):
    path = texts / "train.parquet"
    path.write_bytes(damage(path.read_bytes()))
    message = complaint(data.load, "imdb")
    assert str(path) in message
    assert "a damaged one" in message


def test_a_missing_file_or_folder_is_named(texts, monkeypatch):
    (texts / "test.parquet").unlink()
    assert "a folder that holds imdb/test.parquet" in complaint(data.load, "imdb")
    monkeypatch.setenv("STEPPE_DATA", str(texts / "nowhere"))
    assert "STEPPE_DATA must be a folder" in complaint(data.load, "imdb")


def test_the_hub_and_the_folder_give_the_same_data(texts, monkeypatch):
    import datasets

    local = data.load("imdb")
    frames = {
        part: polars.read_parquet(texts / f"{part}.parquet").to_dict(as_series=False) for part in ("train", "test")
    }
    monkeypatch.delenv("STEPPE_DATA")
    monkeypatch.setattr(sources, "hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda hub, split: datasets.Dataset.from_dict(frames[split]))
    assert data.load("imdb").fingerprint == local.fingerprint


@pytest.mark.slow
def test_without_a_hub_one_sentence_comes_at_once_and_nothing_is_printed(tmp_path):
    code = "import steppe.data\ntry: steppe.data.load('imdb')\nexcept steppe.data.checks.InputError as e: print(e)"
    settings = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    clean = {k: v for k, v in os.environ.items() if k not in ("STEPPE_DATA", "HF_DATASETS_CACHE")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | settings, timeout=60)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    for words in ("stanfordnlp/imdb", "Connect to the network", "STEPPE_DATA", "imdb/train.parquet"):
        assert words in done.stdout


def test_the_libraries_settings_are_left_as_they_were():
    import datasets

    before = datasets.config.HF_HUB_OFFLINE, datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    with sources.quietly(offline=True):
        assert datasets.config.HF_HUB_OFFLINE
        assert not datasets.is_progress_bar_enabled()
    after = datasets.config.HF_HUB_OFFLINE, datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    assert after == before


# --- A user's own file ------------------------------------------------------------------------------------------------

FRAME = polars.DataFrame(
    {
        "length": [float(i) for i in range(20)],
        "count": [3 * i % 7 for i in range(20)],
        "ripe": [i % 3 == 0 for i in range(20)],
        "kind": ["pear", "apple"] * 10,
    }
)


@pytest.fixture
def mine(tmp_path):
    """Write a table or text to a file, and load it with "kind" for its label."""

    def load(content, name="mine.csv", **settings):
        path = tmp_path / name
        if isinstance(content, dict):
            np.savez(path, **content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            (content.write_csv if path.suffix == ".csv" else content.write_parquet)(path)
        return data.load("file", **{"file": str(path), "label": "kind", **settings})

    return load


def test_csv_parquet_and_npz_of_the_same_table_are_the_same_data(mine):
    columns = {name: FRAME[name].to_numpy() for name in FRAME.columns if name != "kind"}
    labels = np.array(FRAME["kind"].to_list())
    categorical = FRAME.with_columns(polars.col("kind").cast(polars.Categorical))
    made = [
        mine(FRAME),
        mine(FRAME, "mine.parquet"),
        mine(categorical, "mine.parquet"),
        mine({**columns, "kind": labels}, "mine.npz"),
        mine({"x": np.stack([c.astype(float) for c in columns.values()], 1), "kind": labels}, "mine.npz"),
    ]
    assert len({m.fingerprint for m in made}) == 1
    assert "classes apple, pear" in made[0].about
    assert (made[0].shape, made[0].classes, len(made[0].test["y"])) == ((3,), 2, 4)


@pytest.mark.parametrize("labels", [[7, 3] * 10, [7.0, 3.0] * 10, [True, False] * 10])
def test_labels_are_numbered_in_sorted_order(mine, labels):
    made = mine(FRAME.with_columns(polars.Series("kind", labels)), "mine.parquet", standardize=False)
    even = made.train["x"][:, 0] % 2 == 0
    np.testing.assert_array_equal(made.train["y"], even)


def test_arrays_keep_their_shape(mine):
    made = mine({"x": np.random.default_rng(0).normal(size=(20, 4, 5, 2)), "kind": np.arange(20) % 2}, "mine.npz")
    assert made.shape == (4, 5, 2)
    assert made.train["x"].dtype == np.float32


def test_a_test_file_is_tested_on_and_standardised_by_the_training_file(mine, tmp_path):
    FRAME.head(6).with_columns(polars.col("length") + 100).write_csv(tmp_path / "test.csv")
    made = mine(FRAME, test_file=str(tmp_path / "test.csv"))
    assert (len(made.train["y"]), len(made.test["y"])) == (20, 6)
    length = FRAME["length"].to_numpy()
    np.testing.assert_allclose(made.test["x"][:, 0], (length[:6] + 100 - length.mean()) / length.std(), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.with_columns(kind=polars.lit("plum")), "a label 'plum', which is not"),
        (lambda f: f.drop("ripe"), "a file that differs in 'ripe'"),
        (lambda f: f.select("count", "length", "ripe", "kind"), "columns in another order"),
        (lambda f: f.clear(), "a file with examples"),
    ],
)
def test_a_test_file_that_does_not_fit_is_turned_away(mine, tmp_path, change, words):
    change(FRAME).write_parquet(tmp_path / "test.parquet")
    assert words in complaint(mine, FRAME, test_file=str(tmp_path / "test.parquet"))


ROWS = "a,b,kind\n" + "1,2,x\n3,4,y\n" * 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS + "5,,x\n", "column 'b' must be without missing values, got a gap in row 20 of mine.csv"),
        (ROWS + "5,6,\n", "column 'kind' must be without missing values, got a gap in row 20"),
        (ROWS + "5,nan,x\n", "a column of String, 'b' ('nan' in row 20)"),
        (ROWS + "5.5,6.5,x\n5,NaN,y\n", "a value nan in row 21 of mine.csv, feature 'b'"),
        (ROWS + "5,?,x\n", "a column of String, 'b' ('?' in row 20)"),
        (ROWS + "1e300,6,x\n", "a value 1e+300 in row 20 of mine.csv, feature 'a'"),
        ("a,b,c,kind\n" + "1,u,w,x\n3,v,v,y\n" * 10, "'b' ('u' in row 0). Encode or drop it first. So are 'c'."),
        ("a,kind\n" + "1,x\n2,y\n" * 200 + "oops,x\n", "'a' ('oops' in row 400). Encode or drop it first."),
        (ROWS + "5,6,z\n", "a single example of class z. Give a test_file, or drop that class."),
        ("a,kind\n" + "1,x\n" * 10, "at least two classes, got a single class, x"),
        ("a,kind\n" + "1,0.5\n2,1\n" * 10, "a value 0.5 in row 0 of mine.csv"),
        ("a,kinds\n" + "1,x\n2,y\n" * 10, "Did you mean 'kinds'?"),
        ("kind\n" + "x\ny\n" * 10, "a table with features"),
        ("a,a,kind\n" + "1,2,x\n3,4,y\n" * 10, "a second column 'a'"),
        ("a,b,kind\n", "a file with examples"),
        ("a,kind\n1,x\n1,2,3,4\n", "a damaged file"),
        ("", "a damaged file"),
        (b"\x00\xff\xfe\x93" * 50, "mine.csv"),
    ],
)
def test_a_csv_that_cannot_be_used_is_explained(mine, content, words):
    assert words in complaint(mine, content)


GOOD = {"x": np.eye(20), "kind": np.arange(20) % 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": np.array([{}] * 20, dtype=object)}, "without pickled objects"),
        ({"z": np.eye(20)}, "one array of features beside the labels, or columns of shape (N,)"),
        ({"x": np.eye(19)}, "array 'x' must be numbers, as many as labels: (20,), got a float64 array"),
        ({"x": np.array(["a"] * 20)}, "array 'x' must be numbers"),
        ({"x": np.zeros((20, 0))}, "a file with features"),
        ({"kind": np.eye(20)}, "a shape of (20, 20)"),
        ({"kind": np.arange(20) % 2 + np.nan}, "a value nan in row 0 of mine.npz"),
        ({"kind": np.full(20, np.inf)}, "a value inf in row 0"),
        ({"x": np.where(np.eye(20) > 0, np.nan, 0)}, "a value nan in row 0 of mine.npz, feature 0"),
    ],
)
def test_an_npz_that_cannot_be_used_is_explained(mine, change, words):
    assert words in complaint(mine, GOOD | change, "mine.npz")


@pytest.mark.parametrize("name", ["mine.npz", "mine.parquet"])
@pytest.mark.parametrize("damage", [truncated, flipped, lambda _: b"", lambda _: b"garbage" * 30])
def test_a_damaged_archive_or_table_is_named(mine, tmp_path, name, damage):
    mine(GOOD if name.endswith("npz") else FRAME, name)
    message = complaint(mine, damage((tmp_path / name).read_bytes()), name)
    assert name in message
    assert "a damaged" in message


def member(array=None, *, shape="(3,)", version=1, data=bytes(24)):
    """An array as a member of an npz: as NumPy writes it, or with a header that says what it likes."""
    if array is not None:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array))
        return buffer.getvalue()
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + data


MEMBERS = {
    "no array": ({"readme.txt": b"hello"}, "a member 'readme.txt', which is no array"),
    "twice": ({"x.npy": member(np.eye(3)), "X": None}, "2 members called 'x.npy'"),
    "larger than it is": ({"x.npy": member(shape="(3000000000000,)")}, "24 bytes for a float64 array of shape (300"),
    "below zero": ({"x.npy": member(shape="(-3,)")}, "shape (-3,)"),
    "beyond 64 bits": ({"x.npy": member(shape="(9223372036854775808, 4)")}, "24 bytes for a float64 array"),
    "smaller than it is": ({"x.npy": member(shape="(2,)")}, "24 bytes for a float64 array of shape (2,)"),
    "an unknown version": ({"x.npy": member(version=9)}, "format version"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", MEMBERS)
def test_an_npz_whose_members_lie_is_refused_before_room_is_made(mine, name):
    members, words = MEMBERS[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("kind.npy", member([0, 1, 0]))
        for title, content in members.items():
            archive.writestr("x.npy" if content is None else title, content or member(np.ones(3)))
    assert words in complaint(mine, buffer.getvalue(), "mine.npz")


def test_what_would_not_fit_into_memory_is_refused_unread(mine, monkeypatch):
    monkeypatch.setattr("steppe.data.archives.available", lambda: 20_000)
    for content, name in ((GOOD | {"x": np.zeros((20, 1000))}, "mine.npz"), (ROWS * 2000, "mine.csv")):
        assert "of data where 20 kB of memory are free" in complaint(mine, content, name)
    rows = polars.DataFrame({"a": np.zeros(5000), "kind": np.arange(5000) % 2})  # a few hundred bytes in the file
    assert "80 kB of data where" in complaint(mine, rows, "mine.parquet")
    assert mine(GOOD, "mine.npz").classes == 2


LABELLED = {
    "floats too large": ([0.0, 1e19, 2e19] * 7, "a value 1e+19 in row 1 of mine.parquet. Floats beyond 2**53"),
    "decimals too large": ([Decimal(10**30), Decimal(0), Decimal(1)] * 7, "a value 1e+30 in row 0"),
    "lists": ([[1], [2], [3]] * 7, "a column of List(Int64)"),
    "dates": ([date(2020, 1, day) for day in (1, 2, 3)] * 7, "a column of Date"),
    "long names": (["a", "b", "c" * 2000] * 7, "at most 1000 characters, got 2000 in row 2"),
    "NULs": (["a", "a\0", "b"] * 7, "one with a NUL in row 1"),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_that_cannot_be_told_apart_are_refused(mine, name):
    labels, words = LABELLED[name]
    assert words in complaint(mine, polars.DataFrame({"a": np.arange(21.0), "kind": labels}), "mine.parquet")


def test_labels_of_any_whole_numbers_that_64_bits_hold_are_classes(mine):
    for kinds in ([2**63 - 1, -5], [Decimal(3), Decimal(7)], [2**53 + 1, 2**53]):
        frame = polars.DataFrame({"a": np.arange(20.0), "kind": kinds * 10})
        made = mine(frame, "mine.parquet", standardize=False)
        largest = made.train["x"][:, 0] % 2 == kinds.index(max(kinds))
        np.testing.assert_array_equal(made.train["y"], largest)


def test_decimals_of_256_bits_are_refused_in_a_sentence(mine, tmp_path):
    import pyarrow
    from pyarrow import parquet

    wide = pyarrow.array([1] * 4).cast(pyarrow.decimal256(50, 0))
    parquet.write_table(pyarrow.table({"a": wide, "kind": [0, 1, 0, 1]}), tmp_path / "wide.parquet")
    message = complaint(data.load, "file", file=str(tmp_path / "wide.parquet"), label="kind")
    assert "a column of decimal256(50, 0), 'a'. Cast it to double." in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS.encode("utf-16"), "a table of text in UTF-8, got a NUL at byte 3"),
        (ROWS.replace("\n", "\r").encode(), "lines end in a newline, got one with carriage returns"),
        (b"\xef\xbb\xbf" + ROWS.encode() + b"5,\xe9,x\n", "a damaged file"),
        (ROWS + '5,6,"x\n', "a damaged file"),
    ],
)
def test_text_of_another_kind_is_refused(mine, content, words):
    assert words in complaint(mine, content)


def test_timestamps_need_to_be_standardised(mine):
    times = FRAME.with_columns(length=1_700_000_000_000 + 3_600 * polars.int_range(polars.len()))
    assert mine(times).classes == 2
    assert "values that float32 tells apart" in complaint(mine, times, standardize=False)


def test_whole_numbers_that_floats_would_merge_are_refused(mine):
    times = FRAME.with_columns(length=1_700_000_000_000_000_000 + polars.int_range(polars.len()))
    message = complaint(mine, times)
    assert "column 'length' must be of values that float64 tells apart" in message
    assert message.endswith("Subtract the first one from all.")
    assert mine(FRAME.with_columns(length=polars.lit(2**63 - 1))).classes == 2  # a constant


def test_what_is_no_file_is_said_to_be_none_and_never_offered(mine, tmp_path):
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.csv").symlink_to("nowhere")
    for name, kind in (("fifo", "a FIFO"), ("folder", "a folder"), ("link", "a link that leads nowhere")):
        message = complaint(data.load, "file", file=str(tmp_path / f"{name}.csv"), label="y")
        assert f"file must be a file, got {kind}" in message
    message = complaint(data.load, "file", file=str(tmp_path / "fife.csv"), label="y")
    assert "fifo.csv" not in message and message.endswith("There are: none.")


def test_a_pickle_is_never_loaded(mine, tmp_path, monkeypatch):
    import pickle

    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("a pickle was loaded"))
    assert "without pickled objects" in complaint(mine, pickle.dumps({"x": 1}), "mine.npz")
    assert "a .csv, .parquet or .npz file" in complaint(mine, pickle.dumps({"x": 1}), "mine.pkl")


def test_a_file_that_is_not_there_offers_its_neighbours(mine, tmp_path):
    mine(FRAME)
    assert "Did you mean 'mine.csv'?" in complaint(mine, FRAME, "mine.parquet", file=str(tmp_path / "mime.csv"))
    assert "There is no folder" in complaint(data.load, "file", file=str(tmp_path / "no" / "a.csv"), label="y")
    assert "a path" in complaint(data.load, "file", file=3, label="y")


# --- The real files ---------------------------------------------------------------------------------------------------


@real_files
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "classes", "empty"),
    [("20newsgroups", (11_314, 7_532), 20, 300), ("imdb", (25_000, 25_000), 2, 0)],
)
def test_the_real_texts_are_whole(name, sizes, classes, empty):
    made = data.load(name)
    assert (len(made.train["y"]), len(made.test["y"])) == sizes
    assert (made.shape, made.classes) == ((10_000,), classes)
    lengths = np.sqrt((made.train["x"]["value"].astype(float) ** 2).sum(1))
    zero = lengths == 0
    assert zero.sum() >= empty
    np.testing.assert_allclose(lengths[~zero], 1, atol=1e-5)


@real_files
@pytest.mark.slow
def test_the_real_images_are_whole():
    made = data.load("cifar100")
    assert (made.train["x"].shape, made.test["x"].shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert (np.bincount(made.train["y"]) == 500).all()
    assert (np.bincount(made.test["y"]) == 100).all()


@real_files
@pytest.mark.parametrize("name", ["imdb", "20newsgroups", "cifar100"])
def test_a_quick_try_holds_many_classes(name):
    made = data.load(name, train_examples=200, test_examples=50)
    assert len(np.unique(made.train["y"])) > min(made.classes, 60) * 0.9
    x = jax.jit(made.decode)(jax.tree.map(lambda leaf: jnp.asarray(leaf[:8]), made.train))["x"]
    assert x.shape == (8, *made.shape)
    assert isinstance(made.decode, types.FunctionType)

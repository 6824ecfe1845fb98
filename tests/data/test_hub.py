"""Data sets of the hub, from folders as `datasets` writes and reads them; and what is said where there is no hub."""

import io
import os

import datasets
import numpy as np
import polars
import pytest
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer

from steppe import data, study
from steppe.core.checks import InputError
from steppe.data import sources

WORDS = ["the cat sat", "a dog", "the cat", "dogs bark", "cat and dog", "the end"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)


def complaint(path, **settings):
    with pytest.raises(InputError) as caught:
        data.load("hub", path=str(path), **{"label": "label", **settings})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load(path, **settings):
    return data.load("hub", path=str(path), **{"label": "label", **settings})


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """The hub does not answer, and what is prepared goes into a cache of this test's own."""
    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(labels=(0, 1, 0, 1, 0, 1), **columns):
    names = datasets.ClassLabel(names=["no", "yes"])
    made = datasets.Dataset.from_dict({"text": WORDS, "a": [float(i) for i in range(6)], "b": [i % 3 for i in range(6)],
                                       "image": [Image.fromarray(one) for one in PIXELS],
                                       "label": list(labels), **columns})  # fmt: skip
    return made if "label" in columns else made.cast_column("label", names)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that `save_to_disk` wrote, with splits that are whole, and others; not to be written to."""
    splits = {"train": rows(), "test": rows().select([0, 1, 2]), "hidden": rows([-1] * 6)}
    splits["other"] = rows(label=["no", "yes", "no", "maybe", "no", "yes"])
    splits["gaps"] = rows(text=[*WORDS[:4], None, "x"], b=[0, 1, None, 2, 2, 2], image=[*rows()["image"][:5], None])
    splits["no labels"] = rows([0, 1, None, 0, 1, 0])
    splits["one class"] = rows([1] * 6)
    folder = tmp_path_factory.mktemp("hub") / "saved"
    with sources.quietly(offline=True):
        datasets.DatasetDict(splits).save_to_disk(folder)
    return folder


def test_texts_are_those_of_the_named_columns_and_splits(saved):
    made = load(saved, text="text", vocabulary=4)
    vectorizer = TfidfVectorizer(max_features=4, dtype=np.float32).fit(WORDS)
    np.testing.assert_array_equal(made.decode(made.train)["x"], vectorizer.transform(WORDS).toarray())
    assert (len(made.train["y"]), made.test["y"].tolist(), made.classes) == (6, [0, 1, 0], 2)
    for words in ("saved, label 'label', classes no, yes", "splits train and test", "TF-IDF of the 4"):
        assert words in made.about
    assert load(saved, text="text", tokens=3).shape == (3,)


def test_images_are_decoded_resized_and_kept_as_bytes(saved):
    made = load(saved, image="image")
    np.testing.assert_array_equal(made.train["x"], PIXELS)
    small = load(saved, image="image", size=2, colors="grey", standardize=False)
    assert (small.shape, small.train["x"].dtype) == ((2, 2, 1), np.uint8)


def test_a_table_has_the_named_columns_standardised_by_the_training_part(saved):
    made = load(saved, features=("a", "b"))
    raw = np.array([[i, i % 3] for i in range(6)], float)
    np.testing.assert_allclose(made.train["x"], (raw - raw.mean(0)) / raw.std(0), atol=1e-6)
    np.testing.assert_array_equal(load(saved, features=("b",), standardize=False).train["x"][:, 0], raw[:, 1])


def test_without_a_test_split_a_stratified_part_is_tested_on(tmp_path):
    frame = polars.DataFrame({"a": range(20), "kind": ["rose", "tulip"] * 10})
    (tmp_path / "flowers").mkdir()
    frame.write_parquet(tmp_path / "flowers" / "train.parquet")
    made = load(tmp_path / "flowers", label="kind", standardize=False, test_fraction=0.3)
    assert (len(made.train["y"]), np.bincount(made.test["y"]).tolist()) == (14, [3, 3])
    both = np.concatenate([made.train["x"], made.test["x"]])[:, 0]
    labels = np.concatenate([made.train["y"], made.test["y"]])
    assert sorted(both) == list(range(20))
    assert (both % 2 == labels).all()
    assert "classes rose, tulip; stratified split, 14 to train and 6 to test" in made.about


def test_a_folder_of_csv_files_is_read_and_changed_data_have_another_fingerprint(tmp_path):
    (tmp_path / "mine").mkdir()
    for part in ("train", "test"):
        (tmp_path / "mine" / f"{part}.csv").write_text("a,b,label\n1,2,x\n3,4,y\n")
    made = load(tmp_path / "mine")
    (tmp_path / "mine" / "train.csv").write_text("a,b,label\n1,2,x\n3,5,y\n")
    assert made.shape == (2,)
    assert load(tmp_path / "mine").fingerprint != made.fingerprint


def test_a_split_without_rows_is_named(tmp_path):
    frame = polars.DataFrame({"a": [1, 2], "label": [0, 1]})
    for part, rows_ in (("train", frame), ("test", frame.clear())):
        rows_.write_parquet(tmp_path / f"{part}.parquet")
    assert """which fails: Instruction "test" corresponds to no data""" in complaint(tmp_path)


def test_a_subset_is_that_of_any_data_set(saved):
    made = load(saved, text="text", train_examples=4, test_examples=1)
    assert (len(made.train["y"]), len(made.test["y"])) == (4, 1)


def test_bytes_of_images_may_stand_in_a_plain_column(tmp_path):
    cells = []
    for one in PIXELS:
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        cells.append(buffer.getvalue())
    with sources.quietly(offline=True):
        datasets.Dataset.from_dict({"png": cells, "label": [0, 1] * 3}).save_to_disk(tmp_path / "bytes")
    made = load(tmp_path / "bytes", image="png", test_fraction=0.34)
    assert sorted(made.train["x"][:, 0, 0, 0].tolist() + made.test["x"][:, 0, 0, 0].tolist()) == sorted(
        PIXELS[:, 0, 0, 0].tolist()
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label": "lable"}, "label must be a column of split 'train', got 'lable'. Did you mean 'label'?"),
        ({"text": "txt"}, "text must be a column of split 'train', got 'txt'. Did you mean 'text'?"),
        ({"text": "a"}, "text must be a column of text, got 'a', a column of Value('float64')"),
        ({"image": "text"}, "image must be a column of images, got 'text', a column of Value('string')"),
        ({"features": ("a", "c")}, "features must be a column of split 'train', got 'c'"),
        ({"features": ("a", "label")}, "columns beside the label, got 'label' among them"),
        ({"features": ("a", "text")}, "numeric columns, got a column of String, 'text' ('the cat sat' in row 0)"),
        ({"text": "text", "image": "image"}, "an image, a text or features, got both image and text"),
        ({"text": "text", "test_split": "tset"}, "test_split must be a split of"),
        ({"text": "text", "test_split": "train"}, "another split than train_split, got 'train'"),
        ({"text": "text", "test_split": "hidden"}, "known for each example, got a hidden one, -1, in row 0"),
        ({"text": "text", "test_split": "no labels"}, "without gaps, got a gap in row 2 of split 'no labels'"),
        ({"text": "text", "train_split": "one class"}, "of at least two classes, got a single class, 1"),
        ({"text": "text", "train_split": "gaps"}, "column 'text' must be without gaps, got a gap in row 4"),
        ({"image": "image", "train_split": "gaps"}, "image in row 5 of split 'gaps' must be an image, got a gap"),
        ({"features": ("b",), "train_split": "gaps"}, "without missing values, got a gap in row 2 of split 'gaps'"),
        ({"text": "text", "train_examples": 7}, "train_examples must be at most 6"),
        ({"text": "text", "tokens": 0}, "tokens must be a whole number of at least 1"),
        ({"image": "image", "colors": "gray"}, "Did you mean 'grey'?"),
    ],
)
def test_what_does_not_fit_is_turned_away(saved, settings, words):
    assert words in complaint(saved, **settings)


def test_labels_of_the_test_part_must_be_trained_on(saved):
    message = complaint(saved, text="text", train_split="other", test_split="train")
    assert "label 'label' of split 'train' must be among those that are trained on, got a label 0 in row 0" in message


def test_without_a_hub_one_sentence_says_what_to_do():
    message = complaint("nobody/nothing", text="text")
    assert message.startswith("data hub: path must be reachable: the Hugging Face hub has it as nobody/nothing, got no")
    assert "save_to_disk(folder), and give that folder as path." in message


def test_no_code_that_comes_with_data_is_run(tmp_path):
    folder = tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "needs code of its own" in complaint(folder)
    assert not (tmp_path / "ran").exists()


def test_a_file_or_an_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "a.csv").write_text("a,label\n1,2\n")
    assert 'It is a file: name = "file" takes tables.' in complaint(tmp_path / "a.csv")
    (tmp_path / "none").mkdir()
    assert "a folder that `datasets` reads" in complaint(tmp_path / "none")


def test_a_study_finds_the_folder_beside_its_file(saved):
    text = """
name = "mine"
data = {name = "hub", path = "saved", text = "text", label = "label", tokens = 3, vocabulary = 6}
model = {name = "gru", vocabulary = 6, hidden = [3], embedding = 2}
train = {learning_rate = 0.1, batch_size = 2, epochs = 1}
"""
    (saved.parent / "mine.toml").write_text(text)
    spec = study.load(str(saved.parent / "mine.toml"))
    assert spec.data["path"] == str(saved)
    assert spec.load_data().shape == (3,)
    assert not os.path.isabs(study.load(str(saved.parent / "mine.toml"), {"data.path": "who/what"}).data["path"])

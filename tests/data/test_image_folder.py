"""Folders of images: odd images come out right, or one sentence says what is wrong."""

import io
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from steppe import data
from steppe.core.checks import InputError
from steppe.data import pixels
from steppe.data.pixels import Encoded, Form

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)


def complaint(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stored(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content, size=None, colors="rgb"):
    return pixels.decoded("images", Encoded("a.png", content), Form.of("images", size, colors))


@pytest.fixture
def folder(tmp_path):
    """Five images of cats and five of dogs; a cat's blue is 0."""
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for number in range(5):
            array = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            array[..., 2] = 0 if kind == "cat" else 255
            Image.fromarray(array).save(tmp_path / kind / f"{number}.png")
    return tmp_path


def load(folder, **settings):
    return data.load("images", folder=str(folder), **settings)


# --- Folders


def test_each_sub_folder_is_a_class_and_the_split_is_seeded_and_stratified(folder):
    one, same, other = (load(folder, split_seed=seed, test_fraction=0.4) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert (one.shape, one.classes, one.train["x"].dtype) == ((6, 8, 3), 2, np.uint8)
    for part, count in ((one.train, 6), (one.test, 4)):
        assert (part["x"][:, 0, 0, 2] == 255 * part["y"]).all()
        assert sorted(part["y"]) == [0] * (count // 2) + [1] * (count // 2)


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_of_training_and_test_are_taken_as_they_are(folder, name):
    for part, kept in (("train", "01234"), (name, "34")):
        for kind in ("cat", "dog"):
            (folder / part / kind).mkdir(parents=True)
            for number in kept:
                shutil.copy(folder / kind / f"{number}.png", folder / part / kind)
    made = load(folder)
    assert (made.train["y"].tolist(), made.test["y"].tolist()) == ([0] * 5 + [1] * 5, [0, 0, 1, 1])
    np.testing.assert_array_equal(made.test["x"][:2], made.train["x"][3:5])
    (folder / name / "fox").mkdir()
    shutil.copy(folder / "cat" / "0.png", folder / name / "fox")
    assert "a class 'fox' to test that is not trained on" in complaint(load, folder)


def test_what_is_hidden_is_left_out(folder):
    before = load(folder).fingerprint
    for path in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/._1.png", "README.txt"):
        (folder / path).write_bytes(b"no image")
    (folder / "__MACOSX").mkdir()
    (folder / ".git").mkdir()
    assert load(folder).fingerprint == before


def test_channels_are_standardised_by_the_training_part_or_go_from_0_to_1(folder):
    made, raw = (load(folder, standardize=flag) for flag in (True, False))
    x = np.asarray(jax.jit(made.decode)(made.train)["x"])
    scaled = made.train["x"] / 255
    np.testing.assert_allclose(x, (scaled - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(raw.decode(raw.train)["x"], scaled, atol=1e-6)


def test_a_channel_that_does_not_vary_becomes_zero(folder):
    for path in folder.glob("*/*.png"):
        Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    made = load(folder)
    np.testing.assert_array_equal(made.decode(made.train)["x"], 0)


def test_a_subset_reads_no_more_images_than_it_holds(folder, monkeypatch):
    read = []
    decode = pixels.decoded
    monkeypatch.setattr(pixels, "decoded", lambda *image: read.append(image) or decode(*image))
    made = load(folder, train_examples=3, test_examples=1)
    assert (len(made.train["y"]), len(made.test["y"]), len(read)) == (3, 1, 4)


def damaged(folder, how):  # noqa: PLR0912
    """Make a folder that cannot be used."""
    cat = folder / "cat"
    first = cat / "0.png"
    match how:
        case "another kind":
            (cat / "notes.txt").write_text("none")
        case "truncated":
            first.write_bytes(first.read_bytes()[:90])
        case "nothing in a file":
            first.write_bytes(b"")
        case "a class of none":
            (folder / "ape").mkdir()
        case "a folder in a class":
            (cat / "young").mkdir()
        case "one class":
            shutil.rmtree(cat)
        case "no class":
            shutil.rmtree(cat)
            shutil.rmtree(folder / "dog")
        case "one level too many":
            (folder / "all").mkdir()
            for kind in ("cat", "dog"):
                shutil.move(folder / kind, folder / "all")
        case "one image of a class":
            for number in range(1, 5):
                (cat / f"{number}.png").unlink()
        case "another size":
            Image.new("RGB", (9, 6)).save(cat / "3.png")
        case "animated":
            frames = [Image.new("L", (8, 6), 40 * shade) for shade in range(3)]
            frames[0].save(cat / "0.gif", save_all=True, append_images=frames[1:])
        case "real numbers":
            Image.fromarray(np.ones((6, 8), np.float32)).save(cat / "0.tiff")
        case "32 bits":
            Image.fromarray(np.full((6, 8), 70_000, np.int32)).save(cat / "0.tiff")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("another kind", "image cat/notes.txt must be an image, got a file of another kind, or a damaged one"),
        ("truncated", "image cat/0.png must be a whole image, got a damaged one"),
        ("nothing in a file", "image cat/0.png must be an image, got a file of another kind"),
        ("a class of none", "class ape must be a folder with images, got an empty one. Add images to it, or remove"),
        ("a folder in a class", "class cat must be a folder of images alone, got a folder 'young' in it. Move its"),
        ("one class", "one with a sub-folder for each of at least two classes, got dog in"),
        ("no class", "one with a sub-folder for each of at least two classes, got none in"),
        ("one level too many", "at least two classes, got all in"),
        ("one image of a class", "classes of at least two examples each, got a single example of class cat"),
        ("another size", "all of one size, got 6 × 8 pixels of"),
        ("animated", "image cat/0.gif must be a single picture, got one of 3 frames"),
        ("real numbers", "image cat/0.tiff must be of 8 or 16 bits a channel, got one of real-valued pixels"),
        ("32 bits", "image cat/0.tiff must be of 8 or 16 bits a channel, got one of 32-bit pixels"),
    ],
)
def test_a_folder_that_cannot_be_used_is_turned_away(folder, how, words):
    damaged(folder, how)
    assert words in complaint(load, folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"size": (4, 4, 4)}, "size must be a whole number, or a height and a width"),
        ({"colors": "gray"}, "Did you mean 'grey'?"),
        ({"folder": "nowhere"}, "a folder of images, got 'nowhere'. There is no such folder."),
        ({"size": 2_000_000}, "images must be at most half as large as the memory that is free"),
        ({"test_fraction": 0.05}, "such that both parts hold all 2 classes"),
    ],
)
def test_settings_out_of_range_are_turned_away(folder, settings, words):
    assert words in complaint(data.load, "images", **{"folder": str(folder), **settings})


def test_a_file_is_no_folder(folder):
    assert "It is a file: unpack it." in complaint(load, folder / "cat" / "0.png")


# --- Images

GREY = Image.fromarray(NOISE[..., 0])
PALETTE = Image.fromarray(NOISE).quantize(16)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (stored(Image.fromarray(NOISE)), NOISE),
        (stored(GREY), np.repeat(NOISE[..., :1], 3, axis=2)),
        (stored(PALETTE), np.asarray(PALETTE.convert("RGB"))),
        (stored(Image.fromarray(NOISE).convert("RGBA")), NOISE),
        (stored(Image.fromarray(NOISE[..., 0] > 127)), np.repeat(np.where(NOISE[..., :1] > 127, 255, 0), 3, axis=2)),
        (stored(Image.new("RGBA", (3, 2), (10, 20, 30, 0))), np.full((2, 3, 3), 255)),
        (stored(Image.new("RGBA", (3, 2), (0, 0, 0, 128))), np.full((2, 3, 3), 127)),
        (stored(Image.new("LA", (3, 2), (60, 0))), np.full((2, 3, 3), 255)),
        (stored(Image.new("P", (3, 2), 0), transparency=0), np.full((2, 3, 3), 255)),
        (stored(Image.fromarray(np.full((2, 3), 65535, np.uint16))), np.full((2, 3, 3), 255)),
        (stored(Image.fromarray(np.full((2, 3), 257 * 77, np.uint16)), "TIFF"), np.full((2, 3, 3), 77)),
        (stored(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "TIFF"), np.zeros((2, 3, 3))),
    ],
    ids=["RGB", "grey", "palette", "RGBA", "1 bit", "clear", "half", "grey, clear", "palette, clear", "16 bits",
         "16 bits, TIFF", "CMYK"],
)  # fmt: skip
def test_an_image_of_any_mode_becomes_three_channels_of_bytes(content, expected):
    array = decoded(content)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, expected)


def test_an_image_is_turned_as_its_exif_data_say():
    picture, exif = Image.fromarray(NOISE), Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    np.testing.assert_array_equal(decoded(stored(picture, exif=exif)), np.rot90(NOISE, -1))


def test_grey_is_one_channel_and_of_colours_their_brightness():
    np.testing.assert_array_equal(decoded(stored(GREY), colors="grey")[..., 0], NOISE[..., 0])
    expected = NOISE @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decoded(stored(Image.fromarray(NOISE)), colors="grey")[..., 0], expected, atol=1)


def test_a_size_keeps_the_middle_and_its_proportions():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 6:24] = 200  # the square in the middle, and what bicubic weights see beyond it
    np.testing.assert_array_equal(decoded(stored(Image.fromarray(wide)), size=5), 200)
    assert decoded(stored(Image.fromarray(wide)), size=(4, 7)).shape == (4, 7, 3)
    np.testing.assert_array_equal(decoded(stored(Image.fromarray(NOISE)), size=(6, 8)), NOISE)


def test_moments_of_channels_are_exact():
    many = RNG.integers(0, 256, (5, 6, 8, 3)).astype(np.uint8)
    for found, expected in zip(pixels.channel_moments(many), (np.mean, np.std), strict=True):
        np.testing.assert_allclose(found, expected(many / 255, axis=(0, 1, 2)), rtol=1e-12)

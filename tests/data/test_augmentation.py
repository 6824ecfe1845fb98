"""Augmentations of images against plain references: what is filled, mirrored, magnified, covered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from steppe import InputError, study
from steppe.data.transforms import crop, cutout, flip, images, resized_crop
from steppe.study.spec.parts import transform


def batch(*shape, seed=0, dtype=np.float32):
    x = np.random.default_rng(seed).normal(size=shape) if dtype == np.float32 else np.arange(np.prod(shape))
    return {"x": jnp.asarray(x.reshape(shape), dtype), "y": jnp.zeros(shape[0], jnp.int32)}


def applied(made, given, seed=0):
    found = jax.jit(lambda key, given: made(key, given, None))(jax.random.key(seed), given)
    assert found["x"].dtype == given["x"].dtype and found["x"].shape == given["x"].shape
    np.testing.assert_array_equal(found["y"], given["y"])
    return np.asarray(found["x"])


FILLS = [None, 0.0, 1.5, (0.5, -1.0, 2.0), "reflect"]


@pytest.mark.parametrize("fill", FILLS)
def test_a_crop_is_a_window_of_the_padded_image(fill):
    given, p = batch(40, 5, 6, 3), 3
    found = applied(crop(p, flip=False, fill=fill), given)
    places = []
    for image, cut in zip(np.asarray(given["x"]), found, strict=True):
        if fill == "reflect":
            padded = np.pad(image, ((p, p), (p, p), (0, 0)), mode="reflect")
        else:
            padded = np.broadcast_to(np.float32(0 if fill is None else fill), (5 + 2 * p, 6 + 2 * p, 3)).copy()
            padded[p:-p, p:-p] = image
        windows = [(i, j) for i in range(2 * p + 1) for j in range(2 * p + 1)
                   if np.array_equal(padded[i : i + 5, j : j + 6], cut)]  # fmt: skip
        assert windows
        places += windows
    assert len(set(places)) > 15  # each image has a place of its own


def test_a_crop_without_a_fill_is_the_program_that_it_was_and_zeros_are_its_values():
    given = batch(8, 5, 5, 2)
    np.testing.assert_array_equal(applied(crop(2), given), applied(crop(2, fill=0.0), given))
    assert "pad" in str(jax.make_jaxpr(lambda x: images._padded(x, 2, None))(given["x"][0]))
    found = study.spec.parse(SPEC.format('{name = "crop"}')).augment[0]
    assert found == {"name": "crop", "padding": 4, "flip": True}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_flipping_mirrors_so_many_images_left_to_right(dtype):
    given = batch(400, 2, 3, 1, dtype=np.float32)
    given = {**given, "x": (100 * given["x"]).astype(dtype)} if dtype == np.uint8 else given
    x = np.asarray(given["x"])
    np.testing.assert_array_equal(applied(flip(1.0), given), x[:, :, ::-1])
    np.testing.assert_array_equal(applied(flip(0.0), given), x)
    found = applied(flip(0.25), given)
    mirrored = [np.array_equal(a, b[:, ::-1]) and not np.array_equal(a, b) for a, b in zip(found, x, strict=True)]
    assert 0.17 < np.mean(mirrored) < 0.33


def magnified(image, top, left, height, width):
    """A part of an image at the size of the whole, by Pillow, channel by channel."""
    size = image.shape[1], image.shape[0]
    part = image[top : top + height, left : left + width]
    channels = [Image.fromarray(part[..., c]).resize(size, Image.Resampling.BILINEAR) for c in range(part.shape[-1])]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


@pytest.mark.parametrize("shape", [(8, 8, 2), (5, 9, 1), (1, 7, 1)])
def test_a_resized_crop_is_what_pillow_makes_of_the_part(shape):
    height, width, _ = shape
    given, scale, ratio = batch(30, *shape), (0.2, 1.0), (0.5, 2.0)
    found = applied(resized_crop(scale, ratio, flip=False), given)
    keys, parts = jax.random.split(jax.random.key(0), 30), []
    part_of = jax.jit(jax.vmap(lambda key: images._part(jax.random.split(key)[0], height, width, scale, ratio)))
    for image, cut, part in zip(np.asarray(given["x"]), found, np.transpose(part_of(keys)), strict=True):
        top, left, h, w = map(int, part)
        assert 0 <= top <= height - h and 0 <= left <= width - w and h >= 1 and w >= 1
        np.testing.assert_allclose(cut, magnified(image, top, left, h, w), atol=1e-5)
        parts.append((top, left, h, w))
    assert len(set(parts)) > 3


def test_the_whole_image_is_magnified_to_itself_and_half_of_them_are_mirrored():
    given = batch(200, 6, 6, 1)
    x = np.asarray(given["x"])
    np.testing.assert_allclose(applied(resized_crop((1.0, 1.0), (1.0, 1.0), flip=False), given), x, atol=1e-6)
    found = applied(resized_crop((1.0, 1.0), (1.0, 1.0)), given)
    mirrored = np.array([np.allclose(a, b[:, ::-1], atol=1e-6) for a, b in zip(found, x, strict=True)])
    assert 0.35 < mirrored.mean() < 0.65
    np.testing.assert_allclose(found[~mirrored], x[~mirrored], atol=1e-6)


def test_areas_and_ratios_are_those_that_were_asked_for():
    keys = jax.random.split(jax.random.key(1), 2000)
    part_of = jax.jit(jax.vmap(lambda key: images._part(key, 100, 100, (0.2, 0.6), (0.5, 2.0))))
    top, left, height, width = map(np.asarray, part_of(keys))
    share, ratio = height * width / 1e4, width / height
    assert share.min() > 0.19 and share.max() < 0.61 and ratio.min() > 0.49 and ratio.max() < 2.05
    assert abs(share.mean() - 0.4) < 0.01 and abs(np.log(ratio).mean()) < 0.03
    assert top.min() == 0 == left.min() and np.any(top + height == 100) and np.any(left + width == 100)


@pytest.mark.parametrize(
    ("size", "ratio", "part"),
    [((10, 40), (0.5, 1.5), (0, 12, 10, 15)), ((40, 10), (0.8, 1.5), (14, 0, 12, 10)), ((8, 8), (1, 1), (0, 0, 8, 8))],
)  # fmt: skip
def test_where_no_part_fits_the_largest_central_one_is_taken(size, ratio, part):
    # a share of all of the area fits with the image's own ratio alone
    scale = (1.0, 1.0)
    assert tuple(map(int, images._part(jax.random.key(0), *size, scale, ratio))) == part


@pytest.mark.parametrize("size", [1, 2, 3, 4, 30])
@pytest.mark.parametrize("fill", [None, 7.0, (5.0, 6.0)])
def test_cutout_covers_one_square_around_a_pixel_and_nothing_else(size, fill):
    given = batch(60, 6, 8, 2)
    found, x = applied(cutout(size, fill=fill), given), np.asarray(given["x"])
    expected = np.broadcast_to(np.float32(0 if fill is None else fill), (2,))
    centers = set()
    for image, cut in zip(x, found, strict=True):
        masks = {}
        for i in range(6):
            for j in range(8):
                mask = np.zeros((6, 8), bool)
                first, left = i - size // 2, j - size // 2
                mask[max(0, first) : first + size, max(0, left) : left + size] = True
                masks[i, j] = mask
        same = [at for at, mask in masks.items() if np.array_equal(np.where(mask[..., None], expected, image), cut)]
        assert same
        centers.add(same[0])
    assert size == 30 or len(centers) > 10


def test_integers_are_covered_and_cropped_too():
    given = batch(4, 4, 4, 1, dtype=np.uint8)
    for made in (cutout(2, fill=9.0), crop(1, fill=(9.0,)), crop(1, fill="reflect")):
        applied(made, given)


def test_the_same_key_gives_the_same_images_and_another_one_others():
    given = batch(16, 6, 6, 1)
    for made in (crop(2, fill="reflect"), flip(), resized_crop(), cutout(3)):
        np.testing.assert_array_equal(applied(made, given), applied(made, given))
        assert not np.array_equal(applied(made, given), applied(made, given, seed=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crop(fill="wrap"), 'one for each channel, or "reflect", got '),
        (lambda: crop(fill=float("nan")), "crop: fill must be"),
        (lambda: crop(fill=()), "crop: fill must be one number, or one for each channel, or"),
        (lambda: applied(crop(fill=(1.0, 2.0)), batch(2, 4, 4, 3)), "got 2 for images of 3 channels"),
        (lambda: applied(crop(4, fill="reflect"), batch(2, 4, 6, 3)), "padding must be below 4, the smaller side"),
        (lambda: flip(1.5), "flip: chance must be"),
        (lambda: applied(flip(), batch(2, 4)), "flip: x must be images (B, H, W, C), got a float32 array"),
        (lambda: resized_crop((0.5, 0.2)), "scale must be the smallest, then the largest, at most 1, got 0.5 and 0.2"),
        (lambda: resized_crop((0.5, 2.0)), "scale must be the smallest, then the largest, at most 1, got 0.5 and 2"),
        (lambda: resized_crop((0.0, 1.0)), "resized_crop: scale must be"),
        (lambda: resized_crop((0.5,)), "scale must be two numbers, the smallest and the largest"),
        (lambda: resized_crop(ratio=(2.0, 1.0)), "ratio must be the smallest, then the largest, got 2 and 1"),
        (lambda: applied(resized_crop(), batch(2, 4, 4, 3, dtype=np.uint8)), "(B, H, W, C) of floats, got a uint8"),
        (lambda: cutout(0), "cutout: size must be"),
        (lambda: applied(cutout(2, fill=(1.0,)), batch(2, 4, 4, 3)), "got 1 for images of 3 channels"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_get_one_sentence(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)


SPEC = """
name = "tiny"
seeds = 1
data = {{name = "digits", as_images = true}}
model = {{name = "convolutional", channels = [2], hidden = [4]}}
augment = [{}]
train = {{learning_rate = 0.05, batch_size = 20, epochs = 4}}
"""


@pytest.mark.parametrize(
    "table",
    ['{name = "crop", fill = "reflect"}', '{name = "crop", fill = 0.5}', '{name = "crop", fill = [0.5]}',
     '{name = "flip"}', '{name = "resized_crop", scale = [0.5, 1.0]}', '{name = "cutout", size = 3, fill = [1.0]}'],
)  # fmt: skip
def test_a_study_names_them(table):
    found = study.spec.parse(SPEC.format(table))
    assert study.spec.parse(found.toml()) == found
    applied(transform(found.augment[0], None, 10), batch(4, 8, 8, 1))

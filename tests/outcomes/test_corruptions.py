"""Corrupted images, tables and texts: what each does, that it is the same again, and the measures."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from steppe import InputError, outcomes
from steppe.measures import measure
from steppe.outcomes import CORRUPTIONS, corrupt
from steppe.outcomes.robustness.corruptions import blur, digital


def images(count=3, size=32, channels=3):
    """Smooth pictures, as photographs are."""
    random = np.random.default_rng(0)
    places = np.linspace(0, 1, size)
    waves = random.uniform(1, 6, (2, count, 1, 1, channels))
    rows, columns = places[None, :, None, None], places[None, None, :, None]
    return 0.5 + 0.4 * np.sin(waves[0] * rows * 3 + waves[1] * columns * 3)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_keeps_shape_and_range_and_repeats_with_its_seed(name):
    x = images()
    found = [corrupt(x, name, level) for level in (1, 5)]
    for changed in found:
        assert changed.shape == x.shape and changed.dtype == x.dtype
        assert changed.min() >= 0 and changed.max() <= 1 and not np.array_equal(changed, x)
    if name not in ("saturate", "elastic_transform"):  # their levels are not in order
        assert np.abs(found[1] - x).mean() > np.abs(found[0] - x).mean()
    np.testing.assert_array_equal(corrupt(x, name, 1), found[0])
    whole = np.rint(x * 255).astype(np.uint8)
    assert corrupt(whole, name, 1).dtype == np.uint8
    np.testing.assert_allclose(corrupt(whole, name, 1) / 255, corrupt(whole / 255, name, 1), atol=0.51 / 255)


def test_noises_have_the_published_sizes():
    grey = np.full((4, 32, 32, 3), 0.5)
    for level, c in ((1, 0.04), (5, 0.1)):
        assert (corrupt(grey, "gaussian_noise", level) - 0.5).std() == pytest.approx(c, rel=0.05)
    assert corrupt(grey, "shot_noise", 3).std() == pytest.approx(np.sqrt(0.5 / 100), rel=0.05)
    assert (corrupt(grey, "speckle_noise", 5) - 0.5).std() == pytest.approx(0.1, rel=0.05)
    hit = corrupt(grey, "impulse_noise", 5)
    assert np.isin(hit, (0, 0.5, 1)).all() and (hit != 0.5).mean() == pytest.approx(0.07, rel=0.15)
    assert np.array_equal(corrupt(grey, "gaussian_noise", 1, seed=1), corrupt(grey, "gaussian_noise", 1)) is False


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "zoom_blur", "glass_blur"])
def test_a_blur_leaves_a_plain_image_as_it_is_and_brightness_where_it_was(name):
    plain = np.full((2, 16, 16, 3), 0.3)
    np.testing.assert_allclose(corrupt(plain, name, 5), plain, atol=1e-9)
    point = np.zeros((1, 33, 33, 1))
    point[0, 10, 12] = 1
    found = corrupt(point, name, 4)
    if name != "zoom_blur":
        assert found.sum() == pytest.approx(1, abs=0.02)
    assert found.max() < 1


PIXELS = ([3, 16, 30], [5, 16, 28], [0, 1, 2])


@pytest.mark.parametrize(
    ("level", "expected", "mean"),
    [
        (1, [0.8942346, 0.1265702, 0.2504100], 0.4992878),
        (3, [0.8596274, 0.1252975, 0.1948664], 0.4945725),
        (5, [0.8052976, 0.1231584, 0.1888339], 0.4903561),
    ],
)
def test_zoom_is_that_of_the_published_formula(level, expected, mean):
    """Recorded from `scipy.ndimage.zoom` of the clipped middle, ⌈32/z⌉ pixels, with order 1."""
    found = corrupt(images(1), "zoom_blur", level)[0]
    np.testing.assert_allclose(found[PIXELS], expected, atol=2e-6)
    assert found.mean() == pytest.approx(mean, abs=2e-6)


@pytest.mark.parametrize(
    ("settings", "expected", "mean"),
    [
        ((6, 1, 20.0), [0.8817217, 0.2261337, 0.5010218], 0.4992365),
        ((9, 2.5, -35.0), [0.8870749, 0.2811176, 0.6115275], 0.4970329),
    ],
)
def test_motion_is_that_of_imagemagick(settings, expected, mean):
    """Recorded from imagecorruptions-imaug 1.1.5, which writes ImageMagick's motion blur down in NumPy."""
    found = blur.moved(images(1)[0], *settings)
    np.testing.assert_allclose(found[PIXELS], expected, atol=2e-6)
    assert found.mean() == pytest.approx(mean, abs=2e-6)


@pytest.mark.parametrize(
    ("level", "expected", "mean"),
    [
        (1, [0.8913717, 0.1470517, 0.2142291], 0.5016028),
        (3, [0.8890037, 0.1337333, 0.2184366], 0.5022321),
        (5, [0.8876610, 0.1218849, 0.2563906], 0.5020513),
    ],
)
def test_stretching_is_that_of_opencv_and_scipy(level, expected, mean):
    """Recorded from `cv2.warpAffine`, `skimage.filters.gaussian` and `map_coordinates`, as the published program calls
    them. OpenCV looks places up in steps of 1/32 of a pixel: with slopes up to 0.2 a pixel that is up to 0.003."""
    amount, smooth, _ = digital.ELASTIC[level - 1]
    moves = np.array([[1.0, -0.5], [0.4, 0.9], [-0.8, 0.3]])  # columns before rows, as OpenCV has it
    field = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32))
    turned = np.swapaxes(images(1)[0], 0, 1)
    stretched = digital.affine(turned, moves)
    found = digital.displaced(stretched, np.swapaxes(field, 1, 2), np.full(2, 32 * amount), np.full(2, 32 * smooth))
    found = np.swapaxes(found, 0, 1)
    np.testing.assert_allclose(found[PIXELS], expected, atol=3e-3)
    assert found.mean() == pytest.approx(mean, abs=3e-4)


def test_colours_are_those_of_hsv():
    x = images(1, 8)
    value = lambda z: z.max(-1)
    sat = lambda z: 1 - z.min(-1) / z.max(-1)
    bright = corrupt(x, "brightness", 2)
    np.testing.assert_allclose(value(bright), np.minimum(value(x) + 0.1, 1), atol=1e-9)
    np.testing.assert_allclose(sat(bright), sat(x), atol=1e-9)
    full = corrupt(x, "saturate", 4)
    np.testing.assert_allclose(sat(full), np.minimum(2 * sat(x) + 0.1, 1), atol=1e-9)
    np.testing.assert_allclose(value(full), value(x), atol=1e-9)
    np.testing.assert_allclose(corrupt(np.full((1, 2, 2, 3), 0.5), "saturate", 5)[0, 0, 0], [0.5, 0.4, 0.4])
    flat = corrupt(x, "contrast", 5)
    np.testing.assert_allclose(flat - flat.mean((1, 2)), 0.15 * (x - x.mean((1, 2))), atol=1e-9)


def test_pixels_and_jpeg_are_those_of_pillow():
    x = np.rint(images(1) * 255).astype(np.uint8)
    for level, share in ((1, 0.95), (5, 0.65)):
        few = int(32 * share)
        small = Image.fromarray(x[0]).resize((few, few), Image.Resampling.BOX)
        again = np.asarray(small.resize((32, 32), Image.Resampling.BOX))
        np.testing.assert_allclose(corrupt(x, "pixelate", level)[0].astype(int), again.astype(int), atol=1)
    assert len(np.unique(corrupt(x, "jpeg_compression", 5))) > 10
    assert corrupt(x[..., :1], "jpeg_compression", 5).shape == (1, 32, 32, 1)


def test_fog_is_a_fractal_that_fills_the_range_and_lifts_the_dark():
    dark = np.full((6, 32, 32, 3), 0.1)
    dark[:, 0, 0] = 1
    found = corrupt(dark, "fog", 3)
    assert found.mean() > 0.2 and found.std(axis=(1, 2, 3)).min() > 0.03
    near, far = (np.mean((found[:, :-k, 0, 0] - found[:, k:, 0, 0]) ** 2) for k in (1, 12))
    assert near < far  # neighbours are alike


@pytest.mark.parametrize(
    ("x", "name", "level", "message"),
    [
        (images(), "fogg", 1, "Did you mean 'fog'"),
        (images(), "fog", 6, "level"),
        (images() * 2, "fog", 1, "before they are standardised"),
        (images()[0], "fog", 1, "images"),
        (images().transpose(0, 3, 1, 2), "fog", 1, "channels last"),
        (images(channels=1), "saturate", 1, "three channels"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(x, name, level, message):
    with pytest.raises(InputError, match=message):
        corrupt(x, name, level)


def test_tables_and_texts_shift_as_they_say():
    x = np.random.default_rng(0).normal(size=(400, 3)) * [1.0, 10.0, 0.0]
    moved = outcomes.add_noise(x, 0.5) - x
    np.testing.assert_allclose(moved.std(0), [0.5, 5, 0], rtol=0.15)
    gone = outcomes.drop_values(x, 0.2)
    assert (gone != x)[:, :2].mean() == pytest.approx(0.2, abs=0.04)
    assert stats.mode(gone[:, 0]).mode == pytest.approx(x[:, 0].mean())
    assert outcomes.drop_values(x.astype(np.float32), 1.0, fill="zero").dtype == np.float32
    text = "The quick brown fox, 12 times" * 20
    (wrong,) = outcomes.misspell([text], 0.1)
    assert len(wrong) == len(text) and 0.04 < np.mean([a != b for a, b in zip(text, wrong, strict=True)]) < 0.16
    assert outcomes.misspell(["Q1!"], 1.0) == ["W1!"]
    (short,) = outcomes.drop_words([text], 0.5)
    assert 0.3 < len(short.split()) / len(text.split()) < 0.7
    with pytest.raises(InputError, match="a list of texts"):
        outcomes.misspell("abc", 0.1)


def test_labels_that_were_changed_are_memorised_or_seen_through():
    p = np.eye(3)[[0, 1, 2, 2]]
    assert outcomes.label_noise_fit(p, [0, 1, 2, 0], [0, 0, 1, 2]) == pytest.approx((2 / 3, 1 / 3))
    assert np.isnan(outcomes.label_noise_fit(p, [0, 0, 0, 0], [0, 0, 0, 0])).all()


# --- as measures


def mean_colour(params, x):
    """Classes by the brightness of the first channel."""
    level = jnp.mean(jnp.asarray(x, jnp.float32)[..., 0], axis=(1, 2)) * params
    return jnp.stack([jnp.zeros_like(level), level - 0.5], axis=1)


def test_the_measure_is_the_mean_over_corruptions_of_generated_images_and_of_published_ones(tmp_path):
    x = images(12, 8).astype(np.float32)
    y = np.asarray(mean_colour(1.0, x)).argmax(1).astype(np.int32)
    given = {
        "apply": mean_colour,
        "params": jnp.array(1.0),
        "batches": [{"x": x[:6], "y": y[:6]}, {"x": x[6:], "y": y[6:]}],
    }
    ask = lambda **settings: {
        row.quantity: row for row in measure("corruption_accuracy", **given, settings={"corruption_accuracy": settings})
    }
    found = ask(names=["contrast", "brightness"], levels=[5])
    own = {}
    for name in ("contrast", "brightness"):
        changed = np.concatenate([corrupt(x[6 * i : 6 * i + 6], name, 5, seed=i) for i in range(2)])
        own[name] = np.mean(np.asarray(mean_colour(1.0, changed)).argmax(1) == y)
        assert found[f"corruption_accuracy_{name}"].value == pytest.approx(own[name])
    assert found["corruption_accuracy"].value == pytest.approx(np.mean(list(own.values())))
    assert "not the published images" in found["corruption_accuracy"].note
    whole = np.rint(x * 255).astype(np.uint8)
    np.save(tmp_path / "fog.npy", np.concatenate([whole] * 4 + [255 - whole]))
    np.save(tmp_path / "labels.npy", np.tile(y, 5))
    published = ask(folder=str(tmp_path))
    turned = np.mean(np.asarray(mean_colour(1.0, (255 - whole) / 255)).argmax(1) == y)
    assert published["corruption_accuracy_fog"].value == pytest.approx((4 + turned) / 5, abs=0.02)
    with pytest.raises(InputError, match=r"labels\.npy"):
        ask(folder=str(tmp_path / "none"))


def test_a_table_is_shifted_and_images_are_none():
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    apply = lambda w, x: (x @ w)[:, None]
    rows = measure("shift_accuracy", apply=apply, params=jnp.array([1.0, 0.0]), batches={"x": x, "y": y})
    found = {row.quantity: row.value for row in rows}
    assert 0.75 < found["noise_accuracy"] < 0.95 and 0.8 < found["missing_accuracy"] < 1
    with pytest.raises(InputError, match="a table"):
        measure("shift_accuracy", apply=mean_colour, params=jnp.array(1.0),
                batches={"x": images(2, 4).astype(np.float32), "y": np.array([0, 1])})  # fmt: skip


def test_small_batches_are_corrupted_once_for_all_networks(monkeypatch):
    from steppe.measures.catalogue.outcomes import robustness

    asked = []
    monkeypatch.setattr(robustness, "corrupt", lambda x, name, level, seed: asked.append(len(x)) or x + level)
    robustness._remembered.cache_clear()
    images, other = np.zeros((4, 8, 8, 3)), np.ones((4, 8, 8, 3))
    for x in (images, images.copy(), other):
        assert (robustness._corrupted(x, "fog", 2, 0) == x + 2).all()
    assert len(asked) == 2, "equal images are the same question, whichever array holds them"
    robustness._corrupted(images.astype(np.float32), "fog", 2, 0), robustness._corrupted(images, "fog", 3, 0)
    assert len(asked) == 4
    monkeypatch.setattr(robustness, "LARGEST", 1)
    robustness._corrupted(images, "fog", 2, 0)
    assert len(asked) == 5, "large batches are not kept"
    robustness._remembered.cache_clear()

"""Transforms of batches: each draws what its paper draws, leaves alone what it should, and runs compiled."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from steppe import InputError
from steppe.core import losses
from steppe.data import transforms as augment

KEY = jax.random.key(3)
B, K = 6, 4
RNG = np.random.default_rng(0)
TABLE = {"x": jnp.asarray(RNG.normal(size=(B, 5)).astype(np.float32)), "y": jnp.array([0, 3, 1, 2, 2, 0], jnp.int32)}
IMAGES = {**TABLE, "x": jnp.asarray(RNG.uniform(1, 2, size=(B, 8, 6, 3)).astype(np.float32))}
REALS = {**TABLE, "y": TABLE["x"][:, 0]}
WEIGHTS = jnp.asarray(RNG.normal(size=(5, K)).astype(np.float32))

TRANSFORMS = {
    "label_noise": (augment.label_noise(0.5, classes=K), TABLE),
    "target_noise": (augment.target_noise(0.5), REALS),
    "mixup": (augment.mixup(0.7, classes=K), TABLE),
    "crop": (augment.crop(2), IMAGES),
    "fgsm": (augment.fgsm(0.1), TABLE),
    "pgd": (augment.pgd(0.1, 3, rate=0.01), TABLE),  # too slow to end in a corner, wherever it starts
    "pgd in a ball": (augment.pgd(0.1, 3, norm="l2", low=-1.0, high=1.0), TABLE),
    "chain": (augment.chain(augment.pgd(0.1, 2), augment.mixup(classes=K)), TABLE),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


def loss(batch):
    """Of a linear network, or of the mean of an image."""
    x = batch["x"].reshape(len(batch["x"]), -1)[:, :5]
    if batch["y"].ndim == 1 and jnp.issubdtype(batch["y"].dtype, jnp.floating):
        return losses.squared_error(x @ WEIGHTS[:, :1].astype(x.dtype), batch["y"])
    return losses.cross_entropy(x @ WEIGHTS.astype(x.dtype), batch["y"])


def many(labels, count: int = 20_000):
    """A batch of so many of the same labels."""
    return {"x": jnp.zeros((count, 1)), "y": jnp.full(count, labels, jnp.int32)}


def moved(found, batch=TABLE):
    """By how much each example is moved: (largest entry, root of the sum of squares), (B,) each."""
    delta = np.asarray(found["x"] - batch["x"], np.float64).reshape(len(batch["x"]), -1)
    return np.abs(delta).max(axis=1), np.sqrt((delta**2).sum(axis=1))


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.first_is_fast
@every_transform
def test_a_transform_is_a_function_of_its_key_compiled_or_not(name):
    transform, batch = TRANSFORMS[name]
    found, again, compiled, other = (
        transform(KEY, batch, loss),
        transform(KEY, batch, loss),
        jax.jit(lambda key, batch: transform(key, batch, loss))(KEY, batch),
        transform(jax.random.key(4), batch, loss),
    )
    for part in ("x", "y"):
        np.testing.assert_array_equal(found[part], again[part])
        np.testing.assert_allclose(found[part], compiled[part], rtol=1e-5, atol=1e-6)
    same = all(np.array_equal(found[part], other[part]) for part in ("x", "y"))
    assert same == (name == "fgsm")  # the one that draws nothing
    assert not all(np.array_equal(found[part], batch[part]) for part in ("x", "y"))


@pytest.mark.first_is_fast
@every_transform
def test_a_transform_keeps_shapes_dtypes_and_whatever_else_a_batch_holds(name, strict):
    transform, batch = TRANSFORMS[name]
    for dtype in (jnp.float32, jnp.bfloat16):
        given = {**batch, "x": batch["x"].astype(dtype), "weight": jnp.ones(B)}
        found = transform(KEY, given, loss)
        assert (found["x"].shape, found["x"].dtype) == (batch["x"].shape, dtype)
        assert found["weight"] is given["weight"]
        if "mix" not in name and name != "chain":
            assert (found["y"].shape, found["y"].dtype) == (batch["y"].shape, batch["y"].dtype)
        else:
            assert (found["y"].shape, found["y"].dtype) == ((B, K), dtype)


@pytest.mark.slow
@every_transform
def test_a_transform_can_be_scanned_and_mapped_over_keys(name):
    transform, batch = TRANSFORMS[name]
    keys = jax.random.split(KEY, 3)
    one_by_one = [transform(key, batch, loss) for key in keys]
    mapped = jax.vmap(lambda key: transform(key, batch, loss))(keys)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, transform(key, batch, loss)), None, keys)
    for row, expected in enumerate(one_by_one):
        for found in (mapped, scanned):
            for part in ("x", "y"):
                np.testing.assert_allclose(found[part][row], expected[part], rtol=1e-4, atol=1e-5)


@every_transform
def test_a_transform_takes_numpy_arrays(name):
    transform, batch = TRANSFORMS[name]
    found = transform(KEY, jax.tree.map(np.asarray, batch), loss)
    for part in ("x", "y"):
        np.testing.assert_array_equal(found[part], transform(KEY, batch, loss)[part])


def test_the_registry_names_functions_of_settings_and_classes_is_asked_for_where_it_is_needed():
    names = {"label_noise", "target_noise", "mixup", "crop", "flip", "resized_crop", "cutout", "fgsm", "pgd"}
    assert set(augment.TRANSFORMS) == names
    needs = {name for name, make in augment.TRANSFORMS.items() if "classes" in inspect.signature(make).parameters}
    assert needs == {"label_noise", "mixup"}


def test_a_chain_applies_one_transform_after_another_with_keys_of_their_own():
    noise = augment.target_noise(1.0)
    found = augment.chain(noise, noise)(KEY, {"x": jnp.zeros((500, 1)), "y": jnp.zeros(500)}, loss)["y"]
    assert set(np.unique(found)) == {-2.0, 0.0, 2.0}  # with one key for both there would be no 0
    assert augment.chain()(KEY, TABLE, loss) is TABLE


# --- Noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_label_noise_changes_the_stated_share_of_labels_evenly_into_the_others(classes, strict):
    batch = many(classes - 1)
    found = np.asarray(augment.label_noise(0.2, classes=classes)(KEY, batch, None)["y"])
    shares = np.bincount(found, minlength=classes) / len(found)
    expected = np.array([0.2 / (classes - 1)] * (classes - 1) + [0.8])
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.2 * 0.8 / len(found)))
    assert len(shares) == classes


def test_label_noise_of_chance_one_changes_every_label_and_of_chance_zero_none():
    for label in range(K):
        assert label not in np.asarray(augment.label_noise(1.0, classes=K)(KEY, many(label, 500), None)["y"])
    np.testing.assert_array_equal(augment.label_noise(0.0, classes=K)(KEY, TABLE, None)["y"], TABLE["y"])


def test_label_noise_does_not_overflow_small_dtypes(strict):
    batch = {"x": jnp.zeros((5000, 1)), "y": jnp.full(5000, 199, jnp.uint8)}
    found = np.asarray(augment.label_noise(1.0, classes=200)(KEY, batch, None)["y"])
    assert found.dtype == np.uint8
    assert set(found) == set(range(199))


def test_a_chance_can_be_mapped_over():
    batch, chances = many(0), jnp.array([0.0, 0.3, 1.0])
    found = jax.vmap(lambda chance: augment.label_noise(chance, classes=K)(KEY, batch, None)["y"])(chances)
    np.testing.assert_allclose(jnp.mean(found != 0, axis=1), chances, atol=0.02)


def test_target_noise_adds_plus_or_minus_sigma_to_each_entry_with_even_chance(strict):
    y = jnp.asarray(RNG.normal(size=(4000, 2)).astype(np.float32))
    added = np.asarray(augment.target_noise(0.5)(KEY, {"x": y, "y": y}, None)["y"] - y)
    np.testing.assert_allclose(np.abs(added), 0.5, rtol=1e-5)
    assert abs(np.sign(added).mean()) < 5 / np.sqrt(8000)
    assert abs((np.sign(added[:, 0]) * np.sign(added[:, 1])).mean()) < 5 / np.sqrt(4000)  # signs of their own


# --- Mixtures ---------------------------------------------------------------------------------------------------------


def test_mixup_mixes_examples_and_labels_with_one_weight_and_one_permutation(strict):
    batch = {"x": jnp.eye(K, dtype=jnp.float32), "y": jnp.arange(K)}
    seen = set()
    for seed in range(20):
        found = augment.mixup(1.0, classes=K)(jax.random.key(seed), batch, None)
        np.testing.assert_array_equal(found["x"], found["y"])  # x is the one-hot label, and so both are mixed alike
        np.testing.assert_allclose(found["y"].sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(found["y"].sum(axis=0), 1, rtol=1e-6)  # everybody is somebody's other: a permutation
        own = np.diag(found["y"])
        seen.add(round(float(own.min()), 6))
        assert len(set(np.round(own[own < 1], 6))) <= 1  # one λ for all
    assert len(seen) > 15


@pytest.mark.slow
def test_the_weight_of_mixup_is_beta_distributed():
    """Of Beta(α, α) the mean is 1/2 and the variance 1/(4(2α + 1))."""
    batch = {"x": jnp.array([[0.0], [1.0]]), "y": jnp.array([0, 1])}
    for alpha in (0.2, 2.0):
        mixed = augment.mixup(alpha, classes=3)
        keys = jax.random.split(KEY, 20_000)
        first = np.asarray(jax.vmap(lambda key, mixed=mixed: mixed(key, batch, None)["x"][0, 0])(keys))
        other = first[first > 0]  # 1 − λ where the two are swapped, half of the time; otherwise 0
        assert abs(len(other) / len(first) - 0.5) < 0.06
        assert abs(np.mean(other) - 0.5) < 0.02
        assert np.var(other) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_mixup_of_two_classes_gives_what_a_network_of_one_logit_is_trained_on(strict):
    batch = {"x": TABLE["x"], "y": TABLE["y"] % 2}
    found = augment.mixup(1.0, classes=2)(KEY, batch, None)
    assert found["y"].shape == (B,)
    logits = found["x"] @ WEIGHTS[:, :1]
    both = augment.mixup(1.0, classes=3)(KEY, batch, None)["y"][:, :2]
    expected = losses.cross_entropy(jnp.concatenate([jnp.zeros_like(logits), logits], axis=1), both)
    assert float(losses.cross_entropy(logits, found["y"])) == pytest.approx(float(expected), rel=1e-5)


def test_what_is_mixed_can_be_mixed_again():
    for classes in (2, K):
        mixed = augment.mixup(1.0, classes=classes)
        once = mixed(KEY, {**TABLE, "y": TABLE["y"] % classes}, None)
        twice = mixed(jax.random.key(5), once, None)
        assert twice["y"].shape == once["y"].shape
        assert twice["y"].mean() == pytest.approx(float(once["y"].mean()), rel=1e-5)


# --- Images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [True, False])
def test_crop_gives_every_image_one_of_its_shifts_and_mirrors_and_no_other(flip, strict):
    p, (height, width) = 1, IMAGES["x"].shape[1:3]
    padded = np.pad(np.asarray(IMAGES["x"]), ((0, 0), (p, p), (p, p), (0, 0)))
    draws = [np.asarray(augment.crop(p, flip=flip)(key, IMAGES, None)["x"]) for key in jax.random.split(KEY, 40)]
    met, together = set(), 0
    for found in draws:
        kinds = []
        for image, whole in zip(found, padded, strict=True):
            for top in range(2 * p + 1):
                for left in range(2 * p + 1):
                    cut = whole[top : top + height, left : left + width]
                    kinds += [
                        (top, left, m) for m in (False, True) if np.array_equal(image, cut[:, ::-1] if m else cut)
                    ]
        assert len(kinds) == B
        met |= set(kinds)
        together += len(set(kinds)) == 1
    assert len(met) == (18 if flip else 9)
    assert {mirrored for *_, mirrored in met} == ({True, False} if flip else {False})
    assert together == 0  # each image for itself


def test_crop_without_padding_mirrors_half_of_the_images():
    images = {"x": jnp.broadcast_to(jnp.arange(3.0).reshape(1, 1, 3, 1), (4000, 1, 3, 1)), "y": jnp.zeros(4000)}
    first = np.asarray(augment.crop(0)(KEY, images, None)["x"])[:, 0, 0, 0]
    assert set(first) == {0.0, 2.0}
    assert abs((first == 2).mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_crop_of_nothing_is_the_batch_bitwise():
    np.testing.assert_array_equal(augment.crop(0, flip=False)(KEY, IMAGES, None)["x"], IMAGES["x"])


# --- Adversarial examples ---------------------------------------------------------------------------------------------


def test_fgsm_goes_the_radius_along_the_sign_of_the_gradient(strict):
    found = augment.fgsm(0.1)(KEY, TABLE, loss)
    gradient = jax.grad(lambda x: loss({**TABLE, "x": x}))(TABLE["x"])
    np.testing.assert_allclose(found["x"], TABLE["x"] + 0.1 * jnp.sign(gradient), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found["y"], TABLE["y"])


def test_fgsm_is_one_step_of_pgd_that_starts_at_the_example():
    alike = augment.pgd(0.1, 1, rate=0.1, start=False)(KEY, TABLE, loss)
    np.testing.assert_array_equal(augment.fgsm(0.1)(KEY, TABLE, loss)["x"], alike["x"])


@pytest.mark.parametrize("attack", [augment.fgsm(0.3), augment.pgd(0.3), augment.pgd(0.3, norm="l2")])
def test_adversarial_examples_have_a_higher_loss(attack):
    for key in jax.random.split(KEY, 5):
        assert float(loss(attack(key, TABLE, loss))) > float(loss(TABLE)) + 0.05


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize(("norm", "which"), [("linf", 0), ("l2", 1)])
def test_pgd_stays_within_the_radius_and_reaches_it(norm, which, start, strict):
    for rate in (None, 10.0):  # a rate far beyond the radius is projected back
        found = augment.pgd(0.3, 7, rate, norm, start=start)(KEY, TABLE, loss)
        distance = moved(found)[which]
        assert distance.max() <= 0.3 * (1 + 1e-5)
        np.testing.assert_allclose(distance, 0.3, rtol=1e-4)  # the loss is convex: its maximum is on the border


def test_pgd_finds_the_worst_point_of_a_linear_loss_exactly():
    """Of ⟨w, x⟩ it is r sign w in the cube and r w/‖w‖ in the ball."""
    w = jnp.array([0.5, -2.0, 0.0, 1.0, 3.0])

    def linear(batch):
        return jnp.mean(batch["x"] @ w)

    cube, ball = (augment.pgd(0.2, 20, norm=norm, start=False)(KEY, TABLE, linear)["x"] for norm in ("linf", "l2"))
    np.testing.assert_allclose(cube - TABLE["x"], jnp.broadcast_to(0.2 * jnp.sign(w), cube.shape), atol=1e-6)
    expected = jnp.broadcast_to(0.2 * w / jnp.linalg.norm(w), ball.shape)
    np.testing.assert_allclose(ball - TABLE["x"], expected, atol=1e-6)


def test_in_the_ball_every_example_goes_its_own_way_however_small_its_gradient(strict):
    scales = jnp.array([1.0, 1e-20, 1e20, 1e-30, 1.0, 1e-5])

    def uneven(batch):
        return jnp.mean(jnp.sum(batch["x"], axis=1) * scales)

    distance = moved(augment.pgd(0.2, 1, 0.1, "l2", start=False)(KEY, TABLE, uneven))[1]
    np.testing.assert_allclose(distance, 0.1, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_where_the_loss_is_flat_nothing_moves_and_nothing_is_nan(norm):
    def flat(batch):
        return 0.0 * jnp.sum(batch["x"])

    found = augment.pgd(0.2, 3, norm=norm, start=False)(KEY, TABLE, flat)
    np.testing.assert_array_equal(found["x"], TABLE["x"])
    np.testing.assert_array_equal(augment.fgsm(0.2)(KEY, TABLE, flat)["x"], TABLE["x"])
    for radius in (0.0, 0.2):
        assert np.isfinite(augment.pgd(radius, 3, norm=norm)(KEY, TABLE, flat)["x"]).all()
    np.testing.assert_array_equal(augment.pgd(0.0, 3, norm=norm)(KEY, TABLE, loss)["x"], TABLE["x"])


@pytest.mark.parametrize(("norm", "which"), [("linf", 0), ("l2", 1)])
def test_the_start_is_uniform_in_the_ball(norm, which):
    """Of D dimensions the distance to the power D is uniform; no step is taken, for the loss is flat."""
    batch = {"x": jnp.zeros((20_000, 3)), "y": jnp.zeros(20_000)}
    found = augment.pgd(2.0, 1, norm=norm)(KEY, batch, lambda batch: 0.0 * jnp.sum(batch["x"]))
    share = (moved(found, batch)[which] / 2.0) ** 3
    np.testing.assert_allclose(np.quantile(share, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    np.testing.assert_allclose(np.asarray(found["x"]).mean(axis=0), 0, atol=0.04)


@pytest.mark.parametrize("attack", [augment.fgsm, augment.pgd])
def test_adversarial_examples_stay_between_low_and_high(attack, strict):
    batch = {**TABLE, "x": jnp.clip(TABLE["x"], -0.7, 0.9)}
    found = attack(0.5, low=-0.7, high=0.9)(KEY, batch, loss)["x"]
    low, high = jnp.float32(-0.7), jnp.float32(0.9)
    assert bool(jnp.all((found >= low) & (found <= high)))  # exactly
    assert bool(jnp.any(found == low) & jnp.any(found == high))
    spread = {"x": jax.random.uniform(KEY, (2000, 5), minval=-0.7, maxval=0.9), "y": jnp.zeros(2000, jnp.int32)}
    far = attack(5.0, low=-0.7, high=0.9)(KEY, spread, loss)["x"]
    assert bool(jnp.all((far >= low) & (far <= high)))  # x + (low − x) would be beyond low by a rounding error
    assert moved({"x": found}, batch)[0].max() <= 0.5 * (1 + 1e-5)
    assert float(attack(0.5, low=0.0)(KEY, batch, loss)["x"].min()) == 0.0
    assert float(attack(0.5, high=0.0)(KEY, batch, loss)["x"].max()) == 0.0


def test_the_rate_is_two_and_a_half_radii_over_the_steps_unless_told():
    for norm in ("linf", "l2"):
        default = augment.pgd(0.4, 5, norm=norm)(KEY, TABLE, loss)
        np.testing.assert_array_equal(default["x"], augment.pgd(0.4, 5, 0.2, norm)(KEY, TABLE, loss)["x"])


def test_a_radius_can_be_mapped_over():
    radii = jnp.array([0.0, 0.1, 0.5])
    found = jax.vmap(lambda r: augment.pgd(r, 3)(KEY, TABLE, loss)["x"])(radii)
    np.testing.assert_allclose(jnp.max(jnp.abs(found - TABLE["x"]), axis=(1, 2)), radii, rtol=1e-4)


@pytest.mark.slow
def test_training_does_not_differentiate_through_the_ascent():
    def trained(w, transform):
        def of(batch):
            return losses.cross_entropy(batch["x"] @ w, batch["y"])

        return of(transform(KEY, TABLE, of))

    for attack in (augment.pgd(0.3, 3, norm="l2"), augment.fgsm(0.3)):
        fixed = attack(KEY, TABLE, loss)
        expected = jax.grad(lambda w, fixed=fixed: losses.cross_entropy(fixed["x"] @ w, fixed["y"]))(WEIGHTS)
        np.testing.assert_allclose(jax.grad(trained)(WEIGHTS, attack), expected, rtol=1e-4, atol=1e-6)


def test_labels_that_are_probabilities_can_be_attacked():
    soft = augment.mixup(1.0, classes=K)(KEY, TABLE, None)
    found = augment.pgd(0.3)(KEY, soft, loss)
    np.testing.assert_array_equal(found["y"], soft["y"])
    assert float(loss(found)) > float(loss(soft))


def test_only_adversarial_transforms_call_the_loss():
    def never(batch):
        raise AssertionError("called")

    for name in ("label_noise", "target_noise", "mixup", "crop"):
        transform, batch = TRANSFORMS[name]
        transform(KEY, batch, never)
    with pytest.raises(AssertionError, match="called"):
        augment.fgsm(0.1)(KEY, TABLE, never)


# --- What is turned away ----------------------------------------------------------------------------------------------


def complaint(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.label_noise(1.2, classes=3), "label_noise: chance must be a finite number >= 0 <= 1, got 1.2"),
        (lambda: augment.label_noise(classes=1), "label_noise: classes must be a whole number of at least 2, got 1"),
        (lambda: augment.target_noise(-1.0), "target_noise: sigma must be a finite number >= 0, got -1.0"),
        (lambda: augment.mixup(0.0, classes=3), "mixup: alpha must be above 0"),
        (lambda: augment.mixup(classes=2.0), "mixup: classes must be a whole number of at least 2"),
        (lambda: augment.crop(-1), "crop: padding must be a whole number of at least 0, got -1"),
        (lambda: augment.crop(flip="no"), "crop: flip must be one of True, False, got 'no'"),
        (lambda: augment.fgsm(-0.1), "fgsm: radius must be a finite number >= 0"),
        (lambda: augment.fgsm(0.1, low=1.0, high=0.0), "fgsm: low must be below high, 0.0, got 1.0"),
        (lambda: augment.fgsm(0.1, high=float("inf")), "fgsm: high must be a finite number"),
        (lambda: augment.pgd("far"), "pgd: radius must be a finite number >= 0, got 'far'"),
        (lambda: augment.pgd(0.1, 0), "pgd: steps must be a whole number of at least 1, got 0"),
        (lambda: augment.pgd(0.1, rate=-1.0), "pgd: rate must be a finite number >= 0"),
        (lambda: augment.pgd(0.1, norm="l1"), "pgd: norm must be one of 'linf', 'l2', got 'l1'"),
        (lambda: augment.pgd(0.1, start=1), "pgd: start must be one of True, False, got 1"),
    ],
)
def test_settings_out_of_range_are_turned_away_when_made(make, words):
    assert words in complaint(make)


@pytest.mark.parametrize(
    ("transform", "batch", "words"),
    [
        (
            augment.label_noise(classes=K),
            REALS,
            "label_noise: y must be integer labels, got a float32 array of shape (6,)",
        ),
        (augment.target_noise(0.1), TABLE, "target_noise: y must be floating-point targets, got a int32 array"),
        (augment.mixup(classes=K), {**TABLE, "y": jnp.zeros((B, 3))}, "mixup: y must be probabilities of shape (6, 4)"),
        (augment.mixup(classes=2), {**TABLE, "y": jnp.zeros((B, 2))}, "mixup: y must be probabilities of shape (6,)"),
        (augment.mixup(classes=K), {**TABLE, "y": jnp.zeros((B, 3), int)}, "mixup: y must be labels of shape (6,)"),
        (augment.mixup(classes=K), {**TABLE, "x": jnp.zeros((B, 3), int)}, "mixup: x must be floating-point examples"),
        (augment.crop(), TABLE, "crop: x must be images (B, H, W, C), got a float32 array of shape (6, 5)"),
        (augment.crop(), {"x": {"a": IMAGES["x"]}, "y": TABLE["y"]}, "images (B, H, W, C), one array, got a dict"),
        (
            augment.fgsm(0.1),
            {**TABLE, "x": jnp.zeros((B, 3), int)},
            "fgsm: x must be floating-point examples, got a int32",
        ),
        (augment.pgd(0.1), {**TABLE, "x": [jnp.zeros((B, 3))]}, "floating-point examples, one array, got a list"),
    ],
)
def test_a_batch_that_does_not_fit_is_turned_away_in_one_sentence(transform, batch, words):
    assert words in complaint(lambda: transform(KEY, batch, loss))

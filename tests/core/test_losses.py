"""Criteria: labels and probabilities agree, settings make equal criteria, and the unhinged loss is what it says."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from steppe import InputError, curvature, sharpness
from steppe.core import losses

B, K = 6, 4
RNG = np.random.default_rng(0)
LABELS = {1: np.array([0, 1, 1, 0, 1, 0], np.int32), K: np.array([0, 3, 1, 2, 2, 0], np.int32)}
CRITERIA = [losses.cross_entropy, losses.smoothed_cross_entropy(0.3), losses.unhinged]


def logits_of(width: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(width).normal(size=(B, width)).astype(np.float32) * 3)


def hot(width: int) -> jax.Array:
    """The labels as probabilities."""
    labels = LABELS[width]
    return jnp.asarray(labels, jnp.float32) if width == 1 else jnp.asarray(np.eye(width, dtype=np.float32)[labels])


def soft(width: int) -> jax.Array:
    """Some probabilities."""
    rng = np.random.default_rng(7)
    drawn = rng.uniform(size=B) if width == 1 else rng.dirichlet(np.ones(width), size=B)
    return jnp.asarray(drawn, jnp.float32)


def as_two(logits: jax.Array) -> jax.Array:
    """One logit as two."""
    return jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)


# --- Labels and probabilities -----------------------------------------------------------------------------------------


def test_integer_labels_take_the_path_that_they_took_bitwise():
    many, one = logits_of(K), logits_of(1)
    expected = optax.softmax_cross_entropy_with_integer_labels(many, LABELS[K])
    np.testing.assert_array_equal(losses.cross_entropies(many, jnp.asarray(LABELS[K])), expected)
    expected = optax.sigmoid_binary_cross_entropy(one[:, 0], LABELS[1].astype(np.float32))
    np.testing.assert_array_equal(losses.cross_entropies(one, jnp.asarray(LABELS[1])), expected)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("width", [1, K])
def test_a_label_is_a_probability_of_one(criterion, width, strict):
    logits = logits_of(width)
    by_label, by_probability = (criterion(logits, y) for y in (jnp.asarray(LABELS[width]), hot(width)))
    assert float(by_label) == pytest.approx(float(by_probability), rel=1e-6)
    slopes = [jax.grad(criterion)(logits, y) for y in (jnp.asarray(LABELS[width]), hot(width))]
    np.testing.assert_allclose(*slopes, atol=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("width", [1, K])
def test_every_criterion_is_the_expectation_over_labels(criterion, width, strict):
    logits, q = logits_of(width), soft(width)
    by_label = jnp.stack(
        [losses.example_losses(criterion, logits, jnp.full(B, k, jnp.int32)) for k in range(max(width, 2))], axis=-1
    )
    weights = jnp.stack([1 - q, q], axis=-1) if width == 1 else q
    assert float(criterion(logits, q)) == pytest.approx(float(jnp.mean(jnp.sum(weights * by_label, -1))), rel=1e-5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_one_logit_stands_for_two_of_which_the_first_is_zero(criterion, strict):
    one, p = logits_of(1), soft(1)
    two, q = as_two(one), jnp.stack([1 - p, p], axis=-1)
    assert float(criterion(one, p)) == pytest.approx(float(criterion(two, q)), rel=1e-5)
    labels = jnp.asarray(LABELS[1])
    assert float(criterion(one, labels)) == pytest.approx(float(criterion(two, labels)), rel=1e-5)


def test_the_cross_entropy_of_the_prediction_with_itself_is_its_entropy(x64):
    logits = jnp.asarray(RNG.normal(size=(B, K)))
    p = jax.nn.softmax(logits)
    assert float(losses.cross_entropy(logits, p)) == pytest.approx(float(-jnp.mean(jnp.sum(p * jnp.log(p), -1))))
    np.testing.assert_allclose(jax.grad(losses.cross_entropy)(logits, p), 0, atol=1e-15)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("width", [1, K])
@pytest.mark.parametrize("targets", [lambda width: jnp.asarray(LABELS[width]), soft])
def test_a_criterion_is_the_mean_of_its_values_on_each_example(criterion, width, targets, strict):
    logits, y = logits_of(width), targets(width)
    values = losses.example_losses(criterion, logits, y)
    assert values.shape == (B,)
    assert float(jnp.mean(values)) == pytest.approx(float(criterion(logits, y)), rel=1e-5)
    alone = [float(criterion(logits[i : i + 1], y[i : i + 1])) for i in range(B)]
    np.testing.assert_allclose(values, alone, rtol=1e-5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_positions_of_a_text_are_averaged_over(criterion, strict):
    logits, labels = jnp.asarray(RNG.normal(size=(2, 3, K)).astype(np.float32)), jnp.asarray(LABELS[K]).reshape(2, 3)
    flat = criterion(logits.reshape(6, K), labels.reshape(6))
    assert float(criterion(logits, labels)) == pytest.approx(float(flat), rel=1e-5)
    q = soft(K).reshape(2, 3, K)
    assert float(criterion(logits, q)) == pytest.approx(
        float(criterion(logits.reshape(6, K), q.reshape(6, K))), rel=1e-5
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_value_has_the_dtype_of_the_logits(criterion, strict):
    for width in (1, K):
        for dtype in (jnp.bfloat16, jnp.float32):
            for y in (jnp.asarray(LABELS[width]), soft(width)):
                assert criterion(logits_of(width).astype(dtype), y).dtype == dtype


@pytest.mark.parametrize(
    ("criterion", "logits", "targets", "words"),
    [
        (
            losses.cross_entropy,
            (B, K),
            jnp.zeros(B),
            "probabilities of shape (6, 4), got a float32 array of shape (6,)",
        ),
        (
            losses.cross_entropy,
            (B, K),
            jnp.zeros((B, 2)),
            "cross_entropy: targets must be probabilities of shape (6, 4)",
        ),
        (losses.cross_entropy, (B, 1), jnp.zeros((B, 1)), "probabilities of class 1 of shape (6,)"),
        (losses.unhinged, (B, K), jnp.zeros((B, K), int), "unhinged: targets must be integer labels of shape (6,)"),
        (losses.unhinged, (B, 1), jnp.zeros((B, 1)), "probabilities of class 1 of shape (6,)"),
        (losses.smoothed_cross_entropy(), (B, 1), jnp.zeros((B, 1), int), "smoothed_cross_entropy: targets must be"),
    ],
)
def test_targets_of_another_shape_are_turned_away_in_one_sentence(criterion, logits, targets, words):
    with pytest.raises(InputError) as caught:
        criterion(jnp.zeros(logits), targets)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- Smoothing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, K])
def test_smoothing_mixes_in_the_cross_entropy_of_the_uniform_prediction(width, strict):
    logits, y, s = logits_of(width), jnp.asarray(LABELS[width]), 0.3
    uniform = jnp.full(B, 0.5) if width == 1 else jnp.full((B, K), 1 / K)
    expected = (1 - s) * losses.cross_entropy(logits, y) + s * losses.cross_entropy(logits, uniform)
    assert float(losses.smoothed_cross_entropy(s)(logits, y)) == pytest.approx(float(expected), rel=1e-5)


def test_smoothing_agrees_with_optax(strict):
    smoothed = optax.smooth_labels(hot(K), 0.1)
    expected = jnp.mean(optax.softmax_cross_entropy(logits_of(K), smoothed))
    found = losses.smoothed_cross_entropy(0.1)(logits_of(K), jnp.asarray(LABELS[K]))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_smoothed_loss_is_smallest_at_the_smoothed_labels(x64):
    labels, s = jnp.asarray(LABELS[K]), 0.2
    best = jnp.log((1 - s) * jax.nn.one_hot(labels, K, dtype=jnp.float64) + s / K)
    criterion = losses.smoothed_cross_entropy(s)
    np.testing.assert_allclose(jax.grad(criterion)(best, labels), 0, atol=1e-15)
    assert float(criterion(best, labels)) == pytest.approx(float(-jnp.mean(jnp.sum(jnp.exp(best) * best, -1))))


def test_no_smoothing_is_the_cross_entropy_itself():
    assert losses.smoothed_cross_entropy(0) is losses.cross_entropy


def test_equal_smoothing_compiles_once_and_other_smoothing_again():
    traces = []

    def run(criterion, logits, labels):
        traces.append(criterion)
        return criterion(logits, labels)

    program = jax.jit(run, static_argnums=0)
    for smoothing in (0.1, 0.1, np.float64(0.1), 0.2):
        program(losses.smoothed_cross_entropy(smoothing), logits_of(K), LABELS[K])
    assert len(traces) == 2


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan"), "0.1", None])
def test_smoothing_out_of_range_is_turned_away(smoothing):
    with pytest.raises(InputError, match="smoothed_cross_entropy: smoothing must be a finite number >= 0 <= 1"):
        losses.smoothed_cross_entropy(smoothing)


def test_smoothing_must_be_known_when_a_program_is_compiled():
    with pytest.raises(InputError, match="smoothing must be a Python number, got a traced array"):
        jax.jit(lambda s: losses.smoothed_cross_entropy(s)(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32)))(0.1)


# --- Unhinged ---------------------------------------------------------------------------------------------------------


def test_unhinged_is_the_mean_of_the_other_logits_less_the_true_one(strict):
    logits, labels = np.asarray(logits_of(K)), LABELS[K]
    expected = [np.delete(z, y).mean() - z[y] for z, y in zip(logits, labels, strict=True)]
    found = losses.example_losses(losses.unhinged, jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_unhinged_of_one_logit_is_that_of_van_rooyen_less_one(strict):
    z, sign = logits_of(1), 2 * LABELS[1].astype(np.float32) - 1
    expected = np.mean(1 - sign * np.asarray(z)[:, 0])
    assert float(losses.unhinged(z, jnp.asarray(LABELS[1]))) == pytest.approx(expected - 1, rel=1e-5)


def test_unhinged_is_blind_to_a_shift_of_all_logits_and_sums_to_zero_over_labels(x64):
    logits = jnp.asarray(RNG.normal(size=(B, K)))
    by_label = [losses.example_losses(losses.unhinged, logits, jnp.full(B, k)) for k in range(K)]
    np.testing.assert_allclose(sum(by_label), 0, atol=1e-14)
    np.testing.assert_allclose(losses.unhinged(logits + 5, LABELS[K]), losses.unhinged(logits, LABELS[K]))


def test_uniform_label_noise_only_scales_the_unhinged_loss(x64):
    logits, p = jnp.asarray(RNG.normal(size=(B, K))), 0.4
    onehot = np.eye(K)[LABELS[K]]
    noisy = jnp.asarray((1 - p) * onehot + p / (K - 1) * (1 - onehot))
    expected = (1 - p * K / (K - 1)) * losses.unhinged(logits, jnp.asarray(LABELS[K]))
    np.testing.assert_allclose(losses.unhinged(logits, noisy), expected)


def test_unhinged_is_linear_in_the_logits_so_that_its_gauss_newton_matrix_is_zero(x64):
    a, b = (jnp.asarray(RNG.normal(size=(B, K))) for _ in range(2))
    y = jnp.asarray(LABELS[K])
    mixed = losses.unhinged(2 * a - 3 * b, y)
    np.testing.assert_allclose(mixed, 2 * losses.unhinged(a, y) - 3 * losses.unhinged(b, y), rtol=1e-12)

    def apply(w, x):
        return jnp.tanh(x @ w["in"]) @ w["out"]

    params = {"in": jnp.asarray(RNG.normal(size=(3, 2))), "out": jnp.asarray(RNG.normal(size=(2, K)))}
    batch = {"x": jnp.asarray(RNG.normal(size=(B, 3))), "y": y}
    np.testing.assert_array_equal(curvature.ggn(apply, params, batch, criterion=losses.unhinged).dense(), 0)
    hessian = curvature.hessian(losses.of(apply, losses.unhinged), params, batch).dense()
    assert float(jnp.max(jnp.abs(hessian))) > 1e-3  # the network's own curvature is there


# --- The registry, and the loss of a network --------------------------------------------------------------------------


def test_the_registry_holds_functions_of_settings_that_return_criteria():
    settings = {name: list(inspect.signature(make).parameters) for name, make in losses.LOSSES.items()}
    assert settings == {
        "cross_entropy": [],
        "smoothed_cross_entropy": ["smoothing"],
        "unhinged": [],
        "gaussian_negative_log_likelihood": [],
        "squared_error": [],
    }
    for name, make in losses.LOSSES.items():
        assert make() == make()
        real = {"squared_error": logits_of(K), "gaussian_negative_log_likelihood": logits_of(K)[:, : K // 2]}
        y = real.get(name, jnp.asarray(LABELS[K]))
        assert make()(logits_of(K), y).shape == ()
    assert losses.LOSSES["cross_entropy"]() is losses.cross_entropy
    assert losses.LOSSES["smoothed_cross_entropy"](smoothing=0.2) == losses.smoothed_cross_entropy(0.2)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_losses_of_a_network_are_equal_for_equal_criteria_and_take_probabilities(criterion):
    def apply(w, x):
        return x @ w

    loss, x, w = losses.of(apply, criterion), jnp.ones((B, 3)), jnp.ones((3, K))
    assert loss == losses.of(apply, criterion)
    assert hash(loss) == hash(losses.of(apply, criterion))
    assert float(loss(w, {"x": x, "y": soft(K)})) == pytest.approx(float(criterion(x @ w, soft(K))))


def test_the_hessian_of_the_cross_entropy_is_the_same_for_labels_and_probabilities_of_one(x64):
    def apply(w, x):
        return x @ w

    loss, w = losses.of(apply), jnp.asarray(RNG.normal(size=(3, K)))
    x = jnp.asarray(RNG.normal(size=(B, 3)))
    dense = [
        curvature.hessian(loss, w, {"x": x, "y": y}).dense() for y in (jnp.asarray(LABELS[K]), hot(K).astype(float))
    ]
    np.testing.assert_allclose(*dense, atol=1e-12)


def test_outputs_and_targets_may_be_dicts_example_by_example():
    x, y = jnp.arange(6.0).reshape(3, 2), jnp.array([0, 1, 1])
    batch, params = {"x": x, "y": y}, jnp.array([[1.0, -1.0], [0.5, 2.0]])
    criterion = lambda f, y: losses.cross_entropy(f["logits"], y)
    found = sharpness.fisher_rao(lambda w, x: {"logits": x @ w}, params, batch, criterion=criterion)
    expected = sharpness.fisher_rao(lambda w, x: x @ w, params, batch)
    assert float(found.mean) == pytest.approx(float(expected.mean), rel=1e-6)

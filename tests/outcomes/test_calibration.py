"""Calibration against other libraries' numbers and dense references, and what must be true of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppe import outcomes
from steppe.core.checks import InputError
from steppe.measures import measure
from steppe.measures.table import SCHEMA, completed
from steppe.outcomes import calibration_error, probabilities, smooth_calibration_error, temperature
from support.properties import cheap

INF = math.inf


def recorded_case(count=400, classes=5):
    """A case whose numbers by other libraries are recorded below; draws of RandomState never change."""
    random = np.random.RandomState(7)
    logits = 2 * random.randn(count, classes)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    true = p**0.6 / (p**0.6).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < random.rand(count, 1)).sum(axis=1)
    return logits, p, np.minimum(labels, classes - 1)


def reference(p, labels, bins, norm=1):
    """The definition, bin by bin."""
    confidence, right, total = p.max(-1), p.argmax(-1) == labels, []
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total.append((inside.mean(), abs(right[inside].mean() - confidence[inside].mean())))
    share, gap = np.array(total).T
    return gap.max() if norm == INF else (share @ gap**norm) ** (1 / norm)


def drawn(seed, count, classes, *, sharpen=1.0):
    """Probabilities, and labels that come with these, or with others where a forecaster is to be too sure."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(count, classes))
    labels = (logits + random.gumbel(size=(count, classes))).argmax(axis=1)
    return probabilities(sharpen * logits), labels


def test_it_gives_the_numbers_of_torchmetrics_and_netcal():
    _, p, y = recorded_case()
    # torchmetrics 1.9.0, MulticlassCalibrationError(num_classes=5, n_bins=15, norm="l1", "l2", "max"), in float32
    for norm, expected in {1: 0.12559561431, 2: 0.14657865464, INF: 0.25623598694}.items():
        assert calibration_error(p, y, norm=norm) == pytest.approx(expected, rel=1e-6)
    # netcal 1.4.0, ECE(15).measure(p, y) and MCE(15).measure(p, y), in float64
    assert calibration_error(p, y) == pytest.approx(0.12559562624710263, rel=1e-12)
    assert calibration_error(p, y, norm=INF) == pytest.approx(0.2562360765808665, rel=1e-12)


def test_the_other_scores_are_those_of_scikit_learn_relplot_and_pytorch():
    logits, p, y = recorded_case()
    # scikit-learn: log_loss(y, p); brier_score_loss(y, p, scale_by_half=False)
    assert outcomes.negative_log_likelihood(p, y) == pytest.approx(1.2665339269481375, rel=1e-12)
    assert outcomes.brier_score(p, y) == pytest.approx(0.6375934838222564, rel=1e-12)
    # relplot 1.0.3, smECE(p.max(1), p.argmax(1) == y): it searches σ in steps of 0.001 on a mesh of its own
    assert smooth_calibration_error(p, y) == pytest.approx(0.11572545157315509, abs=1e-4)
    # PyTorch: LBFGS on cross_entropy(logits / T, y) in float64
    assert temperature(logits, y) == pytest.approx(1.5693467456323884, rel=1e-7)


@pytest.mark.parametrize(("classes", "bins"), [(2, 10), (5, 1), (7, 40), (3, 1000)])
@pytest.mark.parametrize("norm", [1, 2, INF])
def test_it_is_the_definition(classes, bins, norm):
    p, y = drawn(classes, 300, classes, sharpen=2.0)
    assert calibration_error(p, y, bins=bins, norm=norm) == pytest.approx(reference(p, y, bins, norm), rel=1e-12)


def test_by_class_it_is_the_mean_over_classes():
    p, y = drawn(1, 200, 3)
    binary = [np.stack([1 - p[:, k], p[:, k]], axis=1) for k in range(3)]
    wide = lambda two, event: calibration_error(  # of one event: the other one has the same gaps
        two, event, classwise=True, bins=7, binning="mass"
    )
    each = [wide(two, (y == k).astype(int)) for k, two in enumerate(binary)]
    assert calibration_error(p, y, classwise=True, bins=7, binning="mass") == pytest.approx(np.mean(each), rel=0.2)
    expected = []
    for k in range(3):
        place = np.minimum(np.ceil(p[:, k] * 10) - 1, 9)
        parts = [place == b for b in range(10) if (place == b).any()]
        expected.append(sum(s.mean() * abs((y[s] == k).mean() - p[s, k].mean()) for s in parts))
    assert calibration_error(p, y, classwise=True, bins=10) == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("classwise", [False, True])
def test_forecasts_at_edges_lie_in_the_same_bins_in_every_precision(dtype, classwise):
    rng = np.random.default_rng(0)
    tenths = np.round(rng.uniform(size=200), 1)
    forecasts, labels = np.stack([tenths, 1 - tenths], 1), rng.integers(0, 2, 200)
    found, exact = (
        calibration_error(p, labels, bins=10, classwise=classwise) for p in (forecasts.astype(dtype), forecasts)
    )
    assert found == pytest.approx(exact, abs=1e-3)


def test_bins_of_one_mass_hold_equally_many_and_never_part_ties():
    p, y = drawn(2, 90, 4)
    assert outcomes.reliability(p, y, bins=9, binning="mass").count.tolist() == [10] * 9
    for bins in (7, 80, 200):
        sizes = [len(part) for part in np.array_split(np.arange(len(y)), bins) if len(part)]
        assert sorted(outcomes.reliability(p, y, bins=bins, binning="mass").count) == sorted(sizes)
    tied = np.repeat([0.6, 0.7, 0.9], [10, 50, 30])
    found = outcomes.reliability(np.stack([tied, 1 - tied], 1), np.zeros(90, int), bins=9, binning="mass")
    assert found.count.tolist() == [10, 50, 30]
    np.testing.assert_allclose(found.confidence, [0.6, 0.7, 0.9])


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [
        ([[1.0, 0.0]] * 4, [0, 0, 0, 0], 0.0),
        ([[1.0, 0.0]] * 4, [1, 1, 1, 1], 1.0),
        ([[0.5, 0.5]] * 4, [0, 0, 1, 1], 0.0),  # a tie: the first class is predicted
        ([0.0, 1.0, 1.0, 0.0], [0, 1, 1, 1], 0.25),  # one number for two classes
        ([[0.25], [0.75]], [False, True], 0.25),
        ([[1.0]], [1], 0.0),
        ([[0.2, 0.4, 0.4]], [1], 0.6),
    ],
)
def test_at_the_ends_at_ties_and_for_two_classes_it_is_right(p, y, expected):
    for bins in (1, 5, 15):
        for binning in ("width", "mass"):
            assert calibration_error(p, y, bins=bins, binning=binning) == pytest.approx(expected, abs=1e-12)


def test_of_the_unlikely_class_a_confidence_of_0_is_right_where_it_never_comes():
    assert calibration_error([[1.0, 0.0, 0.0]] * 3, [0, 0, 0], classwise=True) == 0.0
    assert calibration_error([[1.0, 0.0, 0.0]] * 3, [1, 1, 1], classwise=True) == pytest.approx(2 / 3)


@pytest.mark.parametrize("count", [200, 2000])
def test_of_a_calibrated_forecaster_it_is_as_large_as_chance_makes_it_and_debiased_smaller(count):
    plain, debiased, squares, expected = [], [], [], []
    for seed in range(40):
        p, y = drawn(seed, count, 3)
        bins = outcomes.reliability(p, y)
        chance = np.sqrt(2 * bins.confidence * (1 - bins.confidence) / np.pi / bins.count)
        expected.append(bins.count / count @ chance)
        plain.append(calibration_error(p, y))
        debiased.append(calibration_error(p, y, debiased=True))
        squares.append(calibration_error(p, y, norm=2, debiased=True) ** 2)
    assert np.mean(plain) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(plain) == pytest.approx(1.05 / np.sqrt(count), rel=0.1)  # it goes to 0 as 1/√n
    assert np.mean(debiased) < 0.75 * np.mean(plain)
    assert np.mean(squares) < 0.5 * np.mean(np.square(plain))


def test_the_debiased_square_is_right_in_the_mean_where_the_forecaster_is_wrong():
    found, biased = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        confidence = np.repeat([0.7, 0.9], 20)
        right = random.random(40) < confidence - 0.15
        p = np.stack([confidence, 1 - confidence], 1)
        found.append(calibration_error(p, (~right).astype(int), norm=2, bins=10, debiased=True) ** 2)
        biased.append(calibration_error(p, (~right).astype(int), norm=2, bins=10) ** 2)
    error = np.std(found) / np.sqrt(200)
    assert abs(np.mean(found) - 0.15**2) < 4 * error < abs(np.mean(biased) - 0.15**2)  # cut off at 0 now and then


@cheap
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 5), st.sampled_from(["width", "mass"]))
def test_order_and_names_of_classes_do_not_matter_and_it_lies_from_0_to_1(seed, count, classes, binning):
    p, y = drawn(seed, count, classes)
    order, names = np.random.default_rng(seed).permutation(count), np.random.default_rng(seed + 1).permutation(classes)
    for options in ({}, {"classwise": True}, {"norm": 2, "debiased": True}, {"debiased": True}):
        found = calibration_error(p, y, binning=binning, **options)
        assert 0 <= found <= 1
        again = calibration_error(p[order][:, np.argsort(names)], names[y[order]], binning=binning, **options)
        assert again == pytest.approx(found, abs=1e-9)
    assert 0 <= smooth_calibration_error(p, y) <= 1
    assert 0 <= outcomes.brier_score(p, y) <= 2


def test_the_smooth_error_is_that_of_a_kernel_that_is_reflected_at_the_ends():
    p, y = drawn(3, 150, 3, sharpen=3.0)
    found, c, r = smooth_calibration_error(p, y), p.max(1), (p.argmax(1) == y) - p.max(1)
    t = (np.arange(4000) + 0.5) / 4000
    images = [2 * k + sign * c for k in range(-2, 3) for sign in (1, -1)]
    kernel = sum(np.exp(-((t[:, None] - at) ** 2) / (2 * found**2)) for at in images) / (np.sqrt(2 * np.pi) * found)
    assert np.abs(kernel @ r / len(c)).mean() == pytest.approx(found, abs=3e-4)


def test_the_smooth_error_of_a_calibrated_forecaster_goes_to_0():
    small, large = (np.mean([smooth_calibration_error(*drawn(s, n, 3)) for s in range(5)]) for n in (100, 10000))
    assert large < 0.02 < small
    assert smooth_calibration_error([[1.0, 0.0]] * 3, [1, 1, 1]) == pytest.approx(1.0, abs=1e-3)


def test_the_temperature_undoes_a_factor_and_changes_no_prediction():
    p, y = drawn(5, 2000, 4)
    logits = np.log(p)
    base = temperature(logits, y)
    assert base == pytest.approx(1.0, abs=0.1)
    assert temperature(3 * logits, y) == pytest.approx(3 * base, rel=1e-9)
    assert calibration_error(probabilities(3 * logits / (3 * base)), y) < 0.5 * calibration_error(
        probabilities(3 * logits), y
    )
    one = logits[:, :1] - logits[:, 1:2]
    two = np.concatenate([np.zeros_like(one), one], axis=1)
    assert temperature(one, (y > 1).astype(int)) == pytest.approx(temperature(two, (y > 1).astype(int)))


def test_a_temperature_beyond_the_search_is_its_end():
    assert temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 1e-3
    assert temperature([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 1e3
    assert outcomes.temperature(np.full((4, 2), 3.0), [0, 1, 0, 1]) == 1.0, "where no class is preferred"


def test_a_label_that_was_held_impossible_has_an_infinite_loss():
    assert outcomes.negative_log_likelihood([[1.0, 0.0]], [1]) == INF
    assert outcomes.negative_log_likelihood([[1.0, 0.0]], [0]) == 0.0


def test_a_diagram_has_intervals_and_adds_up_to_the_error():
    p, y = drawn(6, 500, 3, sharpen=2.0)
    found = outcomes.reliability(p, y)
    gaps = np.abs(found.accuracy - found.confidence)
    assert found.count @ gaps / 500 == pytest.approx(calibration_error(p, y), rel=1e-12)
    assert (found.left < found.confidence).all() and (found.confidence <= found.right).all()
    assert ((found.lower <= found.accuracy) & (found.accuracy <= found.upper)).all()
    wide = outcomes.reliability(p, y, confidence=0.999)
    assert (wide.upper - wide.lower > found.upper - found.lower).all()


def test_the_intervals_of_a_diagram_hold_the_true_share_as_often_as_they_say():
    held = []
    for seed in range(150):
        found = outcomes.reliability(*drawn(seed, 200, 3), bins=4)  # calibrated: right as often as it says
        held += list((found.lower <= found.confidence) & (found.confidence <= found.upper))
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_the_temperature_of_a_calibrated_forecaster_goes_to_1():
    for count in (200, 20_000):
        logits = [np.log(drawn(seed, count, 3)[0]) for seed in range(12)]
        found = [temperature(z, drawn(seed, count, 3)[1]) for seed, z in enumerate(logits)]
        assert np.mean(found) == pytest.approx(1, abs=3 / np.sqrt(count))
        assert np.std(found) < 2.5 / np.sqrt(count)


@pytest.mark.parametrize(
    ("p", "y", "options", "message"),
    [
        (np.zeros((0, 2)), [], {}, "one example at least, got none"),
        ([[math.nan, 1.0]], [0], {}, "from 0 to 1, got nan in row 0"),
        ([[2.0, -1.0]], [0], {}, "not logits"),
        ([[0.5, 0.4]], [0], {}, "sum to 1, got a sum of 0.9 in row 0"),
        ([[0.5, 0.5]], [2], {}, "classes from 0 to 1, got 2 in row 0"),
        ([[0.5, 0.5]], [-1], {}, "classes from 0 to 1"),
        ([[0.5, 0.5]], [0, 1], {}, r"whole numbers of shape \(1,\)"),
        ([[0.5, 0.5]], [0.0], {}, "whole numbers"),
        ([[0.5, 0.5]], [[0, 1]], {}, r"argmax\(axis=-1\)"),
        ([[[0.5, 0.5]]], [0], {}, "of shape"),
        ([["a", "b"]], [0], {}, "array of numbers"),
        ([[0.5, 0.5]], [0], {"bins": 0}, "bins"),
        ([[0.5, 0.5]], [0], {"norm": 3}, "norm must be 1, 2 or math.inf"),
        ([[0.5, 0.5]], [0], {"norm": True}, "norm"),
        ([[0.5, 0.5]], [0], {"binning": "widths"}, "Did you mean 'width'"),
        ([[0.5, 0.5]], [0], {"norm": INF, "debiased": True}, "debiased"),
        ([[0.5, 0.5]], [0], {"classwise": 1}, "classwise"),
    ],
)
def test_what_is_no_forecast_is_refused_in_a_sentence(p, y, options, message):
    with pytest.raises(InputError, match=message):
        calibration_error(p, y, **options)


def test_arrays_of_other_dtypes_are_taken():
    p, y = drawn(8, 64, 3)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        narrow = jnp.asarray(p, dtype)
        assert calibration_error(narrow, jnp.asarray(y)) == pytest.approx(calibration_error(p, y), abs=0.02)
    assert calibration_error(p.round(3), y) == pytest.approx(calibration_error(p, y), abs=0.02)


# --- as measures


def apply(params, x):
    return x * params["w"]


def asked(names, logits, labels, **more):
    batches = more.pop("batches", {"x": logits.astype(np.float32), "y": labels.astype(np.int32)})
    rows = measure(names, apply=apply, params={"w": jnp.ones(logits.shape[1])}, batches=batches, **more)
    return {row.quantity: row.value for row in rows}


NAMES = ["calibration_error", "smooth_calibration_error", "brier_score", "negative_log_likelihood", "reliability"]


def test_measures_are_the_functions_however_examples_are_split():
    logits, p, y = recorded_case(50)
    batch = {"x": logits.astype(np.float32), "y": y.astype(np.int32)}
    parts = [jax.tree.map(lambda leaf, s=s: leaf[s], batch) for s in (slice(0, 20), slice(20, 40), slice(40, 50))]
    for batches in (batch, parts):
        found = asked(NAMES, logits, y, batches=batches)
        for name in NAMES[:-1]:
            assert found[name] == pytest.approx(getattr(outcomes, name)(p, y), rel=1e-4), name
        assert found["reliability"] == pytest.approx(calibration_error(p, y, norm=INF), rel=1e-5)


def test_settings_reach_the_measure():
    logits, p, y = recorded_case(50)
    settings = {"classwise": True, "norm": 2, "bins": 7, "binning": "mass"}
    found = asked("calibration_error", logits, y, settings={"calibration_error": settings})
    assert found["calibration_error"] == pytest.approx(calibration_error(p, y, **settings), rel=1e-5)


def test_without_a_validation_part_the_temperature_is_that_of_all_and_judged_by_folds():
    logits, p, y = recorded_case(200)
    found = asked("temperature", logits, y)
    assert found["temperature"] == pytest.approx(temperature(logits, y), rel=1e-5)
    assert found["scaled_negative_log_likelihood"] < outcomes.negative_log_likelihood(p, y)
    assert found["scaled_calibration_error"] < calibration_error(p, y)


def test_one_logit_is_two_classes():
    logits, _, _ = recorded_case(40)
    y = (np.arange(40) % 2).astype(int)
    one = asked([*NAMES, "temperature"], logits[:, :1], y)
    p = probabilities(logits[:, :1])
    assert one["calibration_error"] == pytest.approx(calibration_error(p, y), rel=1e-5)
    assert one["negative_log_likelihood"] == pytest.approx(outcomes.negative_log_likelihood(p, y), rel=1e-5)


def test_labels_that_do_not_count_are_left_out_of_the_measures():
    logits, p, y = recorded_case(40)
    ignored = np.where(np.arange(40) % 4 == 0, -100, y)
    kept = ignored >= 0
    found = asked([*NAMES, "temperature"], logits, ignored, ignore=-100)
    assert found["calibration_error"] == pytest.approx(calibration_error(p[kept], y[kept]), rel=1e-4)
    assert found["brier_score"] == pytest.approx(outcomes.brier_score(p[kept], y[kept]), rel=1e-4)


def test_settings_that_an_older_version_did_not_have_are_written_out():
    import polars

    row = dict.fromkeys(SCHEMA) | {"measure": "calibration_error", "settings": '{"bins": 15}', "stage": "end"}
    found = completed(polars.DataFrame([row], schema=SCHEMA), SCHEMA)["settings"].item()
    assert found == '{"binning": "width", "bins": 15, "classwise": false, "debiased": false, "norm": 1}'

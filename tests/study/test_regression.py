"""Regressions: real targets from the data to the report, without any accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from scipy import stats
from sklearn.metrics import mean_squared_error, r2_score

from steppe import InputError, data, measures, models, outcomes, study
from steppe.analysis.analysis import analyse
from steppe.core import losses
from steppe.core.predictions import RealOutputs
from steppe.data.transforms import target_noise
from steppe.report import markdown
from steppe.report.study import document
from steppe.study.store import Store
from steppe.study.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("without_surfaces")

SPEC = """
name = "tiny"
seeds = 2
baseline = "plain"
data = {name = "diabetes", validation = 0.2}
model = {name = "mlp", hidden = [4], activation = "tanh"}
loss = {name = "squared_error"}
train = {learning_rate = 0.05, batch_size = 64, epochs = 3, early_stopping = {on = "validation_loss", patience = 2}}
measure = {batches = 1, probes = 2}
landscape = {points = 3, grid_points = 3}
[[conditions]]
name = "plain"
[[conditions]]
name = "slow"
control = "plain"
"train.learning_rate" = 0.02
"""


def spec(**changes):
    return study.spec.parse(SPEC, {key.replace("__", "."): value for key, value in changes.items()})


def made(y, y_test=None, x=None):
    x = np.arange(len(y), dtype=float)[:, None] if x is None else x
    y_test = y if y_test is None else y_test
    return data.from_arrays("mine", ((x, y), (x[: len(y_test)], y_test)), real=True)


# --- Data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "outputs"),
    [
        ([0.5, 1.5, -2.0], 1),
        (np.ones((3, 1)), 1),
        (np.arange(6.0).reshape(3, 2), 2),
        ([1, 2, 3], 1),
        (np.ones((3, 5)), 5),
    ],
)
def test_real_targets_are_kept_as_numbers_and_a_network_has_as_many_outputs(y, outputs):
    found = made(np.asarray(y))
    assert found.classes == 0 and found.outputs == outputs and isinstance(found.outputs, RealOutputs)
    assert found.train["y"].dtype == np.float32
    np.testing.assert_array_equal(found.train["y"], np.asarray(y, np.float32))
    network = models.build("linear", found.shape, found.outputs)
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((4, 1), jnp.float32)
    assert jax.eval_shape(network.at(state), params, x).shape == (4, outputs)
    assert data.checked(found).fingerprint == found.fingerprint


def test_two_classes_have_one_logit_as_before():
    assert (models.base.logits(2), models.base.logits(3), models.base.logits(RealOutputs(2))) == (1, 3, 2)


@pytest.mark.parametrize(
    ("y", "y_test", "message"),
    [
        (["a", "b"], None, "y of train must be"),
        ([0.0, np.nan], None, "targets must be finite numbers, got a value nan in row 1 of train"),
        ([0.0, 1e39], None, "targets must be finite numbers"),
        (np.ones((2, 2)), np.ones((2, 3)), "targets of test must be of shape (N, 2) as those of train, got"),
        (np.ones((2, 2, 2)), None, "targets of train must be real numbers, (N,) or (N, K), got"),
        (np.ones((2, 0)), None, "targets of train must be real numbers, (N,) or (N, K), got"),
        (np.float64(1.0), None, "y of train must be real numbers, (N,) or (N, K), got"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_predicted_get_one_sentence(y, y_test, message):
    x = np.zeros((2, 1))
    with pytest.raises(InputError) as error:
        data.from_arrays("mine", ((x, y), (x, y if y_test is None else y_test)), real=True)
    assert message in str(error.value)


def test_a_file_has_real_targets_where_it_says_so(tmp_path):
    table = polars.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) ** 2, "price": np.linspace(5, 9, 20)})
    table.write_csv(tmp_path / "houses.csv")
    table[:5].write_csv(tmp_path / "more.csv")
    settings = {"file": str(tmp_path / "houses.csv"), "label": "price"}
    with pytest.raises(InputError, match="must be"):
        data.load("file", **settings)  # a number for each example is no class
    raw = data.load("file", **settings, targets="real", standardize=False)
    both = np.sort(np.concatenate([raw.train["y"], raw.test["y"]]))
    np.testing.assert_allclose(both, np.linspace(5, 9, 20), rtol=1e-6)
    assert "random split, 16 to train and 4 to test" in raw.about
    scaled = data.load("file", **settings, targets="real")
    np.testing.assert_allclose([scaled.train["y"].mean(), scaled.train["y"].std()], [0, 1], atol=1e-6)
    apart = data.load("file", **settings, targets="real", test_file=str(tmp_path / "more.csv"), standardize=False)
    np.testing.assert_allclose(apart.test["y"], np.linspace(5, 9, 20)[:5], rtol=1e-6)
    polars.DataFrame({"a": [1.0, 2.0], "price": ["x", "y"]}).write_csv(tmp_path / "text.csv")
    with pytest.raises(InputError, match="label 'price' must be numbers to predict"):
        data.load("file", file=str(tmp_path / "text.csv"), label="price", targets="real")


def test_real_targets_validate_too():
    found = data.load("diabetes", validation=50)
    assert len(found.validation["y"]) == 50 and found.validation["y"].dtype == np.float32
    np.testing.assert_allclose(data.load("diabetes").train["y"].std(), 1, rtol=1e-5)
    assert data.load("diabetes", standardize=False).train["y"].max() > 300


# --- The measure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_r_squared_is_scikit_learn_s_over_all_batches(outputs):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(30, 4)), rng.normal(size=(4, outputs))
    y = x @ w + rng.normal(size=(30, outputs)) * [0.5, 1.0, 3.0][:outputs] + 10
    batches = [{"x": jnp.asarray(x[rows], jnp.float32), "y": jnp.asarray(y[rows, 0] if outputs == 1 else y[rows])}
               for rows in (slice(0, 20), slice(20, 30))]  # fmt: skip
    found = measures.measure(["loss", "r_squared"], apply=lambda p, x: x @ p + 9.5, criterion=losses.squared_error,
                             params=jnp.asarray(w, jnp.float32), batches=batches)  # fmt: skip
    values = {row.quantity: row.value for row in found}
    predicted = x @ w + 9.5
    assert values["r_squared"] == pytest.approx(r2_score(y, predicted, multioutput="variance_weighted"), rel=1e-4)
    assert values["loss"] == pytest.approx(mean_squared_error(y, predicted), rel=1e-5)


# --- Studies ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regression") / "out"
    return folder, study.run(spec(), folder)


def test_results_are_squared_errors_and_r_squared_of_the_networks_that_are_kept(finished):
    folder, results = finished
    assert not [name for name in (*results.runs.columns,) if "accuracy" in name]
    store, dataset = Store.read(folder), spec().load_data()
    network = spec().build_model(dataset)
    for row in results.runs.iter_rows(named=True):
        params, state = store.network(row["condition"], row["seed"])
        for part in ("train", "validation", "test"):
            held = getattr(dataset, part)
            predicted = np.asarray(network.at(state)(params, held["x"]))[:, 0]
            assert row[f"{part}_loss"] == pytest.approx(mean_squared_error(held["y"], predicted), rel=1e-4)
            assert row[f"{part}_r_squared"] == pytest.approx(r2_score(held["y"], predicted), rel=1e-4, abs=1e-5)
        path = results.history.filter(condition=row["condition"], seed=row["seed"])
        best = path.sort("validation_loss").row(0, named=True)
        assert (row["selected_epoch"], row["selected_test_loss"]) == (best["epoch"], best["test_loss"])


def test_the_report_judges_by_the_test_loss_and_knows_no_accuracy(finished):
    _, results = finished
    analysis = analyse(results)
    assert analysis.judged.quantity.name == "test_loss" and analysis.judged.quantity.unit == ""
    assert [by.quantity.name for by in analysis.tested][:2] == ["test_loss", "selected_test_loss"]
    text = markdown.render(document(analysis))
    assert "Final test loss against plain" in text and "Final test R²" in text
    assert "accuracy" not in text.lower() and "nats" not in text and "entropy" not in text.partition("## Provenance")[0]
    assert "true difference in test loss of" in text
    assert "Test loss and tr(H²) by condition" in [section.title for section in document(analysis).sections]


def test_a_study_of_means_and_standard_deviations_is_judged_by_its_intervals(tmp_path):
    names = ["interval_calibration", "root_mean_squared_error"]
    changes = {"loss.name": "gaussian_negative_log_likelihood", "measure.names": names, "train.early_stopping": None}
    asked = study.spec.parse(SPEC, changes | {"seeds": 1, "train.epochs": 1, "analysis.primary": "test_interval_error"})
    found = study.run(asked, tmp_path / "study")
    store, dataset = Store.read(tmp_path / "study"), asked.load_data()
    params, state = store.network("plain", 0)
    batch = dataset.decode(dataset.test)
    outputs = np.asarray(asked.build_model(dataset).at(state)(params, batch["x"]), float)
    (mean, scale), y = np.split(outputs, 2, axis=1), np.asarray(batch["y"], float).reshape(-1, 1)
    row, ours = found.runs.row(0, named=True), outcomes.interval_calibration(mean, np.exp(scale), y)
    assert outputs.shape[1] == 2 and row["test_interval_error"] == pytest.approx(ours.error, abs=1e-6)
    assert row["test_loss"] == pytest.approx(-stats.norm.logpdf(y, mean, np.exp(scale)).mean(), rel=1e-5)
    assert row["test_root_mean_squared_error"] == pytest.approx(np.sqrt(mean_squared_error(y, mean)), rel=1e-5)
    assert row["test_r_squared"] == pytest.approx(r2_score(y, mean), rel=1e-4, abs=1e-5)
    assert list(analyse(study.gathered(store)).measurements.diagrams.intervals) == ["plain", "slow"]


def test_data_of_one_s_own_with_vectors_to_predict_are_trained_on(tmp_path, monkeypatch):
    (tmp_path / "vectors.py").write_text(
        "import numpy as np\n"
        "def made():\n    x = np.linspace(-1, 1, 40)[:, None]\n    y = np.hstack([x, x**2])\n"
        "    return (x, y), (x, y)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = spec(data={"name": "vectors:made", "validation": 8}, augment=[{"name": "target_noise", "sigma": 0.1}])
    recipe = Recipe.of(found.model_copy(update={"train": found.train.model_copy(update={"batch_size": 8})}),
                       found.load_data())  # fmt: skip
    progress, value, *_ = jax.eval_shape(recipe.epoch, jax.eval_shape(recipe.start, jnp.uint32(0), {}), {},
                                         recipe.dataset.train)  # fmt: skip
    assert value.shape == () and progress.params["layers"][1]["bias"].shape == (2,)
    noisy = target_noise(0.5)(jax.random.key(0), {"x": 0, "y": jnp.zeros((4, 2))}, None)["y"]
    assert set(np.unique(noisy)) == {-0.5, 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"name": "cross_entropy"}}, "loss.name must be 'squared_error' for data with real targets"),
        ({"data": {"name": "moons", "validation": 0.2}}, "loss.name must be a loss of classes, which these data have"),
        ({"train__early_stopping": {"on": "validation_accuracy", "patience": 1}},
         "train.early_stopping.on must be 'validation_loss' for data with real targets"),
        ({"equivalence": {"test_accuracy": 0.01}}, "test_accuracy"),
        ({"augment": [{"name": "mixup"}]}, "mixup: classes must be"),
        ({"augment": [{"name": "label_noise"}]}, "label_noise: classes must be"),
        ({"method": {"name": "fa", "lam": 0.1, "curvature": "closed_form"}}, "closed_form"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_for_real_targets_gets_one_sentence(changes, message):
    with pytest.raises(InputError) as error:
        found = spec(**changes)
        Recipe.of(found, found.load_data()).rehearse({})
    assert message in str(error.value)

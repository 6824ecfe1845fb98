"""The parts of training that a specification puts together: chains of methods, losses, averages, controls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest

from steppe import InputError, models, study
from steppe.analysis.analysis import analyse
from steppe.core import losses
from steppe.measures.registry import lookup
from steppe.report import markdown
from steppe.report.study import document
from steppe.report.tables.comparisons import against_controls
from steppe.report.wording.conclusion import conclusion
from steppe.study.examination import Examination
from steppe.study.questions import Question, Sample
from steppe.study.training.recipe import Recipe, shape_of
from support.networks import dense_hessian

pytestmark = pytest.mark.usefixtures("without_surfaces")

SPEC = """
name = "tiny"
seeds = 1
baseline = "plain"
data = {name = "moons", examples = 40, test_examples = 50}
model = {name = "mlp", hidden = [4], activation = "tanh"}
method = {name = "fa", lam = 0.0}
train = {learning_rate = 0.05, batch_size = 20, epochs = 4}
measure = {batches = 2, probes = 2}
landscape = {points = 3, grid_points = 3}
[[conditions]]
name = "plain"
"""


def spec(*conditions, **changes):
    tables = "".join(f"[[conditions]]\n{condition}\n" for condition in conditions)
    return study.spec.parse(SPEC + tables, {key.replace("__", "."): value for key, value in changes.items()})


def test_a_specification_with_every_part_freezes_to_itself():
    found = spec(then=[{"name": "fa", "lam": 0.1}], augment=[{"name": "mixup"}], average={"name": "ema"},
                 loss={"name": "smoothed_cross_entropy"}, method={"name": "sam"})  # fmt: skip
    assert study.spec.parse(found.toml()) == found
    assert (found.then[0]["probes"], found.augment[0]["alpha"], found.loss["smoothing"]) == (5, 0.2, 0.1)


@pytest.mark.slow
def test_every_part_is_a_line_of_a_condition_and_changes_what_is_trained(tmp_path):
    lines = {
        "two methods": 'method = {name = "sam"}\nthen = [{name = "fa", lam = 0.1, every = 1}]',
        "the first alone": 'method = {name = "sam"}',
        "loss": 'loss = {name = "smoothed_cross_entropy"}',
        "unhinged": 'loss = {name = "unhinged"}',
        "noise": 'augment = [{name = "label_noise", chance = 0.3}]',
        "two transforms": 'augment = [{name = "mixup", alpha = 1.0}, {name = "fgsm", radius = 0.1}]',
        "attack": 'augment = [{name = "pgd", radius = 0.1}]',
        "ema": 'average = {name = "ema", decay = 0.9}',
        "swa": 'average = {name = "swa", start = 0.5}',
        "exact": 'method = {name = "hsr", lam = 0.1, every = 1, moments = "closed_form"}',
        "exact fa": 'method = {name = "fa", lam = 0.1, every = 1, curvature = "closed_form"}',
    }
    found = study.run(spec(*(f'name = "{name}"\n{line}' for name, line in lines.items())), tmp_path).runs
    assert set(found["status"]) == {"finished"}
    assert found["test_loss"].n_unique() == 1 + len(lines)
    # whatever was trained on, cross-entropy is measured
    assert found.filter(polars.col("condition") == "unhinged")["test_loss"][0] > 0


@pytest.mark.slow
def test_an_average_is_what_is_tested_and_kept(tmp_path):
    found = study.run(spec('name = "last"\naverage = {name = "ema", decay = 0.0}',
                           'name = "mean"\naverage = {name = "swa", start = 0.5}'), tmp_path)  # fmt: skip
    store = study.Store.read(tmp_path)
    plain, last, mean = (jax.tree.map(jnp.asarray, store.params(c, 0)) for c in ("plain", "last", "mean"))
    jax.tree.map(np.testing.assert_array_equal, plain, last)
    dataset = spec().load_data()
    apply = models.build("mlp", dataset.shape, dataset.classes, hidden=(4,), activation="tanh").at({})
    rows = found.runs.filter(polars.col("condition") == "mean")
    np.testing.assert_allclose(rows["test_loss"][0], losses.of(apply)(mean, dataset.test), rtol=1e-5)
    assert not np.allclose(plain["layers"][0]["kernel"], mean["layers"][0]["kernel"])


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("hidden", "activation"), [((4,), "tanh"), ((), "relu"), ((3,), "softplus")])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_s_moments_are_those_of_the_dense_hessian(x64, hidden, activation, classes):
    model = models.mlp((3,), classes, hidden=hidden, activation=activation)
    params = jax.tree.map(lambda w: w.astype(jnp.float64), model.init(jax.random.key(0)).params)
    x, y = jax.random.normal(jax.random.key(1), (6, 3), jnp.float64), jnp.array([0, 1, 1, 0, 1, classes - 1])
    H = dense_hessian(losses.of(model.at({})), params, {"x": x, "y": y})
    found = model.moments(params, x, y)
    np.testing.assert_allclose(
        [found.trace.mean, found.frobenius_squared.mean], [jnp.trace(H), jnp.sum(H**2)], rtol=1e-9
    )


def test_networks_without_a_closed_form_say_so():
    assert models.mlp((3,), 2, hidden=(4,), activation="relu").moments is None
    assert models.mlp((3,), 2, hidden=(4, 4), activation="tanh").moments is None


@pytest.mark.slow
def test_measuring_seldom_trains_the_same_network(tmp_path):
    often, seldom = (study.run(spec(measure__every=every), tmp_path / str(every)) for every in (1, 3))
    assert often.history["epoch"].to_list() == [1, 2, 3, 4] and seldom.history["epoch"].to_list() == [3, 4]
    for column in ("train_loss", "test_loss", "batch_frobenius_squared", "epochs", "steps"):
        assert often.runs[column].to_list() == seldom.runs[column].to_list()
    each, rare = (found.history["objective"].to_list() for found in (often, seldom))
    np.testing.assert_allclose(rare, [np.mean(each[:3]), each[3]], rtol=1e-6)
    assert often.history["train_loss"][-1] == seldom.history["train_loss"][-1]


@pytest.mark.slow
def test_the_loss_of_a_history_is_the_cross_entropy_of_the_training_data_whatever_is_trained_on(tmp_path):
    found = study.run(spec('name = "other"\nloss = {name = "unhinged"}\naugment = [{name = "mixup"}]'), tmp_path)
    dataset, store = spec().load_data(), study.Store.read(tmp_path)
    apply = models.build("mlp", dataset.shape, dataset.classes, hidden=(4,), activation="tanh").at({})
    for condition in ("plain", "other"):
        params = jax.tree.map(jnp.asarray, store.params(condition, 0))
        last = found.history.filter(polars.col("condition") == condition)["train_loss"][-1]
        np.testing.assert_allclose(last, losses.of(apply)(params, dataset.train), rtol=1e-5)


def test_the_loss_of_large_data_is_measured_on_a_part_of_them():
    recipe = Recipe.of(shape_of(spec())[0], spec().load_data())
    network, train = recipe.initial(jnp.uint32(0)), jax.tree.map(jnp.asarray, recipe.dataset.train)
    rows = np.random.default_rng(0).permutation(40)[:15]
    part = jax.tree.map(lambda leaf: leaf[rows], train)
    for most, expected in ((15, part), (90, train)):
        question = Question(lookup("loss"), {}, Sample("train", most, 6), 1)
        examination = Examination(recipe.model, recipe.dataset, [question])
        (row,) = examination.answers(network, 1, last=False)
        np.testing.assert_allclose(row["value"], losses.of(recipe.model.at({}))(network.params, expected), rtol=1e-5)
        assert row["examples"] == min(most, 40)


BAD = {
    'then = [{name = "sam"}]': r"then must be of methods that add to the gradient, got 'sam', which replaces it\.",
    'then = [{name = "fa"}]': r"then\.0\.lam must be given",
    'method = {name = "hsr", lam = 0.1, moments = "exact"}': r"method\.moments must be 'closed_form'",
    'augment = [{name = "mixp"}]': r"augment\.0\.name must be one of .* Did you mean 'mixup'",
    'augment = [{name = "fgsm", radius = -1.0}]': r"fgsm: radius must be",
    'loss = {name = "hinge"}': r"loss\.name must be one of .* Did you mean 'unhinged'",
    'average = {name = "mean"}': r"average\.name must be 'ema' or 'swa'",
    'control = "nobody"': r"control of 'bad' must be one of 'plain', got 'nobody'",
    'average = {name = "swa", decay = 0.3}': r"average must be of its own settings",
    'method = {name = "fa", lam = 0.1, curvature = "closed_form", matrix = "ggn"}': r"method\.matrix must be 'hessian'",
    'method = {name = "fa", lam = 0.1, curvature = "closed_form", microbatches = 2}': r"method\.microbatches must be 1",
    "control = 3": r"conditions\.control must be the name of a condition, got 3",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_parts_get_one_sentence(line):
    with pytest.raises(InputError, match=BAD[line]):
        spec(f'name = "bad"\n{line}')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__activation": "relu"}, "method must be without closed_form for this study"),
        ({"loss": {"name": "smoothed_cross_entropy"}}, "method must be without closed_form for this study"),
        ({"train__penalty_dropout": True}, "method must be without closed_form for this study"),
        ({"augment": [{"name": "mixup"}]}, "three_layer: y must be integer labels"),
        ({"augment": [{"name": "crop"}]}, "crop: .* must be"),
    ],
)
def test_parts_that_do_not_fit_stop_before_anything_is_trained(tmp_path, changes, message):
    method = {"name": "hsr", "lam": 0.1, "moments": "closed_form"}
    with pytest.raises(InputError, match=message):
        study.run(spec(method=method, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tracked_epochs_are_measured_epochs():
    with pytest.raises(InputError, match=r"track\.every must be a multiple of measure\.every, 2, got 3"):
        spec(track={"every": 3}, measure__every=2)


def test_early_stopping_looks_at_every_epoch():
    with pytest.raises(InputError, match=r"measure\.every must be 1 with early stopping"):
        spec(train__early_stopping={"patience": 2}, measure__every=2)


@pytest.fixture(scope="module")
def controlled():
    """Results of conditions whose controls differ: one gains on its control, the other does not."""
    rng, rows = np.random.default_rng(0), []
    means = {"plain": 0.80, "longer": 0.85, "good": 0.90, "idle": 0.85}
    for condition, mean in means.items():
        for seed in range(5):
            noise = 0.005 * rng.standard_normal()
            rows.append({"condition": condition, "seed": seed, "status": "finished", "test_accuracy": mean + noise,
                         "best_test_accuracy": mean, "batch_frobenius_squared": 1.0 + noise,
                         "test_loss": 1 - mean + noise, "train_seconds": 1.0})  # fmt: skip
    return study.Results(
        name="r", title="R", about="", baseline="plain", conditions=tuple(means), planned=20,
        runs=polars.DataFrame(rows), history=polars.DataFrame(), surfaces=None, published=(), provenance={}, notes=(),
        spec_toml="", controls={"good": "longer", "idle": "longer"},
    )  # fmt: skip


def test_a_control_is_compared_besides_the_baseline(controlled):
    found = analyse(controlled)
    accuracy = found.controls["test_accuracy"].comparisons
    assert set(accuracy) == {"good", "idle"}
    np.testing.assert_allclose(accuracy["good"].difference, 0.05, atol=0.01)
    assert accuracy["good"].welch.corrected == pytest.approx(2 * accuracy["good"].welch.p)
    assert "Against its control, final test accuracy was significantly higher under good (control: longer)" in (
        conclusion(found)
    )
    accuracy_table, loss_table = (against_controls(by, found.control_cost) for by in found.controls.values())
    judged = analyse(dataclasses.replace(controlled, primary="test_accuracy", family=("test_accuracy",)))
    assert against_controls(judged.controls["test_loss"], found.control_cost).caption.startswith("Exploratory: ")
    assert [row[0].text for row in accuracy_table.rows] == ["good", "idle"]
    assert accuracy_table.rows[0][0].detail == "control longer, at 1.00 × its time [1.00, 1.00]"
    assert loss_table.rows[0][2].text.startswith("−0.05")
    assert "## Final test loss against controls" in markdown.render(document(found))


def test_without_controls_nothing_is_said_of_them(controlled):
    alone = dataclasses.replace(controlled, controls={})
    found = analyse(alone)
    assert found.controls == {} and "control" not in markdown.render(document(found))

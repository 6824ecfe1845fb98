"""Curvature tracked during training: what the columns say, when they are there, and that nothing else changes."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest

from steppe import InputError, curvature, data, models, report, sharpness, study
from steppe.analysis.analysis import analyse
from steppe.analysis.curves import TRACKED, tracked_curve
from steppe.core import losses
from steppe.measures import table
from steppe.report.figures import tracking as tracked
from steppe.study.spec.tables import Train
from steppe.study.training import chain, preconditioning, tracking
from steppe.study.training.chain import stability_limit
from steppe.study.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("without_surfaces")

TOML = """
name = "tiny"
seeds = 2
data = {name = "breast-cancer"}
model = {name = "mlp", hidden = [3], activation = "tanh"}
method = {name = "fa", lam = 0.0}
measure = {batches = 1, probes = 1}
landscape = {points = 3, grid_points = 3, examples = 8}
[train]
optimizer = "sgd"
momentum = 0.5
learning_rate = 0.1
schedule = "constant"
batch_size = 64
epochs = 4
[track]
every = 2
examples = 300
probes = 3
every_updates = 5
[grid]
"train.learning_rate" = [0.1, 0.05]
"""


def spec(**overrides):
    return study.spec.parse(TOML, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tracked")
    return study.run(spec(), directory), directory


@pytest.mark.slow
def test_curvature_is_there_after_the_first_and_every_second_epoch(finished):
    history = finished[0].history
    columns = ("trace", "frobenius_squared_sem", "top_eigenvalue_converged", "bottom_eigenvalue", "stability_limit")
    for column in columns:
        there = history.filter(history[column].is_not_null())
        assert (sorted(set(there["epoch"])), len(there)) == ([1, 2, 4], 3 * 4)


def test_the_last_values_are_those_of_the_dense_hessian_of_the_final_network(finished):
    store, dataset = study.Store.read(finished[1]), data.load("breast-cancer")
    model = models.build("mlp", dataset.shape, dataset.classes, hidden=(3,), activation="tanh")
    rows = np.random.default_rng(0).permutation(len(dataset.train["y"]))[:300]
    batch = dataset.decode(jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), dataset.train))
    for condition in ("learning_rate=0.1", "learning_rate=0.05"):
        params = jax.tree.map(jnp.asarray, store.params(condition, 1))
        H = curvature.hessian(losses.of(model.at({})), params, batch).dense()
        last = finished[0].history.filter(condition=condition, seed=1).tail(1).to_dicts()[0]
        values = np.linalg.eigvalsh(H)
        np.testing.assert_allclose(last["top_eigenvalue"], values[-1], rtol=1e-4)
        np.testing.assert_allclose(last["bottom_eigenvalue"], values[0], atol=1e-4 * values[-1])
        np.testing.assert_allclose(last["spectral_range"], values[-1] - values[0], rtol=1e-4)
        record = finished[0].runs.filter(condition=condition, seed=1).to_dicts()[0]
        assert all(record[name] == last[name] for name in ("top_eigenvalue", "bottom_eigenvalue", "spectral_range"))
        assert last["top_eigenvalue_converged"] and last["top_eigenvalue_residual"] < 1e-2 * last["top_eigenvalue"]
        assert abs(last["trace"] - np.trace(H)) <= 6 * last["trace_sem"]
        assert abs(last["frobenius_squared"] - np.sum(H**2)) <= 6 * last["frobenius_squared_sem"]


@pytest.mark.slow
def test_the_last_epoch_is_tracked_and_measured_whatever_the_stride(tmp_path):
    found = study.run(spec(seeds=1, measure__every=3, track__every=3), tmp_path).history
    assert set(found["epoch"]) == {3, 4}
    assert found["top_eigenvalue"].is_not_null().all()


def test_the_spectrum_has_a_table_and_is_compared_at_equal_training_loss(finished):
    found = analyse(finished[0])
    assert {"batch_frobenius_squared", "top_eigenvalue", "spectral_range", "test_loss"} <= set(found.equal_loss)
    titles = [section.title for section in report.study.document(found).sections]
    assert {"Hessian spectrum at the end of training", "Comparison at equal training loss"} <= set(titles)


@pytest.mark.slow
def test_a_run_that_stops_early_is_tracked_at_its_end(tmp_path):
    settings = {
        "seeds": 1,
        "track__every": 50,
        "train__epochs": 50,
        "train__early_stopping": {"patience": 1, "min_delta": 9.0},
    }
    found = study.run(spec(**settings), tmp_path)
    assert found.runs["epochs"].to_list() == [2, 2] and found.runs["spectral_range"].is_not_null().all()


@pytest.mark.slow
def test_training_is_the_same_with_and_without(finished, tmp_path):
    plain = study.run(
        study.spec.parse(TOML.replace("[track]\nevery = 2\nexamples = 300\nprobes = 3\nevery_updates = 5\n", "")),
        tmp_path,
    )
    for column in ("train_loss", "test_accuracy", "batch_frobenius_squared"):
        assert plain.history[column].to_list() == finished[0].history[column].to_list()
    assert plain.history["top_eigenvalue"].is_null().all()


def test_the_edge_of_stability_of_momentum_decay_and_schedules():
    train = {"learning_rate": 0.1, "batch_size": 1, "epochs": 1}
    limit = lambda update=0, **options: stability_limit(Train(**train, **options), 100, update)
    assert limit(optimizer="adam") is None
    np.testing.assert_allclose(limit(optimizer="sgd", momentum=0.0, schedule="constant"), 20, rtol=1e-6)
    np.testing.assert_allclose(limit(optimizer="sgd", momentum=0.5, schedule="constant"), 30, rtol=1e-6)
    np.testing.assert_allclose(
        limit(optimizer="sgd", momentum=0.0, schedule="constant", weight_decay=1.0), 19, rtol=1e-6
    )
    np.testing.assert_allclose(limit(50, optimizer="sgd", momentum=0.0, schedule="cosine"), 40, rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_descent_on_a_quadratic_diverges_just_above_the_limit_and_not_below(momentum):
    import optax

    train = Train(learning_rate=0.1, batch_size=1, epochs=1, optimizer="sgd", momentum=momentum, schedule="constant")
    limit = stability_limit(train, 1, 0)
    for curvature_, diverges in ((0.98 * limit, False), (1.02 * limit, True)):
        tx = optax.sgd(0.1, momentum=momentum or None)
        w, state = jnp.ones(()), tx.init(jnp.ones(()))
        for _ in range(600):
            updates, state = tx.update(curvature_ * w, state)
            w = w + updates
        assert bool(abs(w) > 1) == diverges


def test_figures_show_every_quantity_and_the_edge(finished):
    pictures = tracked.pictures(analyse(finished[0]).tracked)
    assert [p.alt.split(" over")[0] for p in pictures] == [
        *("λ_max of the Hessian", "λ_c of updates", "λ_min of the Hessian", "tr H", "tr(H²)")
    ]
    assert ["edge of stability" in picture.caption for picture in pictures] == [True, False, False, False, False]


def test_an_adaptive_optimiser_is_drawn_with_its_own_edge():
    name = "preconditioned_sharpness"
    values = {name: [20.0, 40.0], f"{name}_residual": [0.1, 0.2], f"{name}_converged": [True, True]}
    rows = polars.DataFrame({"epoch": [1, 2], "preconditioned_limit": [38.0, 38.0], **values})
    curve = tracked_curve(rows, name)
    nothing = {other: {"a": tracked_curve(polars.DataFrame(), other)} for other in TRACKED}
    (picture,) = tracked.pictures(nothing | {name: {"a": curve}})
    assert picture.alt.startswith("λ_max of P^(-1/2) H P^(-1/2) over epochs: a ends at 40")
    assert curve.limit.tolist() == [38, 38] and "edge of stability: that of the optimiser" in picture.caption


def test_bad_settings_get_one_sentence():
    with pytest.raises(InputError, match=r"study: track.every must be greater than 0, got 0"):
        spec(track__every=0)
    with pytest.raises(InputError, match=r"Did you mean 'examples'"):
        spec(track__exmples=10)


UPDATES = """
name = "updates"
seeds = 1
data = {name = "breast-cancer"}
model = {name = "linear"}
measure = {batches = 1, probes = 1, every = 2}
landscape = {points = 3, grid_points = 3, examples = 8}
[train]
optimizer = "sgd"
momentum = 0.0
learning_rate = 0.1
batch_size = 455
epochs = 4
[track]
examples = 30
every = 2
probes = 1
every_updates = 3
"""
"""Gradient descent, of which an update can be done by hand."""


def test_critical_sharpness_is_asked_of_every_fifth_update_and_averaged_for_the_epoch(finished):
    rows = table.read(finished[1]).filter(measure="critical_sharpness", quantity="critical_sharpness", seed=0)
    rows = rows.filter(condition="learning_rate=0.1")
    each, means = rows.filter(rows["update"].is_not_null()), rows.filter(rows["update"].is_null())
    assert each["update"].to_list() == [5, 10, 15, 20, 25] and each["epoch"].to_list() == [1, 2, 3, 3, 4]
    assert each["converged"].all() and (each["residual"] <= each["value"] / 16).all()
    assert means["epoch"].to_list() == [1, 2, 3, 4]
    np.testing.assert_allclose(
        means["value"], each.group_by("epoch", maintain_order=True).agg(polars.col("value").mean())["value"]
    )
    record = finished[0].runs.filter(condition="learning_rate=0.1", seed=0)
    assert record["critical_sharpness"].to_list() == each["value"].to_list()[-1:]


@pytest.mark.slow
def test_it_is_that_of_the_very_update_and_batch():
    dataset = data.load("breast-cancer")
    asked = study.spec.parse(UPDATES, {"train.batch_size": len(dataset.train["y"]) // 2})
    recipe = Recipe.of(asked, dataset)
    train, epoch = jax.tree.map(jnp.asarray, dataset.train), jax.jit(recipe.epoch)
    progress = epoch(recipe.start(jnp.uint32(0), {}), {}, train)[0]  # two updates; the third is the first of the next
    found = epoch(progress, {}, train)[2]
    shuffle = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), zlib.crc32(b"shuffle")), progress.epoch)
    order = jax.random.permutation(shuffle, recipe.examples)[: asked.train.batch_size]
    batch = dataset.decode(jax.tree.map(lambda leaf: leaf[order], train))
    loss, rate = losses.of(recipe.model.at({})), chain.learning_rate(asked.train, 8)(2)
    update = jax.tree.map(lambda g: -rate * g, jax.grad(loss)(progress.params, batch))
    expected = sharpness.critical_sharpness(loss, progress.params, update, batch, learning_rate=rate)
    np.testing.assert_allclose(found.sharpness[0], expected.sharpness, rtol=1e-5)
    assert found.status.tolist() == [0, tracking.NOT_ASKED]


def test_a_study_that_asks_nothing_of_updates_trains_with_the_program_of_a_plain_one():
    dataset = data.load("breast-cancer")

    def program(text):
        recipe = Recipe.of(study.spec.parse(text), dataset)
        progress = jax.eval_shape(recipe.start, jnp.uint32(0), {})
        return str(jax.make_jaxpr(recipe.epoch)(progress, {}, dataset.train))

    tracked, (plain, _) = UPDATES.replace("every_updates = 3\n", ""), UPDATES.split("[track]")
    assert program(plain) == program(tracked)
    assert "while" not in program(plain) and "while" in program(UPDATES)
    assert "every_updates" not in study.spec.parse(tracked).identity()["track"]


def test_updates_without_a_crossing_say_why_and_do_not_count_in_the_mean():
    spec = study.spec.parse(UPDATES)
    found = sharpness.CriticalSharpness(
        *(np.array([0.0, value, np.nan]) for value in (4.0, 0.5, 0.4, 0.6)),
        np.array([False, True, False]),
        np.array([tracking.NOT_ASKED, 0, int(sharpness.Crossing.RISES_AT_ONCE)]),
        np.array([0, 6, 30]),
    )
    rows = list(tracking.rows(spec, 7, 3, [found]))
    values = [(row.get("update"), row["value"]) for row in rows if row["quantity"] == "critical_sharpness"]
    assert values[0] == (8, 4.0) and values[1][0] == 9 and np.isnan(values[1][1]) and values[2] == (None, 4.0)
    notes = [row["note"] for row in rows][:3]
    assert notes[1] == sharpness.Crossing.RISES_AT_ONCE.note and "1 of 2 updates" in notes[2]
    assert list(tracking.rows(spec, 7, 3, [])) == []


@pytest.mark.slow
def test_adam_is_compared_with_its_own_limit(tmp_path):
    asked = UPDATES.replace("every_updates = 3", "preconditioned = true").replace("momentum = 0.0\n", "")
    asked = asked.replace('optimizer = "sgd"', 'optimizer = {name = "adam", b1 = 0.5}\nschedule = "constant"')
    study.run(study.spec.parse(asked), tmp_path)
    rows = table.read(tmp_path).filter(epoch=4)
    value = lambda name: rows.filter(quantity=name)["value"].to_list()
    assert value("preconditioned_limit") == pytest.approx([(2 + 2 * 0.5) / (1 - 0.5) / 0.1])
    assert value("preconditioned_sharpness")[0] > value("top_eigenvalue")[0]  # |g| is below 1
    assert rows.filter(quantity="preconditioned_sharpness")["converged"].all()


def test_an_optimiser_that_does_not_precondition_is_refused_in_one_sentence():
    for changes, words in (
        ({"optimizer": "sgd"}, "left out with the optimiser 'sgd'"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "left out with train.weight_decay"),
    ):
        with pytest.raises(InputError, match=words):
            preconditioning.settings_of(Train(learning_rate=0.1, batch_size=1, epochs=1, **changes))
    known = preconditioning.settings_of(
        Train(learning_rate=0.1, batch_size=1, epochs=1, optimizer="adamw", weight_decay=0.1)
    )
    assert known["weight_decay"] == 0.1 and known["b1"] == 0.9
    rms = {"name": "rmsprop", "momentum": 0.9}
    assert preconditioning.settings_of(Train(learning_rate=0.1, batch_size=1, epochs=1, optimizer=rms)) == {
        "decay": 0.9, "eps": 1e-8, "eps_in_sqrt": True, "momentum": 0.9, "nesterov": False,
    }  # fmt: skip

"""`steppe measure`: measures by name, runs and one's own parameters, the table on disk, pages, what is refused.

The table in docs/measures.md is the registry's: run ``python tests/networks/test_measurement.py`` after it has changed.
"""

import dataclasses
import fnmatch
import json
import math
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import polars
import pytest
from safetensors.numpy import save_file

from fuzzing.damage import aged
from steppe import InputError, report, sharpness, study
from steppe.analysis.measurements import compare_measurements
from steppe.analysis.verdict import Verdict
from steppe.core import losses
from steppe.data.dataset import Dataset, as_it_is
from steppe.measures import MEASURES
from steppe.measures import run as measures
from steppe.measures import table as stored
from steppe.measures.subject import Subject
from steppe.networks import measurement as measuring
from steppe.networks.network import check_split
from steppe.networks.runs import finished_runs
from steppe.networks.settings import Settings, UserNetwork
from steppe.report.wording.measurements import notes
from steppe.study.progress import Watcher
from support.command import run
from support.networks import dense_hessian, mlp_apply, mlp_batch, mlp_params
from support.runs import result_of

DOCS = Path(__file__).parents[2] / "docs" / "measures.md"


def relu_apply(params, x):
    return mlp_apply(params, x, jax.nn.relu)


def relu_loss(params, batch):
    return losses.cross_entropy(relu_apply(params, batch["x"]), batch["y"])


PARAMS, INITIAL = mlp_params(0, sizes=(3, 5, 3)), mlp_params(1, sizes=(3, 5, 3))
BATCHES = [mlp_batch(1, size=8, classes=3), mlp_batch(2, size=8, classes=3)]


def rescaled(params, factors):
    """The same function of other weights: hidden nodes times factors, what leaves them by the inverse."""
    first, last = params
    factors = jnp.asarray(factors, first["w"].dtype)
    return [
        {"w": first["w"] * factors[None], "b": first["b"] * factors},
        {**last, "w": last["w"] / factors[:, None]},
    ]


def quantities(rows):
    return {row.quantity: row for row in rows}


# --- by name, in Python


def test_names_are_found_in_the_registrys_order_and_sets_lie_within_each_other():
    quick, standard, every = (measures.select(name) for name in ("quick", "standard", "all"))
    named = {name for name, known in MEASURES.items() if known.chosen == "named"}
    assert set(quick) < set(standard) < set(every) == set(MEASURES) - named
    assert measures.select(["sam_sharpness", "loss", "sam_sharpness"]) == ["loss", "sam_sharpness"]
    with pytest.raises(InputError, match="Did you mean 'trace'"):
        measures.select(["tracee"])
    with pytest.raises(InputError, match="an empty one"):
        measures.select([])


def test_each_measure_says_what_it_asks_costs_and_needs():
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert "?" in measure.question and measure.cost
        assert measure.invariance in ("nodes", "layers", "none")
        assert all(not callable(value) for value in measure.defaults.values())


def test_five_lines_measure_a_network_of_ones_own():
    rows = measures.measure(["loss", "trace", "sam_sharpness"], loss=relu_loss, params=PARAMS, batches=BATCHES)
    found = quantities(rows)
    assert list(found) == ["loss", "trace", "sam_sharpness"]
    everything = {key: jnp.concatenate([batch[key] for batch in BATCHES]) for key in ("x", "y")}
    np.testing.assert_allclose(found["loss"].value, relu_loss(PARAMS, everything), rtol=1e-6)
    H = dense_hessian(relu_loss, PARAMS, everything)
    assert abs(found["trace"].value - jnp.trace(H)) <= 4 * found["trace"].sem
    assert found["trace"].settings == {"probes": 32}
    assert polars.DataFrame(rows.__iter__()).shape == (3, 8)


def test_a_loss_alone_leaves_out_what_is_measured_of_outputs_and_says_so():
    taken = []
    names = ["loss", "fisher_rao", "accuracy", "distance_from_initialisation"]
    rows = measures.measure(names, loss=relu_loss, params=PARAMS, batches=BATCHES, progress=taken.extend)
    found = quantities(rows)
    assert taken == rows
    assert found["loss"].converged and not found["fisher_rao"].converged
    assert np.isnan(found["fisher_rao"].value)
    assert "not measured: fisher_rao: apply must be given" in found["fisher_rao"].note
    assert "initial must be given" in found["distance_from_initialisation"].note
    with pytest.raises(InputError, match="apply must be given"):
        measures.measure(["fisher_rao"], loss=relu_loss, params=PARAMS, batches=BATCHES)


@pytest.mark.slow
def test_settings_reach_their_measure_and_probes_only_traces():
    options = {"sam_sharpness": {"rho": 0.2}}
    rows = measures.measure(
        ["sam_sharpness", "trace"], apply=relu_apply, params=PARAMS, batches=BATCHES, settings=options, probes=7
    )
    found = quantities(rows)
    expected = sharpness.sam_sharpness(relu_loss, PARAMS, BATCHES, rho=0.2).mean
    np.testing.assert_allclose(found["sam_sharpness"].value, expected, rtol=1e-5)
    assert found["trace"].settings == {"probes": 7}
    assert measures.resolve("spectral_density", probes=7)["probes"] == 4
    with pytest.raises(InputError, match="Did you mean 'rho'"):
        measures.measure(["sam_sharpness"], apply=relu_apply, params=PARAMS, batches=BATCHES,
                          settings={"sam_sharpness": {"rhoo": 1}})  # fmt: skip
    with pytest.raises(InputError, match="rho must be a finite number"):
        measures.measure(["loss", "sam_sharpness"], apply=relu_apply, params=PARAMS, batches=BATCHES,
                          settings={"sam_sharpness": {"rho": -1}})  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": relu_loss}, "one of the two, got both"),
        ({"apply": None}, "one of the two, got neither"),
        ({"initial": {"w": jnp.zeros(3)}}, "initial must be of the parameters' structure"),
        ({"params": jax.tree.map(lambda w: w * jnp.inf, PARAMS)}, "loss must be finite"),
        ({"params": {"n": jnp.zeros(3, int)}}, "floating-point array"),
        ({"batches": []}, "non-empty list"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(change, message):
    given = {"apply": relu_apply, "params": PARAMS, "batches": BATCHES} | change
    with pytest.raises(InputError, match=message):
        measures.measure(["loss"], **given)


def test_an_eigenvalue_that_has_not_converged_says_so_and_of_what_it_is_a_bound():
    loss = lambda w, batch: jnp.sum(jnp.linspace(1.0, 2.0, 200) * w**2) / 2 + 0.0 * jnp.mean(batch)
    settings = {"top_eigenvalues": {"count": 2, "max_products": 8}}
    given = {"loss": loss, "params": jnp.ones(200), "batches": jnp.ones(1)}
    for row in measures.measure(["top_eigenvalues"], settings=settings, **given):
        assert not row.converged and np.isnan(row.sem)
        assert row.note.startswith("not converged, residual") and row.note.endswith("lower bound")
        assert row.value < 2.0 + 1e-5


def test_a_scale_beyond_its_search_is_censored_and_says_on_which_side():
    apply = lambda w, x: 100.0 + 0.0 * w[0] + x  # always right, whatever the noise
    batch = {"x": jnp.ones((4, 1)), "y": jnp.ones(4, int)}
    found = quantities(measures.measure(["pac_bayes"], apply=apply, params=jnp.ones(2), batches=batch))
    assert not found["pac_bayes_sigma"].converged
    assert found["pac_bayes_sigma"].note == "censored, at least that: accuracy holds"
    assert found["pac_bayes_flatness"].note == "censored, at most that: the scale is a bound"
    assert "pac_bayes_init" not in found  # without initial parameters


def test_logits_that_are_normalised_need_outputs():
    settings = {"adaptive_average_sharpness": {"normalise_logits": True, "draws": 3}}
    given = {"names": ["adaptive_average_sharpness"], "params": PARAMS, "batches": BATCHES, "settings": settings}
    (row,) = measures.measure(apply=relu_apply, **given)
    normalised = losses.of(sharpness.logit_normalised(relu_apply))
    key = Subject(apply=relu_apply, params=PARAMS, batches=BATCHES).key_of("adaptive_average_sharpness")
    expected = sharpness.average_sharpness(normalised, PARAMS, BATCHES, rho=0.1, draws=3, adaptive=True, key=key)
    np.testing.assert_allclose(row.value, expected.mean, rtol=1e-6)
    with pytest.raises(InputError, match="False where only a loss is known"):
        measures.measure(loss=relu_loss, **given)


@pytest.fixture(scope="module")
def everywhere():
    """All measures of one network, and of the same function with its layers, or its nodes, rescaled."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return _everywhere()


def _everywhere():
    networks = {
        "same": (PARAMS, INITIAL),
        "layers": tuple(rescaled(p, 5 * [3.0]) for p in (PARAMS, INITIAL)),
        "nodes": tuple(rescaled(p, [0.5, 3.0, 2.0, 0.25, 1.5]) for p in (PARAMS, INITIAL)),
    }
    given = {"apply": relu_apply, "batches": BATCHES, "settings": {"interpolating_information": {"examples": 4}}}
    return {
        name: quantities(measures.measure("all", params=params, initial=initial, **given))
        for name, (params, initial) in networks.items()
    }


@pytest.mark.slow
def test_every_measure_gives_numbers_for_a_classifier(everywhere):
    rows = everywhere["same"].values()
    assert {row.measure for row in rows} == set(measures.select("all"))
    refused = {row.measure for row in rows if row.note.startswith("not measured")}
    assert refused == {name for name in measures.select("all") if MEASURES[name].needs in ("targets", "intervals")}
    assert all(np.isfinite(row.value) for row in rows if row.measure not in refused)
    assert all(row.note for row in rows if not row.converged)
    for row in rows:  # no measure of a user's own may give a quantity of that name
        patterns = MEASURES[row.measure].quantities if row.measure not in refused else ()
        patterns = patterns or (row.measure,)
        assert any(fnmatch.fnmatchcase(row.quantity, pattern) for pattern in patterns), row


@pytest.mark.slow
@pytest.mark.parametrize("name", measures.select("all"))
def test_a_measure_does_not_change_under_what_the_registry_says_and_otherwise_does(everywhere, name):
    same, layers, nodes = (
        {row.quantity: row.value for row in everywhere[kind].values() if row.measure == name and row.converged}
        for kind in ("same", "layers", "nodes")
    )
    close = lambda other: all(np.isclose(other.get(q, np.nan), v, rtol=2e-2, atol=1e-6) for q, v in same.items())
    known = MEASURES[name].invariance
    assert close(layers) == (known != "none"), (same, layers)
    assert close(nodes) == (known == "nodes"), (same, nodes)


@pytest.mark.slow
def test_numbers_of_curvature_are_those_of_the_dense_hessian(everywhere):
    everything = {key: jnp.concatenate([batch[key] for batch in BATCHES]) for key in ("x", "y")}
    values = np.linalg.eigvalsh(np.asarray(dense_hessian(relu_loss, PARAMS, everything), np.float64))
    found = everywhere["same"]
    for name, expected in {"trace": values.sum(), "frobenius_squared": (values**2).sum()}.items():
        assert abs(found[name].value - expected) <= 4 * found[name].sem, name
    for i in range(5):
        np.testing.assert_allclose(found[f"top_eigenvalue_{i + 1}"].value, values[-1 - i], rtol=1e-3)
    np.testing.assert_allclose(found["bottom_eigenvalue"].value, values[0], atol=1e-4)
    np.testing.assert_allclose(found["spectral_range"].value, values[-1] - values[0], rtol=1e-3)
    positive = values.clip(0)
    for name, expected in {
        "soft_rank": (positive / (positive + 0.01)).sum(), "negative_share": (values < -1e-2).mean()
    }.items():  # fmt: skip
        assert abs(found[name].value - expected) <= 4 * found[name].sem + 0.05 * expected, name
    assert found["wolkowicz_styan_max_upper"].value > values[-1]


# --- runs of a study

FEW = ("loss", "accuracy", "distance_from_initialisation", "sam_sharpness", "fisher_rao")


@pytest.fixture
def tiny(small_study, tmp_path):
    """A small finished study."""
    return Path(shutil.copytree(small_study, tmp_path / "study"))


class Counting(Watcher):
    """Counts measures that are taken, and ends after so many."""

    def __init__(self, most=1_000_000):
        self.total = self.skipped = self.taken = 0
        self.most = most

    def begin(self, epochs):
        self.total = epochs

    def skip(self, epochs):
        self.skipped += epochs

    def points(self, count):
        self.taken += count
        if self.taken >= self.most:
            raise KeyboardInterrupt


def take(*paths, own=None, out=None, watcher=None, **settings):
    chosen = Settings(**({"measures": FEW} | settings))
    return measuring.measure(
        measuring.read_targets(list(paths), own or UserNetwork(), chosen, out), chosen, watcher=watcher
    )


@pytest.mark.slow
def test_rows_are_complete_and_agree_with_the_runs_they_are_of(tiny):
    found = take(tiny)
    rows = polars.read_parquet(tiny / "measurements.parquet")
    assert dict(rows.schema) == stored.SCHEMA
    rows = rows.filter(polars.col("stage") == "later")  # the runs' own rows are there, too
    assert rows.shape[0] == 4 * len(FEW) and found.rows.equals(rows)
    lacking = ("probes", "residual", "update")
    assert rows.null_count().select(polars.exclude(lacking)).row(0) == (0,) * (len(stored.SCHEMA) - len(lacking))
    assert rows["fingerprint"].n_unique() == rows.shape[0]
    for row in rows.filter(polars.col("quantity").is_in(["loss", "accuracy"])).to_dicts():
        record = result_of(tiny, row["run"])
        np.testing.assert_allclose(row["value"], record[f"train_{row['quantity']}"], rtol=1e-5)
        assert (row["condition"], row["seed"]) == (record["condition"], record["seed"])
    first = rows.to_dicts()[0]
    assert (first["examples"], first["batch_size"], first["split"], first["dtype"]) == (48, 48, "train", "float32")
    assert first["source"].endswith("study/runs/lam=0-s0")


@pytest.mark.slow
def test_the_parameters_before_training_are_those_that_the_run_began_with(tiny):
    spec = study.load(str(tiny / "study.toml"), {"train.epochs": 1, "train.learning_rate": 1e-12, "name": "still"})
    study.run(spec, tiny.parent / "still")
    rows = take(tiny.parent / "still", measures=("distance_from_initialisation",)).rows
    assert rows["value"].max() < 1e-4
    assert take(tiny, measures=("distance_from_initialisation",)).rows["value"].min() > 0.1


@pytest.mark.slow
def test_what_is_there_is_not_measured_again_and_other_settings_are(tiny, monkeypatch):
    before = take(tiny).rows
    counting = Counting()
    assert take(tiny, watcher=counting).rows.equals(before)
    assert (counting.total, counting.skipped, counting.taken) == (20, 20, 0)
    assert take(tiny, watcher=counting, examples=10).rows["examples"].unique().to_list() == [10]
    assert counting.taken == 20
    one = take(tiny / "runs" / "lam=0-s1", options={"sam_sharpness": {"rho": 0.3}}, watcher=counting).rows
    assert counting.taken == 21
    assert one["run"].unique().to_list() == ["lam=0-s1"]
    # other parameters under the same name are another network
    params = dict(np.load(aged(tiny) / "runs" / "lam=0-s0" / "parameters.npz"))
    np.savez(tiny / "runs" / "lam=0-s0" / "parameters.npz", **{k: 2 * v for k, v in params.items()})
    take(tiny, watcher=counting)
    assert counting.taken == 21 + len(FEW)


@pytest.mark.slow
def test_interrupted_it_goes_on_with_the_next_measure_to_the_same_numbers(tiny):
    whole = take(Path(shutil.copytree(tiny, tiny.parent / "whole"))).rows
    with pytest.raises(KeyboardInterrupt):
        take(tiny, watcher=Counting(most=7))
    kept = polars.read_parquet(tiny / "measurements.parquet").filter(polars.col("stage") == "later")
    assert kept.shape[0] == 7
    counting = Counting()
    again = take(tiny, watcher=counting).rows
    assert (counting.skipped, counting.taken) == (7, 13)
    same = [name for name in stored.SCHEMA if name not in ("measure_seconds", "host", "source")]
    assert again.select(same).equals(whole.select(same))


def test_another_process_that_measures_there_is_refused(tiny):
    table = stored.Table(tiny)
    with pytest.raises(InputError, match="another process measures into"):
        take(tiny)
    table.close()
    take(tiny, measures=("loss",))


def test_runs_that_diverged_are_left_out_and_named(tiny):
    path = aged(tiny) / "runs" / "lam=0.1-s1" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "diverged"}))
    found = take(tiny / "runs", measures=("loss",))
    assert found.rows["run"].to_list() == ["lam=0-s0", "lam=0-s1", "lam=0.1-s0"]
    assert found.notes == ("Runs that diverged are left out: lam=0.1-s1.",)
    with pytest.raises(InputError, match="which diverged"):
        take(tiny / "runs" / "lam=0.1-s1")


@pytest.mark.slow
def test_float64_and_the_test_part_are_asked_by_name(tiny):
    rows = take(tiny, measures=("loss",), split="test", dtype="float64").rows
    record = result_of(tiny, "lam=0-s0")
    np.testing.assert_allclose(rows["value"][0], record["test_loss"], rtol=1e-5)
    assert rows["examples"][0] == 12
    single = take(tiny, measures=("loss",), split="test").rows
    assert rows["value"][0] != single["value"][0]
    np.testing.assert_allclose(rows["value"][0], single["value"][0], rtol=1e-5)


def test_validation_examples_are_a_part_where_the_data_have_them():
    part = {"x": np.ones((3, 2), np.float32), "y": np.zeros(3, np.int32)}
    known = Dataset("toy", part, part, as_it_is, (2,), 2, "toy", "0", part)
    networks = [SimpleNamespace(name="lam=0-s0", dataset=known)]
    check_split("measure", networks, "validation")
    assert Settings(("loss",), split="validation").checked().split == "validation"
    networks.append(SimpleNamespace(name="lam=1-s0", dataset=dataclasses.replace(known, validation=None)))
    with pytest.raises(
        InputError, match=r"--split must be a part of the data of lam=1-s0, got 'validation'\. Its study"
    ):
        check_split("measure", networks, "validation")


@pytest.mark.slow
def test_the_command_measures_a_study_and_its_report_has_a_section(tiny, monkeypatch, capsys):
    names = "loss,sam_sharpness,spectral_density"
    status, out, err = run(monkeypatch, capsys, "measure", tiny, "--measures", names, "--batch-size", 16)
    assert status == 0, err
    assert re.search(r"26 parameters, 48 examples; estimated peak memory .* \(by formula\)\.\n", err)
    assert "sam_sharpness" in out and "Report: " in out
    page = (tiny / "report.html").read_text()
    assert "Sharpness and curvature" in page and "SAM sharpness" in page and "share of negative" in page
    assert "How are the Hessian&#39;s eigenvalues distributed?" in page
    assert "Spectral density: lam=0 up to" in page
    with np.load(tiny / "densities.npz", allow_pickle=False) as file:
        rows = polars.read_parquet(tiny / "measurements.parquet").filter(polars.col("measure") == "spectral_density")
        for mark in rows["fingerprint"]:
            grid, density = file[f"{mark}/grid"], file[f"{mark}/density"]
            np.testing.assert_allclose(density.sum() * (grid[1] - grid[0]), 1.0, rtol=1e-4)
    assert run(monkeypatch, capsys, "report", tiny)[0] == 0
    assert (tiny / "report.html").read_text() == page


def seeds_of(results):
    return {condition: range(results.runs["seed"].n_unique()) for condition in results.conditions}


@pytest.mark.slow
def test_the_comparison_is_welchs_with_holms_correction_and_bounds_are_not_tested(tiny):
    take(tiny)
    results = study.gathered(study.Store.read(tiny))
    rows = polars.read_parquet(tiny / "measurements.parquet")
    rng = np.random.default_rng(0)
    level = polars.when(polars.col("condition") == "lam=0").then(1.0).otherwise(50.0)
    later = polars.col("stage") == "later"
    drawn = level * (1 + 0.01 * polars.Series(rng.random(rows.shape[0])))
    rows = rows.with_columns(value=polars.when(later).then(drawn).otherwise("value"))
    bound = (polars.col("quantity") == "fisher_rao") & (polars.col("run") == "lam=0.1-s1")
    rows = rows.with_columns(converged=~bound, note=polars.when(bound).then(polars.lit("censored")).otherwise("note"))
    rows.write_parquet(aged(tiny) / "measurements.parquet")
    results = study.gathered(study.Store.read(tiny))
    found = compare_measurements(results, seeds_of(results))
    assert found.quantities["sam_sharpness"].verdict("lam=0.1") is Verdict.HIGHER
    assert found.quantities["sam_sharpness"].comparisons["lam=0.1"].difference == pytest.approx(math.log(50), rel=0.01)
    assert found.quantities["fisher_rao"].verdict("lam=0.1") is Verdict.UNTESTABLE
    assert found.quantities["fisher_rao"].bounds == {"lam=0": 0, "lam=0.1": 1}
    assert "The loss itself differs significantly" in notes(found)[0]
    page = report.write(results, tiny)[2].read_text()
    assert "1 of 2 only bounds" in page and "× 50, p " in page
    # a baseline that is a bound, and conditions alike
    bound = (polars.col("quantity") == "fisher_rao") & (polars.col("run") == "lam=0-s1")
    drawn = 1 + 0.01 * polars.Series(rng.random(rows.shape[0]))
    alike = rows.with_columns(value=polars.when(later).then(drawn).otherwise("value"), converged=~bound)
    alike.write_parquet(tiny / "measurements.parquet")
    results = study.gathered(study.Store.read(tiny))
    alike = compare_measurements(results, seeds_of(results)).quantities["fisher_rao"]
    assert alike.comparisons["lam=0.1"].welch.status == "bounds" and alike.verdict("lam=0.1") is Verdict.UNTESTABLE
    section = report.write(results, tiny)[2].read_text().partition('class="measured"')[2].partition("</section>")[0]
    assert "no difference shown" in section and "cannot tell: some values are only bounds" in section


@pytest.mark.slow
def test_of_several_measurements_by_one_measure_the_last_one_is_reported(tiny):
    results = study.gathered(study.Store.read(tiny))
    assert compare_measurements(results, seeds_of(results)) is None
    take(tiny, examples=10)
    take(tiny / "runs" / "lam=0.1-s1", measures=("loss",))
    results = study.gathered(study.Store.read(tiny))
    found = compare_measurements(results, seeds_of(results))
    assert found.rows.filter(polars.col("measure") == "loss")["examples"].to_list() == [48]
    assert found.rows.filter(polars.col("measure") == "fisher_rao")["examples"].to_list() == [10] * 4
    assert notes(found) == ["Other measurements, with other settings or examples, are in measurements.parquet."]


def test_a_table_that_is_damaged_or_of_another_form_is_named(tiny):
    (tiny / "measurements.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match=r"measurements\.parquet must be what was written there"):
        take(tiny)
    (tiny / "measurements.parquet.sha256").unlink()
    polars.DataFrame({"a": [1]}).write_parquet(tiny / "measurements.parquet")
    with pytest.raises(InputError, match="a table of this version's columns"):
        take(tiny)


# --- parameters of one's own

MINE = """
import jax, jax.numpy as jnp

def apply(p, x):
    hidden = jax.nn.relu(x @ p["layers/0/kernel"] + p["layers/0/bias"])
    return hidden @ p["layers/1/kernel"] + p["layers/1/bias"]

def nested(p, x):
    return apply({f"layers/{i}/{k}": v for i, layer in p["layers"].items() for k, v in layer.items()}, x)

def normed(p, x):
    return apply(p, (x - p["mean"]) * p["steps"])

def scaled(p, x):
    return apply(p, (x - p["mean"]) / jnp.sqrt(p["var"] + 1e-5))

def several():
    return [{"x": jnp.ones((4, 3)), "y": jnp.zeros(4, int)}, {"x": jnp.zeros((2, 3)), "y": jnp.ones(2, int)}]
"""


@pytest.fixture
def own(tiny, monkeypatch):
    """A folder with a run's network as a user might have it, in all three forms, its functions and data."""
    here = tiny.parent
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(MINE)
    flat = dict(np.load(tiny / "runs" / "lam=0-s0" / "parameters.npz"))
    np.savez("net.npz", **flat)
    save_file(flat, "net.safetensors")
    nested = {"layers": {i: {k: flat[f"layers/{i}/{k}"] for k in ("kernel", "bias")} for i in "01"}}
    with ocp.StandardCheckpointer() as writer:
        writer.save(here / "net", nested)
    train = finished_runs("test", [tiny / "runs" / "lam=0-s0"])[0].dataset.train
    np.savez("data.npz", x=train["x"], y=train["y"])
    table = {f"f{i}": train["x"][:, i] for i in range(3)} | {"kind": train["y"]}
    polars.DataFrame(table).write_csv("data.csv")
    polars.DataFrame(table).write_parquet("data.parquet")
    yield here
    sys.modules.pop("mine", None)


@pytest.mark.slow
def test_all_forms_of_a_file_give_the_numbers_of_the_run(own):
    names = ("loss", "accuracy", "trace", "sam_sharpness", "fisher_rao")
    expected = take(own / "study" / "runs" / "lam=0-s0", measures=names).rows["value"]
    for name, function, data, label in (
        ("net.npz", "apply", "data.npz", None),
        ("net.safetensors", "apply", "data.csv", "kind"),
        ("net", "nested", "data.parquet", "kind"),
    ):
        said = UserNetwork(apply=f"mine:{function}", data=data, label=label)
        rows = take(Path(name), own=said, measures=names, out=own / "out").rows
        np.testing.assert_allclose(rows["value"], expected, rtol=2e-5)
        assert rows["source"].unique().to_list() == [name]
        assert rows["condition"].unique().to_list() == [name] and rows["seed"].null_count() == len(rows)


@pytest.mark.slow
def test_whole_numbers_and_excluded_arrays_go_to_the_function_and_are_no_parameters(own):
    flat = dict(np.load("net.npz"))
    np.savez("more.npz", **flat, steps=np.array(1), mean=np.zeros(3, np.float32))
    names, more = ("loss", "trace", "fisher_rao"), Path("more.npz")
    said = UserNetwork(apply="mine:apply", data="data.npz")
    plain = take(Path("net.npz"), own=said, measures=names, out=own / "a")
    said = UserNetwork(apply="mine:normed", data="data.npz", exclude=("mean",))
    held = take(more, own=said, measures=names, out=own / "b")
    np.testing.assert_allclose(held.rows["value"], plain.rows["value"], rtol=1e-5)
    assert held.notes == ("more.npz: 2 of 6 arrays stay fixed and go to the loss: mean, steps.",)
    assert set(held.rows["remark"]) == {"2 of 6 arrays stay fixed and go to the loss: mean, steps."}


@pytest.mark.slow
def test_statistics_in_a_file_stay_fixed_unless_asked_and_every_place_says_so(own, monkeypatch, capsys):
    flat = dict(np.load("net.npz"))
    np.savez("stats.npz", **flat, steps=np.array(1), mean=np.full(3, 0.5, np.float32), var=np.ones(3, np.float32))
    words = ["measure", "stats.npz", "--apply", "mine:scaled", "--data", "data.npz", "--measures", "loss,fisher_rao"]
    status, out, err = run(monkeypatch, capsys, *words, "--out", "kept")
    assert status == 0, err
    said = "3 of 7 arrays stay fixed and go to the loss: mean, steps, var. Taken for statistics of normalisation: mean,"
    place = Path("kept/measures.html").read_text()
    rows = polars.read_parquet("kept/measurements.parquet")
    assert said in place and said in " ".join(out.split()) and all(remark.startswith(said) for remark in rows["remark"])
    assert run(monkeypatch, capsys, *words, "--perturb-statistics", "--out", "moved")[0] == 0
    moved = polars.read_parquet("moved/measurements.parquet")
    assert "Perturbed as parameters, as asked: mean, var" in Path("moved/measures.html").read_text()
    assert moved["value"][0] == rows["value"][0]  # the loss
    assert abs(moved["value"][1] / rows["value"][1] - 1) > 1e-3  # a norm over parameters
    assert all(remark.startswith("1 of 7 arrays stay fixed and go to the loss: steps.") for remark in moved["remark"])


def test_ones_own_network_is_measured_in_float64_too(own):
    said = UserNetwork(apply="mine:apply", data="data.npz")
    single = take(Path("net.npz"), own=said, measures=("loss",), out=own / "out").rows["value"][0]
    double = take(Path("net.npz"), own=said, measures=("loss",), out=own / "out", dtype="float64").rows["value"][0]
    flat, data = (dict(np.load(name)) for name in ("net.npz", "data.npz"))
    flat = {name: array.astype(np.float64) for name, array in flat.items()}
    hidden = np.maximum(data["x"] @ flat["layers/0/kernel"] + flat["layers/0/bias"], 0)
    logits = (hidden @ flat["layers/1/kernel"] + flat["layers/1/bias"])[:, 0]
    exact = np.mean(np.logaddexp(0, np.where(data["y"] == 1, -logits, logits)))
    np.testing.assert_allclose(double, exact, rtol=1e-12)
    assert single != double


@pytest.mark.slow
def test_batches_from_a_function_are_taken_as_they_are(own):
    said = UserNetwork(apply="mine:apply", data="mine:several")
    rows = take(Path("net.npz"), own=said, measures=("loss",), out=own / "out", examples=3).rows
    assert rows["examples"].to_list() == [6] and rows["dataset"].to_list() == ["mine:several"]


def test_another_body_of_the_users_function_is_another_network(own):
    said, counting = UserNetwork(apply="mine:apply", data="data.npz"), Counting()
    before = take(Path("net.npz"), own=said, out=own / "out", watcher=counting, measures=("loss",)).rows
    Path("mine.py").write_text(MINE.replace("nn.relu", "nn.tanh"))
    del sys.modules["mine"]
    shutil.rmtree("__pycache__", ignore_errors=True)
    after = take(Path("net.npz"), own=said, out=own / "out", watcher=counting, measures=("loss",)).rows
    assert counting.taken == 2 and before["value"][0] != after["value"][0]


def test_the_command_measures_ones_own_parameters_on_a_page_of_its_own(own, monkeypatch, capsys):
    names = "loss,sam_sharpness,fisher_rao"
    words = ["measure", "net.npz", "--apply", "mine:apply", "--data", "data.npz", "--measures", names]
    status, out, err = run(monkeypatch, capsys, *words, "--initial", "net.npz")
    assert status == 0, err
    assert "Report: out/net/measures.html" in out
    page = Path("out/net/measures.html").read_text()
    assert "<script" not in page and "mine:apply" in page and "sam_sharpness" in page
    assert run(monkeypatch, capsys, *words)[0] == 0
    assert Path("out/net/measures.html").read_text() == page
    status, out, err = run(
        monkeypatch, capsys, *words, "--set", "sam_sharpness.rho=0.1", "--set", "fisher_rao.layers=none"
    )
    assert status == 0, err
    rows = polars.read_parquet("out/net/measurements.parquet").filter(polars.col("measure") == "sam_sharpness")
    assert [json.loads(text)["rho"] for text in rows["settings"]] == [0.05, 0.1]


def test_a_file_name_cannot_inject_markup(own):
    name = "<img src=x onerror=alert(1)>.npz"
    shutil.copy("net.npz", name)
    take(Path(name), own=UserNetwork(apply="mine:apply", data="data.npz"), measures=("loss",), out=own / "out")
    page = report.write_measures(own / "out").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


SIZE = """
from steppe.measures import Quantity

def size(subject, *, unit: int = 1):
    yield Quantity("parameters_in_units", subject.size / unit)
"""


def test_an_edited_measure_of_a_users_own_is_asked_anew(own, monkeypatch, capsys):
    command = ("measure", "net.npz", "--apply", "mine:apply", "--data", "data.npz", "--measures", "sizes:size,loss")
    command += ("--set", "sizes:size.unit=2", "--out", "counted")
    Path("sizes.py").write_text(SIZE)
    for _ in range(2):
        status, _, err = run(monkeypatch, capsys, *command)
        assert status == 0, err
    (before,) = stored.read(Path("counted")).filter(measure="sizes:size").to_dicts()
    Path("sizes.py").write_text(SIZE.replace("/ unit", "/ unit + 1"))
    assert run(monkeypatch, capsys, *command)[0] == 0
    again, after = stored.read(Path("counted")).filter(measure="sizes:size").to_dicts()
    assert again == before and after["value"] == before["value"] + 1 and after["fingerprint"] != before["fingerprint"]
    assert json.loads(before["settings"])["unit"] == 2
    page = Path("counted/measures.html").read_text()
    assert "User-defined measures" in page and "sizes:size" in page


# --- what is listed


def test_lists_name_every_measure_with_its_cost(monkeypatch, capsys):
    _, out, _ = run(monkeypatch, capsys, "list", "measures")
    lines = out.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(MEASURES)
    assert "cost ⅔; unchanged by rescaling nodes" in out
    assert "sam_sharpness" in run(monkeypatch, capsys, "list")[1]


def table() -> str:
    """The registry as Markdown."""
    needs = {
        "loss": "a loss",
        "outputs": "outputs",
        "labels": "outputs, labels",
        "targets": "outputs, real targets",
        "intervals": "means and scales, real targets",
        "initial": "initial parameters",
    }
    under = {"nodes": "nodes", "layers": "layers", "none": "–"}
    lines = ["| measure | question | cost | unchanged by rescaling | needs | in |", "|---|---|---|---|---|---|"]
    for m in MEASURES.values():
        cells = (
            f"`{m.name}`",
            m.question,
            m.cost,
            under[m.invariance],
            "two networks, labels" if m.networks > 1 else needs[m.needs],
            m.chosen if m.chosen != "named" else "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_table_in_the_docs_is_the_registry():
    assert table() in DOCS.read_text(encoding="utf-8"), "run python tests/networks/test_measurement.py"


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(re.sub(r"\| measure \|.*?\n(?!\|)", lambda _: table(), text, count=1, flags=re.S), "utf-8")

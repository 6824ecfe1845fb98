"""Whether two networks agree: functions of arrays, the order of hidden units, and measures of two networks."""

import itertools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from rich.console import Console

from steppe import InputError, outcomes, study
from steppe.analysis.diagrams import Diagrams
from steppe.analysis.measurements import by_seed, compare_measurements, network_measurements
from steppe.measures import measure
from steppe.networks import measurement
from steppe.networks.settings import Settings, UserNetwork
from steppe.report.document import Table
from steppe.report.measures import networks_document
from steppe.report.terminal.measures import show
from support.networks import mlp_apply, mlp_batch, mlp_params

SIZES = (3, 6, 5, 3)
APPLY, BATCH = mlp_apply, mlp_batch(0, size=16, classes=3)


def drawn(seed, count=30, classes=4):
    return outcomes.probabilities(np.random.default_rng(seed).normal(scale=2, size=(count, classes)))


def shuffled(params, seed=0):
    """The same perceptron, its hidden units in another order."""
    random, params = np.random.default_rng(seed), [dict(layer) for layer in params]
    for one, after in itertools.pairwise(params):
        order = random.permutation(len(one["b"]))
        one["w"], one["b"], after["w"] = one["w"][:, order], one["b"][order], after["w"][order]
    return params


def test_the_functions_are_their_definitions():
    p, q, y = drawn(0), drawn(1), np.random.default_rng(2).integers(0, 4, 30)
    one, two = p.argmax(1), q.argmax(1)
    assert outcomes.disagreement(p, q) == np.mean(one != two) == outcomes.disagreement(q, p)
    assert outcomes.churn(p, q, y) == np.mean((one == y) != (two == y))
    m = (p + q) / 2
    expected = 0.5 * np.mean((p * np.log(p / m) + q * np.log(q / m)).sum(1))
    assert outcomes.jensen_shannon(p, q) == pytest.approx(expected, rel=1e-12)
    for function in (outcomes.disagreement, outcomes.jensen_shannon):
        assert function(p, p) == 0
    assert outcomes.jensen_shannon([1.0], [0.0]) == pytest.approx(np.log(2))


def test_alignment_of_kernels_is_the_mean_over_quadruples_and_blind_to_rotation_shift_and_scale():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(7, 2)), random.normal(size=(7, 5))
    kernels = [x @ x.T for x in (a, b)]

    def hsic(K, L):  # Song et al. 2012, equation 4: the mean over four different examples
        quads = itertools.permutations(range(7), 4)
        return np.mean([K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in quads])

    K, L = kernels
    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert outcomes.linear_cka(a, b) == pytest.approx(expected, rel=1e-9)
    turn = np.linalg.qr(random.normal(size=(2, 2)))[0]
    assert outcomes.linear_cka(a @ turn * 3 + 1, b) == pytest.approx(outcomes.linear_cka(a, b), rel=1e-9)
    plain = lambda x, y: np.sum((x.T @ y) ** 2)
    x, y = a - a.mean(0), b - b.mean(0)
    assert outcomes.linear_cka(a, b, debiased=False) == pytest.approx(
        plain(x, y) / np.sqrt(plain(x, x) * plain(y, y)), rel=1e-9
    )


def test_of_unrelated_features_the_debiased_alignment_is_0_in_the_mean_and_the_other_is_not():
    pairs = [np.random.default_rng(seed).normal(size=(2, 20, 60)) for seed in range(40)]
    found = [outcomes.linear_cka(*pair) for pair in pairs]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(40)
    assert np.mean([outcomes.linear_cka(*pair, debiased=False) for pair in pairs]) > 0.7
    assert np.isnan(outcomes.linear_cka(np.ones((5, 2)), pairs[0][0][:5]))


def test_a_network_with_its_units_in_another_order_is_brought_back_exactly():
    start = mlp_params(0, sizes=SIZES)
    found = outcomes.align(APPLY, start, shuffled(start), BATCH["x"])
    jax.tree.map(np.testing.assert_array_equal, found, start)


def test_another_network_keeps_its_outputs_and_comes_no_farther():
    start, end = mlp_params(0, sizes=SIZES), mlp_params(1, sizes=SIZES)
    found = outcomes.align(APPLY, start, end, BATCH["x"])
    np.testing.assert_allclose(APPLY(found, BATCH["x"]), APPLY(end, BATCH["x"]), rtol=1e-4, atol=1e-5)
    away = lambda params: sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(*map(jax.tree.leaves, (params, start))))  # noqa: B905
    assert away(found) < away(end)
    torch_like = lambda params: [{"w": layer["w"].T, "b": layer["b"]} for layer in params]
    turned = lambda params, x: APPLY(torch_like(params), x)
    again = outcomes.align(turned, torch_like(start), torch_like(end), BATCH["x"])
    jax.tree.map(np.testing.assert_array_equal, torch_like(again), found)


def test_what_is_no_perceptron_is_refused():
    one = {"w": jnp.eye(3)}
    with pytest.raises(InputError, match="one of 1 dense layers"):
        outcomes.align(lambda p, x: x @ p["w"], one, one, BATCH["x"])
    skip = lambda p, x: APPLY(p, x) + x @ (p[0]["w"] @ p[1]["w"]) @ p[2]["w"]
    params = mlp_params(0, sizes=SIZES)
    with pytest.raises(InputError, match="chain of dense layers"):
        outcomes.align(skip, params, shuffled(params), BATCH["x"])
    mixing = lambda p, x: jnp.cumsum(jnp.tanh(x @ p["a"]), -1) @ p["b"]
    a, b = (
        {"a": jnp.asarray(m[:3]), "b": jnp.asarray(m[3:].T)} for m in np.random.default_rng(0).normal(size=(2, 6, 5))
    )
    with pytest.raises(InputError, match="change with the order"):
        outcomes.align(mixing, a, b, BATCH["x"])


NAMES = ["disagreement", "churn", "jensen_shannon", "linear_cka", "barrier", "weight_average"]


def compared(params, other, batch=BATCH, **more):
    rows = measure(NAMES, apply=APPLY, params=params, other=other, batches=batch, **more)
    return {row.quantity: row for row in rows}


def test_measures_of_two_networks_are_the_functions():
    a, b = mlp_params(0, sizes=SIZES), mlp_params(1, sizes=SIZES)
    found, p, q = compared(a, b), *(outcomes.probabilities(APPLY(params, BATCH["x"])) for params in (a, b))
    assert found["disagreement"].value == outcomes.disagreement(p, q)
    assert found["churn"].value == outcomes.churn(p, q, BATCH["y"])
    assert found["jensen_shannon"].value == pytest.approx(outcomes.jensen_shannon(p, q), rel=1e-5)
    hidden = [outcomes_before(params) for params in (a, b)]
    assert found["linear_cka"].value == pytest.approx(outcomes.linear_cka(*hidden), rel=1e-4)
    middle = jax.tree.map(lambda u, v: (u + v) / 2, a, b)
    assert found["average_accuracy"].value == np.mean(APPLY(middle, BATCH["x"]).argmax(1) == BATCH["y"])


def outcomes_before(params):
    """What enters the last layer."""
    x = BATCH["x"]
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x


def test_a_barrier_of_order_alone_is_gone_once_units_are_aligned():
    a = jax.tree.map(lambda leaf: 3 * leaf, mlp_params(0, sizes=SIZES))
    b, batch = shuffled(a), BATCH | {"y": APPLY(a, BATCH["x"]).argmax(1)}  # a network that is right
    settings = {name: {"align": True} for name in ("barrier", "weight_average")}
    plain, aligned = compared(a, b, batch), compared(a, b, batch, settings=settings)
    assert plain["disagreement"].value == 0 and plain["loss_barrier"].value > 0.01
    assert aligned["loss_barrier"].value == aligned["error_barrier"].value == 0
    own = measure(["loss", "accuracy"], apply=APPLY, params=a, batches=batch)
    assert aligned["average_loss"].value == pytest.approx(own[0].value, rel=1e-5)


def test_without_a_second_network_nothing_is_compared():
    with pytest.raises(InputError, match="disagreement: other must be given: it compares two networks"):
        measure(["disagreement"], apply=APPLY, params=mlp_params(0, sizes=SIZES), batches=BATCH)
    with pytest.raises(InputError, match="other must be of the parameters' structure"):
        compared(mlp_params(0, sizes=SIZES), mlp_params(0, sizes=(3, 4, 3)))


# --- of finished runs and of files


def test_pairs_of_seeds_are_measured_once_and_written_with_both_names(small_study, tmp_path):
    folder = Path(shutil.copytree(small_study, tmp_path / "study"))
    settings = Settings(("loss", "disagreement", "barrier"), examples=8)
    ask = lambda: measurement.measure(measurement.read_targets([folder], UserNetwork(), settings), settings)
    rows = ask().rows
    pairs = rows.filter(polars.col("partner") != "")
    assert pairs.select("run", "partner", "quantity").rows() == [
        (f"{c}-s0", f"{c}-s1", q)
        for c in ("lam=0", "lam=0.1")
        for q in ("disagreement", "loss_barrier", "error_barrier")
    ]
    assert rows.filter(polars.col("quantity") == "loss").height == 4
    assert pairs["value"].is_between(0, 10).all()
    assert ask().rows.equals(rows)
    page, lines = (
        networks_document(network_measurements(rows), Diagrams({}, {}, {}, {})),
        Console(record=True, width=900),
    )
    few = rows.filter(polars.col("condition") == "lam=0")
    show(few, (), lines)
    tables = [block for block in page.sections[0].blocks if isinstance(block, Table) and block.columns[0] == ""]
    assert {len(one.columns) for one in tables} == {3, 5}
    assert "–" not in {cell.text for one in tables for row in one.rows for cell in row} | set(
        lines.export_text().split()
    )
    results = study.gathered(study.Store.read(folder))
    found = compare_measurements(results, {"lam=0": [0, 1], "lam=0.1": [0, 1]})
    assert found.quantities["disagreement"].summaries["lam=0"].count == 1


def test_a_study_says_that_pairs_are_asked_later(small_study):
    from steppe.study.questions import named

    with pytest.raises(InputError, match=r"disagreement, which compares two. Name it in measure.pairs"):
        named(["disagreement"])


def pair_rows(values, condition="a"):
    from steppe.measures.table import SCHEMA

    rows = [
        dict.fromkeys(SCHEMA)
        | {"run": f"{condition}-s{i}", "partner": f"{condition}-s{j}", "condition": condition, "seed": i,
           "quantity": "disagreement", "measure": "disagreement", "value": values[i, j], "converged": True}
        for i, j in itertools.combinations(range(len(values)), 2)
    ]  # fmt: skip
    return polars.DataFrame(rows, schema=SCHEMA)


def test_seeds_stand_for_pairs_by_the_jackknife():
    values = np.random.default_rng(0).random((5, 5))
    values = (values + values.T) / 2
    found, mean = by_seed(pair_rows(values)), lambda v: v[np.triu_indices(len(v), 1)].mean()
    without = [mean(np.delete(np.delete(values, i, 0), i, 1)) for i in range(5)]
    np.testing.assert_allclose(found["value"], [5 * mean(values) - 4 * w for w in without], rtol=1e-12)
    assert found["seed"].to_list() == list(range(5)) and set(found["partner"]) == {""}
    assert len(by_seed(pair_rows(values[:2, :2]))) == 1  # two seeds are one pair, which has no error
    missing = pair_rows(values).head(9)
    assert by_seed(missing)["value"].to_list() == [pytest.approx(missing["value"].mean())]


def test_the_standard_error_over_pairs_is_right_and_that_of_pairs_as_if_independent_is_not():
    random, means, errors, naive = np.random.default_rng(1), [], [], []
    for _ in range(300):
        seeds = random.normal(size=6)
        values = np.abs(seeds[:, None] - seeds[None])
        pairs = values[np.triu_indices(6, 1)]
        found = by_seed(pair_rows(values))["value"].to_numpy()
        means.append(pairs.mean())
        errors.append(found.var(ddof=1) / 6)
        naive.append(pairs.var(ddof=1) / 15)
    assert np.var(means) < np.mean(errors) < 1.6 * np.var(means)  # Efron and Stein: never too small in the mean
    assert np.mean(naive) < 0.6 * np.var(means)


def test_every_two_files_are_a_pair_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("two_files.py").write_text("def apply(params, x):\n    return x @ params['w']\n")
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 3)).astype(np.float32)
    np.savez("data.npz", x=x, y=np.arange(20) % 3)
    weights = [random.normal(size=(3, 3)).astype(np.float32) for _ in range(3)]
    for place, w in enumerate(weights):
        np.savez(f"n{place}.npz", w=w)
    user, settings = UserNetwork(apply="two_files:apply", data="data.npz"), Settings(("disagreement",))
    files = [Path(f"n{place}.npz") for place in range(3)]
    rows = measurement.measure(measurement.read_targets(files, user, settings), settings).rows
    assert rows["condition"].to_list() == ["n0.npz and n1.npz", "n0.npz and n2.npz", "n1.npz and n2.npz"]
    p = [outcomes.probabilities(x @ w) for w in weights]
    expected = [outcomes.disagreement(p[i], p[j]) for i, j in itertools.combinations(range(3), 2)]
    assert rows["value"].to_list() == pytest.approx(expected)
    found = network_measurements(rows)
    assert found.networks == tuple(rows["condition"])
    with pytest.raises(InputError, match="it compares two networks, and there are no two seeds"):
        measurement.measure(measurement.read_targets(files[:1], user, settings, Path("alone")), settings)

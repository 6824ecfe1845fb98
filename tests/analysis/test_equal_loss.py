"""Networks at equal training loss."""

import dataclasses
import math

import numpy as np
import polars
import pytest

from steppe.analysis.equal_loss import EqualLossRatio, equal_loss_ratios
from steppe.analysis.results import Results
from steppe.analysis.verdict import Verdict
from steppe.report.wording.verdicts import ratio_verdict

SEEDS = {"plain": (0, 1, 2), "other": (0, 1, 2)}


def results(paths):
    """Results whose histories are ``{condition: {seed: (losses, flatness)}}``."""
    rows = [
        {"condition": c, "seed": s, "epoch": e + 1, "measured_loss": float(x), "flatness": float(y)}
        for c, seeds in paths.items()
        for s, (losses, flatness) in seeds.items()
        for e, (x, y) in enumerate(zip(losses, flatness, strict=True))
    ]
    return Results(
        name="", title="", about="", baseline="plain", conditions=tuple(paths), planned=6, runs=polars.DataFrame(),
        history=polars.DataFrame(rows), surfaces=None, published=(), provenance={}, notes=(), spec_toml="",
    )  # fmt: skip


def path(losses, scale=1.0, power=2.0):
    losses = np.asarray(losses, float)
    return losses, scale * losses**power


def every_seed(path):
    return dict.fromkeys(range(3), path)


def test_a_factor_on_the_same_curve_is_found_whatever_the_progress():
    plain = every_seed(path(np.geomspace(1.0, 0.01, 20)))
    slow = every_seed(path(np.geomspace(1.0, 0.2, 20), 0.5))  # ends at a higher tr(H²), though it is flatter
    found = equal_loss_ratios(results({"plain": plain, "other": slow}), SEEDS)["other"]
    assert found.ratio == pytest.approx(0.5, rel=1e-9)
    assert found.epochs == 60
    assert found.verdict is Verdict.LOWER


def test_training_less_on_the_same_curve_is_no_difference():
    plain, less = every_seed(path(np.geomspace(1.0, 0.01, 20))), every_seed(path(np.geomspace(1.0, 0.3, 7)))
    found = equal_loss_ratios(results({"plain": plain, "other": less}), SEEDS, margin=1.01)["other"]
    assert found.ratio == pytest.approx(1.0, rel=1e-9)
    assert ratio_verdict(found) == "equivalent within a factor of 1.01"
    undeclared = equal_loss_ratios(results({"plain": plain, "other": less}), SEEDS)["other"]
    assert undeclared.verdict is Verdict.INCONCLUSIVE


def test_losses_that_the_baseline_never_had_are_not_compared():
    plain, other = every_seed(path([1.0, 0.5])), every_seed(path([3.0, 2.0]))
    found = equal_loss_ratios(results({"plain": plain, "other": other}), SEEDS)["other"]
    assert (found.seeds, found.epochs, ratio_verdict(found)) == (0, 0, "not comparable")
    assert math.isnan(found.ratio)


def test_one_seed_has_a_ratio_and_no_interval():
    history = results({"plain": {0: path([1.0, 0.1])}, "other": {0: path([0.9, 0.2], 3.0)}})
    found = equal_loss_ratios(history, {"plain": (0,), "other": (0,)})["other"]
    assert found.ratio == pytest.approx(3.0)
    assert ratio_verdict(found) == "one seed: no interval"


def test_epochs_without_numbers_are_left_out():
    losses, flatness = path(np.geomspace(1.0, 0.1, 5))
    flatness[2] = math.nan
    plain = every_seed(path(np.geomspace(2.0, 0.05, 9)))
    found = equal_loss_ratios(results({"plain": plain, "other": every_seed((losses, flatness))}), SEEDS)["other"]
    assert found.epochs == 12


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.5, 0.9, Verdict.LOWER),
        (1.1, 2.0, Verdict.HIGHER),
        (0.9, 1.1, Verdict.INCONCLUSIVE),
        (0.995, 0.999, Verdict.EQUIVALENT),
    ],
)
def test_verdicts(low, high, verdict):
    assert EqualLossRatio(1.0, low, high, 3, 1.01, epochs=10).verdict is verdict


def test_any_quantity_of_the_history_is_compared_and_what_is_not_held_is_not():
    plain, other = every_seed(path(np.geomspace(1.0, 0.01, 20))), every_seed(path(np.geomspace(1.0, 0.01, 9), 3.0))
    given = results({"plain": plain, "other": other})
    negative = given.history.with_columns(
        bottom_eigenvalue=-polars.col("flatness"), bottom_eigenvalue_residual=0.0, spectral_range=polars.lit(None)
    )
    given = dataclasses.replace(given, history=negative)
    assert equal_loss_ratios(given, SEEDS, "bottom_eigenvalue")["other"].ratio == pytest.approx(3.0, rel=1e-9)
    assert equal_loss_ratios(given, SEEDS, "bottom_eigenvalue")["other"].verdict is Verdict.HIGHER
    assert equal_loss_ratios(given, SEEDS, "spectral_range") == equal_loss_ratios(given, SEEDS, "top_eigenvalue") == {}


def test_a_negative_eigenvalue_counts_where_it_is_one_for_sure():
    paths = every_seed(path(np.geomspace(1.0, 0.01, 20)))
    given = results({"plain": paths, "other": paths})
    doubtful = given.history.with_columns(
        bottom_eigenvalue=-polars.col("flatness"), bottom_eigenvalue_residual=2 * polars.col("flatness")
    )
    found = equal_loss_ratios(dataclasses.replace(given, history=doubtful), SEEDS, "bottom_eigenvalue")["other"]
    assert found.epochs == 0 and ratio_verdict(found) == "not comparable"

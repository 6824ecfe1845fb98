"""Networks at equal training loss."""

import math

import numpy as np
import polars
import pytest

from steppe.analysis.equal_loss import EqualLossRatio, equal_loss_ratios
from steppe.analysis.verdict import Verdict
from steppe.report.wording.verdicts import ratio_verdict

SEEDS = {"plain": (0, 1, 2), "other": (0, 1, 2)}


TR_H2 = polars.col("batch_frobenius_squared")


def histories(paths):
    """A history that holds ``{condition: {seed: (losses, tr(H²))}}``."""
    rows = [
        {"condition": c, "seed": s, "epoch": e + 1, "train_loss": float(x), "batch_frobenius_squared": float(y)}
        for c, seeds in paths.items()
        for s, (losses, flatness) in seeds.items()
        for e, (x, y) in enumerate(zip(losses, flatness, strict=True))
    ]
    return polars.DataFrame(rows)


def path(losses, scale=1.0, power=2.0):
    losses = np.asarray(losses, float)
    return losses, scale * losses**power


def every_seed(path):
    return dict.fromkeys(range(3), path)


def test_a_factor_on_the_same_curve_is_found_whatever_the_progress():
    plain = every_seed(path(np.geomspace(1.0, 0.01, 20)))
    slow = every_seed(path(np.geomspace(1.0, 0.2, 20), 0.5))  # ends at a higher tr(H²), though it is flatter
    found = equal_loss_ratios(histories({"plain": plain, "other": slow}), SEEDS, "plain")["other"]
    assert found.ratio == pytest.approx(0.5, rel=1e-9)
    assert found.epochs == 60
    assert found.verdict is Verdict.LOWER


def test_training_less_on_the_same_curve_is_no_difference():
    plain, less = every_seed(path(np.geomspace(1.0, 0.01, 20))), every_seed(path(np.geomspace(1.0, 0.3, 7)))
    found = equal_loss_ratios(histories({"plain": plain, "other": less}), SEEDS, "plain", margin=1.01)["other"]
    assert found.ratio == pytest.approx(1.0, rel=1e-9)
    assert ratio_verdict(found) == "equivalent within a factor of 1.01"
    undeclared = equal_loss_ratios(histories({"plain": plain, "other": less}), SEEDS, "plain")["other"]
    assert undeclared.verdict is Verdict.INCONCLUSIVE


def test_losses_that_the_baseline_never_had_are_not_compared():
    plain, other = every_seed(path([1.0, 0.5])), every_seed(path([3.0, 2.0]))
    found = equal_loss_ratios(histories({"plain": plain, "other": other}), SEEDS, "plain")["other"]
    assert (found.seeds, found.epochs, ratio_verdict(found)) == (0, 0, "not comparable")
    assert math.isnan(found.ratio)


def test_one_seed_has_a_ratio_and_no_interval():
    history = histories({"plain": {0: path([1.0, 0.1])}, "other": {0: path([0.9, 0.2], 3.0)}})
    found = equal_loss_ratios(history, {"plain": (0,), "other": (0,)}, "plain")["other"]
    assert found.ratio == pytest.approx(3.0)
    assert ratio_verdict(found) == "one seed: no interval"


def test_epochs_without_numbers_are_left_out():
    losses, flatness = path(np.geomspace(1.0, 0.1, 5))
    flatness[2] = math.nan
    plain = every_seed(path(np.geomspace(2.0, 0.05, 9)))
    found = equal_loss_ratios(histories({"plain": plain, "other": every_seed((losses, flatness))}), SEEDS, "plain")[
        "other"
    ]
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
    given = histories({"plain": plain, "other": other})
    given = given.with_columns(
        bottom_eigenvalue=-TR_H2, bottom_eigenvalue_residual=0.0, spectral_range=polars.lit(None)
    )
    assert equal_loss_ratios(given, SEEDS, "plain", "bottom_eigenvalue")["other"].ratio == pytest.approx(3.0, rel=1e-9)
    assert equal_loss_ratios(given, SEEDS, "plain", "bottom_eigenvalue")["other"].verdict is Verdict.HIGHER
    assert (
        equal_loss_ratios(given, SEEDS, "plain", "spectral_range")
        == equal_loss_ratios(given, SEEDS, "plain", "top_eigenvalue")
        == {}
    )


def test_a_negative_eigenvalue_counts_where_it_is_one_for_sure():
    paths = every_seed(path(np.geomspace(1.0, 0.01, 20)))
    given = histories({"plain": paths, "other": paths})
    doubtful = given.with_columns(bottom_eigenvalue=-TR_H2, bottom_eigenvalue_residual=2 * TR_H2)
    found = equal_loss_ratios(doubtful, SEEDS, "plain", "bottom_eigenvalue")["other"]
    assert found.epochs == 0 and ratio_verdict(found) == "not comparable"

"""Networks at equal training loss: what tells a flatter network from one that has trained more, or less.

Curvature falls, or rises, as the loss does, so that final values compare networks at different stages of training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars

from steppe.analysis.quantities import FITTED_LOSS, TR_H2
from steppe.analysis.verdict import Ratio, ratio

EMPTY = np.zeros(0), np.zeros(0)
"""The path of a run without a history."""

QUANTITIES = {
    TR_H2: ("tr(H²)", polars.col(TR_H2)),
    "top_eigenvalue": ("λ_max", polars.col("top_eigenvalue")),
    "bottom_eigenvalue": (
        "−λ_min",
        polars.when(-polars.col("bottom_eigenvalue") > polars.col("bottom_eigenvalue_residual")).then(
            -polars.col("bottom_eigenvalue")
        ),
    ),
    "spectral_range": ("λ_max − λ_min", polars.col("spectral_range")),
    "test_loss": ("Test loss", polars.col("test_loss")),
}
"""What is compared at equal training loss: its name, and how a history gives it, where that is positive; −λ_min where
some eigenvalue is negative for sure, which is where λ_min is below zero by more than its residual. What a study
declares and asks in training is compared, too."""


@dataclass(frozen=True)
class EqualLossRatio(Ratio):
    """A quantity of a condition over the baseline's at the same training loss.

    Attributes
    ----------
    epochs : int
        Epochs whose training loss lies in the range of their baseline's, over all seeds.
    """

    epochs: int = 0


def equal_loss_ratios(
    history: polars.DataFrame,
    seeds: Mapping[str, Sequence[int]],
    baseline: str,
    quantity: str = TR_H2,
    *,
    confidence: float = 0.95,
    margin: float | None = None,
) -> dict[str, EqualLossRatio]:
    """Each condition against the baseline run of the same seed.

    For every measured epoch of a run whose training loss ℓ lies between the baseline's lowest and highest, the
    baseline's value at ℓ is read off its epochs, linearly between logarithms; a seed's value is the geometric mean over
    epochs of the ratio of the two. The interval is Student's over seeds, on the logarithm, not corrected for the number
    of conditions. The training loss is cross-entropy without dropout of the very network that is measured, whatever it
    was trained on, on up to 2,048 training examples.

    Parameters
    ----------
    history : polars.DataFrame
        See `Results.history`.
    seeds : Mapping
        condition -> seeds of its finished runs, for every condition.
    baseline : str
        The condition that others are compared to.
    quantity : str
        One of `QUANTITIES`, or another column of the history; epochs where it is not positive are left out.
    confidence : float
        Of the interval.
    margin : float, optional
        The factor within which ratios do not matter.

    Returns
    -------
    dict
        An EqualLossRatio for each condition but the baseline; nothing where the history does not hold the quantity.
    """
    if not {FITTED_LOSS, quantity} <= set(history.columns) or history[quantity].is_null().all():
        return {}
    paths = {key: _path(rows, quantity) for key, rows in history.group_by("condition", "seed")}
    found = {}
    for condition in (c for c in seeds if c != baseline):
        shared = [seed for seed in seeds[condition] if seed in seeds.get(baseline, ())]
        pairs = [(paths.get((baseline, seed), EMPTY), paths.get((condition, seed), EMPTY)) for seed in shared]
        logs = [log for log in (_log_ratios(*pair) for pair in pairs) if len(log)]
        known = ratio((float(log.mean()) for log in logs), confidence=confidence, margin=margin)
        found[condition] = EqualLossRatio(**vars(known), epochs=sum(map(len, logs)))
    return found


def _path(rows: polars.DataFrame, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of training loss and a quantity, epoch by epoch, sorted by loss; unusable epochs left out."""
    asked = QUANTITIES[quantity][1] if quantity in QUANTITIES else polars.col(quantity)
    wanted = polars.col(FITTED_LOSS), asked
    loss, value = rows.select(*(e.cast(polars.Float64).fill_null(math.nan) for e in wanted)).to_numpy().T
    usable = np.isfinite(loss) & np.isfinite(value) & (loss > 0) & (value > 0)
    order = np.argsort(loss[usable], kind="stable")
    return np.log(loss[usable][order]), np.log(value[usable][order])


def _log_ratios(baseline: tuple[np.ndarray, np.ndarray], path: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Logarithm of the value − that of the baseline's at the same loss, for the epochs within the baseline's range."""
    (base_loss, base_value), (loss, value) = baseline, path
    if len(base_loss) < 2:
        return np.zeros(0)
    inside = (loss >= base_loss[0]) & (loss <= base_loss[-1])
    ratios: np.ndarray = value[inside] - np.interp(loss[inside], base_loss, base_value)
    return ratios

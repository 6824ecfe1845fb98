"""Figures of curvature tracked during training: tr H, tr(H²), and λ_max against the edge of stability."""

import math
from typing import NamedTuple

import numpy as np
import polars

from steppe.analysis.analysis import Analysis
from steppe.analysis.results import Results
from steppe.report.document import Picture
from steppe.report.figures.curves import finished_history
from steppe.report.figures.drawing import canvas, epoch_axis, label_of, legend, log_axis, looks, picture
from steppe.report.formats import number


class _Quantity(NamedTuple):
    """A tracked column, the column of its error, words, and the column that says whether it has converged, if any."""

    column: str
    error: str
    label: str
    name: str
    errors: str
    sound: str = ""


OF_EIGENVALUES = "how far an eigenvalue of the Hessian can be from it (its residual)"
OF_ESTIMATES = "standard errors of the estimates"

QUANTITIES = (
    _Quantity("top_eigenvalue", "top_eigenvalue_residual", "λ_max of the Hessian", "The largest eigenvalue",
              OF_EIGENVALUES, "top_eigenvalue_converged"),
    _Quantity("bottom_eigenvalue", "bottom_eigenvalue_residual", "λ_min of the Hessian", "The smallest eigenvalue",
              OF_EIGENVALUES, "bottom_eigenvalue_converged"),
    _Quantity("trace", "trace_sem", "tr H", "The trace", OF_ESTIMATES),
    _Quantity("frobenius_squared", "frobenius_squared_sem", "tr(H²)", "The squared Frobenius norm", OF_ESTIMATES),
)  # fmt: skip


def pictures(analysis: Analysis) -> list[Picture]:
    """One figure a quantity; none where the study tracks no curvature."""
    results = analysis.results
    history = finished_history(analysis).filter(polars.col("top_eigenvalue").is_not_null())
    return [_figure(results, history, quantity) for quantity in QUANTITIES] if len(history) else []


class _Line(NamedTuple):
    """One condition over its tracked epochs: mean over seeds, lowest and highest seed, and the error of the mean."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    limit: np.ndarray
    sound: np.ndarray


def _figure(results: Results, history: polars.DataFrame, quantity: _Quantity) -> Picture:
    lines = {c: line for c in results.conditions if len((line := _line(history, c, quantity)).epochs)}
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(lines) / 3))
    style, edge = looks(results.conditions), quantity.column == "top_eigenvalue"
    for c, line in lines.items():
        color = style[c].color
        ax.plot(line.epochs, line.mean, color=color, ls=style[c].line, lw=1.3, label=label_of(c))
        ax.fill_between(line.epochs, line.low, line.high, color=color, alpha=0.13, lw=0)
        ax.errorbar(line.epochs, line.mean, yerr=line.error, fmt="none", ecolor=color, elinewidth=0.8, capsize=1.5)
        doubtful = ~line.sound
        ax.plot(line.epochs[doubtful], line.mean[doubtful], "x", color=color, ms=6)
        if edge:
            ax.plot(line.epochs, line.limit, color=color, ls=(0, (1, 1.5)), lw=1.1)
    shown = [v for line in lines.values() for v in line.mean]
    if min(shown) > 0:
        log_axis(ax.yaxis, shown + [v for line in lines.values() if edge for v in line.limit])
    ax.set(ylabel=quantity.label)
    epoch_axis(ax, [line.epochs for line in lines.values()])
    legend(figure, ax)
    ends = "; ".join(f"{c} ends at {number(line.mean[-1])}" for c, line in lines.items())
    caption = (
        f"{quantity.name} of the loss on fixed training examples, without dropout, over epochs: the mean over seeds; "
        f"the band runs from the lowest to the highest seed, bars are {quantity.errors}."
    )
    if edge and any(np.isfinite(line.limit).any() for line in lines.values()):
        caption += (
            " Dotted, the edge of stability: 2/η for learning rate η, 2(1 + β)/η with momentum β, less the weight "
            "decay. Above it, gradient descent on a quadratic diverges."
        )
    if not all(line.sound.all() for line in lines.values()):
        caption += " A cross marks what had not converged."
    return picture(figure, f"{quantity.label} over epochs: {ends}.", caption)


def _line(history: polars.DataFrame, condition: str, quantity: _Quantity) -> _Line:
    value, error = polars.col(quantity.column), polars.col(quantity.error).cast(polars.Float64)
    rows = history.filter((polars.col("condition") == condition) & value.is_finite()).group_by("epoch")
    table = rows.agg(
        value.mean().alias("mean"),
        value.min().alias("low"),
        value.max().alias("high"),
        ((error**2).sum().sqrt() / value.count()).fill_nan(0).alias("error"),
        polars.col("stability_limit").mean().cast(polars.Float64).alias("limit"),
        (polars.col(quantity.sound).all() if quantity.sound else polars.lit(True)).alias("sound"),
    ).sort("epoch")
    columns = ("epoch", "mean", "low", "high", "error", "limit", "sound")
    return _Line(*(table[name].to_numpy() for name in columns))

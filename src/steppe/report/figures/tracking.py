"""Figures of curvature tracked during training: tr H, tr(H²), and λ_max against the edge of stability."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from steppe.analysis.curves import TrackedCurve
from steppe.report.document import Picture
from steppe.report.figures.drawing import canvas, epoch_axis, label_of, legend, log_axis, looks, picture
from steppe.report.formats import number


class _Kind(NamedTuple):
    """How a tracked quantity is told: its axis, its name in a caption, and what its error bars are."""

    label: str
    name: str
    errors: str


OF_EIGENVALUES = "how far an eigenvalue of the Hessian can be from it (its residual)"
OF_ESTIMATES = "standard errors of the estimates"

KINDS = {
    "top_eigenvalue": _Kind("λ_max of the Hessian", "The largest eigenvalue", OF_EIGENVALUES),
    "bottom_eigenvalue": _Kind("λ_min of the Hessian", "The smallest eigenvalue", OF_EIGENVALUES),
    "trace": _Kind("tr H", "The trace", OF_ESTIMATES),
    "frobenius_squared": _Kind("tr(H²)", "The squared Frobenius norm", OF_ESTIMATES),
}


def pictures(tracked: Mapping[str, Mapping[str, TrackedCurve]]) -> list[Picture]:
    """One figure a quantity; none where the study tracks no curvature."""
    if not any(len(curve.epochs) for curve in tracked["top_eigenvalue"].values()):
        return []
    return [_figure(tracked[name], kind, edge=name == "top_eigenvalue") for name, kind in KINDS.items()]


def _figure(curves: Mapping[str, TrackedCurve], kind: _Kind, *, edge: bool) -> Picture:
    """One quantity over epochs; `edge` draws the edge of stability, too."""
    lines = {c: line for c, line in curves.items() if len(line.epochs)}
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(lines) / 3))
    style = looks(list(curves))
    for c, line in lines.items():
        color = style[c].color
        ax.plot(line.epochs, line.mean, color=color, ls=style[c].line, lw=1.3, label=label_of(c))
        ax.fill_between(line.epochs, line.low, line.high, color=color, alpha=0.13, lw=0)
        ax.errorbar(line.epochs, line.mean, yerr=line.error, fmt="none", ecolor=color, elinewidth=0.8, capsize=1.5)
        doubtful = ~line.converged
        ax.plot(line.epochs[doubtful], line.mean[doubtful], "x", color=color, ms=6)
        if edge:
            ax.plot(line.epochs, line.limit, color=color, ls=(0, (1, 1.5)), lw=1.1)
    shown = [v for line in lines.values() for v in line.mean]
    if min(shown) > 0:
        log_axis(ax.yaxis, shown + [v for line in lines.values() if edge for v in line.limit])
    ax.set(ylabel=kind.label)
    epoch_axis(ax, [line.epochs for line in lines.values()])
    legend(figure, ax)
    ends = "; ".join(f"{c} ends at {number(line.mean[-1])}" for c, line in lines.items())
    caption = (
        f"{kind.name} of the Hessian of the loss on fixed training examples, without dropout, over epochs: the mean "
        f"over seeds; the band runs from the lowest to the highest seed, bars are {kind.errors}."
    )
    if edge and any(np.isfinite(line.limit).any() for line in lines.values()):
        caption += (
            " The dotted line is the edge of stability: 2/η for learning rate η, 2(1 + β)/η with momentum β, less the "
            "weight decay. Above it, gradient descent on a quadratic diverges."
        )
    if not all(line.converged.all() for line in lines.values()):
        caption += " A cross marks values that have not converged."
    return picture(figure, f"{kind.label} over epochs: {ends}.", caption)

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
    """How a tracked quantity is told: its axis, what a caption says of it, its error bars, and its dotted line."""

    label: str
    words: str
    errors: str
    edge: str = ""


FIXED = "of the Hessian of the loss on fixed training examples, without dropout"
OF_EIGENVALUES = "how far an eigenvalue of the Hessian can be from it (its residual)"
OF_ESTIMATES = "standard errors of the estimates"

KINDS = {
    "top_eigenvalue": _Kind(
        "λ_max of the Hessian",
        f"The largest eigenvalue {FIXED}",
        OF_EIGENVALUES,
        "2/η for learning rate η, 2(1 + β)/η with momentum β, less the weight decay. Above it, gradient descent on a "
        "quadratic diverges.",
    ),
    "preconditioned_sharpness": _Kind(
        "λ_max of P^(-1/2) H P^(-1/2)",
        f"The largest eigenvalue {FIXED}, in the units of the optimiser's steps",
        OF_EIGENVALUES,
        "that of the optimiser, with its preconditioner held. Above it, its steps on a quadratic diverge.",
    ),
    "critical_sharpness": _Kind(
        "λ_c of updates",
        "The critical sharpness 2/η_c of updates on their own batches, whose loss rises from the learning rate η_c on",
        "standard errors of the mean over an epoch's updates",
    ),
    "bottom_eigenvalue": _Kind("λ_min of the Hessian", f"The smallest eigenvalue {FIXED}", OF_EIGENVALUES),
    "trace": _Kind("tr H", f"The trace {FIXED}", OF_ESTIMATES),
    "frobenius_squared": _Kind("tr(H²)", f"The squared Frobenius norm {FIXED}", OF_ESTIMATES),
}


def pictures(tracked: Mapping[str, Mapping[str, TrackedCurve]]) -> list[Picture]:
    """One figure a quantity that the study tracks."""
    asked = {name: kind for name, kind in KINDS.items() if any(len(curve.epochs) for curve in tracked[name].values())}
    return [_figure(tracked[name], kind) for name, kind in asked.items()]


def _figure(curves: Mapping[str, TrackedCurve], kind: _Kind) -> Picture:
    """One quantity over epochs, and its edge of stability where it has one."""
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
        if kind.edge:
            ax.plot(line.epochs, line.limit, color=color, ls=(0, (1, 1.5)), lw=1.1)
    shown = [v for line in lines.values() for v in line.mean]
    if min(shown) > 0:
        log_axis(ax.yaxis, shown + [v for line in lines.values() if kind.edge for v in line.limit])
    ax.set(ylabel=kind.label)
    epoch_axis(ax, [line.epochs for line in lines.values()])
    legend(figure, ax)
    ends = "; ".join(f"{c} ends at {number(line.mean[-1])}" for c, line in lines.items())
    caption = (
        f"{kind.words}, over epochs: the mean over seeds; the band "
        f"runs from the lowest to the highest seed, bars are {kind.errors}."
    )
    if kind.edge and any(np.isfinite(line.limit).any() for line in lines.values()):
        caption += f" The dotted line is the edge of stability: {kind.edge}"
    if not all(line.converged.all() for line in lines.values()):
        caption += " A cross marks values that have not converged."
    return picture(figure, f"{kind.label} over epochs: {ends}.", caption)

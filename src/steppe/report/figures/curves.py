"""Figures of training: quantities over epochs, and tr(H²) over training loss."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from steppe.analysis.curves import Curve, Trajectory
from steppe.analysis.quantities import FITTED_LOSS, TR_H2
from steppe.analysis.results import Results
from steppe.report.document import Picture
from steppe.report.figures.drawing import canvas, epoch_axis, label_of, legend, log_axis, looks, picture
from steppe.report.formats import number


class _Kind(NamedTuple):
    """How a quantity is drawn: its axis, its name in a caption, its factor, and whether the axis is logarithmic."""

    label: str
    name: str
    factor: float = 1.0
    log: bool = False


KINDS = {
    "test_accuracy": _Kind("Test accuracy (%)", "Test accuracy", factor=100.0),
    FITTED_LOSS: _Kind("Train loss (nats)", "Cross-entropy of training examples, without dropout"),
    TR_H2: _Kind("tr(H²) (lower is flatter)", "tr(H²)", log=True),
}

REGRESSION_KINDS = {
    "test_loss": _Kind("Test loss", "Mean squared error of test examples"),
    FITTED_LOSS: _Kind("Train loss", "Mean squared error of training examples, without dropout"),
    TR_H2: KINDS[TR_H2],
}

LIKELIHOODS = {
    "test_loss": _Kind("Test loss (nats)", "Negative log-likelihood of test examples"),
    FITTED_LOSS: _Kind("Train loss (nats)", "Negative log-likelihood of training examples, without dropout"),
    TR_H2: KINDS[TR_H2],
}


def pictures(
    curves: Mapping[str, Mapping[str, Curve]], trajectories: Mapping[str, Trajectory], results: Results
) -> list[Picture]:
    """Test accuracy, train loss and tr(H²) over epochs: the loss that is compared, not that which was trained on. In a
    regression the losses are squared errors, or likelihoods where networks say how spread targets are.
    """
    kinds = KINDS if not results.is_regression else LIKELIHOODS if results.spreads else REGRESSION_KINDS
    unit = f" ({results.loss_unit})" if results.loss_unit else ""
    drawn = (*(_curves(curves[name], kind) for name, kind in kinds.items()), _trajectories(trajectories, unit))
    return [picture for picture in drawn if picture is not None]


def _curves(curves: Mapping[str, Curve], kind: _Kind) -> Picture | None:
    """One quantity over epochs: the mean of each condition, and the band from the lowest to the highest seed."""
    lines = {c: curve for c, curve in curves.items() if len(curve.epochs)}
    if not lines:
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(lines) / 3))
    bands, style = len(lines) <= 7, looks(list(curves))
    for index, (c, curve) in enumerate(lines.items()):
        step = max(1, len(curve.epochs) // 8)
        marks: dict[str, Any] = dict(marker=style[c].marker, markevery=(index % step, step), ms=4.5)
        mean, low, high = (kind.factor * values for values in (curve.mean, curve.low, curve.high))
        ax.plot(curve.epochs, mean, color=style[c].color, ls=style[c].line, label=label_of(c), **marks)
        if bands:
            ax.fill_between(curve.epochs, low, high, color=style[c].color, alpha=0.13, lw=0)
    means = [kind.factor * value for curve in lines.values() for value in curve.mean]
    log = kind.log or (kind.factor == 1 and min(means) > 0 and max(means) > 30 * min(means))
    if log:
        log_axis(ax.yaxis, means)
    ax.set(ylabel=kind.label)
    epoch_axis(ax, [curve.epochs for curve in lines.values()])
    legend(figure, ax)
    middle = "geometric mean" if kind.log else "mean"
    band = "; the band runs from the lowest to the highest seed." if bands else " (no bands: there are too many)."
    scale = ", on a logarithmic scale," if log else "," if "," in kind.name else ""
    caption = f"{kind.name}{scale} over epochs: the line is the {middle} over seeds{band}"
    ends = "; ".join(f"{c} ends at {number(kind.factor * curve.mean[-1])}" for c, curve in lines.items())
    return picture(figure, f"{kind.label} over epochs: {ends}.", caption)


def _trajectories(trajectories: Mapping[str, Trajectory], unit: str) -> Picture | None:
    """tr(H²) over training loss, epoch by epoch: what tells a flatter network from one that has fitted more."""
    paths = {c: path for c, path in trajectories.items() if len(path.loss)}
    if not paths:
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(paths) / 3))
    style = looks(list(trajectories))
    for c, (loss, value) in paths.items():
        ax.plot(loss, value, color=style[c].color, ls=style[c].line, lw=1.2, label=label_of(c))
        ax.plot(loss[-1], value[-1], style[c].marker, color=style[c].color, ms=7, mec="white", mew=0.8, zorder=3)
    log_axis(ax.xaxis, [v for path in paths.values() for v in path.loss])
    log_axis(ax.yaxis, [v for path in paths.values() for v in path.value])
    ax.set(xlabel=f"Train loss without dropout{unit}", ylabel=KINDS[TR_H2].label)
    legend(figure, ax)
    caption = (
        "tr(H²) against training loss, epoch by epoch: geometric means over seeds; the marker is the last epoch. "
        "Networks compare fairly at the same training loss: a curve below the others is flatter at the same loss, "
        "while a point further along the same curve shows only more or less training."
    )
    ends = "; ".join(f"{c} ends at loss {number(x[-1])}, tr(H²) {number(y[-1])}" for c, (x, y) in paths.items())
    return picture(figure, f"tr(H²) over training loss: {ends}.", caption)

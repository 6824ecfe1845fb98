"""All that is drawn of curves that networks left: spectral densities, reliability, accuracy against coverage."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from steppe.analysis.diagrams import Band, Diagrams, ReliabilityDiagram
from steppe.report.document import Picture
from steppe.report.figures import densities
from steppe.report.figures.drawing import STYLE, Look, canvas, label_of, legend, looks, panels, picture

PERCENT = [0, 25, 50, 75, 100]


def pictures(found: Diagrams) -> list[Picture]:
    """A picture of each kind that was measured."""
    drawn = densities.pictures(found.densities)
    drawn += [_reliability(found.reliability)] if found.reliability else []
    shares = ((found.coverage, COVERAGE), (found.intervals, INTERVALS))
    return drawn + [_shares(bands, kind) for bands, kind in shares if bands]


def _reliability(found: Mapping[str, ReliabilityDiagram]) -> Picture:
    """A panel for each condition or network: accuracy over confidence, and where predictions lie."""
    style = looks(list(found))
    figure, axes = panels(len(found), columns=min(len(found), 3) if len(found) != 4 else 2, foot=0.55)
    for ax, (name, diagram) in zip(axes, found.items(), strict=True):
        _panel(ax, name, diagram, style[name])
    with mpl.rc_context(STYLE):
        figure.supxlabel("Confidence of a prediction (%)", fontsize=10)
        figure.supylabel("Right predictions (%)", fontsize=10)
    gaps = {name: float(np.sum(d.share * (d.accuracy - d.confidence))) for name, d in found.items()}
    alt = "Reliability: " + "; ".join(f"{name}: {_leaning(gap)}" for name, gap in gaps.items()) + "."
    several = any(d.runs > 1 for d in found.values())
    caption = (
        "How often predictions are right, over their confidence, in bins. On the dashed line a network is right as "
        "often as it says; below it, it is too sure. A bar is the 95 % interval (Wilson) of that share"
        + (
            ", of as many predictions as one run has in the bin, for all runs predict the same examples"
            if several
            else ""
        )
        + "; the larger a point, the more predictions lie in its bin. The columns at the foot show the same shares."
    )
    return picture(figure, alt, caption)


def _panel(ax: Axes, name: str, d: ReliabilityDiagram, look: Look) -> None:
    """One reliability diagram."""
    x, y = 100 * d.confidence, 100 * d.accuracy
    ax.plot([0, 100], [0, 100], "--", color="#555555", lw=1, zorder=1)
    ax.bar(x, 30 * d.share / d.share.max(), width=4, color="#cccccc", lw=0, zorder=0)
    errors = np.maximum([y - 100 * d.lower, 100 * d.upper - y], 0)
    ax.errorbar(x, y, yerr=errors, fmt="none", ecolor=look.color, elinewidth=1.2, capsize=2, zorder=2)
    ax.scatter(x, y, s=10 + 60 * d.share / d.share.max(), color=look.color, marker=look.marker, lw=0, zorder=3)
    ax.set_title(label_of(name, 24), fontsize=9)
    ax.set(xlim=(0, 103), ylim=(0, 103))
    ax.set_xticks(PERCENT)
    ax.set_yticks(PERCENT)


def _leaning(gap: float) -> str:
    """By how much a network is right more or less often than it says."""
    if abs(gap) < 5e-4:
        return "right as often as it says"
    return f"right {100 * abs(gap):.1f} % {'more' if gap > 0 else 'less'} often than it says"


class _Kind(NamedTuple):
    """How a curve of shares is drawn: its axes, whether the diagonal is the ideal, and what is said of it."""

    x: str
    y: str
    diagonal: bool
    alt: str
    caption: str


COVERAGE = _Kind(
    "Coverage: predictions kept, the surest first (%)",
    "Accuracy of those (%)",
    False,
    "Accuracy at half of the coverage",
    "Accuracy against coverage: how many predictions are right if only those are kept of which a network is surest. At "
    "100 % all are kept; 100 % less the accuracy is the risk.",
)

INTERVALS = _Kind(
    "Level of the intervals (%)",
    "Targets within them (%)",
    True,
    "Targets within the intervals of 50 %",
    "How many targets lie in the central intervals that are predicted, over what these promise. On the dashed line "
    "they hold it; below it they are too narrow.",
)


def _shares(found: Mapping[str, Band], kind: _Kind) -> Picture:
    """Shares over shares: a line for each condition or network."""
    figure, ax = canvas(3.9)
    if kind.diagonal:
        ax.plot([0, 100], [0, 100], "--", color="#555555", lw=1, zorder=1)
        ax.set(ylim=(0, 101))
    _lines(ax, found)
    ax.set(xlabel=kind.x, ylabel=kind.y, xlim=(0, 101))
    legend(figure, ax)
    halves = "; ".join(f"{name} {100 * _at(band, 0.5):.1f} %" for name, band in found.items())
    return picture(figure, f"{kind.alt}: {halves}.", f"{kind.caption}{_of_runs(found)}")


def _lines(ax: Axes, found: Mapping[str, Band]) -> None:
    """A line for each, and a band from the lowest run to the highest."""
    style = looks(list(found))
    for name, band in found.items():
        look = style[name]
        ax.plot(100 * band.x, 100 * band.mean, color=look.color, ls=look.line, label=label_of(name))
        if band.runs > 1:
            ax.fill_between(100 * band.x, 100 * band.low, 100 * band.high, color=look.color, alpha=0.12, lw=0)


def _of_runs(found: Mapping[str, Band]) -> str:
    several = any(band.runs > 1 for band in found.values())
    return " Lines are means over runs; a band reaches from the lowest run to the highest." if several else ""


def _at(band: Band, x: float) -> float:
    return float(np.interp(x, band.x, band.mean))

"""Figures of final quantities: against lambda, or against the condition where there is no lambda for each; and cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from steppe.analysis.comparison import QuantityComparison
from steppe.analysis.verdict import Ratio
from steppe.report.document import Picture
from steppe.report.figures.drawing import Look, canvas, condition_axis, log_axis, looks, picture
from steppe.report.formats import number, percent
from steppe.report.tables.base import heading


class _Points(NamedTuple):
    """A condition: each seed's value, their mean and its interval, in the units of the figure."""

    values: np.ndarray
    mean: float
    low: float
    high: float


def pictures(quantities: Sequence[QuantityComparison], lambdas: Mapping[str, float]) -> list[Picture]:
    """Final quantities against lambda, or against the condition."""
    drawn = (_outcome(by, lambdas) for by in quantities)
    return [picture for picture in drawn if picture is not None]


def _outcome(by: QuantityComparison, lambdas: Mapping[str, float]) -> Picture | None:
    """One quantity; nothing where no run has it."""
    points = {c: _points(by, c) for c in by.summaries}
    if not any(len(p.values) for p in points.values()):
        return None
    name, log, lam = by.quantity.label, by.quantity.log, "lambda" if lambdas else "condition"
    label = heading(by.quantity)
    caption = (
        f"{name} against {lam}: {'geometric mean' if log else 'mean'} and its {percent(by.confidence)} confidence "
        "interval over seeds; each small dot is one seed."
    )
    if 0.0 in lambdas.values():
        caption += " The first position stands for λ = 0, which has no place on a logarithmic axis."
    alt = f"{label} against {lam}: " + "; ".join(f"{c} {number(p.mean)}" for c, p in points.items()) + "."
    figure = _against_lambda(lambdas, points, label, log) if lambdas else _against_condition(points, label, log)
    return picture(figure, alt, caption)


def cost(seconds: QuantityComparison, times: Mapping[str, Ratio], baseline: str) -> list[Picture]:
    """Training time of each condition."""
    points = {c: _points(seconds, c) for c in seconds.summaries}
    known = {c: p for c, p in points.items() if len(p.values)}
    if not known:
        return []
    figure, ax = canvas(0.9 + 0.32 * len(points))
    style = looks(list(points))
    for row, (c, p) in enumerate(points.items()):
        if not len(p.values):
            continue
        ax.barh(row, p.mean, height=0.55, color=style[c].color, alpha=0.35, edgecolor=style[c].color)
        ax.plot(p.values, [row] * len(p.values), "o", color="#222222", ms=3, alpha=0.7, lw=0)
        note = f"{number(p.mean)} s" + (f"  ({times[c].ratio:.2f} ×)" if times[c].verdict.directed else "")
        ax.annotate(note, (max(p.mean, *p.values), row), (5, 0), textcoords="offset points", va="center", fontsize=9)
    condition_axis(ax, list(points))
    ax.set(xlabel="Training time of a run (s)", xlim=(0, 1.42 * max(max(p.values) for p in known.values())))
    caption = (
        "Training time of a run, without compilation and measurement: the bar is the mean, each dot one seed. In "
        f"brackets is the multiple of the time under {baseline}, where its {percent(seconds.confidence)} confidence "
        "interval excludes 1."
    )
    alt = "Training time by condition: " + "; ".join(f"{c} {number(p.mean)} seconds" for c, p in known.items()) + "."
    return [picture(figure, alt, caption)]


def _points(by: QuantityComparison, condition: str) -> _Points:
    """Values, mean and interval of a condition; shares in percent, on a log scale the positive values."""
    factor = 100.0 if by.quantity.unit == "share" else 1.0
    values = sorted(v for v in by.values[condition].values() if v > 0 or not by.quantity.log)
    return _Points(factor * np.array(values), *(factor * end for end in by.center(condition)))


def _against_lambda(lams: Mapping[str, float], points: Mapping[str, _Points], label: str, log: bool) -> Figure:
    """A quantity over a logarithmic axis of lambda, with a place for zero left of a break."""
    positive = sorted(lam for lam in lams.values() if lam > 0)
    zero = positive[0] / 10
    figure, ax = canvas(3.4)
    style = looks(list(points))
    shown = {c: p for c, p in points.items() if len(p.values) and c in lams}
    for c, p in shown.items():
        _mark(ax, lams[c] or zero, p, style[c], vertical=True)
    joined = sorted((lams[c], p.mean) for c, p in shown.items() if lams[c] > 0)
    ax.plot(*zip(*joined, strict=True) if joined else ([], []), color="#999999", lw=1, zorder=1)
    ax.set_xscale("log")
    ax.set(xlabel="Penalty strength λ", ylabel=label, xlim=(zero / 2, positive[-1] * 2))
    decades = 10.0 ** np.arange(math.floor(math.log10(positive[0])), math.ceil(math.log10(positive[-1])) + 1)
    ticks = [zero, *positive] if len(positive) <= 6 else [zero, *decades[:: math.ceil(len(decades) / 6)]]
    ax.set_xticks(ticks, ["0", *(f"{t:g}" for t in ticks[1:])])
    ax.xaxis.set_minor_locator(NullLocator())
    if 0.0 in lams.values():
        gap = math.sqrt(zero * positive[0])
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        place: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "center"}
        ax.text(gap, 0, "//", color="#555555", fontsize=11, bbox=white, **place)
    if log:
        log_axis(ax.yaxis, [v for p in shown.values() for v in p.values])
    return figure


def _against_condition(points: Mapping[str, _Points], label: str, log: bool) -> Figure:
    """A quantity, one row a condition."""
    figure, ax = canvas(0.9 + 0.34 * len(points))
    style = looks(list(points))
    for row, (c, p) in enumerate(points.items()):
        if len(p.values):
            _mark(ax, row, p, style[c], vertical=False)
    condition_axis(ax, list(points))
    ax.set_xlabel(label)
    if log:
        log_axis(ax.xaxis, [v for p in points.values() for v in p.values])
    return figure


def _mark(ax: Axes, place: float, p: _Points, look: Look, *, vertical: bool) -> None:
    """The mean, its interval where there is one, and beside it the seeds."""
    aside = place * 1.25 if vertical else place + 0.25
    seeds = (np.full(len(p.values), aside), p.values)
    ax.plot(*(seeds if vertical else seeds[::-1]), "o", color=look.color, ms=3.5, alpha=0.5, mew=0, lw=0)
    if math.isfinite(p.low) and p.low < p.high:
        ends = ([place, place], [p.low, p.high])
        cap = "_" if vertical else "|"
        ax.plot(*(ends if vertical else ends[::-1]), "-", color=look.color, lw=1.4, marker=cap, ms=8)
    at = (place, p.mean) if vertical else (p.mean, place)
    ax.plot(*at, look.marker, color=look.color, ms=7.5, mec="white", mew=0.8, zorder=3)

"""Figures of a study: curves over epochs, outcomes against lambda, cost."""

import math
from typing import Any, NamedTuple

import numpy as np
import polars
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from steppe.analysis.analysis import Analysis
from steppe.analysis.quantities import FITTED_LOSS, TR_H2
from steppe.analysis.results import Results
from steppe.analysis.tests import Summary
from steppe.report.document import Picture
from steppe.report.figures.drawing import (
    Look,
    canvas,
    condition_axis,
    epoch_axis,
    label_of,
    legend,
    log_axis,
    looks,
    picture,
)
from steppe.report.formats import number


def curves(analysis: Analysis) -> list[Picture]:
    """Test accuracy, train loss and tr(H²) over epochs: the loss that is compared, not that which was trained on."""
    results = analysis.results
    kinds = (
        _Kind("test_accuracy", "Test accuracy (%)", "Test accuracy", factor=100.0),
        _Kind(FITTED_LOSS, "Train loss (nats)", "Cross-entropy of training examples, without dropout,"),
        _Kind(TR_H2, "tr(H²)", "tr(H²), on a logarithmic scale,", log=True),
    )
    history = finished_history(analysis)
    drawn = [_curve(results, history, kind) for kind in kinds]
    return [p for p in (*drawn, _trajectories(results, history)) if p is not None]


def outcomes(analysis: Analysis) -> list[Picture]:
    """Final accuracy and tr(H²) against lambda, or against the condition where there is no lambda for each."""
    results = analysis.results
    draw = _against_lambda if _lambdas(results) else _against_condition
    lam = "lambda" if _lambdas(results) else "condition"
    level = f"{100 * analysis.confidence:g} %"
    found = []
    for metric, label, factor, log in (
        ("test_accuracy", "Final test accuracy (%)", 100.0, False),
        (TR_H2, "Final tr(H²)", 1.0, True),
    ):
        points = _points(analysis, metric, factor, log)
        if not any(len(p.values) for p in points.values()):
            continue
        words = "geometric mean" if log else "mean"
        caption = (
            f"{label.split(' (')[0]} against {lam}: {words} and its {level} confidence interval over seeds; each small "
            "dot is one seed."
            + (
                " The first position stands for λ = 0, which a logarithmic axis has no place for."
                if draw is _against_lambda and 0.0 in _lambdas(results).values()
                else ""
            )
        )
        alt = f"{label} against {lam}: " + "; ".join(f"{c} {number(p.mean)}" for c, p in points.items()) + "."
        found.append(picture(draw(results, points, label, log), alt, caption))
    return found


def cost(analysis: Analysis) -> list[Picture]:
    """Training time of each condition."""
    results = analysis.results
    points = _points(analysis, "train_seconds", 1.0, log=False)
    known = {c: p for c, p in points.items() if len(p.values)}
    if not known:
        return []
    figure, ax = canvas(0.9 + 0.32 * len(points))
    style = looks(results.conditions)
    for row, (c, p) in enumerate(points.items()):
        if not len(p.values):
            continue
        ax.barh(row, p.mean, height=0.55, color=style[c].color, alpha=0.35, edgecolor=style[c].color)
        ax.plot(p.values, [row] * len(p.values), "o", color="#222222", ms=3, alpha=0.7, lw=0)
        times = analysis.cost[c]
        note = f"{number(p.mean)} s" + (f"  ({times.ratio:.2f} ×)" if times.verdict.directed else "")
        ax.annotate(note, (max(p.mean, *p.values), row), (5, 0), textcoords="offset points", va="center", fontsize=9)
    condition_axis(ax, list(points))
    ax.set(xlabel="Training time of a run (s)", xlim=(0, 1.42 * max(max(p.values) for p in known.values())))
    caption = (
        "Training time of a run, without compiling and measuring: the bar is the mean, each dot one seed; in brackets "
        f"the multiple of {results.baseline}, where its {100 * analysis.confidence:g} % interval leaves out 1."
    )
    alt = "Training time by condition: " + "; ".join(f"{c} {number(p.mean)} seconds" for c, p in known.items()) + "."
    return [picture(figure, alt, caption)]


class _Kind(NamedTuple):
    """A column of the history and how it is drawn."""

    column: str
    label: str
    name: str
    factor: float = 1.0
    log: bool = False


def finished_history(analysis: Analysis) -> polars.DataFrame:
    """Epochs of the runs that finished."""
    keys = [(c, s) for c, seeds in analysis.seeds.items() for s in seeds]
    wanted = polars.DataFrame(keys, schema={"condition": polars.String, "seed": polars.Int64}, orient="row")
    return analysis.results.history.with_columns(polars.col("seed").cast(polars.Int64)).join(
        wanted, on=["condition", "seed"], how="semi"
    )


def _curve(results: Results, history: polars.DataFrame, kind: _Kind) -> Picture | None:
    """One column of the history over epochs: the mean of each condition, and the band from lowest to highest seed."""
    lines = {c: _over_seeds(history, c, kind) for c in results.conditions}
    lines = {c: line for c, line in lines.items() if len(line[0])}
    if not lines:
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(lines) / 3))
    bands, style = len(lines) <= 7, looks(results.conditions)
    for index, (c, (epochs, mean, low, high)) in enumerate(lines.items()):
        step = max(1, len(epochs) // 8)
        marks: dict[str, Any] = dict(marker=style[c].marker, markevery=(index % step, step), ms=4.5)
        ax.plot(epochs, mean, color=style[c].color, ls=style[c].line, label=label_of(c), **marks)
        if bands:
            ax.fill_between(epochs, low, high, color=style[c].color, alpha=0.13, lw=0)
    means = [v for _, mean, _, _ in lines.values() for v in mean]
    wide = kind.column == FITTED_LOSS and min(means) > 0 and max(means) > 30 * min(means)
    if kind.log or wide:
        log_axis(ax.yaxis, means)
    ax.set(ylabel=kind.label)
    epoch_axis(ax, [epochs for epochs, *_ in lines.values()])
    legend(figure, ax)
    middle = "geometric mean" if kind.log else "mean"
    band = "; the band runs from the lowest to the highest seed." if bands else " (bands left out: too many)."
    name = f"{kind.name.removesuffix(',')}, on a logarithmic scale," if wide else kind.name
    caption = f"{name} over epochs: the line is the {middle} over seeds{band}"
    ends = "; ".join(f"{c} ends at {number(mean[-1])}" for c, (_, mean, _, _) in lines.items())
    return picture(figure, f"{kind.label} over epochs: {ends}.", caption)


def _trajectories(results: Results, history: polars.DataFrame) -> Picture | None:
    """tr(H²) over training loss, epoch by epoch: what tells a flatter network from one that has fitted more."""
    kinds = (_Kind(FITTED_LOSS, "", "", log=True), _Kind(TR_H2, "", "", log=True))
    paths = {}
    for c in results.conditions:
        (epochs, loss, *_), (others, flatness, *_) = (_over_seeds(history, c, kind) for kind in kinds)
        common = np.intersect1d(epochs, others)
        if len(common):
            paths[c] = loss[np.isin(epochs, common)], flatness[np.isin(others, common)]
    if not paths:
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(paths) / 3))
    style = looks(results.conditions)
    for c, (loss, flatness) in paths.items():
        ax.plot(loss, flatness, color=style[c].color, ls=style[c].line, lw=1.2, label=label_of(c))
        ax.plot(loss[-1], flatness[-1], style[c].marker, color=style[c].color, ms=7, mec="white", mew=0.8, zorder=3)
    log_axis(ax.xaxis, [v for loss, _ in paths.values() for v in loss])
    log_axis(ax.yaxis, [v for _, flatness in paths.values() for v in flatness])
    ax.set(xlabel="Train loss without dropout (nats)", ylabel="tr(H²)")
    legend(figure, ax)
    caption = (
        "tr(H²) against training loss, epoch by epoch, geometric means over seeds; the marker is the last epoch. "
        "Networks of one training loss compare fairly: a curve below the others is flatter at the same loss, while a "
        "place further along the same curve shows only more or less training."
    )
    ends = "; ".join(f"{c} ends at loss {number(x[-1])}, tr(H²) {number(y[-1])}" for c, (x, y) in paths.items())
    return picture(figure, f"tr(H²) over training loss: {ends}.", caption)


def _over_seeds(history: polars.DataFrame, condition: str, kind: _Kind) -> tuple:
    """Epochs, mean, lowest and highest over seeds; epochs without a usable value are left out."""
    value = polars.col(kind.column).cast(polars.Float64) * kind.factor
    mean = value.log().mean().exp() if kind.log else value.mean()
    rows = history.filter(
        (polars.col("condition") == condition) & value.is_finite() & ((value > 0) if kind.log else polars.lit(True))
    )
    rows = rows.group_by("epoch").agg(mean.alias("mean"), value.min().alias("low"), value.max().alias("high"))
    rows = rows.sort("epoch")
    return tuple(rows[name].to_numpy() for name in ("epoch", "mean", "low", "high"))


class _Points(NamedTuple):
    """A condition: each seed's value, their mean and its interval."""

    values: np.ndarray
    mean: float
    low: float
    high: float


def _points(analysis: Analysis, metric: str, factor: float, log: bool) -> dict[str, _Points]:
    """Values, mean and interval of each condition; on a log scale those of the geometric mean."""
    results = analysis.results
    runs = results.runs.filter(polars.col("status") == "finished")
    found = {}
    for c in results.conditions:
        values = runs.filter(polars.col("condition") == c)[metric].cast(polars.Float64).drop_nulls().to_numpy() * factor
        values = np.sort(values[np.isfinite(values) & ((values > 0) | (not log))])
        known = analysis.quantities[metric]
        found[c] = _Points(values, *_ends((known.scaled if log else known.summaries)[c], factor, log))
    return found


def _ends(summary: Summary, factor: float, log: bool) -> tuple[float, float, float]:
    """Mean and interval in the units of the figure."""
    ends = (summary.mean, summary.low, summary.high)
    mean, low, high = (math.exp(min(x, 700.0)) if log else factor * x for x in ends)
    return mean, low, high


def _lambdas(results: Results) -> dict[str, float]:
    """Condition -> lambda, where each condition has one of its own; otherwise nothing."""
    rows = results.runs.select("condition", "lam").unique().drop_nulls().to_dict(as_series=False)
    found = dict(zip(rows["condition"], rows["lam"], strict=True))
    known = {c: float(found[c]) for c in results.conditions if c in found}
    seen = set(results.runs["condition"].to_list())
    distinct = len(set(known.values())) == len(known) == len(seen & set(results.conditions))
    return known if distinct and any(known.values()) else {}


def _against_lambda(results: Results, points: dict[str, _Points], label: str, log: bool) -> Figure:
    """A metric over a logarithmic axis of lambda, with a place for zero left of a break."""
    lams = _lambdas(results)
    positive = sorted(lam for lam in lams.values() if lam > 0)
    zero = positive[0] / 10
    figure, ax = canvas(3.4)
    style = looks(results.conditions)
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


def _against_condition(results: Results, points: dict[str, _Points], label: str, log: bool) -> Figure:
    """A metric, one row a condition."""
    figure, ax = canvas(0.9 + 0.34 * len(points))
    style = looks(results.conditions)
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

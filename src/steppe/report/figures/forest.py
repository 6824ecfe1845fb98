"""A forest plot: the difference of every condition from the baseline, its interval, and the margin of equivalence."""

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steppe.analysis.comparison import QuantityComparison
from steppe.report.document import Picture
from steppe.report.figures.drawing import STYLE, WIDTH, Look, condition_axis, log_axis, looks, picture
from steppe.report.formats import percent
from steppe.report.wording.answers import effect


def pictures(quantities: Sequence[QuantityComparison], baseline: str) -> list[Picture]:
    """One figure with a panel for each quantity that could be compared; nothing where none could."""
    shown = [by for by in quantities if any(math.isfinite(c.difference) for c in by.comparisons.values())]
    if not shown:
        return []
    rows = [len(by.comparisons) for by in shown]
    style = looks([baseline, *shown[0].comparisons])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(0.85 + 0.34 * count for count in rows)), layout="constrained")
        panels = figure.subplots(len(shown), height_ratios=[count + 1 for count in rows], squeeze=False)[:, 0]
    for ax, by in zip(panels, shown, strict=True):
        _panel(ax, by, style)
    caption = (
        f"Each condition against {baseline}: the difference and its {percent(shown[0].confidence)} interval, not "
        "corrected for the number of conditions. The dashed line is no difference"
    )
    caption += "; the grey band is the margin of equivalence." if any(by.margin > 0 for by in shown) else "."
    alt = "; ".join(
        f"{by.quantity.label}, {c}: {effect(by.quantity, found)}" for by in shown for c, found in by.comparisons.items()
    )
    return [picture(figure, alt, caption)]


def _panel(ax: Axes, by: QuantityComparison, style: dict[str, Look]) -> None:
    """One quantity: a row a condition."""
    log, factor = by.quantity.log, 100.0 if by.quantity.unit == "share" else 1.0

    def at(value: float) -> float:
        return math.exp(min(max(value, -50.0), 50.0)) if log else factor * value

    if by.margin > 0:
        ax.axvspan(at(-by.margin), at(by.margin), color="#dddddd", lw=0, zorder=0)
    ax.axvline(at(0.0), color="#555555", lw=1, ls="--", zorder=1)
    for row, (c, found) in enumerate(by.comparisons.items()):
        if not math.isfinite(found.difference):
            continue
        if math.isfinite(found.low):
            ax.plot([at(found.low), at(found.high)], [row, row], "-", color=style[c].color, lw=1.6, marker="|", ms=8)
        ax.plot(
            at(found.difference), row, style[c].marker, color=style[c].color, ms=7.5, mec="white", mew=0.8, zorder=3
        )
    condition_axis(ax, list(by.comparisons))
    unit = "points" if by.quantity.unit == "share" else by.quantity.unit
    words = [f"ratio to the baseline{'; ' + by.quantity.direction if by.quantity.direction else ''}"] if log else [unit]
    ax.set_xlabel(f"{by.quantity.label}{f' ({words[0]})' if words[0] else ''}")
    if log:
        ends = [at(v) for f in by.comparisons.values() for v in (f.low, f.high, f.difference) if math.isfinite(v)]
        log_axis(ax.xaxis, [1.0, *ends])

"""How every figure is drawn: one style, one look a condition, one way to an image.

Matplotlib's object interface, without its global state; SVG that is the same for the same results. Conditions differ
by colour (Okabe and Ito 2008; cividis for many), by line style and by marker, so that neither colour vision nor a
colour printer is needed.
"""

import base64
import io
import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from steppe.report.document import Picture
from steppe.report.formats import number

STYLE: Any = {
    "svg.hashsalt": "steppe",  # ids that do not change from run to run
    "font.family": "DejaVu Sans",  # ships with Matplotlib
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify_threshold": 0.2,
    "axes.unicode_minus": True,
}
OKABE_ITO = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (8, 2)), (0, (3, 1)))
MARKERS = "osD^vPX*<>"
WIDTH = 5.2
"""Inches. Narrow, so that its type stays readable on a phone."""


class Look(NamedTuple):
    """How a condition is drawn everywhere."""

    color: str
    line: object
    marker: str


def looks(conditions: Sequence[str]) -> dict[str, Look]:
    """Colour, line style and marker of each condition."""
    many = len(conditions) > len(OKABE_ITO)
    scale = mpl.colormaps["cividis"].resampled(max(round(1.25 * len(conditions)), 2))  # not its last, pale colours
    colors = [mpl.colors.to_hex(scale(i)) for i in range(len(conditions))] if many else OKABE_ITO
    styles = zip(colors, itertools.cycle(LINES), itertools.cycle(MARKERS), strict=False)
    return dict(zip(conditions, itertools.starmap(Look, styles), strict=False))


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots()


def panels(count: int, *, columns: int, foot: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many square panels on common axes, and `foot` inches for what stands below them."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, foot + rows * 0.94 * WIDTH / columns), layout="constrained")
        axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    for spare in axes[count:]:
        spare.set_axis_off()
    for lowest in axes[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)  # where the panel below is empty, too
    return figure, axes[:count]


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """The figure as SVG: no date, no random ids, the same bytes for the same results."""
    buffer = io.BytesIO()
    nameless = {"Date": None, "Creator": None, "Type": None, "Format": None}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that the font lacks is drawn as a box
        figure.savefig(buffer, format="svg", dpi=160, metadata=nameless, facecolor="white")
    uri = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(uri, alt, caption.strip())


def label_of(name: str, most: int = 28) -> str:
    """A name as a label: short, and never read as mathematics or hidden (a leading underscore hides a legend entry)."""
    short = name if len(name) <= most else name[: most - 1] + "…"
    return ("\u200b" if short.startswith("_") else "") + short.replace("$", r"\$")


def legend(figure: Figure, ax: Axes) -> None:
    """All conditions below the axes."""
    handles, labels = ax.get_legend_handles_labels()
    columns = 3 if max(map(len, labels)) <= 14 else 2
    with mpl.rc_context(STYLE):
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.8, columnspacing=1.4)


def condition_axis(ax: Axes, names: Sequence[str]) -> None:
    """Conditions from top to bottom."""
    ax.set_yticks(range(len(names)), [label_of(c, 24) for c in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0)


def epoch_axis(ax: Axes, lines: Sequence[np.ndarray]) -> None:
    """Epochs; on a logarithmic axis where one condition trains much longer than another, or the short ones vanish."""
    lasts = [epochs[-1] for epochs in lines]
    ax.set(xlabel="Epoch")
    if max(lasts) >= 3 * min(lasts) > 3:
        log_axis(ax.xaxis, [epoch for epochs in lines for epoch in epochs])
        return
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if max(map(len, lines)) == 1:
        ax.set_xlim(lasts[0] - 1, lasts[0] + 1)


def log_axis(axis: mpl.axis.Axis, values: Iterable[float]) -> None:
    """A logarithmic axis with plain labels, and some of them even where the values span less than a decade."""
    axis.axes.set(**{f"{cast(Any, axis).axis_name}scale": "log"})
    values = [v for v in values if math.isfinite(v) and v > 0]
    decades = math.log10(max(values) / min(values)) if values else 1.0
    plain = FuncFormatter(lambda x, _: number(x, _digits(decades)))
    subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(NullFormatter())


def _digits(decades: float) -> int:
    """How many significant digits tell the labels of a logarithmic axis apart: one, or more within part of a decade."""
    return 1 if decades > 0.6 else 2 + max(0, math.floor(-math.log10(max(decades, 1e-3)) - 0.35))

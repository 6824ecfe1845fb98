"""Rank correlations drawn: every measure against one outcome with its interval, and a matrix of all."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from steppe.analysis.correlation.studies import Correlations
from steppe.report.document import Picture
from steppe.report.figures.drawing import OKABE_ITO, STYLE, WIDTH, condition_axis, label_of, legend, picture
from steppe.report.formats import percent, signed
from steppe.report.wording.correlations import column


def forest(found: Correlations, outcome: str) -> list[Picture]:
    """τ of every measure with an outcome: overall with its interval, within conditions, and granulated."""
    rows = {m: found.found[m, outcome] for m in found.measures if (m, outcome) in found.found}
    if not rows:
        return []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.32 * len(rows)), layout="constrained")
        ax = figure.subplots()
    if found.plan and found.plan.margin > 0:
        ax.axvspan(-found.plan.margin, found.plan.margin, color="#dddddd", lw=0, zorder=0)
    ax.axvline(0, color="#555555", lw=1, ls="--", zorder=1)
    dark, orange, blue = OKABE_ITO[:3]
    for row, c in enumerate(rows.values()):
        ax.plot([c.overall.low, c.overall.high], [row, row], "-", color=dark, lw=1.6, marker="|", ms=8)
    marks = {"overall": (dark, "o"), "within conditions": (orange, "D"), "granulated": (blue, "s")}
    for (label, (color, marker)), of in zip(
        marks.items(), (lambda c: c.overall.value, lambda c: c.within.value, lambda c: c.granulated), strict=True
    ):
        values = [of(c) for c in rows.values()]
        ax.plot(values, range(len(rows)), marker, color=color, ms=6, mec="white", mew=0.7, ls="", label=label, zorder=3)
    condition_axis(ax, [column(m) for m in rows])
    ax.set_xlabel(f"Kendall’s τ with {column(outcome)}")
    legend(figure, ax)
    caption = (
        f"Each measure against {column(outcome)}: τ over all networks with its {percent(found.confidence)} interval, "
        "within conditions, and over networks that differ in one setting alone."
    )
    caption += " The grey band is the margin within which τ does not matter." if found.plan else ""
    alt = "; ".join(f"{column(m)} {signed(c.overall.value, decimals=2)}" for m, c in rows.items())
    return [picture(figure, f"Kendall’s τ with {column(outcome)}: {alt}.", caption)]


UPRIGHT = 6
"""More columns than these have their names turned."""


def matrix(found: Correlations) -> list[Picture]:
    """Every measure against every outcome: τ over all networks, as a table of colours with the numbers in it."""
    if not found.measures or not found.outcomes:
        return []
    values = np.array(
        [[found.found[m, o].overall.value if (m, o) in found.found else math.nan for o in found.outcomes]
         for m in found.measures]
    )  # fmt: skip
    if not np.isfinite(values).any():
        return []
    turned = len(found.outcomes) > len(found.measures)
    rows, columns = (found.outcomes, found.measures) if turned else (found.measures, found.outcomes)
    values = values.T if turned else values
    below = 0.16 * max(len(column(name).split()) for name in columns) if len(columns) <= UPRIGHT else 1.6
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 0.6 + below + 0.34 * len(rows)), layout="constrained")
        ax = figure.subplots()
    ax.imshow(values, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    for row, of in enumerate(values):
        for place, value in enumerate(of):
            color = "white" if abs(value) > 0.7 else "#1c1e21"
            size = 9 if len(columns) <= UPRIGHT else 7
            text = signed(value, decimals=2 if len(columns) <= 2 * UPRIGHT else 1)
            ax.text(place, row, text, ha="center", va="center", color=color, fontsize=size)
    condition_axis(ax, [column(name) for name in rows])
    ax.set_yticks(range(len(rows)), [label_of(column(name), 40) for name in rows])
    if len(columns) <= UPRIGHT:
        ax.set_xticks(range(len(columns)), ["\n".join(column(name).split()) for name in columns])
    else:
        ax.set_xticks(range(len(columns)), [label_of(column(name), 24) for name in columns], rotation=90, fontsize=8)
    ax.tick_params(length=0)
    sides = ("columns", "rows") if turned else ("rows", "columns")
    caption = (
        f"Kendall’s τ over all networks of each measure ({sides[0]}) with each outcome ({sides[1]}), from −1 to 1."
    )
    alt = "; ".join(
        f"{column(m)} with {column(o)} {signed(c.overall.value, decimals=2)}" for (m, o), c in found.found.items()
    )
    return [picture(figure, alt, caption)]

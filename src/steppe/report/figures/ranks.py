"""Demšar's (2006) critical-difference diagram: average ranks on an axis, bars over what cannot be told apart."""

import matplotlib as mpl
from matplotlib.figure import Figure

from steppe.analysis.comparison import Ranks
from steppe.report.document import Picture
from steppe.report.figures.drawing import STYLE, WIDTH, label_of, picture
from steppe.report.formats import percent

LETTER = 0.075
"""Inches of a letter of a label, about."""


def pictures(found: Ranks) -> list[Picture]:
    """The diagram, rank 1 on the left."""
    ranked = found.comparison
    order = sorted(range(len(ranked.ranks)), key=lambda i: ranked.ranks[i])
    count, half = len(order), (len(order) + 1) // 2
    top = 0.55 + 0.28 * len(ranked.groups)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.28 * (half + len(ranked.groups))), layout="constrained")
        ax = figure.subplots()
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    words = [
        f"{label_of(treatment, 22)} ({rank:.2f})"
        for treatment, rank in zip(found.treatments, ranked.ranks, strict=True)
    ]
    aside = min(0.1 + LETTER * max(map(len, words)), 0.34 * WIDTH)
    margin = aside * (count - 1) / (WIDTH - 2 * aside)
    ax.set(xlim=(1 - margin, count + margin), ylim=(top + 0.5 * half, -1.0), yticks=[], xticks=[])
    ax.plot([1, count], [0, 0], color="#222222", lw=1.2)
    for rank in range(1, count + 1):
        ax.plot([rank, rank], [-0.12, 0.0], color="#222222", lw=1.0)
        ax.text(rank, -0.2, f"{rank}", ha="center", va="bottom", fontsize=9)
    reach = min(ranked.critical_difference, count - 1.0)
    ax.plot([1, 1 + reach], [-0.72, -0.72], color="#D55E00", lw=2, marker="|", ms=7)
    ax.text(1 + reach + 0.08, -0.72, f"critical difference {ranked.critical_difference:.2f}", va="center", fontsize=8.5)
    for place, i in enumerate(order):
        left = place < half
        row = top + 0.5 * (place if left else count - 1 - place)
        end = 1 - 0.04 * margin if left else count + 0.04 * margin
        ax.plot([ranked.ranks[i], ranked.ranks[i], end], [0, row, row], color="#555555", lw=0.9)
        ax.text(end, row, f" {words[i]} ", ha="right" if left else "left", va="center", fontsize=9)
    for row, group in enumerate(ranked.groups):
        places = [ranked.ranks[i] for i in group]
        ax.plot([min(places) - 0.04, max(places) + 0.04], [0.28 + 0.28 * row] * 2, color="#0072B2", lw=3.5)
    level = percent(round(1 - found.confidence, 12))
    caption = (
        f"Average ranks over {ranked.blocks} data sets, 1 the {found.best}. A bar joins treatments that Nemenyi’s test "
        f"does not tell apart at the {level} level: their ranks differ by less than the critical difference."
    )
    alt = "; ".join(f"{found.treatments[i]} {ranked.ranks[i]:.2f}" for i in order)
    return [picture(figure, f"Average ranks: {alt}.", caption)]

"""Spectral densities of several networks, one above the other on common axes."""

import math
from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from steppe.analysis.diagrams import Density
from steppe.report.document import Picture
from steppe.report.figures.drawing import STYLE, WIDTH, label_of, log_axis, looks, picture
from steppe.report.formats import number


def pictures(found: Mapping[str, Density]) -> list[Picture]:
    """The spectral density of each condition or network: one picture, or none."""
    if not found:
        return []
    style, count = looks(list(found)), len(found)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.95 * count), layout="constrained")
        axes = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False).ravel()
    # a curve for a single eigenvalue is so high where the resolution is coarsest: what is lower is no eigenvalue
    floor = 0.3 * min(1 / (density.width * math.sqrt(2 * math.pi)) for density in found.values())
    for ax, (name, density) in zip(axes, found.items(), strict=True):
        look = style[name]
        ax.fill_between(density.grid, floor, density.density.clip(floor), color=look.color, alpha=0.25, lw=0)
        ax.plot(density.grid, density.density.clip(floor), color=look.color, lw=1.1)
        ax.set_title(label_of(name), loc="right", y=0.72, pad=0, fontsize=9)
    peak = max(float(density.density.max()) for density in found.values())
    for ax in axes:
        log_axis(ax.yaxis, [floor, peak])
        ax.yaxis.set_major_locator(LogLocator(numticks=4))
        ax.set_ylim(floor, 3 * peak)
    axes[-1].set_xlabel("Eigenvalue of the Hessian")
    figure.supylabel("Eigenvalues per unit", fontsize=10)
    widths = [density.width for density in found.values()]
    ends = "; ".join(f"{name} up to {number(_end(density, floor))}" for name, density in found.items())
    caption = (
        "Distribution of the Hessian’s eigenvalues, on one scale; the vertical axis is logarithmic, and the area under "
        "a curve is the number of eigenvalues. Each eigenvalue is drawn as a normal curve as wide as the resolution, "
        f"{number(min(widths), 2)} to {number(max(widths), 2)}; so the peak at zero is at least that wide."
    )
    return [picture(figure, f"Spectral density: {ends}.", caption)]


def _end(density: Density, floor: float) -> float:
    """The largest eigenvalue that is drawn."""
    return float(density.grid[density.density > floor].max(initial=0.0))

"""Figures of loss surfaces: lines and planes through the solutions of several conditions, on one scale."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.contour import ContourSet
from matplotlib.ticker import NullLocator

from steppe.report.drawing import Picture, canvas, label_of, legend, log_axis, looks, panels, picture
from steppe.report.formats import number
from steppe.study.results import Results, Surfaces


def surfaces(results: Results) -> list[Picture]:
    """Loss along one direction for all conditions, and in a plane for each, on one scale."""
    found = results.surfaces
    if found is None or not len(found.conditions):
        return []
    drawn = (_lines(results, found), _contours(results, found))
    return [picture for picture in drawn if picture is not None]


def _lines(results: Results, found: Surfaces) -> Picture | None:
    """Loss along one direction."""
    lines = np.where(np.isfinite(found.lines), found.lines, np.nan).astype(float)
    if not np.isfinite(lines).any():
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(found.conditions) / 3))
    style = looks(results.conditions if set(found.conditions) <= set(results.conditions) else found.conditions)
    for index, (c, line) in enumerate(zip(found.conditions, lines, strict=True)):
        marks = dict(marker=style[c].marker, markevery=(index % 4, 6), ms=4.5)
        ax.plot(found.steps, line, color=style[c].color, ls=style[c].line, label=label_of(c), **marks)
    log = _wide(lines)
    if log:
        log_axis(ax.yaxis, lines[lines > 0])
    ax.set(xlabel="Step along the direction", ylabel="Train loss (nats)")
    legend(figure, ax)
    scale = ", on a logarithmic scale" if log else ""
    caption = f"Loss along one random direction, the same for every condition{scale}. "
    ends = "; ".join(
        f"{c} from {number(np.nanmin(line))} to {number(np.nanmax(line))}"
        for c, line in zip(found.conditions, lines, strict=True)
        if np.isfinite(line).any()
    )
    return picture(figure, f"Loss along one direction: {ends}.", caption + found.about)


def _contours(results: Results, found: Surfaces) -> Picture | None:
    """Loss in a plane: one panel a condition, one colour scale, one set of levels."""
    grids = np.ma.masked_invalid(np.asarray(found.grids, float))
    if grids.count() == 0 or min(grids.shape[1:]) < 2:
        return None
    # a network that has blown up would leave all others one colour
    ceiling = 10 * float(np.median([grid.max() for grid in grids if grid.count()]))
    shown = np.ma.masked_greater(grids, ceiling) if 0 < ceiling < grids.max() else grids
    log = _wide(shown)
    levels, norm = _levels(shown, log)
    figure, axes = panels(len(grids), columns=2 if len(grids) <= 6 else 3, foot=0.75)
    for ax, c, grid in zip(axes, found.conditions, grids, strict=True):
        filled = _panel(ax, found.grid_steps, grid, levels, norm)
        ax.set_title(label_of(c, 22))
    bar = figure.colorbar(filled, ax=axes, location="bottom", shrink=0.9, aspect=40, pad=0.02)
    bar.set_label("Train loss (nats)")
    ticks = levels[:: len(levels) // 5]
    bar.set_ticks(ticks, labels=[number(v, 2) for v in ticks])
    bar.ax.xaxis.set_minor_locator(NullLocator())
    caption = (
        "Loss in the plane of two random directions around each solution (+), all panels on one colour scale "
        f"{'(logarithmic) ' if log else ''}and one set of levels: the wider the dark basin, the flatter. "
    )
    if shown is not grids:
        caption += f"Losses above {number(levels[-1], 2)} share the brightest colour. "
    alt = f"Contours of the loss around the solutions of {', '.join(found.conditions)}, on one scale."
    return picture(figure, alt, caption + found.about)


def _panel(ax: Axes, steps: np.ndarray, grid: np.ndarray, levels: np.ndarray, norm: Normalize) -> ContourSet:
    """One condition's plane."""
    filled = ax.contourf(steps, steps, grid, levels, norm=norm, cmap="cividis", extend="both")
    filled.set_rasterized(True)  # as outlines this would be the larger part of the page
    ax.contour(steps, steps, grid, levels[::2], norm=norm, colors="white", linewidths=0.4)
    ax.plot(0, 0, "+", color="white", ms=7)
    ax.set_aspect("equal")
    ax.grid(False)
    ticks = [steps[0], (steps[0] + steps[-1]) / 2, steps[-1]]
    ax.set_xticks(ticks, [number(t, 2) for t in ticks])
    ax.set_yticks(ticks, [number(t, 2) for t in ticks])
    return filled


def _wide(values: np.ndarray) -> bool:
    """Whether positive values span more than a decade."""
    values = np.ma.masked_invalid(values).compressed()
    return bool(len(values)) and values.min() > 0 and values.max() / values.min() > 10


def _levels(grids: np.ma.MaskedArray, log: bool) -> tuple[np.ndarray, Normalize]:
    """Contour levels for all panels, and the colour scale they share."""
    low, high = float(grids.min()), float(grids.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low + (abs(low) or 1.0)
    levels = np.geomspace(low, high, 21) if log else np.linspace(low, high, 21)
    return levels, (LogNorm if log else Normalize)(levels[0], levels[-1])

"""Figures of loss surfaces: lines and planes through networks, all on one scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.contour import ContourSet
from matplotlib.ticker import NullLocator

from steppe.analysis.results import Surfaces
from steppe.networks.landscapes import Landscape
from steppe.report.document import Picture
from steppe.report.figures.drawing import canvas, label_of, legend, log_axis, looks, panels, picture
from steppe.report.formats import number


class Words(NamedTuple):
    """How directions are told: the line, the plane, the line's axis and the plane's two, what dark colours mean."""

    line: str
    plane: str
    axes: tuple[str, str, str]
    dark: str = "the wider the dark basin, the flatter"


WORDS = {
    "random": Words(
        "along one random direction, the same for every network",
        "in the plane of two random directions around each solution (+)",
        ("Step along the direction", "Step along direction 1", "Step along direction 2"),
    ),
    "eigenvectors": Words(
        "along the eigenvector of the Hessian's largest eigenvalue",
        "in the plane of the Hessian's top two eigenvectors around each solution (+)",
        ("Step along the eigenvector", "Step along eigenvector 1", "Step along eigenvector 2"),
    ),
    "between": Words(
        "on the straight line from one network to the other",
        "in a plane that holds both networks (+, the first on the left)",
        (
            "From the first network (0) to the second (1)",
            "Along the line (their distance is 1)",
            "At right angles to it",
        ),
        "dark basins separated by a bright ridge are not connected",
    ),
}


@dataclass(frozen=True)
class View:
    """One quantity of several networks along lines and in planes, as it is drawn.

    Attributes
    ----------
    quantity, unit : "Loss" in nats, or in no unit where it is a squared error, or "Accuracy" in %.
    part : "Train" or "Test".
    names : C names.
    looks : the names that share out the colours, in order; mostly the same.
    steps, lines, grid_steps, grids : (A,), (C, A), (G,) and (C, G, G).
    places : where networks are in each plane, (x, y).
    along : a name in `WORDS`.
    about : sentences for captions, where a page does not say elsewhere which data and directions these are.
    """

    quantity: str
    unit: str
    part: str
    names: tuple[str, ...]
    looks: tuple[str, ...]
    steps: np.ndarray
    lines: np.ndarray
    grid_steps: np.ndarray
    grids: np.ndarray
    places: tuple[tuple[float, float], ...]
    along: str
    about: str = ""

    @property
    def label(self) -> str:
        """The quantity with its part and unit, for an axis."""
        return f"{self.part} {self.quantity.lower()}" + (f" ({self.unit})" if self.unit else "")


class Scale(NamedTuple):
    """The scale that all planes of a view share, logarithmic or not; `cut` says that values above `high` exist."""

    low: float
    high: float
    log: bool
    cut: bool


def study_view(found: Surfaces | None, conditions: Sequence[str], unit: str = "nats") -> View | None:
    """The training loss around a study's networks, if it was computed; conditions share out the colours."""
    if found is None or not len(found.conditions):
        return None
    names = found.conditions
    order = tuple(conditions) if set(names) <= set(conditions) else names
    arrays = found.steps, found.lines, found.grid_steps, found.grids
    return View("Loss", unit, "Train", names, order, *arrays, ((0.0, 0.0),), "random", found.about)


def landscape_views(found: Landscape) -> tuple[View, ...]:
    """The loss and, where there is one, the accuracy of a landscape."""
    along, part = found.settings.along, found.settings.split.capitalize()
    places = ((-0.5, 0.0), (0.5, 0.0)) if along == "between" else ((0.0, 0.0),)

    def view(quantity: str, unit: str, factor: float) -> View:
        line, grid = (factor * values[quantity.lower()] for values in (found.lines, found.grids))
        arrays = found.steps, line, found.grid_steps, grid
        return View(quantity, unit, part, found.names, found.names, *arrays, places, along)

    if "accuracy" not in found.lines:
        return (view("Loss", "", 1.0),)
    return view("Loss", "nats", 1.0), view("Accuracy", "%", 100.0)


def pictures(views: Sequence[View]) -> list[Picture]:
    """Curves of all views, then contours of all views."""
    drawn = (draw(view) for draw in (curves, contours) for view in views)
    return [picture for picture in drawn if picture is not None]


def scale_of(view: View) -> Scale | None:
    """The scale that all planes of a view share; nothing where there is nothing to show."""
    grids = np.ma.masked_invalid(np.asarray(view.grids, float))
    if grids.count() == 0 or min(grids.shape[1:]) < 2:
        return None
    # a network that has blown up would leave all others one colour
    ceiling = 10 * float(np.median([grid.max() for grid in grids if grid.count()]))
    cut = bool(0 < ceiling < grids.max())
    shown = np.ma.masked_greater(grids, ceiling) if cut else grids
    low, high = float(shown.min()), float(shown.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low + (abs(low) or 1.0)
    return Scale(low, high, _wide(shown), cut)


def curves(view: View) -> Picture | None:
    """Values along one direction, or from one network to another."""
    lines = np.where(np.isfinite(view.lines), view.lines, np.nan).astype(float)
    if not np.isfinite(lines).any():
        return None
    figure, ax = canvas(3.7 + 0.22 * math.ceil(len(view.names) / 3))
    style = looks(view.looks)
    for index, (name, line) in enumerate(zip(view.names, lines, strict=True)):
        marks: dict[str, Any] = dict(marker=style[name].marker, markevery=(index % 4, 6), ms=4.5)
        ax.plot(view.steps, line, color=style[name].color, ls=style[name].line, label=label_of(name, 40), **marks)
    log = _wide(lines)
    if log:
        log_axis(ax.yaxis, lines[lines > 0])
    words = WORDS[view.along]
    ax.set(xlabel=words.axes[0], ylabel=view.label)
    if view.along == "between":
        chord = np.interp(view.steps, view.steps[[0, -1]], lines[0][[0, -1]])
        ax.plot(view.steps, chord, color="#777777", ls=":", lw=1.3, label="chord between the ends")
    legend(figure, ax)
    scale = ", on a logarithmic scale" if log else ""
    ends = "; ".join(
        f"{name} from {number(np.nanmin(line))} to {number(np.nanmax(line))}"
        for name, line in zip(view.names, lines, strict=True)
        if np.isfinite(line).any()
    )
    alt = f"{view.quantity} {words.line}: {ends}."
    return picture(figure, alt, f"{view.quantity} {words.line}{scale}. {view.about}")


def contours(view: View) -> Picture | None:
    """Values in a plane: one panel a network, one colour scale, one set of levels."""
    scale = scale_of(view)
    if scale is None:
        return None
    levels = (np.geomspace if scale.log else np.linspace)(scale.low, scale.high, 21)
    norm = (LogNorm if scale.log else Normalize)(levels[0], levels[-1])
    grids = np.ma.masked_invalid(np.asarray(view.grids, float))
    words, columns = WORDS[view.along], min(len(grids), 2 if len(grids) <= 6 else 3)
    figure, axes = panels(len(grids), columns=columns, foot=0.95)
    filled = [_panel(ax, view, grid, levels, norm) for ax, grid in zip(axes, grids, strict=True)]
    for index, (ax, name) in enumerate(zip(axes, view.names, strict=True)):
        ax.set_title(label_of(name, 22 if len(grids) > 1 else 60))
        if index >= len(grids) - columns:
            ax.set_xlabel(words.axes[1], fontsize=9)
        if index % columns == 0:
            ax.set_ylabel(words.axes[2], fontsize=9)
    bar = figure.colorbar(filled[-1], ax=axes, location="bottom", shrink=0.9, aspect=40, pad=0.02)
    bar.set_label(view.label)
    ticks = round_numbers(scale.low, scale.high, 6) if scale.log else levels[:: len(levels) // 5]
    bar.set_ticks(list(ticks), labels=[tick_label(v) if scale.log else number(v, 2) for v in ticks])
    bar.ax.xaxis.set_minor_locator(NullLocator())
    shared = "all panels on one colour scale and one set of levels" if len(grids) > 1 else "on one colour scale"
    shared += " (logarithmic)" if scale.log else ""
    dark = "dark is accurate" if view.quantity == "Accuracy" else words.dark
    caption = f"{view.quantity} {words.plane}, {shared}: {dark}. "
    if scale.cut:
        caption += f"Values above {number(scale.high, 2)} share one colour. "
    alt = f"Contours of the {view.quantity.lower()} around {', '.join(view.names)}, on one scale."
    return picture(figure, alt, caption + view.about)


def _panel(ax: Axes, view: View, grid: np.ndarray, levels: np.ndarray, norm: Normalize) -> ContourSet:
    """One network's plane."""
    steps = view.grid_steps
    colors = {"Loss": "cividis", "Accuracy": "cividis_r"}[view.quantity]  # what is good is dark
    filled = ax.contourf(steps, steps, grid, levels, norm=norm, cmap=colors, extend="both")
    filled.set_rasterized(True)  # as outlines this would be the larger part of the page
    ax.contour(steps, steps, grid, levels[::2], norm=norm, colors="white", linewidths=0.4)
    for x, y in view.places:
        ax.plot(x, y, "+", color="white", ms=9, mew=2.6)
        ax.plot(x, y, "+", color="black", ms=7, mew=1.2)
    ax.set(aspect="equal", xlim=steps[[0, -1]], ylim=steps[[0, -1]])
    ax.grid(False)
    ticks = [steps[0], (steps[0] + steps[-1]) / 2, steps[-1]]
    ax.set_xticks(ticks, [number(t, 2) for t in ticks])
    ax.set_yticks(ticks, [number(t, 2) for t in ticks])
    return filled


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Round numbers for a logarithmic scale from `low` to `high`: decades, with steps between them where few fit.

    Examples
    --------
    >>> round_numbers(0.02, 3.0, 6), round_numbers(0.00001, 12.0, 4)
    ([0.03, 0.1, 0.3, 1.0, 3.0], [0.0001, 0.01, 1.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [v for v in (round(f * 10.0**d, -d) for d in decades for f in factors) if low <= v <= high]
        if len(found) <= most:
            return found
    return found[1 :: math.ceil(len(found) / most)]


def tick_label(value: float) -> str:
    """A round number as a label: 0.01, 3, 10⁻⁵."""
    return number(value, 1).removeprefix("1 × ")


def _wide(values: np.ndarray) -> bool:
    """Whether positive values span more than a decade."""
    values = np.ma.masked_invalid(values).compressed()
    return bool(len(values)) and values.min() > 0 and values.max() / values.min() > 10
